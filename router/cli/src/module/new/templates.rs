//! The texts of a new project, for each kind of module. `NAME` in them becomes the module's name, `FUNCTION` the same as Rust writes
//! it, `FILE` the binary that a build makes.

use super::Kind;

/// `src/lib.rs`.
pub(super) fn source(kind: Kind, name: &str) -> String {
    let text = match kind {
        Kind::Filter => include_str!("filter.rs.in"),
        Kind::Aggregator => include_str!("aggregator.rs.in"),
        Kind::Compensator => include_str!("compensator.rs.in"),
    };
    text.replace("FUNCTION", &name.replace('-', "_"))
}

/// `README.md`.
pub(super) fn readme(kind: Kind, name: &str) -> String {
    let text = match kind {
        Kind::Filter => include_str!("filter.md.in"),
        Kind::Aggregator => include_str!("aggregator.md.in"),
        Kind::Compensator => include_str!("compensator.md.in"),
    };
    let file = format!("target/wasm32-unknown-unknown/release/{}.wasm", name.replace('-', "_"));
    text.replace("NAME", name).replace("FILE", &file)
}
