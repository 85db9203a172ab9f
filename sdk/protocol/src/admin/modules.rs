//! What the router answers of modules and of messages that are traced.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A binary that the router has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// `sha256:` and 64 hexadecimal digits: by this it is deployed.
    pub digest: String,
}

/// A version of a module that is in force now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleDeployed {
    /// The module's name in the rules.
    pub name: String,
    /// The binary's digest.
    pub digest: String,
    /// The rules version that it is part of.
    pub version: u64,
    /// What the compilation took, in milliseconds.
    pub compile_ms: f64,
    /// Whether the code was there already.
    pub from_cache: bool,
    /// As in [`RulesDiff`](super::RulesDiff).
    pub changes: Vec<String>,
}

/// One module of the rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleView {
    /// Its name in the rules.
    pub name: String,
    /// `filter`, `aggregator` or `compensator`; empty while it is missing.
    pub kind: String,
    /// The version that the module says it is.
    pub description_version: String,
    /// Its binary's digest; empty while it is missing.
    pub digest: String,
    /// `file PATH`, `digest`, `builtin NAME` or `none`, as the rules have it.
    pub source: String,
    /// `active`; `suspended`: it failed too often and has no version before; `missing`: it waits for a deploy.
    pub state: String,
    /// `inline`: called where messages arrive; `slow`: on threads of its own.
    pub lane: String,
    /// `route NAME` and `queue NAME`, in the rules' order.
    pub used_by: Vec<String>,
    /// What it reads of each message, with its params.
    pub fields: Vec<String>,
    /// Whether it keeps state.
    pub keeps_state: bool,
    /// What the rules give it.
    pub params: Map<String, Value>,
    /// `dead-letter`, `drop`, `pass` or `retry`.
    pub on_error: String,
    /// CPU time of one call in milliseconds.
    pub time_limit_ms: u64,
    /// Memory of one instance in bytes.
    pub memory_limit_bytes: u64,
    /// Calls of this version.
    pub calls: u64,
    /// Messages that they judged.
    pub messages: u64,
    /// Messages that it failed on, by cause.
    pub errors: BTreeMap<String, u64>,
    /// The median of a call's CPU time in microseconds.
    pub p50_us: f64,
    /// 99 of 100 calls took less, in microseconds.
    pub p99_us: f64,
    /// Memory of its instances.
    pub memory_bytes: u64,
    /// Instances that are there now.
    pub instances: u64,
    /// What its compilation took, in milliseconds.
    pub compile_ms: f64,
    /// Keys in its state.
    pub state_keys: u64,
    /// Bytes of its state: keys and values.
    pub state_bytes: u64,
    /// The digest of the version that a rollback brings back.
    pub previous: Option<String>,
    /// The binary that runs beside it.
    pub shadow: Option<ShadowView>,
}

/// A binary that runs beside the live one and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowView {
    /// Its digest.
    pub digest: String,
    /// Messages that both judged.
    pub messages: u64,
    /// Messages that it was too slow for.
    pub skipped: u64,
    /// Messages of which the two make something different, or on which the shadow failed.
    pub differences: u64,
    /// The first of them, at most 100.
    pub examples: Vec<Difference>,
    /// When it ends by itself.
    pub ends_at: Option<String>,
}

/// A message of which live binary and shadow make something different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The message's id.
    pub id: String,
    /// What the live one makes of it, in words.
    pub live: String,
    /// What the shadow makes of it.
    pub shadow: String,
}

/// One version that a module had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleVersionView {
    /// The rules version that brought it.
    pub rules_version: u64,
    /// Its binary's digest.
    pub digest: String,
    /// What it was given.
    pub params: Map<String, Value>,
    /// Who made that rules version.
    pub author: String,
    /// When.
    pub applied_at: String,
    /// Whether it is in force.
    pub current: bool,
    /// Whether it rolled itself back: it comes again only by force.
    pub failed: bool,
}

/// One entry of a module's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntryView {
    /// Its key.
    pub key: String,
    /// `utf8` or `base64`.
    pub key_encoding: String,
    /// Its value.
    pub value: String,
    /// `utf8` or `base64`.
    pub value_encoding: String,
    /// When it goes by itself.
    pub expires_at: Option<String>,
}

/// What becomes of one message, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// The topic that it was sent to.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Every judgement, in the order that they were made in.
    pub steps: Vec<TraceStep>,
    /// The routes that matched, in the order that they judged in.
    pub routes: Vec<String>,
    /// What came out.
    pub results: Vec<TraceResult>,
    /// Results and copies that were dropped.
    pub dropped: u64,
    /// Results and copies that were rejected, or on which a filter failed.
    pub rejected: u64,
    /// What became a dead letter.
    pub dead: Vec<TraceDead>,
    /// Its confirmation, where the message was published for real.
    pub published: Option<TracePublished>,
}

/// One judgement of a traced message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// `route NAME` or `queue NAME`.
    pub place: String,
    /// 0, and one more behind each verdict that routes.
    pub hop: u32,
    /// The module.
    pub module: String,
    /// Its binary's digest.
    pub digest: String,
    /// `pass`, `drop`, `reject`, `transform`, `route`, `split` or `error`.
    pub verdict: String,
    /// The reason, the topics, what changed or what failed.
    pub detail: Option<String>,
    /// CPU time of the call in microseconds.
    pub cpu_us: f64,
}

/// A message that came out of the filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceResult {
    /// Its id.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// Queues that take it.
    pub queues: Vec<String>,
    /// Subscriptions that it is passed to.
    pub subscriptions: u64,
    /// What it begins: `scatter NAME` or `saga NAME`.
    pub begins: Vec<String>,
    /// Whether a filter changed it.
    pub changed: bool,
}

/// A dead letter that a traced message becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceDead {
    /// The source queue; `chaski` where it dies on a route.
    pub queue: String,
    /// The reason.
    pub reason: String,
    /// The reason in words.
    pub detail: Option<String>,
}

/// The confirmation of a traced message that was published for real.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracePublished {
    /// The first stored result's sequence.
    pub sequence: Option<u64>,
    /// Whether the id was known.
    pub duplicate: bool,
    /// Copies taken by queues and subscriptions.
    pub routed: u64,
    /// Results and copies that filters dropped.
    pub dropped: u64,
    /// Results and copies that filters rejected.
    pub rejected: u64,
}
