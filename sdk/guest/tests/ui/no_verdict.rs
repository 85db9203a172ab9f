//! A filter that returns nothing does not compile.

use chaski_guest::prelude::*;

#[filter]
fn silent(topic: &str) {
    let _ = topic;
}

fn main() {}
