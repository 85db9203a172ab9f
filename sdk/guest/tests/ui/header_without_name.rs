//! `#[header]` without a name does not compile.

use chaski_guest::prelude::*;

#[filter]
fn by_region(#[header] region: Option<&str>) -> Verdict {
    Verdict::pass_if(region.is_some())
}

fn main() {}
