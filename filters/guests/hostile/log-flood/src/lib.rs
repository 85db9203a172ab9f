//! A filter that writes 10,000 lines of 4 KiB about each message: for the limits on the log.

use chaski_guest::prelude::*;

#[filter]
fn log_flood() -> Verdict {
    let line = "flood ".repeat(700);
    for number in 0..10_000 {
        log!(warn, "{number} {line}");
    }
    Verdict::Pass
}
