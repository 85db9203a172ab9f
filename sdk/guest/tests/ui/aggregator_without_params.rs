//! The type of an aggregator is what the rules give, so it has `#[params]`.

use chaski_guest::prelude::*;

struct Lowest;

#[aggregator]
impl Aggregator for Lowest {
    type State = ();

    fn begin(&self, _: &Request, _: &[String]) {}

    fn reply(&self, _: &mut (), _: Reply) -> Flow {
        Flow::Continue
    }

    fn finish(&self, (): (), _: End) -> Result<Response, String> {
        Ok(Response::default())
    }
}

fn main() {}
