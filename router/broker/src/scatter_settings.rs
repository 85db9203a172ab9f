//! What the rules say of a scatter, as the broker needs it: parsed, checked, without TOML. A gather keeps the settings that it
//! began under until it ends.

use bincode::{Decode, Encode};

use crate::config::Durability;

/// `[scatter.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ScatterSettings {
    /// A message on this very topic begins a gather.
    pub topic: String,
    /// Whom it asks.
    pub recipients: Recipients,
    /// What makes the answer of the replies.
    pub aggregator: ModuleUse,
    /// From the request to the answer at most. Default 30 s.
    pub timeout_ms: u64,
    /// Replies after which it answers; `None`: all.
    pub quorum: Option<u32>,
    /// What becomes of fewer replies than the quorum. Default partial.
    pub on_timeout: OnTimeout,
    /// What becomes of replies after the end. Default drop.
    pub late: Late,
    /// Recipients asked at most. Default 1,000.
    pub max_replies: u32,
    /// How surely the gather survives. Default fsync.
    pub durability: Durability,
    /// The requests' priority; `None`: that of the message that began it.
    pub priority: Option<u8>,
    /// The requests' time to live; `None`: that of the message that began it.
    pub ttl_ms: Option<u64>,
}

/// Whom a scatter asks.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Recipients {
    /// These queues.
    Queues(Vec<String>),
    /// Each queue and subscription of which a pattern is contained in this one, at that moment.
    Pattern(String),
}

/// What becomes of a gather that ends with fewer replies than its quorum.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OnTimeout {
    /// The aggregator answers with what there is, if there is anything.
    Partial,
    /// The requester gets `timeout`.
    Fail,
}

/// What becomes of a reply that nobody waits for: after the end of its gather, or a recipient's second.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Late {
    /// It is dropped, counted.
    Drop,
    /// It is kept in `chaski.dlq`.
    DeadLetter,
}

/// A module as a scatter or saga uses it: pinned, so that what runs goes on with what it began with.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModuleUse {
    /// Its name in the rules.
    pub name: String,
    /// SHA-256 of the binary; `None` waits for a deploy, and nothing begins.
    pub binary: Option<[u8; 32]>,
    /// Its params, as JSON text.
    pub params: String,
    /// CPU time of one call.
    pub time_limit_ms: u64,
    /// Memory of one instance.
    pub memory_limit_bytes: u64,
}
