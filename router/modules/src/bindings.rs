//! The contract's host side, generated from chaski.wit: the world `filter`, and below it the other two, which share its
//! types and its log. Nothing here is written by hand.
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

pub(crate) mod aggregator {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "aggregator",
        imports: { default: trappable },
        with: {
            "chaski:module/types": super::chaski::module::types,
            "chaski:module/log": super::chaski::module::log,
        },
    });
}

pub(crate) mod compensator {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "compensator",
        imports: { default: trappable },
        with: {
            "chaski:module/types": super::chaski::module::types,
            "chaski:module/log": super::chaski::module::log,
        },
    });
}
