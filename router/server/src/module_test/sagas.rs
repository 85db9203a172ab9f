//! A compensator on a history that was made up.

use chaski_modules::{Compensator, Course, History, Plan};
use chaski_protocol::{Code, Refusal};

use super::Tried;
use super::gathers::{refused, told};

/// A compensator that is ready to be tried.
pub struct CompensatorTest(Compensator);

impl CompensatorTest {
    pub(super) fn new(compensator: Compensator) -> CompensatorTest {
        CompensatorTest(compensator)
    }

    /// What it decides: how to undo, where the history has a cause, else what comes next.
    pub fn decide(&self, history: &History) -> Result<Tried, Refusal> {
        if history.cause.is_some() {
            let planned = self.0.compensate(history).map_err(refused)?;
            return Ok(told(&planned, |plan| match plan {
                Plan::Undo(steps) => {
                    let names: Vec<&str> = steps.iter().map(|undo| undo.step.as_str()).collect();
                    ("undo", Some(names.join(", ")).filter(|names| !names.is_empty()))
                }
                Plan::Retry => ("retry", None),
                Plan::Park(reason) => ("park", Some(reason.clone())),
            }));
        }
        if !self.0.advances() {
            let detail = "nothing failed in this history, and the module has no `advance`: the steps follow one another";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
        let course = self.0.advance(history).map_err(refused)?;
        Ok(told(&course, |course| match course {
            Course::Next => ("next", None),
            Course::Step { step, .. } => ("step", Some(step.clone())),
            Course::Complete => ("complete", None),
            Course::Fail(reason) => ("fail", Some(reason.clone())),
        }))
    }
}
