//! An aggregator is an `impl`; a function is a filter.

use chaski_guest::prelude::*;

#[aggregator]
fn lowest(replies: &[Reply]) -> Response {
    Response::default()
}

fn main() {}
