//! An aggregator that never answers to a reply.

use chaski_guest::prelude::*;

#[params]
struct SpinOnFold;

#[aggregator]
impl Aggregator for SpinOnFold {
    type State = Vec<u8>;

    fn begin(&self, _: &Request, _: &[String]) -> Vec<u8> {
        Vec::new()
    }

    fn reply(&self, state: &mut Vec<u8>, reply: Reply) -> Flow {
        let _ = (state, reply);
        loop {
            std::hint::spin_loop();
        }
    }

    fn finish(&self, state: Vec<u8>, _: End) -> Result<Response, String> {
        Ok(Response::new(state))
    }
}
