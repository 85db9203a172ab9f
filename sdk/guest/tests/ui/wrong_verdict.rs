use chaski_guest::prelude::*;

#[filter]
fn yes(topic: &str) -> bool {
    topic.is_empty()
}

fn main() {}
