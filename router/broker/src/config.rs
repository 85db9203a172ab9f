//! What the rules say of a queue and of the shard, as the broker needs it: parsed, checked, without TOML.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::ids::RulesVersion;
use crate::saga_settings::SagaSettings;
use crate::scatter_settings::ScatterSettings;

/// When a publish to a queue counts as stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Durability {
    /// Never journaled; gone with the process.
    Memory,
    /// After the write; survives the process, not the power.
    Os,
    /// After fdatasync.
    Fsync,
}

/// In which order a queue's messages are processed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Ordering {
    /// By priority, then sequence; returned messages are overtaken.
    None,
    /// Messages of one key one after another, keys in parallel.
    Key,
}

/// What a dead letter of a keyed message does to its key.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OnPoison {
    /// The key's next message follows.
    Continue,
    /// The key waits until an operator releases or redrives.
    ParkKey,
}

/// What a full queue does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Overflow {
    /// The publisher gets `queue_full`, and nothing is stored anywhere.
    Reject,
    /// The oldest message that is not leased goes, counted.
    DropOldest,
    /// The oldest message that is not leased becomes a dead letter.
    DeadLetterOldest,
}

/// A queue's settings. `None` in a limit means that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QueueSettings {
    /// Patterns; never empty (the default is the queue's own name).
    pub bind: Vec<String>,
    /// When a publish counts as stored.
    pub durability: Durability,
    /// The order of processing.
    pub ordering: Ordering,
    /// With `ordering = "key"`: what a dead letter does to its key.
    pub on_poison: OnPoison,
    /// One consumer at a time, the longest attached; the next takes over.
    pub single_active: bool,
    /// Deliveries before a message is dead; `None` is "unlimited".
    pub max_deliver: Option<u32>,
    /// The lease's length.
    pub ack_wait_ms: u64,
    /// Waits after the first, second … failed delivery; the last repeats. Never empty.
    pub backoff_ms: Vec<u64>,
    /// How long an id is remembered, at least 2 minutes.
    pub dedup_window_ms: u64,
    /// Time to live; the shorter of this and the message's own counts.
    pub ttl_ms: Option<u64>,
    /// At most this many messages (ready, delayed, parked and leased).
    pub max_messages: Option<u64>,
    /// At most this many bytes of message blocks.
    pub max_bytes: Option<u64>,
    /// What happens beyond the two.
    pub overflow: Overflow,
    /// Raise an alarm at this many dead letters and at each tenfold; `None` is never.
    pub dead_alarm: Option<u64>,
    /// The dead-letter queue's `max_messages` (drop-oldest).
    pub dead_max_messages: Option<u64>,
    /// The dead-letter queue's `max_bytes` (drop-oldest).
    pub dead_max_bytes: Option<u64>,
}

/// One version of the rules, checked by the server, to be applied whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rules {
    /// Its number: the current one plus 1.
    pub version: RulesVersion,
    /// Who made it: `file PATH`, `cli`, `queue create` …
    pub author: String,
    /// The document's text, kept for history, diff and rollback.
    pub document: String,
    /// Every queue by name, in the document's order.
    pub queues: Vec<(String, QueueSettings)>,
    /// The shard's limits.
    pub limits: ShardLimits,
    /// Every module that the document names, resolved, and every built-in one that it uses without naming it.
    pub modules: Vec<ModulePin>,
    /// Versions that rolled themselves back: not to be deployed again by mistake.
    pub failed: Vec<FailedVersion>,
    /// Every scatter by name, in the document's order. Their queues are among `queues`.
    pub scatters: Vec<(String, Arc<ScatterSettings>)>,
    /// Every saga by name, likewise.
    pub sagas: Vec<(String, Arc<SagaSettings>)>,
}

impl Rules {
    /// The scatter of this name.
    pub(crate) fn scatter(&self, name: &str) -> Option<&Arc<ScatterSettings>> {
        self.scatters.iter().find(|(known, _)| known == name).map(|(_, settings)| settings)
    }

    /// The saga of this name.
    pub(crate) fn saga(&self, name: &str) -> Option<&Arc<SagaSettings>> {
        self.sagas.iter().find(|(known, _)| known == name).map(|(_, settings)| settings)
    }

    /// Whether this is a module of theirs.
    pub(crate) fn names(&self, module: &str) -> bool {
        self.modules.iter().any(|pin| pin.name == module)
    }
}

/// Which binary runs under a module's name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModulePin {
    /// The name: the owner of the module's state.
    pub name: String,
    /// SHA-256 of the binary; `None` waits for a deploy.
    pub binary: Option<[u8; 32]>,
    /// The Ed25519 signature that came with the binary.
    pub signature: Option<Vec<u8>>,
}

/// A binary with its params, under one name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FailedVersion {
    /// The name.
    pub module: String,
    /// SHA-256 of the binary.
    pub binary: [u8; 32],
    /// SHA-256 of the params.
    pub params: [u8; 32],
}

/// Limits of the state machine, from `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardLimits {
    /// Ids remembered at most; beyond it the oldest go early. Default 8 Mi.
    pub dedup_max_entries: u64,
    /// Messages buffered for one subscription before new ones are dropped. Default 65,536.
    pub subscription_max_messages: u64,
    /// Bytes buffered for one subscription before new ones are dropped. Default 16 MiB.
    pub subscription_max_bytes: u64,
    /// Bytes delivered to one consumer and not yet handed to its stream. Default 256 KiB.
    pub consumer_unsent_bytes: u64,
    /// The built-in dead-letter queue's max_bytes. Default 1 GiB.
    pub chaski_dlq_max_bytes: u64,
    /// One stored reply. Default 64 KiB.
    pub reply_max_bytes: u64,
    /// All stored replies. Default 64 MiB.
    pub replies_max_bytes: u64,
    /// Gathers in progress. Default 1,000,000.
    pub gathers_max: u64,
    /// Requests and replies of gathers in progress, and the answers that are remembered. Default 512 MiB.
    pub gathers_max_bytes: u64,
    /// Sagas that have not ended. Default 2,000,000.
    pub sagas_max: u64,
    /// Inputs and results of sagas that have not ended. Default 1 GiB.
    pub sagas_max_bytes: u64,
    /// Input, results and its compensator's payloads of one saga, in all. Default 1 MiB.
    pub saga_max_payload_bytes: u64,
    /// Ended sagas that are remembered. Default 100,000.
    pub saga_history_max: u64,
    /// How long an ended saga is remembered. Default 7 d.
    pub saga_history_ms: u64,
}

impl Default for ShardLimits {
    fn default() -> Self {
        ShardLimits {
            dedup_max_entries: 8 << 20,
            subscription_max_messages: 65_536,
            subscription_max_bytes: 16 << 20,
            consumer_unsent_bytes: 256 << 10,
            chaski_dlq_max_bytes: 1 << 30,
            reply_max_bytes: 64 << 10,
            replies_max_bytes: 64 << 20,
            gathers_max: 1_000_000,
            gathers_max_bytes: 512 << 20,
            sagas_max: 2_000_000,
            sagas_max_bytes: 1 << 30,
            saga_max_payload_bytes: 1 << 20,
            saga_history_max: 100_000,
            saga_history_ms: 7 * 24 * 3_600_000,
        }
    }
}
