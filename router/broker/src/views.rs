//! Gathers and sagas to look at: what commands and metrics show of them. Nothing here changes anything.

use bytes::Bytes;

use crate::ids::{Millis, Sequence};

/// One gather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatherView {
    /// The id of the message that began it.
    pub id: String,
    /// Its scatter.
    pub scatter: String,
    /// Where it stands.
    pub state: GatherState,
    /// When it began.
    pub began_at: Millis,
    /// When its time is over.
    pub deadline: Millis,
    /// Those that it asked, in order.
    pub recipients: Vec<RecipientView>,
}

/// Where a gather stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatherState {
    /// Replies are awaited.
    Open,
    /// The aggregator makes the answer.
    Finishing,
    /// Answered, and remembered for those that ask again.
    Answered,
    /// Failed: `timeout` or `aggregation_failed`.
    Failed,
}

/// One recipient of a gather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipientView {
    /// The queue's name, or the subscription's pattern.
    pub name: String,
    /// Where it stands.
    pub state: RecipientState,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it answered or failed.
    pub at: Option<Millis>,
}

/// Where a recipient stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecipientState {
    /// Its answer is awaited.
    Asked,
    /// It answered.
    Answered,
    /// It failed, or was not there.
    Failed,
    /// It had said nothing when the gather ended.
    Silent,
}

/// Some sagas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SagaPage {
    /// Those that were found, in order.
    pub sagas: Vec<SagaSummary>,
    /// The look ended here, with as many sagas looked at as one may: those after it were not.
    pub next: Option<Sequence>,
}

/// One saga, without its timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaSummary {
    /// Its definition.
    pub name: String,
    /// The id of the message that began it.
    pub id: String,
    /// Its number: for paging.
    pub number: Sequence,
    /// Where it stands.
    pub state: SagaState,
    /// When it began.
    pub began_at: Millis,
    /// When that last changed.
    pub changed_at: Millis,
    /// What it does now, or why it rests: for people.
    pub detail: String,
}

/// Where a saga stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SagaState {
    /// Its steps are done.
    Running,
    /// They are undone.
    Compensating,
    /// It waits for an operator.
    Parked,
    /// Every step is done.
    Completed,
    /// What was done is undone.
    Compensated,
    /// An operator ended it, and what was done stays done.
    Aborted,
}

/// One saga, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaView {
    /// What a list shows.
    pub summary: SagaSummary,
    /// When it compensates by itself.
    pub deadline: Millis,
    /// Its steps in the definition's order.
    pub steps: Vec<StepView>,
    /// Answers in its ACK queue that the coordinator has not taken: the steps' names.
    pub pending: Vec<String>,
    /// The step that failed, and why; the step is empty where the saga's time was over or an operator ended it.
    pub failed: Option<(String, String)>,
    /// What happened, in order; at most 256 lines, the oldest go.
    pub timeline: Vec<TimelineView>,
}

/// One step of a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub outcome: StepOutcome,
    /// Attempts forward.
    pub attempts: u32,
    /// What it answered.
    pub result: Option<Bytes>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Attempts to undo it.
    pub undo_attempts: u32,
    /// Whether it is undone.
    pub undone: bool,
}

/// How a step stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode)]
pub enum StepOutcome {
    /// Not sent yet.
    Pending,
    /// An attempt is under way, or the next one waits.
    Running,
    /// An attempt completed.
    Completed,
    /// No attempt completed, and none can have had an effect.
    Failed,
    /// An attempt was delivered and ended without an answer: it may have had its effect.
    Unknown,
}

/// One line of a saga's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineView {
    /// When.
    pub at: Millis,
    /// The step, if it is about one.
    pub step: Option<String>,
    /// `forward` or `undo`.
    pub undo: bool,
    /// Which attempt, from 1; 0 where it is about none.
    pub attempt: u32,
    /// What happened: `sent`, `completed`, `failed`, `timed out`, `parked` …
    pub what: String,
    /// Details for people.
    pub detail: String,
}

macro_rules! names {
    ($type:ty { $($variant:ident => $name:literal),* $(,)? }) => {
        impl $type {
            /// The name, as commands and metrics spell it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

names!(GatherState { Open => "open", Finishing => "finishing", Answered => "answered", Failed => "failed" });
names!(RecipientState { Asked => "asked", Answered => "answered", Failed => "failed", Silent => "silent" });
names!(SagaState {
    Running => "running",
    Compensating => "compensating",
    Parked => "parked",
    Completed => "completed",
    Compensated => "compensated",
    Aborted => "aborted",
});
names!(StepOutcome {
    Pending => "pending",
    Running => "running",
    Completed => "completed",
    Failed => "failed",
    Unknown => "unknown",
});
