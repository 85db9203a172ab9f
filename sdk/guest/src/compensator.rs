//! Compensators: how a saga goes on, and how it is undone.

use crate::bindings::compensator::{self as wit, chaski::module::compensation};
use crate::history::{Cause, History, Step, StepState};

/// What a compensator decides in a saga. `#[compensator]` on the `impl` makes a module of it; `self` is what the rules give, so
/// its type has `#[params]`. It keeps nothing between calls: the history holds all there is to know.
///
/// ```
/// use chaski_guest::prelude::*;
///
/// /// Tries a step that failed once more, then undoes all.
/// #[params]
/// struct Patient;
///
/// #[compensator]
/// impl Compensator for Patient {
///     fn compensate(&self, history: &History) -> Plan {
///         match history.failed_step() {
///             Some(_) if history.retries == 0 => Plan::Retry,
///             _ => Plan::all(history),
///         }
///     }
/// }
///
/// let history = History::of([Step::completed("stock", "{}"), Step::failed("card", "declined")]);
/// assert_eq!(Patient.compensate(&history), Plan::Retry);
/// assert_eq!(Patient.compensate(&History { retries: 1, ..history }), Plan::undo(["stock"]));
/// ```
pub trait Compensator {
    /// Looks at the params, before anything else. An error refuses the rules, with its sentence.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// A step was answered, or the saga begins: what next? Without this function the steps follow one another, and the router
    /// does not ask.
    fn advance(&self, history: &History) -> Course {
        let _ = history;
        Course::Next
    }

    /// Something failed: how are the steps undone? A plan that leaves out a step of [`History::undoable`] parks the saga.
    fn compensate(&self, history: &History) -> Plan;
}

/// What comes next in a saga that goes forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// The next step, as defined.
    Next,
    /// This step, which is not complete yet; those between are left out.
    Step {
        /// Its name in the definition.
        step: String,
        /// Its payload, in place of what the definition says.
        payload: Option<Vec<u8>>,
    },
    /// Nothing: the saga is complete.
    Complete,
    /// Compensation, for this reason.
    Fail(String),
}

impl Course {
    /// [`Course::Step`] with the payload that the definition says.
    pub fn step(name: impl Into<String>) -> Self {
        Self::Step { step: name.into(), payload: None }
    }

    /// [`Course::Step`] with this payload.
    pub fn step_with(name: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        Self::Step { step: name.into(), payload: Some(payload.into()) }
    }

    /// [`Course::Fail`] with a reason.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self::Fail(reason.into())
    }
}

/// A step to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// Its name in the definition.
    pub step: String,
    /// The compensation's payload, in place of what the router makes.
    pub payload: Option<Vec<u8>>,
}

impl Undo {
    /// With the payload that the router makes.
    pub fn step(name: impl Into<String>) -> Self {
        Self { step: name.into(), payload: None }
    }

    /// With this payload.
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: Some(payload.into()), ..self }
    }
}

/// How a saga is compensated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// These steps are undone, one after another in the order given.
    Undo(Vec<Undo>),
    /// The step that failed is tried once more. The router takes this 16 times in a saga.
    Retry,
    /// The saga waits for an operator, who is told this reason.
    Park(String),
}

impl Plan {
    /// All that is to be undone, last first: what the router does without a compensator.
    pub fn all(history: &History) -> Self {
        Self::Undo(history.undoable().map(|step| Undo::step(&step.name)).collect())
    }

    /// These steps, in this order.
    pub fn undo<S: Into<String>>(steps: impl IntoIterator<Item = S>) -> Self {
        Self::Undo(steps.into_iter().map(Undo::step).collect())
    }

    /// [`Plan::Park`] with a reason.
    pub fn park(reason: impl Into<String>) -> Self {
        Self::Park(reason.into())
    }
}

pub(crate) fn advance<C: Compensator>(module: &C, history: wit::History) -> wit::Course {
    match module.advance(&read(history)) {
        Course::Next => wit::Course::Next,
        Course::Step { step, payload } => wit::Course::Step(compensation::Send { step, payload }),
        Course::Complete => wit::Course::Complete,
        Course::Fail(reason) => wit::Course::Fail(reason),
    }
}

pub(crate) fn compensate<C: Compensator>(module: &C, history: wit::History) -> wit::Plan {
    match module.compensate(&read(history)) {
        Plan::Undo(steps) => {
            let undo = |Undo { step, payload }| compensation::Undo { step, payload };
            wit::Plan::Undo(steps.into_iter().map(undo).collect())
        }
        Plan::Retry => wit::Plan::Retry,
        Plan::Park(reason) => wit::Plan::Park(reason),
    }
}

fn read(history: wit::History) -> History {
    let wit::History { saga, id, now, input, steps, cause, retries } = history;
    let cause = cause.map(|cause| match cause {
        compensation::Cause::Step(step) => Cause::Step(step),
        compensation::Cause::Timeout => Cause::Timeout,
        compensation::Cause::Aborted(reason) => Cause::Aborted(reason),
    });
    let steps = steps.into_iter().map(read_step).collect();
    History { saga, id, now, input: input.into(), steps, cause, retries }
}

fn read_step(step: compensation::Step) -> Step {
    let compensation::Step { name, state, attempts, payload, reason, can_undo, undone, pivot } = step;
    let state = match state {
        compensation::StepState::Pending => StepState::Pending,
        compensation::StepState::Running => StepState::Running,
        compensation::StepState::Completed => StepState::Completed,
        compensation::StepState::Failed => StepState::Failed,
        compensation::StepState::Unknown => StepState::Unknown,
    };
    Step { name, state, attempts, payload, reason, can_undo, undone, pivot }
}
