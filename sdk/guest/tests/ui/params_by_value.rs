//! Params taken by value do not compile.

use chaski_guest::prelude::*;

#[params]
struct Params {
    region: String,
}

#[filter]
fn by_region(params: Params) -> Verdict {
    Verdict::pass_if(params.region.is_empty())
}

fn main() {}
