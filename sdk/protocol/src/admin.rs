//! Administrative calls: one request, one answer, both JSON. Times are RFC 3339, durations and sizes whole numbers.

mod gathers;
mod modules;
mod sagas;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use gathers::*;
pub use modules::*;
pub use sagas::*;

/// What an operator or a tool asks. The answer's type stands beside each; `Done` where nothing is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// [`Status`].
    Status,
    /// `Vec<QueueView>`: every queue by name, dead-letter queues left out.
    QueueList,
    /// [`QueueView`].
    QueueShow {
        /// The queue.
        queue: String,
    },
    /// A new queue (a new rules version): [`RulesChange`].
    QueueCreate {
        /// Its name.
        queue: String,
        /// Patterns; empty: its own name.
        bind: Vec<String>,
        /// `key = value` as in the rules document, values in TOML spelling.
        set: Vec<(String, String)>,
    },
    /// The queue goes (a new rules version): [`RulesChange`].
    QueueDelete {
        /// The queue.
        queue: String,
        /// Even with messages in it.
        drop_messages: bool,
    },
    /// Removes ready, delayed and parked messages: [`Count`].
    QueuePurge {
        /// The queue.
        queue: String,
    },
    /// Stops deliveries.
    QueuePause {
        /// The queue.
        queue: String,
    },
    /// Goes on.
    QueueResume {
        /// The queue.
        queue: String,
    },
    /// Removes a message that is not leased.
    QueueCancel {
        /// The queue.
        queue: String,
        /// The message's id.
        id: String,
    },
    /// Lets a parked key go on.
    QueueUnpark {
        /// The queue.
        queue: String,
        /// The key.
        key: String,
    },
    /// Looks at messages without taking them: `Vec<MessageView>`, by sequence.
    Peek {
        /// The queue; `NAME.dlq` for dead letters.
        queue: String,
        /// From the message after this sequence.
        after: u64,
        /// At most so many (1,000).
        limit: u32,
    },
    /// `Vec<DeadView>`: queues with dead letters.
    DlqList,
    /// Dead letters, by sequence: `Vec<MessageView>`.
    DlqShow {
        /// The source queue.
        queue: String,
        /// From the message after this sequence.
        after: u64,
        /// At most so many (1,000).
        limit: u32,
    },
    /// Moves dead letters back: [`Count`].
    DlqRedrive {
        /// The source queue.
        queue: String,
        /// Only those with this reason.
        reason: Option<String>,
        /// Only the one with this id.
        id: Option<String>,
        /// With `id`: another payload, base64.
        payload: Option<String>,
        /// With `id`: headers set.
        headers: Vec<(String, String)>,
        /// At most so many.
        limit: Option<u64>,
    },
    /// Removes dead letters: [`Count`].
    DlqPurge {
        /// The source queue.
        queue: String,
    },
    /// Checks a document: [`RulesCheck`].
    RulesCheck {
        /// TOML.
        document: String,
    },
    /// What would change: [`RulesDiff`].
    RulesDiff {
        /// TOML.
        document: String,
        /// Module files: the path as the document has it, and the digest of what was uploaded.
        files: Vec<(String, String)>,
        /// Ed25519 signatures over those files, where they are signed: the path as above, and 64 bytes in base64.
        signatures: Vec<(String, String)>,
    },
    /// Applies a document: [`RulesChange`].
    RulesApply {
        /// TOML.
        document: String,
        /// Module files: the path as the document has it, and the digest of what was uploaded.
        files: Vec<(String, String)>,
        /// Ed25519 signatures over those files, where they are signed: the path as above, and 64 bytes in base64.
        signatures: Vec<(String, String)>,
        /// Queues that may vanish with messages in them.
        drop_queues: Vec<String>,
        /// Modules whose state may vanish with them; of those that stay, the state is emptied.
        drop_states: Vec<String>,
    },
    /// The current document: [`RulesView`].
    RulesShow,
    /// `Vec<RulesEntry>`, the newest first.
    RulesHistory,
    /// A new version equal to an earlier one: [`RulesChange`].
    RulesRollback {
        /// That version.
        version: u64,
        /// Queues that may vanish with messages in them.
        drop_queues: Vec<String>,
        /// As in `RulesApply`.
        drop_states: Vec<String>,
    },
    /// Gives a module a binary that was uploaded (a new rules version): [`ModuleDeployed`].
    ModuleDeploy {
        /// Its name in the rules; none: the one that the module says of itself. A new name makes a new `[module]`.
        name: Option<String>,
        /// The binary's digest.
        digest: String,
        /// An Ed25519 signature over the binary, base64.
        signature: Option<String>,
        /// What it is given, in the place of what the rules have; none: that stays.
        params: Option<serde_json::Map<String, serde_json::Value>>,
        /// Even if this version rolled itself back before, or fails on the messages that were judged last.
        force: bool,
    },
    /// `Vec<ModuleView>`: every module of the rules by name.
    ModuleList,
    /// [`ModuleView`].
    ModuleShow {
        /// The module.
        name: String,
    },
    /// `Vec<ModuleVersionView>`: its versions, the newest first.
    ModuleHistory {
        /// The module.
        name: String,
    },
    /// Brings the version before the current one back (a new rules version): [`ModuleDeployed`].
    ModuleRollback {
        /// The module.
        name: String,
    },
    /// Runs an uploaded binary beside the live one, without any effect: [`ModuleView`].
    ModuleShadow {
        /// The module.
        name: String,
        /// The binary's digest.
        digest: String,
        /// An Ed25519 signature over the binary, base64.
        signature: Option<String>,
        /// How long, in milliseconds; none: until it is promoted or another takes its place.
        for_ms: Option<u64>,
    },
    /// Makes the shadow the live one (a new rules version): [`ModuleDeployed`].
    ModulePromote {
        /// The module.
        name: String,
    },
    /// `Vec<StateEntryView>`: a page of a module's state, by key.
    ModuleState {
        /// The module.
        name: String,
        /// Only this key. Keys that are not UTF-8 are written `base64:` and their base64.
        key: Option<String>,
        /// From the entry after this key, written as `key`.
        after: Option<String>,
        /// At most so many (1,000).
        limit: u32,
    },
    /// What becomes of a message, and why: [`TraceView`].
    Trace {
        /// Its topic.
        topic: String,
        /// Its id; none: one is drawn.
        id: Option<String>,
        /// Its key.
        key: Option<String>,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// Its payload, base64.
        payload: String,
        /// Its priority.
        priority: Option<u8>,
        /// Its ttl in milliseconds.
        ttl_ms: Option<u64>,
        /// Where a reply is to go.
        reply_to: Option<String>,
        /// Publish it for real. Otherwise nothing is stored, delivered or written.
        publish: bool,
    },
    /// `Vec<GatherView>`: gathers in progress and those that are remembered, by number.
    GatherList {
        /// From the gather after this number.
        after: u64,
        /// At most so many (1,000).
        limit: u32,
    },
    /// [`GatherView`].
    GatherShow {
        /// The id of the message that began it.
        id: String,
    },
    /// `Vec<SagaSummary>`: sagas that have not ended and those that are remembered, by number.
    SagaList {
        /// Only those in this state.
        state: Option<String>,
        /// From the saga after this number.
        after: u64,
        /// At most so many (1,000).
        limit: u32,
    },
    /// [`SagaView`].
    SagaShow {
        /// `NAME/ID`, or the id alone where one definition has it.
        saga: String,
    },
    /// A parked saga goes on: what failed is tried once more. [`SagaSteered`].
    SagaRetry {
        /// As in `SagaShow`.
        saga: String,
    },
    /// A step of a parked saga counts as completed; while it compensates, as undone. [`SagaSteered`].
    SagaSkip {
        /// As in `SagaShow`.
        saga: String,
        /// Which step.
        step: String,
        /// Its result, base64; none: empty.
        payload: Option<String>,
    },
    /// A saga is compensated now. [`SagaSteered`].
    SagaAbort {
        /// As in `SagaShow`.
        saga: String,
        /// False: it ends as it stands.
        compensate: bool,
    },
}

/// How the router is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether it takes publishes.
    pub ready: bool,
    /// Why not, or what needs a look.
    pub alarms: Vec<Alarm>,
    /// Its name and version.
    pub server: String,
    /// Since when it runs.
    pub started_at: String,
    /// The rules in force.
    pub rules_version: u64,
    /// Queues.
    pub queues: u64,
    /// Messages in all queues.
    pub messages: u64,
    /// Dead letters in all queues.
    pub dead: u64,
    /// Connections.
    pub connections: u64,
    /// Consumers.
    pub consumers: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Free bytes on its disk.
    pub free_bytes: u64,
    /// How long an id is surely remembered, in milliseconds.
    pub dedup_window_ms: u64,
}

/// Something that stands until it is looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// `dead_letters`, `saga_parked`, `disk_low`, `disk_full`, `clock` …
    pub alarm: String,
    /// The queue, where it is one's.
    pub queue: Option<String>,
    /// The saga's definition, where it is one's.
    #[serde(default)]
    pub saga: Option<String>,
    /// A sentence: what, and what to do.
    pub detail: String,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueView {
    /// Its name.
    pub name: String,
    /// Patterns.
    pub bind: Vec<String>,
    /// Deliverable now.
    pub ready: u64,
    /// Waiting for a time.
    pub delayed: u64,
    /// With a consumer.
    pub leased: u64,
    /// Behind a key that waits.
    pub parked: u64,
    /// Dead letters.
    pub dead: u64,
    /// Consumers.
    pub consumers: u64,
    /// ready + delayed + parked + leased.
    pub messages: u64,
    /// Bytes of their blocks.
    pub bytes: u64,
    /// Whether deliveries stand still.
    pub paused: bool,
    /// Keys that wait for an operator, at most 100 of them.
    pub parked_keys: Vec<String>,
    /// The oldest message that is not processed.
    pub oldest: Option<String>,
    /// Settings in the rules' spelling, those with a value.
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// One queue's dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadView {
    /// The source queue.
    pub queue: String,
    /// How many.
    pub dead: u64,
    /// When the oldest died.
    pub oldest: Option<String>,
    /// How many by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// A message, looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MessageView {
    /// The queue that it lies in (for dead letters: the source queue).
    pub queue: String,
    /// Its sequence.
    pub sequence: u64,
    /// `ready`, `delayed`, `parked` or `leased`.
    pub state: String,
    /// Deliveries that were begun.
    pub attempts: u32,
    /// Its topic.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Its key.
    pub key: Option<String>,
    /// Its headers, `chaski-dead-*` among them.
    pub headers: BTreeMap<String, String>,
    /// Its payload.
    pub payload: String,
    /// `utf8` or `base64`.
    pub payload_encoding: String,
    /// When it was stored.
    pub published_at: String,
    /// Not to be delivered before.
    pub not_before: Option<String>,
    /// Dead letters: why.
    pub reason: Option<String>,
    /// Dead letters: the reason in words.
    pub detail: Option<String>,
    /// Dead letters: the module concerned.
    pub module: Option<String>,
    /// Dead letters: its digest.
    pub digest: Option<String>,
}

/// How many messages a command moved or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Messages.
    pub count: u64,
    /// Set when it stopped early: why, and what to do.
    pub stopped: Option<String>,
}

/// Nothing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

/// A document that is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesCheck {
    /// Queues that it defines.
    pub queues: u64,
    /// Sentences that don't stop it.
    pub notes: Vec<String>,
}

/// The difference between a document and the rules in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesDiff {
    /// The version that it was compared with.
    pub version: u64,
    /// One line a change: `+ queue.x`, `- queue.y`, `~ queue.z.ack_wait: 30s → 10s`.
    pub changes: Vec<String>,
}

/// A change that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesChange {
    /// The version now in force.
    pub version: u64,
    /// As in [`RulesDiff`].
    pub changes: Vec<String>,
}

/// The document in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesView {
    /// Its number.
    pub version: u64,
    /// TOML.
    pub document: String,
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesEntry {
    /// Its number.
    pub version: u64,
    /// Who made it.
    pub author: String,
    /// When.
    pub applied_at: String,
    /// Whether it is in force.
    pub current: bool,
    /// What it changed.
    pub changes: Vec<String>,
}
