//! What a compensator is told of a saga, and how a test makes one up.

use crate::Request;

/// All that has happened in a saga so far.
///
/// A test makes one of steps: [`History::of`] knows which step failed, and whatever else matters is a field.
///
/// ```
/// # use chaski_guest::prelude::*;
/// let history = History::of([
///     Step::completed("stock", "{}"),
///     Step::unknown("card"),
///     Step::failed("ship", "no truck"),
///     Step::pending("mail"),
/// ]);
/// let names: Vec<_> = history.undoable().map(|step| step.name.as_str()).collect();
/// assert_eq!(names, ["card", "stock"]);
/// assert_eq!(history.failed_step().map(|step| step.name.as_str()), Some("ship"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The name of its definition.
    pub saga: String,
    /// Its own id: that of the message that began it.
    pub id: String,
    /// The time, in milliseconds since 1970.
    pub now: u64,
    /// The message that began it.
    pub input: Request,
    /// Its steps, in the definition's order.
    pub steps: Vec<Step>,
    /// Why it is being compensated. None in `advance`.
    pub cause: Option<Cause>,
    /// How often `compensate` has answered that the step be tried once more.
    pub retries: u32,
}

impl History {
    /// A saga with these steps. It is being compensated because of the first that failed or is unknown, where there is one.
    pub fn of(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: Vec<Step> = steps.into_iter().collect();
        // Of a step that failed and one that is unknown, the former is what ended the saga.
        let ended = |state| steps.iter().find(|step| step.state == state);
        let cause = ended(StepState::Failed).or_else(|| ended(StepState::Unknown));
        let cause = cause.map(|step| Cause::Step(step.name.clone()));
        Self { steps, cause, ..Self::default() }
    }

    /// The step of this name.
    pub fn step(&self, name: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Whether the step of this name has completed.
    pub fn has_completed(&self, name: &str) -> bool {
        self.step(name).is_some_and(|step| step.state == StepState::Completed)
    }

    /// The step whose failure is the cause, where it is one.
    pub fn failed_step(&self) -> Option<&Step> {
        match &self.cause {
            Some(Cause::Step(name)) => self.step(name),
            _ => None,
        }
    }

    /// The step behind the last one that was sent: what [`Course::Next`](crate::Course::Next) sends. Those that a former
    /// course left out are behind it no more.
    pub fn next(&self) -> Option<&Step> {
        let sent = self.steps.iter().rposition(|step| step.state != StepState::Pending);
        self.steps.get(sent.map_or(0, |sent| sent + 1))
    }

    /// The last step that has completed: in `advance` the one whose answer has just come.
    pub fn last_completed(&self) -> Option<&Step> {
        self.steps.iter().rev().find(|step| step.state == StepState::Completed)
    }

    /// What a plan must not leave out: the steps that completed or are unknown, can be undone, and are not undone yet; the last
    /// first.
    pub fn undoable(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().rev().filter(|step| step.is_undoable())
    }
}

/// One step of a saga, in its definition's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
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
    /// Whether it is the pivot: once it has completed, nothing is undone any more.
    pub pivot: bool,
}

impl Step {
    /// One that was not sent yet.
    pub fn pending(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: StepState::Pending,
            attempts: 0,
            payload: None,
            reason: None,
            can_undo: true,
            undone: false,
            pivot: false,
        }
    }

    /// One that answered this.
    pub fn completed(name: impl Into<String>, payload: impl Into<Vec<u8>>) -> Self {
        let payload = Some(payload.into());
        Self { state: StepState::Completed, attempts: 1, payload, ..Self::pending(name) }
    }

    /// One that failed for this reason.
    pub fn failed(name: impl Into<String>, reason: impl Into<String>) -> Self {
        let reason = Some(reason.into());
        Self { state: StepState::Failed, attempts: 1, reason, ..Self::pending(name) }
    }

    /// One that ended without an answer.
    pub fn unknown(name: impl Into<String>) -> Self {
        Self { state: StepState::Unknown, attempts: 1, ..Self::pending(name) }
    }

    /// Whether it completed or is unknown, can be undone, and is not undone yet.
    pub fn is_undoable(&self) -> bool {
        let had_effect = matches!(self.state, StepState::Completed | StepState::Unknown);
        had_effect && self.can_undo && !self.undone
    }

    /// What it answered, as JSON. The error is a sentence.
    #[cfg(feature = "serde_json")]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, String> {
        let payload = self.payload.as_deref().ok_or_else(|| format!("{} has not answered", self.name))?;
        crate::request::json(payload)
    }
}

/// Where a step stands.
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
    /// It was delivered, and ended without an answer: it may have had its effect. It is compensated as if it had.
    Unknown,
}

/// Why a saga is being compensated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// This step failed, or its outcome is unknown.
    Step(String),
    /// The saga's time is over.
    Timeout,
    /// An operator, or `advance`, ended it, for this reason.
    Aborted(String),
}
