//! A state has a form in bytes.

use chaski_guest::prelude::*;

struct Best(f64);

#[params]
struct Lowest;

#[aggregator]
impl Aggregator for Lowest {
    type State = Best;

    fn begin(&self, _: &Request, _: &[String]) -> Best {
        Best(0.0)
    }

    fn reply(&self, best: &mut Best, _: Reply) -> Flow {
        best.0 += 1.0;
        Flow::Continue
    }

    fn finish(&self, _: Best, _: End) -> Result<Response, String> {
        Ok(Response::default())
    }
}

fn main() {}
