//! `reads` without the headers that it speaks of does not compile.

use chaski_guest::prelude::*;

#[params]
struct Params {
    name: String,
}

impl Params {
    fn fields(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

#[filter(reads = Params::fields)]
fn by_name(params: &Params) -> Verdict {
    Verdict::pass_if(params.name.is_empty())
}

fn main() {}
