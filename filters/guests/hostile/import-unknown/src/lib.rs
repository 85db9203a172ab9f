//! A filter that imports a clock: for the check of imports.

use chaski_guest::prelude::*;

#[filter]
fn import_unknown() -> Verdict {
    Verdict::pass_if(clock() > 0)
}

#[cfg(target_family = "wasm")]
fn clock() -> u64 {
    #[link(wasm_import_module = "wasi:clocks/monotonic-clock@0.2.0")]
    unsafe extern "C" {
        #[link_name = "now"]
        safe fn now() -> u64;
    }
    now()
}

#[cfg(not(target_family = "wasm"))]
fn clock() -> u64 {
    0
}
