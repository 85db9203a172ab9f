//! The contract's host side, generated from chaski.wit. Nothing here is written by hand.
#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    reason = "generated; its unsafe code is the bindings' own"
)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "filter",
    imports: { default: trappable },
});
