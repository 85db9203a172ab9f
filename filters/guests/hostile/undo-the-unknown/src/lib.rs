//! A compensator that would undo a step that there is not.

use chaski_guest::prelude::*;

#[params]
struct UndoTheUnknown;

#[compensator]
impl Compensator for UndoTheUnknown {
    fn compensate(&self, history: &History) -> Plan {
        let _ = history;
        Plan::undo(["no-such-step"])
    }
}
