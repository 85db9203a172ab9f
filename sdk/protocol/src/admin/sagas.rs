//! Answers about sagas: where each stands, and what happened to it.

use serde::{Deserialize, Serialize};

/// One saga in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaSummary {
    /// The id of the message that began it. Commands name a saga `NAME/ID`.
    pub id: String,
    /// Its definition in the rules.
    pub name: String,
    /// Its number, after which a page goes on.
    pub sequence: u64,
    /// `running`, `compensating`, `parked`, `completed`, `compensated` or `aborted`.
    pub state: String,
    /// When it began.
    pub began_at: String,
    /// When it last went on.
    pub changed_at: String,
    /// What it does now, or why it rests.
    pub detail: String,
}

/// One saga, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaView {
    /// The id of the message that began it.
    pub id: String,
    /// Its definition in the rules.
    pub name: String,
    /// As in [`SagaSummary`].
    pub state: String,
    /// When it began.
    pub began_at: String,
    /// When it last went on.
    pub changed_at: String,
    /// When it compensates by itself.
    pub deadline: String,
    /// What it does now, or why it rests.
    pub detail: String,
    /// Its steps in the definition's order.
    pub steps: Vec<SagaStep>,
    /// Steps whose answers are there and not taken yet.
    pub pending: Vec<String>,
    /// What failed.
    pub failed: Option<SagaFailure>,
    /// What happened, in order; the latest 256 lines.
    pub timeline: Vec<TimelineEntry>,
}

/// One step of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaStep {
    /// Its name.
    pub name: String,
    /// `pending`, `running`, `completed`, `failed`, `unknown` or `skipped`.
    pub outcome: String,
    /// Attempts to do it.
    pub attempts: u32,
    /// What it answered.
    pub result: Option<String>,
    /// `utf8` or `base64`, where there is a result.
    pub result_encoding: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Attempts to undo it.
    pub undo_attempts: u32,
    /// Whether it is undone.
    pub undone: bool,
}

/// Why a saga did not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaFailure {
    /// The step; none where the saga's time was over or an operator ended it.
    pub step: Option<String>,
    /// Why.
    pub reason: String,
}

/// One line of what happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub at: String,
    /// The step, where it is about one.
    pub step: Option<String>,
    /// `forward` or `undo`.
    pub phase: String,
    /// Which attempt, from 1; none where it is about none.
    pub attempt: Option<u32>,
    /// What happened: `sent`, `completed`, `failed`, `timed out`, `parked` …
    pub what: String,
    /// Details for people.
    pub detail: String,
}

/// Where a saga stands after a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaSteered {
    /// The id of the message that began it.
    pub id: String,
    /// Its definition in the rules.
    pub name: String,
    /// As in [`SagaSummary`].
    pub state: String,
}
