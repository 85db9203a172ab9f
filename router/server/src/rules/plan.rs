//! From a document of the right shape to the broker's rules, and back to the document's spelling. Defaults that depend on other
//! keys are decided here, and what is allowed but useless is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chaski_broker::{
    Durability, OnPoison, Ordering, Overflow, QueueSettings, Recipients, SagaSettings, ScatterSettings,
    ShardLimits,
};
use serde_json::Value as Json;

use super::document::{
    DeadLetterTable, DurabilityName, DurationText, LimitsTable, MaxDeliver, OnPoisonName, OrderingName,
    OverflowName, PatternText, QueueTable, SizeText,
};

/// A `memory` queue without max_bytes would take the machine's memory (SEMANTICS, One publish, several queues).
const MEMORY_MAX_BYTES: u64 = 256 << 20;

/// A queue's settings; what is allowed but has no effect is added to `notes`.
pub(super) fn queue_settings(name: &str, table: &QueueTable, notes: &mut Vec<String>) -> QueueSettings {
    let mut bind: Vec<String> = Vec::new();
    for PatternText(pattern) in table.bind.iter().flatten() {
        if bind.contains(pattern) {
            notes.push(format!("queue.{name}: `{pattern}` is bound twice; once is enough"));
        } else {
            bind.push(pattern.clone());
        }
    }
    if bind.is_empty() {
        bind.push(name.to_owned());
    }
    let durability = Durability::from(table.durability);
    let memory = (durability == Durability::Memory).then_some(MEMORY_MAX_BYTES);
    let settings = QueueSettings {
        bind,
        durability,
        ordering: table.ordering.into(),
        on_poison: table.on_poison.into(),
        single_active: table.single_active,
        max_deliver: match table.max_deliver {
            MaxDeliver::Times(times) => Some(times),
            MaxDeliver::Unlimited => None,
        },
        ack_wait_ms: table.ack_wait.0,
        backoff_ms: table.backoff.iter().map(|wait| wait.0).collect(),
        dedup_window_ms: table.dedup_window.0,
        ttl_ms: table.ttl.map(|ttl| ttl.0),
        max_messages: table.max_messages,
        max_bytes: table.max_bytes.map(|size| size.0).or(memory),
        overflow: table.overflow.into(),
        dead_alarm: Some(table.dead_alarm).filter(|alarm| *alarm > 0),
        dead_max_messages: table.dead_letter.max_messages,
        dead_max_bytes: table.dead_letter.max_bytes.map(|size| size.0),
    };
    if settings.on_poison == OnPoison::ParkKey && settings.ordering != Ordering::Key {
        notes.push(format!("queue.{name}: on_poison has no effect without ordering = \"key\""));
    }
    let unlimited = settings.max_messages.is_none() && settings.max_bytes.is_none();
    if settings.overflow != Overflow::Reject && unlimited {
        notes.push(format!("queue.{name}: overflow has no effect without max_messages or max_bytes"));
    }
    settings
}

/// Makes the queues that only scatters and sagas name, with defaults, and says so.
pub(super) fn implied_queues(
    scatters: &[(String, Arc<ScatterSettings>)],
    sagas: &[(String, Arc<SagaSettings>)],
    queues: &mut Vec<(String, QueueSettings)>,
    notes: &mut Vec<String>,
) {
    let mut known: BTreeSet<String> = queues.iter().map(|(name, _)| name.clone()).collect();
    let mut imply = |queue: &str, by: String| {
        if known.insert(queue.to_owned()) {
            notes.push(format!("queue.{queue}: made with defaults, since only {by} names it"));
            queues.push((queue.to_owned(), queue_settings(queue, &QueueTable::default(), &mut Vec::new())));
        }
    };
    for (name, scatter) in scatters {
        if let Recipients::Queues(recipients) = &scatter.recipients {
            recipients.iter().for_each(|queue| imply(queue, format!("scatter.{name}")));
        }
    }
    for (name, saga) in sagas {
        for step in &saga.steps {
            for queue in [Some(&step.queue), step.compensate.as_ref()].into_iter().flatten() {
                imply(queue, format!("saga.{name}"));
            }
        }
    }
}

/// The broker's limits.
pub(super) fn shard_limits(table: &LimitsTable) -> ShardLimits {
    ShardLimits {
        dedup_max_entries: table.dedup_max_entries,
        subscription_max_messages: table.subscription_max_messages,
        subscription_max_bytes: table.subscription_max_bytes.0,
        consumer_unsent_bytes: table.consumer_unsent_bytes.0,
        chaski_dlq_max_bytes: table.chaski_dlq_max_bytes.0,
        reply_max_bytes: table.reply_max_bytes.0,
        replies_max_bytes: table.replies_max_bytes.0,
        gathers_max: table.gathers_max,
        gathers_max_bytes: table.gathers_max_bytes.0,
        sagas_max: table.sagas_max,
        sagas_max_bytes: table.sagas_max_bytes.0,
        saga_max_payload_bytes: table.saga_max_payload.0,
        saga_history_max: table.saga_history_max,
        saga_history_ms: table.saga_history.0,
    }
}

/// Settings in the document's spelling: those with a value, defaults included, tables inside as `table.key`.
pub fn spelled(settings: &QueueSettings) -> BTreeMap<String, Json> {
    let table = QueueTable {
        filters: Vec::new(),
        bind: Some(settings.bind.iter().cloned().map(PatternText).collect()),
        durability: settings.durability.into(),
        ordering: settings.ordering.into(),
        on_poison: settings.on_poison.into(),
        single_active: settings.single_active,
        max_deliver: settings.max_deliver.map_or(MaxDeliver::Unlimited, MaxDeliver::Times),
        ack_wait: DurationText(settings.ack_wait_ms),
        backoff: settings.backoff_ms.iter().copied().map(DurationText).collect(),
        dedup_window: DurationText(settings.dedup_window_ms),
        ttl: settings.ttl_ms.map(DurationText),
        max_messages: settings.max_messages,
        max_bytes: settings.max_bytes.map(SizeText),
        overflow: settings.overflow.into(),
        dead_alarm: settings.dead_alarm.unwrap_or(0),
        dead_letter: DeadLetterTable {
            max_messages: settings.dead_max_messages,
            max_bytes: settings.dead_max_bytes.map(SizeText),
        },
    };
    flattened(&table)
}

/// A part of the document as JSON.
pub(super) fn json(part: &impl serde::Serialize) -> Json {
    serde_json::to_value(part).expect("the document's structs are plain data")
}

/// A table of the document as flat keys and values.
pub(super) fn flattened(table: &impl serde::Serialize) -> BTreeMap<String, Json> {
    let mut flat = BTreeMap::new();
    let json = json(table);
    for (key, value) in json.as_object().into_iter().flatten() {
        match value {
            Json::Object(inner) => {
                flat.extend(inner.iter().map(|(inner, value)| (format!("{key}.{inner}"), value.clone())));
            }
            value => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}

macro_rules! both_ways {
    ($($name:ident = $broker:ident: $($variant:ident),*;)*) => {$(
        impl From<$name> for $broker {
            fn from(name: $name) -> $broker {
                match name { $($name::$variant => $broker::$variant),* }
            }
        }

        impl From<$broker> for $name {
            fn from(value: $broker) -> $name {
                match value { $($broker::$variant => $name::$variant),* }
            }
        }
    )*};
}

both_ways! {
    DurabilityName = Durability: Memory, Os, Fsync;
    OrderingName = Ordering: None, Key;
    OnPoisonName = OnPoison: Continue, ParkKey;
    OverflowName = Overflow: Reject, DropOldest, DeadLetterOldest;
}
