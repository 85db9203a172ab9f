//! A filter that fills its table: for the limits on state.

use chaski_guest::prelude::*;

#[filter]
fn state_hog(id: &str, state: &State) -> Verdict {
    let value = vec![1u8; 64 * 1024];
    for number in 0..1_000 {
        state.put(format!("{id}/{number}"), &value);
    }
    Verdict::Pass
}
