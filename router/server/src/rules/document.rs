//! The rules document as people write it: one struct a table, one field a key. These structs are the only list of keys: what is
//! checked, RULES.md and the JSON Schema are all derived from them.

// First, for its macro of words.
#[macro_use]
mod texts;
mod modules;
mod scatters;

use std::borrow::Cow;
use std::collections::BTreeMap;

use chaski_protocol::{DEFAULT_MAX_HEADERS, DEFAULT_MAX_PAYLOAD, MIN_DEDUP_WINDOW_MS};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use modules::OnError;
pub(crate) use modules::{ModuleTable, ModulesTable, RouteTable};
pub(crate) use scatters::{LateName, OnTimeoutName, SagaTable, ScatterTable, StepPayloadName, StepTable};
pub(crate) use texts::{DurationText, FilterText, PatternText, SizeText, parse_percent, parse_public_key};

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Document {
    /// Limits of the whole router.
    pub limits: LimitsTable,
    /// What the router asks of every module.
    pub modules: ModulesTable,
    /// Modules by name. A name is one token of at most 64 bytes.
    #[schemars(extend("propertyNames" = { "format": "name" }, "maxProperties" = 1_000))]
    pub module: BTreeMap<String, ModuleTable>,
    /// Routes by name, one token of at most 64 bytes. All that match a topic judge its messages, in the document's order.
    #[schemars(extend("propertyNames" = { "format": "name" }, "maxProperties" = 1_000))]
    pub route: BTreeMap<String, RouteTable>,
    /// Durable queues by name. A name is a topic of at most 200 bytes that does not begin with `$`; `chaski` and names that end in
    /// `.dlq` are the router's own.
    #[schemars(extend("propertyNames" = { "format": "queue-name" }, "maxProperties" = 10_000))]
    pub queue: BTreeMap<String, QueueTable>,
    /// Scatters by name, one token of at most 64 bytes. Several on one topic each answer it.
    #[schemars(extend("propertyNames" = { "format": "name" }, "maxProperties" = 1_000))]
    pub scatter: BTreeMap<String, ScatterTable>,
    /// Sagas by name, one token of at most 64 bytes without `/`. Several on one topic each begin.
    #[schemars(extend("propertyNames" = { "format": "saga-name" }, "maxProperties" = 1_000))]
    pub saga: BTreeMap<String, SagaTable>,
}

/// One queue. Its dead-letter queue `NAME.dlq` is made with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct QueueTable {
    /// Patterns of the topics that it takes: `*` is one token, a final `>` one or more. Without it: the topic of its own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<PatternText>", length(min = 1, max = 10_000))]
    pub bind: Option<Vec<PatternText>>,
    /// Filters that judge this queue's own copy of each message, after the routes: names of `[module]` tables, or of builtins that need no
    /// params.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub filters: Vec<FilterText>,
    /// When a publish is confirmed: after fdatasync, after the write, or at once and never journaled.
    pub durability: DurabilityName,
    /// `none`: by priority, then in the order of publishing, with messages that come back overtaken. `key`: messages of one key
    /// one after another, in the order of publishing; keys in parallel; priority is ignored.
    pub ordering: OrderingName,
    /// With `ordering = "key"`, what a dead letter does to its key: the next message follows, or the key waits until an operator
    /// redrives, purges or unparks.
    pub on_poison: OnPoisonName,
    /// One consumer at a time, the one that came first; the next takes over when it goes.
    pub single_active: bool,
    /// Deliveries of one message before it is a dead letter (`max_deliver`).
    pub max_deliver: MaxDeliver,
    /// The length of a lease: a delivery that is neither settled nor extended in this time counts as failed.
    #[schemars(extend("x-min" = "1ms"))]
    pub ack_wait: DurationText,
    /// The wait after the first, second … failed delivery, ± 10 %; the last one repeats. For nack without a delay too.
    #[schemars(length(min = 1, max = 64))]
    pub backoff: Vec<DurationText>,
    /// How long a message id is remembered: a repeat inside it is confirmed as a duplicate and not stored.
    #[schemars(extend("x-min" = "2m", "x-max" = "7d"))]
    pub dedup_window: DurationText,
    /// Messages older than this become dead letters (`expired`). The shorter of this and the message's own ttl counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DurationText", extend("x-min" = "1ms"))]
    pub ttl: Option<DurationText>,
    /// At most so many messages: ready, delayed, parked and leased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub max_messages: Option<u64>,
    /// At most so many bytes of messages. With `durability = "memory"` and without this: 256MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText", extend("x-min" = "1B"))]
    pub max_bytes: Option<SizeText>,
    /// What a message beyond `max_messages` or `max_bytes` does: it is refused with `queue_full`, or the oldest message that is not
    /// leased is dropped, or that one becomes a dead letter (`overflow`).
    pub overflow: OverflowName,
    /// Raise an alarm when so many dead letters lie there, and at each tenfold, until they are redriven or purged. 0 is never.
    pub dead_alarm: u64,
    /// Limits of the dead-letter queue, which drops its oldest beyond them.
    #[serde(skip_serializing_if = "DeadLetterTable::is_empty")]
    pub dead_letter: DeadLetterTable,
}

/// Limits of a queue's dead-letter queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DeadLetterTable {
    /// At most so many dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1))]
    pub max_messages: Option<u64>,
    /// At most so many bytes of dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeText", extend("x-min" = "1B"))]
    pub max_bytes: Option<SizeText>,
}

impl DeadLetterTable {
    fn is_empty(&self) -> bool {
        self.max_messages.is_none() && self.max_bytes.is_none()
    }
}

/// Limits of the whole router.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsTable {
    /// The payload of one message.
    #[schemars(extend("x-min" = "1B", "x-max" = "64MiB"))]
    pub max_payload: SizeText,
    /// The headers of one message: names, values and 2 bytes for each.
    #[schemars(extend("x-min" = "1B", "x-max" = "1MiB"))]
    pub max_headers: SizeText,
    /// Message ids remembered at most; beyond it the oldest are forgotten early, with an event and a gauge of the real window.
    #[schemars(range(min = 1, max = 268_435_456))]
    pub dedup_max_entries: u64,
    /// Messages buffered for one subscription; beyond it new ones are dropped, and the subscriber is told how many.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub subscription_max_messages: u64,
    /// Bytes buffered for one subscription.
    #[schemars(extend("x-min" = "1B", "x-max" = "4GiB"))]
    pub subscription_max_bytes: SizeText,
    /// Bytes on their way to one consumer that its stream has not taken yet.
    #[schemars(extend("x-min" = "1B", "x-max" = "64MiB"))]
    pub consumer_unsent_bytes: SizeText,
    /// Bytes of the built-in dead-letter queue `chaski.dlq`, which drops its oldest beyond them.
    #[schemars(extend("x-min" = "1B"))]
    pub chaski_dlq_max_bytes: SizeText,
    /// A larger reply is passed on, and not kept for a repeated request.
    #[schemars(extend("x-min" = "0B", "x-max" = "64MiB"))]
    pub reply_max_bytes: SizeText,
    /// All replies kept for repeated requests; beyond it the oldest go.
    #[schemars(extend("x-min" = "0B", "x-max" = "4GiB"))]
    pub replies_max_bytes: SizeText,
    /// Gathers in progress; beyond it a request that would begin one is answered `busy`.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub gathers_max: u64,
    /// Bytes of requests and replies of gathers in progress, and of the answers that are remembered.
    #[schemars(extend("x-min" = "1B"))]
    pub gathers_max_bytes: SizeText,
    /// Sagas that have not ended; beyond it a message that would begin one is answered `busy`.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub sagas_max: u64,
    /// Bytes of the inputs and results of sagas that have not ended.
    #[schemars(extend("x-min" = "1B"))]
    pub sagas_max_bytes: SizeText,
    /// Input, results and its compensator's payloads of one saga, in all.
    #[schemars(extend("x-min" = "1B", "x-max" = "1GiB"))]
    pub saga_max_payload: SizeText,
    /// Ended sagas that are remembered; beyond it the oldest are forgotten.
    #[schemars(range(min = 0, max = 16_777_216))]
    pub saga_history_max: u64,
    /// How long an ended saga is remembered.
    #[schemars(extend("x-min" = "0ms"))]
    pub saga_history: DurationText,
}

impl Default for QueueTable {
    fn default() -> Self {
        QueueTable {
            bind: None,
            filters: Vec::new(),
            durability: DurabilityName::Fsync,
            ordering: OrderingName::None,
            on_poison: OnPoisonName::Continue,
            single_active: false,
            max_deliver: MaxDeliver::Times(5),
            ack_wait: DurationText(30_000),
            backoff: [1_000, 5_000, 30_000, 120_000].map(DurationText).to_vec(),
            dedup_window: DurationText(MIN_DEDUP_WINDOW_MS),
            ttl: None,
            max_messages: None,
            max_bytes: None,
            overflow: OverflowName::Reject,
            dead_alarm: 1,
            dead_letter: DeadLetterTable::default(),
        }
    }
}

impl Default for LimitsTable {
    fn default() -> Self {
        let shard = chaski_broker::ShardLimits::default();
        LimitsTable {
            max_payload: SizeText(DEFAULT_MAX_PAYLOAD.into()),
            max_headers: SizeText(DEFAULT_MAX_HEADERS.into()),
            dedup_max_entries: shard.dedup_max_entries,
            subscription_max_messages: shard.subscription_max_messages,
            subscription_max_bytes: SizeText(shard.subscription_max_bytes),
            consumer_unsent_bytes: SizeText(shard.consumer_unsent_bytes),
            chaski_dlq_max_bytes: SizeText(shard.chaski_dlq_max_bytes),
            reply_max_bytes: SizeText(shard.reply_max_bytes),
            replies_max_bytes: SizeText(shard.replies_max_bytes),
            gathers_max: shard.gathers_max,
            gathers_max_bytes: SizeText(shard.gathers_max_bytes),
            sagas_max: shard.sagas_max,
            sagas_max_bytes: SizeText(shard.sagas_max_bytes),
            saga_max_payload: SizeText(shard.saga_max_payload_bytes),
            saga_history_max: shard.saga_history_max,
            saga_history: DurationText(shard.saga_history_ms),
        }
    }
}

names! {
    /// When a publish is confirmed.
    pub(crate) DurabilityName: Fsync, Os, Memory
}
names! {
    /// In which order messages are processed.
    pub(super) OrderingName: None, Key
}
names! {
    /// What a dead letter does to its key.
    pub(super) OnPoisonName: Continue, ParkKey
}
names! {
    /// What a full queue does.
    pub(super) OverflowName: Reject, DropOldest, DeadLetterOldest
}

/// A number of deliveries, or `"unlimited"`, which must be written out.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum MaxDeliver {
    /// So many.
    Times(u32),
    /// As often as it takes.
    Unlimited,
}

impl Serialize for MaxDeliver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            MaxDeliver::Times(times) => serializer.serialize_u32(*times),
            MaxDeliver::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for MaxDeliver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Times(u32),
            Word(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Times(times) if times > 0 => Ok(MaxDeliver::Times(times)),
            Either::Word(word) if word == "unlimited" => Ok(MaxDeliver::Unlimited),
            _ => Err(de::Error::custom("expected a whole number from 1, or \"unlimited\"")),
        }
    }
}

impl JsonSchema for MaxDeliver {
    fn schema_name() -> Cow<'static, str> {
        "MaxDeliver".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "integer", "minimum": 1, "maximum": u32::MAX },
            { "type": "string", "const": "unlimited" },
        ] })
    }
}
