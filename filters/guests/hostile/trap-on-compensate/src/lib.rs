//! A compensator that panics when it is asked.

use chaski_guest::prelude::*;

#[params]
struct TrapOnCompensate;

#[compensator]
impl Compensator for TrapOnCompensate {
    fn compensate(&self, history: &History) -> Plan {
        panic!("this compensator fails on purpose, in {}", history.id)
    }
}
