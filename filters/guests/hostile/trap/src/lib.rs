//! A filter that panics on every message: for what a trap does, and for the panic's text.

use chaski_guest::prelude::*;

#[filter]
fn trap(id: &str) -> Verdict {
    panic!("this module fails on purpose, on {id}");
}
