use chaski_guest::prelude::*;

#[filter]
fn by_key(key: &str) -> Verdict {
    Verdict::pass_if(key == "red")
}

fn main() {}
