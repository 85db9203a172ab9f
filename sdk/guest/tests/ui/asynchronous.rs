//! A filter that is `async` does not compile: it has nothing to wait for.

use chaski_guest::prelude::*;

#[filter]
async fn later(topic: &str) -> Verdict {
    Verdict::pass_if(topic.is_empty())
}

fn main() {}
