//! What wit-bindgen makes of `sdk/wit/chaski.wit`. Committed, so that an author's build parses no WIT, and compared with a
//! fresh run by `tests/bindings.rs`, which also writes it anew (`UPDATE_BINDINGS=1`).

#[allow(unsafe_code, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
#[rustfmt::skip]
pub mod filter;

#[allow(unsafe_code, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
#[rustfmt::skip]
pub mod aggregator;

#[allow(unsafe_code, missing_docs, unreachable_pub, rust_2018_idioms, clippy::all)]
#[rustfmt::skip]
pub mod compensator;
