//! Params have names.

use chaski_guest::prelude::*;

#[params]
struct Params(String);

fn main() {}
