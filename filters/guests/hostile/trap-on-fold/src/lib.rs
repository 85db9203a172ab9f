//! An aggregator that panics on every reply.

use chaski_guest::prelude::*;

#[params]
struct TrapOnFold;

#[aggregator]
impl Aggregator for TrapOnFold {
    type State = Vec<u8>;

    fn begin(&self, _: &Request, _: &[String]) -> Vec<u8> {
        Vec::new()
    }

    fn reply(&self, state: &mut Vec<u8>, reply: Reply) -> Flow {
        let _ = state;
        panic!("this aggregator fails on purpose, on {}", reply.recipient)
    }

    fn finish(&self, state: Vec<u8>, _: End) -> Result<Response, String> {
        Ok(Response::new(state))
    }
}
