//! A compensator that never answers.

use chaski_guest::prelude::*;

#[params]
struct SpinOnCompensate;

#[compensator]
impl Compensator for SpinOnCompensate {
    fn compensate(&self, history: &History) -> Plan {
        let _ = history;
        loop {
            std::hint::spin_loop();
        }
    }
}
