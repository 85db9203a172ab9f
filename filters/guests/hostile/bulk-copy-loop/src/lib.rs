//! A filter that spends its time in few, long instructions (`memory.copy`): for the limit on CPU time.

use chaski_guest::prelude::*;

#[filter]
fn bulk_copy_loop() -> Verdict {
    let half = 4 << 20;
    let mut bytes = vec![1u8; 2 * half];
    loop {
        bytes.copy_within(..half, half);
        std::hint::black_box(&mut bytes);
    }
}
