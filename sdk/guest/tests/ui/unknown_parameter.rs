//! A parameter that is no part of a message does not compile.

use chaski_guest::prelude::*;

#[filter]
fn by_colour(colour: &str) -> Verdict {
    Verdict::pass_if(colour == "red")
}

fn main() {}
