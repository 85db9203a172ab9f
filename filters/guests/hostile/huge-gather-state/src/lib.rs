//! An aggregator whose state grows by 1 MiB and a byte with every reply.

use chaski_guest::prelude::*;

#[params]
struct HugeGatherState;

#[aggregator]
impl Aggregator for HugeGatherState {
    type State = Vec<u8>;

    fn begin(&self, _: &Request, _: &[String]) -> Vec<u8> {
        Vec::new()
    }

    fn reply(&self, state: &mut Vec<u8>, reply: Reply) -> Flow {
        let _ = reply;
        state.resize(state.len() + (1 << 20) + 1, 0);
        Flow::Continue
    }

    fn finish(&self, state: Vec<u8>, _: End) -> Result<Response, String> {
        Ok(Response::new(state))
    }
}
