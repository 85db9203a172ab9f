//! A filter that calls itself without end: for the limit on the stack.

use chaski_guest::prelude::*;

#[filter]
fn deep_recursion(payload: &[u8]) -> Verdict {
    Verdict::pass_if(descend(payload.len() as u64) == 0)
}

/// Uses the result after the call, so that it can't be made a loop.
#[allow(unconditional_recursion)]
fn descend(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 16]);
    descend(depth + 1).wrapping_add(std::hint::black_box(frame)[3])
}
