//! What a compensator is told of a saga, and what it answers, checked: an answer can name a step that there is not, or one
//! that there is nothing to undo of. It knows the contract's records, and nothing of calls.

use crate::answer::Lie;
use crate::bindings::compensator::chaski::module::compensation as wit;
use crate::gathering::check_payload;
use crate::guest::cut;
use crate::limits::Limits;
use crate::request::Request;

/// Where a step of a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It was not sent yet.
    Pending,
    /// It was sent, and its answer isn't in.
    Running,
    /// It answered that it is complete.
    Completed,
    /// It answered that it failed, or was never delivered in time.
    Failed,
    /// It was delivered, and ended without an answer.
    Unknown,
}

/// One step of a saga, in its definition's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaStep {
    /// Its name in the definition.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// How often it was sent.
    pub attempts: u32,
    /// What it answered, where it completed.
    pub payload: Option<Vec<u8>>,
    /// Why it failed, where it did.
    pub reason: Option<String>,
    /// Whether the definition names a topic that undoes it.
    pub can_undo: bool,
    /// Whether it was undone already.
    pub undone: bool,
    /// Whether it is the pivot.
    pub pivot: bool,
}

/// Why a saga is being compensated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SagaCause {
    /// This step failed, or its outcome is unknown.
    Step(String),
    /// The saga's time is over.
    Timeout,
    /// An operator, or `advance`, ended it, for this reason.
    Aborted(String),
}

/// All that has happened in a saga so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The name of its definition.
    pub saga: String,
    /// Its own id.
    pub id: String,
    /// The time of this call's batch, in milliseconds since 1970.
    pub now_ms: u64,
    /// The message that began it.
    pub input: Request,
    /// Its steps, in the definition's order.
    pub steps: Vec<SagaStep>,
    /// Why it is being compensated. None in `advance`.
    pub cause: Option<SagaCause>,
    /// How often `compensate` has answered [`Plan::Retry`] in this saga.
    pub retries: u32,
}

/// What comes next in a saga that goes forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// The next step, as defined.
    Next,
    /// This step, which is in the history and neither completed nor running.
    Step {
        /// Its name.
        step: String,
        /// Its payload, in place of what the definition says.
        payload: Option<Vec<u8>>,
    },
    /// Nothing: the saga is complete.
    Complete,
    /// Compensation, for this reason, of which the first 1 KiB is kept.
    Fail(String),
}

/// A step to undo: one that completed or is unknown, can be undone, and is not undone yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// Its name.
    pub step: String,
    /// The compensation's payload, in place of what the router makes.
    pub payload: Option<Vec<u8>>,
}

/// How a saga is compensated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// These steps are undone, one after another in this order; none is named twice. Whether the list leaves out a step that
    /// has to be undone is for the router to look at.
    Undo(Vec<Undo>),
    /// The step that failed is tried once more.
    Retry,
    /// The saga waits for an operator, who is told this reason, of which the first 1 KiB is kept.
    Park(String),
}

impl History {
    fn step(&self, name: &str) -> Result<&SagaStep, Lie> {
        let step = self.steps.iter().find(|step| step.name == name);
        step.ok_or_else(|| Lie::NoStep { step: cut(name.to_owned()) })
    }

    pub(crate) fn to_wit(&self) -> wit::History {
        wit::History {
            saga: self.saga.clone(),
            id: self.id.clone(),
            now: self.now_ms,
            input: self.input.to_wit(),
            steps: self.steps.iter().map(SagaStep::to_wit).collect(),
            cause: self.cause.as_ref().map(|cause| match cause {
                SagaCause::Step(step) => wit::Cause::Step(step.clone()),
                SagaCause::Timeout => wit::Cause::Timeout,
                SagaCause::Aborted(reason) => wit::Cause::Aborted(reason.clone()),
            }),
            retries: self.retries,
        }
    }
}

impl SagaStep {
    fn to_wit(&self) -> wit::Step {
        wit::Step {
            name: self.name.clone(),
            state: match self.state {
                StepState::Pending => wit::StepState::Pending,
                StepState::Running => wit::StepState::Running,
                StepState::Completed => wit::StepState::Completed,
                StepState::Failed => wit::StepState::Failed,
                StepState::Unknown => wit::StepState::Unknown,
            },
            attempts: self.attempts,
            payload: self.payload.clone(),
            reason: self.reason.clone(),
            can_undo: self.can_undo,
            undone: self.undone,
            pivot: self.pivot,
        }
    }

    /// Why it can't be undone now.
    fn not_to_undo(&self) -> Option<&'static str> {
        match self {
            SagaStep { can_undo: false, .. } => Some("has no `compensate` in its definition"),
            SagaStep { undone: true, .. } => Some("is undone already"),
            SagaStep { state: StepState::Completed | StepState::Unknown, .. } => None,
            _ => Some("has neither completed nor an unknown outcome"),
        }
    }
}

pub(crate) fn check_course(course: wit::Course, history: &History, limits: &Limits) -> Result<Course, Lie> {
    Ok(match course {
        wit::Course::Next => Course::Next,
        wit::Course::Complete => Course::Complete,
        wit::Course::Fail(reason) => Course::Fail(cut(reason)),
        wit::Course::Step(wit::Send { step, payload }) => {
            let why = match history.step(&step)?.state {
                StepState::Completed => Some("has completed"),
                StepState::Running => Some("is running"),
                StepState::Pending | StepState::Failed | StepState::Unknown => None,
            };
            if let Some(why) = why {
                return Err(Lie::NotToSend { step, why });
            }
            check_payload(payload.as_deref().unwrap_or_default(), limits)?;
            Course::Step { step, payload }
        }
    })
}

pub(crate) fn check_plan(plan: wit::Plan, history: &History, limits: &Limits) -> Result<Plan, Lie> {
    let undo = match plan {
        wit::Plan::Retry => return Ok(Plan::Retry),
        wit::Plan::Park(reason) => return Ok(Plan::Park(cut(reason))),
        wit::Plan::Undo(undo) => undo,
    };
    let mut checked: Vec<Undo> = Vec::with_capacity(undo.len().min(history.steps.len()));
    for wit::Undo { step, payload } in undo {
        let twice = checked.iter().any(|known| known.step == step).then_some("is named twice");
        if let Some(why) = history.step(&step)?.not_to_undo().or(twice) {
            return Err(Lie::NotToUndo { step, why });
        }
        check_payload(payload.as_deref().unwrap_or_default(), limits)?;
        checked.push(Undo { step, payload });
    }
    Ok(Plan::Undo(checked))
}

#[cfg(test)]
#[path = "compensation_tests.rs"]
mod tests;
