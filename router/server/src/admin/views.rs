//! From the broker's numbers to what people read.

use chaski_broker::{QueueSettings, QueueStats};
use chaski_protocol::admin::{DeadView, QueueView};

use crate::render::rfc3339;
use crate::rules;

/// Parked keys that one answer names.
const PARKED_KEYS: usize = 100;

/// Whether it keeps dead letters: `NAME.dlq`, or the built-in one.
pub(super) fn is_dead_letter_queue(stats: &QueueStats) -> bool {
    stats.name.ends_with(".dlq")
}

/// The name by which `dlq` commands know a dead-letter queue.
pub(super) fn source_name(stats: &QueueStats) -> String {
    stats.name.strip_suffix(".dlq").unwrap_or(&stats.name).to_owned()
}

/// What limits count.
pub(super) fn messages(stats: &QueueStats) -> u64 {
    stats.ready + stats.delayed + stats.parked + stats.leased
}

/// One queue with its settings; a dead-letter queue has none of its own.
pub(super) fn queue(stats: QueueStats, settings: Option<&QueueSettings>) -> QueueView {
    let key = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    QueueView {
        messages: messages(&stats),
        bind: settings.map(|settings| settings.bind.clone()).unwrap_or_default(),
        settings: settings.map(rules::spelled).unwrap_or_default(),
        ready: stats.ready,
        delayed: stats.delayed,
        leased: stats.leased,
        parked: stats.parked,
        dead: stats.dead,
        consumers: stats.consumers,
        bytes: stats.bytes,
        paused: stats.paused,
        parked_keys: stats.parked_keys.iter().take(PARKED_KEYS).map(|parked| key(parked)).collect(),
        oldest: stats.oldest.map(rfc3339),
        name: stats.name.to_string(),
    }
}

/// A dead-letter queue as `dlq list` shows it.
pub(super) fn dead(stats: &QueueStats) -> DeadView {
    DeadView {
        queue: source_name(stats),
        dead: messages(stats),
        oldest: stats.oldest.map(rfc3339),
        reasons: stats.reasons.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect(),
    }
}
