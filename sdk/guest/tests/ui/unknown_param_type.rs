//! A param of a type that rules cannot give does not compile.

use chaski_guest::prelude::*;

#[params]
struct Params {
    regions: Vec<String>,
}

#[filter]
fn by_region(params: &Params) -> Verdict {
    Verdict::pass_if(params.regions.is_empty())
}

fn main() {}
