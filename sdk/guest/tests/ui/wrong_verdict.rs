//! A filter that returns something else than a verdict does not compile.

use chaski_guest::prelude::*;

#[filter]
fn yes(topic: &str) -> bool {
    topic.is_empty()
}

fn main() {}
