//! A key that is taken for granted does not compile: a message may have none.

use chaski_guest::prelude::*;

#[filter]
fn by_key(key: &str) -> Verdict {
    Verdict::pass_if(key == "red")
}

fn main() {}
