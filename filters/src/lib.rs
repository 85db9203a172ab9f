//! The modules that come with chaski, as WebAssembly: the useful ones, which rules name with `builtin = "…"`, and the hostile
//! ones, which tests load to see that they harm nobody. The build script compiles them from the crates below `guests/`.
//! This crate runs nothing; it holds bytes.

/// One compiled guest.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its name, for example `header-match`.
    pub name: &'static str,
    /// What it is: `filter`, `aggregator` or `compensator`.
    pub world: &'static str,
    /// Its README: a heading, what it does, its params, an example.
    pub readme: &'static str,
    /// The core module, as cargo made it. The router makes a component of it.
    pub wasm: &'static [u8],
}

impl Guest {
    /// What it does: the README's first sentence line.
    pub fn summary(&self) -> &'static str {
        self.readme.lines().skip(1).find(|line| !line.is_empty()).unwrap_or_default()
    }
}

include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// Bytes that are no WebAssembly at all.
pub const NOT_WASM: &[u8] = b"This is a sentence, and no WebAssembly at all.\n";

/// One hostile filter of every kind that a router takes at all; it refuses the others when they are deployed.
pub const TAKEN_HOSTILE_FILTERS: [&str; 9] = [
    "spin-forever",
    "eat-memory",
    "deep-recursion",
    "trap",
    "trap-on-one-message",
    "too-few-verdicts",
    "bulk-copy-loop",
    "log-flood",
    "state-hog",
];

/// The useful guests, by name.
pub fn builtins() -> &'static [Guest] {
    BUILTINS
}

/// The useful guest of this name.
pub fn builtin(name: &str) -> Option<&'static Guest> {
    BUILTINS.iter().find(|guest| guest.name == name)
}

/// The guests that misbehave, by name: fixtures for the limits.
pub fn hostile_guests() -> &'static [Guest] {
    HOSTILE
}

/// The guest of this name that misbehaves.
pub fn hostile(name: &str) -> Option<&'static Guest> {
    HOSTILE.iter().find(|guest| guest.name == name)
}
