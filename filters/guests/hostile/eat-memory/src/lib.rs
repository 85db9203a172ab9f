//! A filter that takes memory until there is none: for the limit on memory.

use chaski_guest::prelude::*;

#[filter]
fn eat_memory() -> Verdict {
    let mut eaten = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1u8; 1 << 20]));
    }
}
