//! An `impl` of the type alone is no aggregator.

use chaski_guest::prelude::*;

#[params]
struct Lowest;

#[aggregator]
impl Lowest {
    fn finish(&self) -> Response {
        Response::default()
    }
}

fn main() {}
