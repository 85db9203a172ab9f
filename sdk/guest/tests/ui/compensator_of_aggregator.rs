//! The attribute and the trait are of one kind.

use chaski_guest::prelude::*;

#[params]
struct Undoing;

#[aggregator]
impl Compensator for Undoing {
    fn compensate(&self, history: &History) -> Plan {
        Plan::all(history)
    }
}

fn main() {}
