//! The tables of scatters and sagas.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::texts::{
    AggregatorText, CompensatorText, DurationText, NameText, PatternText, QueueText, TopicText,
};
use super::{DurabilityName, QueueTable};

/// What makes the answer where a scatter names nothing: the builtin that collects all replies.
pub(crate) const DEFAULT_AGGREGATOR: &str = "collect";

names! {
    /// What becomes of a gather with fewer replies than its quorum.
    pub(crate) OnTimeoutName: Partial, Fail
}
names! {
    /// What becomes of replies after the end.
    pub(crate) LateName: Drop, DeadLetter
}
names! {
    /// What a step's message carries.
    pub(crate) StepPayloadName: All, Input, Previous
}

/// One scatter: a request on its topic goes to all its recipients, and the aggregator makes one answer of their replies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-exactly-one" = ["recipients", "pattern"]))]
pub(crate) struct ScatterTable {
    /// A message on this very topic begins a gather.
    pub(crate) topic: TopicText,
    /// The queues that are asked. One that has no table of its own is made with defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<QueueText>", length(min = 1, max = 1_000))]
    pub(crate) recipients: Option<Vec<QueueText>>,
    /// Instead of `recipients`: every queue and subscription that is there at that moment and of which a pattern is contained in this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PatternText")]
    pub(crate) pattern: Option<PatternText>,
    /// The module that makes the answer: the name of a `[module]` table, or of a builtin that needs no params.
    #[serde(default = "default_aggregator")]
    pub(crate) aggregator: AggregatorText,
    /// From the request to the answer at most.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-min" = "1ms"))]
    pub(crate) timeout: DurationText,
    /// So many replies are enough. Without it: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 1, max = 100_000))]
    pub(crate) quorum: Option<u32>,
    /// With fewer replies than the quorum when its time is over or no request is open any more: the aggregator answers with what there is,
    /// or the requester gets `timeout`. With no reply at all it is always `timeout`.
    #[serde(default = "default_on_timeout")]
    pub(crate) on_timeout: OnTimeoutName,
    /// What becomes of a reply after the end: it is dropped and counted, or kept as a dead letter of `chaski`.
    #[serde(default = "default_late")]
    pub(crate) late: LateName,
    /// Recipients asked at most.
    #[serde(default = "default_max_replies")]
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) max_replies: u32,
    /// How surely a gather survives: after fdatasync, after the write, or in memory alone.
    #[serde(default = "default_durability")]
    pub(crate) durability: DurabilityName,
    /// The requests' priority. Without it: that of the message that began the gather.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u8", range(max = 9))]
    pub(crate) priority: Option<u8>,
    /// The requests' time to live. Without it: that of the message that began the gather.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DurationText", extend("x-min" = "1ms"))]
    pub(crate) ttl: Option<DurationText>,
}

/// One saga: a message on its topic sends its steps to their queues, one after another, and a failure undoes those that were done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SagaTable {
    /// A message on this very topic begins a saga; its id is the saga's.
    pub(crate) topic: TopicText,
    /// After this long it is compensated; once the pivot is done it waits for an operator instead.
    #[serde(default = "default_saga_timeout")]
    #[schemars(extend("x-min" = "1ms"))]
    pub(crate) timeout: DurationText,
    /// The module that decides how it is compensated: the name of a `[module]` table, or of a builtin that needs no params. Without it:
    /// completed and unknown steps, last first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CompensatorText")]
    pub(crate) compensator: Option<CompensatorText>,
    /// The steps, in order.
    #[schemars(length(min = 1, max = 64))]
    pub(crate) steps: Vec<StepTable>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepTable {
    /// Its name, unique in its saga: one token of at most 64 bytes without `/`.
    pub(crate) name: NameText,
    /// The queue that does it. Made with defaults where it has no table of its own.
    pub(crate) queue: QueueText,
    /// The queue that undoes it. Without it there is nothing to undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "QueueText")]
    pub(crate) compensate: Option<QueueText>,
    /// From an attempt's sending to its answer at most.
    #[serde(default = "default_timeout")]
    #[schemars(extend("x-min" = "1ms"))]
    pub(crate) timeout: DurationText,
    /// Attempts beyond the first, after a timeout or a failure that is worth a retry.
    #[serde(default)]
    #[schemars(range(max = 1_000))]
    pub(crate) retries: u32,
    /// The wait before the second, third … attempt, ± 10 %; the last one repeats.
    #[serde(default = "default_backoff")]
    #[schemars(length(min = 1, max = 64))]
    pub(crate) backoff: Vec<DurationText>,
    /// Once this step has completed, or nobody knows whether it has, nothing is compensated by itself: what fails later waits for an
    /// operator. One step at most.
    #[serde(default)]
    pub(crate) pivot: bool,
    /// Consecutive steps of one group run side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NameText")]
    pub(crate) group: Option<NameText>,
    /// What its message carries: the saga's input with all results so far as JSON, the input byte for byte, or the last result before it
    /// byte for byte.
    #[serde(default = "default_payload")]
    pub(crate) payload: StepPayloadName,
}

fn default_aggregator() -> AggregatorText {
    AggregatorText(DEFAULT_AGGREGATOR.to_owned())
}

fn default_timeout() -> DurationText {
    DurationText(30_000)
}

fn default_saga_timeout() -> DurationText {
    DurationText(5 * 60_000)
}

fn default_on_timeout() -> OnTimeoutName {
    OnTimeoutName::Partial
}

fn default_late() -> LateName {
    LateName::Drop
}

fn default_max_replies() -> u32 {
    1_000
}

fn default_durability() -> DurabilityName {
    DurabilityName::Fsync
}

fn default_backoff() -> Vec<DurationText> {
    QueueTable::default().backoff
}

fn default_payload() -> StepPayloadName {
    StepPayloadName::All
}
