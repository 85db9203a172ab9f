//! A filter that panics on messages with the header `poison`: for the search in a batch that failed.

use chaski_guest::prelude::*;

#[filter]
fn trap_on_one_message(#[header("poison")] poison: Option<&str>) -> Verdict {
    if let Some(poison) = poison {
        panic!("poisoned: {poison}");
    }
    Verdict::Pass
}
