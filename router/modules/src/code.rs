//! Compiled code: made here, and loaded here. It knows an engine and bytes. This is the only file with unsafe code: loading
//! machine code means to trust it, and what may reach [`load`] is said there.

use wasmtime::Engine;
use wasmtime::component::Component;

/// Compiles a component to code for this machine.
pub(crate) fn make(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, String> {
    engine.precompile_component(component).map_err(|error| format!("{error:#}"))
}

/// Loads compiled code. The bytes must be what [`make`] answered, from this process, from a child that runs the same binary,
/// or from the cache that only this user can write and whose checksum is right. Bytes from anywhere else are never code.
#[allow(
    unsafe_code,
    reason = "compiled code cannot be checked, only trusted; the callers are two, and named above"
)]
pub(crate) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the callers pass what `make` answered, unchanged: from a pipe to a child of the same binary, or from a file of
    // the router's own that nobody else can write, compared with its checksum.
    unsafe { Component::deserialize(engine, code) }
}
