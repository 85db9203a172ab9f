//! A module is one type, not a family of them.

use chaski_guest::prelude::*;

struct Undoing<T>(T);

#[compensator]
impl<T> Compensator for Undoing<T> {
    fn compensate(&self, history: &History) -> Plan {
        Plan::all(history)
    }
}

fn main() {}
