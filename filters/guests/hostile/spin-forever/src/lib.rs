//! A filter that never answers: for the limit on CPU time.

use chaski_guest::prelude::*;

#[filter]
fn spin_forever() -> Verdict {
    let mut turns = 0u64;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}
