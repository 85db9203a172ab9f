//! What the broker tells of its queues: numbers for commands and metrics, and messages to look at. Changes nothing.

use crate::broker::Broker;
use crate::effect::Body;
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::{DeadInfo, DeadReason};
use crate::publish::LEAST_WINDOW_MS;
use crate::queue::{Kind, Queue, State, Totals};

/// One queue in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Its number.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// For a dead-letter queue the queue that it serves; `chaski` for the built-in one.
    pub source: Option<String>,
    /// May be delivered now.
    pub ready: u64,
    /// Wait for a time.
    pub delayed: u64,
    /// Wait behind a head that backs off, or for a parked key.
    pub parked: u64,
    /// With a consumer.
    pub leased: u64,
    /// All four.
    pub messages: u64,
    /// Their blocks' bytes.
    pub bytes: u64,
    /// Letters in its dead-letter queue.
    pub dead: u64,
    /// Those by reason, without zeros. For a dead-letter queue its own.
    pub reasons: Vec<(DeadReason, u64)>,
    /// When the oldest message here was stored; in a dead-letter queue, when it died.
    pub oldest: Option<Millis>,
    /// Consumers attached.
    pub consumers: u64,
    /// Stopped by an operator.
    pub paused: bool,
    /// Keys that dead letters park.
    pub parked_keys: Vec<Vec<u8>>,
    /// Since it was made.
    pub totals: Totals,
}

/// What a browsed message does in its queue.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrowsedState {
    /// May be delivered.
    Ready,
    /// Waits for a time.
    Delayed,
    /// Waits for its key.
    Parked,
    /// With a consumer.
    Leased,
}

impl BrowsedState {
    /// The state's name, as commands spell it.
    pub fn name(self) -> &'static str {
        match self {
            BrowsedState::Ready => "ready",
            BrowsedState::Delayed => "delayed",
            BrowsedState::Parked => "parked",
            BrowsedState::Leased => "leased",
        }
    }
}

/// A message to look at.
#[derive(Clone, Debug)]
pub struct Browsed {
    /// The message.
    pub sequence: Sequence,
    /// What it does.
    pub state: BrowsedState,
    /// Deliveries that counted, the current one included.
    pub attempts: u32,
    /// When it was stored.
    pub published_at: Millis,
    /// For a delayed one: until when.
    pub not_before: Option<Millis>,
    /// When its time to live ends.
    pub expires_at: Option<Millis>,
    /// Its bytes.
    pub body: Body,
    /// Their number.
    pub len: u32,
    /// For a dead letter: its headers.
    pub dead: Option<Box<DeadInfo>>,
}

impl Broker {
    /// How many subscriptions take this topic now.
    pub fn subscriptions_of(&self, topic: &str) -> u64 {
        let mut count = 0;
        self.subscriptions.matching(topic, |_| count += 1);
        count
    }

    /// Every queue, by name.
    pub fn queues(&self) -> Vec<QueueStats> {
        self.queues.by_name().map(|queue| self.stats(queue)).collect()
    }

    /// One queue.
    pub fn queue(&self, queue: QueueId) -> Option<QueueStats> {
        self.queues.get(queue).map(|queue| self.stats(queue))
    }

    fn stats(&self, queue: &Queue) -> QueueStats {
        let (letters, source) = match queue.kind {
            Kind::Ordinary { dead } => (self.queues.queue(dead), None),
            Kind::Dead { source } => {
                let source = source.and_then(|source| self.queues.get(source));
                (queue, Some(source.map_or("chaski".to_owned(), |source| source.name.to_string())))
            }
        };
        let oldest = queue.entries.first().map(|(sequence, _)| match queue.dead.get(sequence) {
            Some(info) => info.last_at,
            None => self.messages.row(Sequence(sequence)).published_at,
        });
        let reasons = DeadReason::ALL.into_iter().zip(letters.reasons).filter(|(_, count)| *count > 0);
        QueueStats {
            id: queue.id,
            name: queue.name.to_string(),
            source,
            ready: queue.ready(),
            delayed: queue.delayed,
            parked: queue.index.keys.waiting_parked,
            leased: queue.leased,
            messages: queue.len(),
            bytes: queue.bytes,
            dead: letters.len(),
            reasons: reasons.collect(),
            oldest,
            consumers: queue.consumers.len() as u64,
            paused: queue.paused,
            parked_keys: queue.parked.keys().take(1000).map(|key| key.to_vec()).collect(),
            totals: queue.totals,
        }
    }

    /// Messages of a queue after a sequence, in order.
    pub fn browse(&self, queue: QueueId, after: Sequence, limit: usize) -> Vec<Browsed> {
        let Some(queue) = self.queues.get(queue) else { return Vec::new() };
        let rows = queue.entries.range(after.0.saturating_add(1)..).take(limit);
        rows.map(|(sequence, entry)| {
            let stored = self.messages.row(Sequence(sequence));
            let key = queue.settings.ordering.by_key(stored);
            let state = match entry.state {
                State::Ready if key.is_some_and(|key| queue.index.keys.is_parked(key)) => {
                    BrowsedState::Parked
                }
                State::Ready => BrowsedState::Ready,
                State::Delayed => BrowsedState::Delayed,
                State::Leased => BrowsedState::Leased,
            };
            Browsed {
                sequence: Sequence(sequence),
                state,
                attempts: entry.attempts,
                published_at: stored.published_at,
                not_before: (entry.state == State::Delayed).then_some(Millis(entry.value)),
                expires_at: queue.expires_at(Sequence(sequence), entry, stored),
                body: stored.body(),
                len: stored.len,
                dead: queue.dead.get(sequence).map(|info| Box::new((**info).clone())),
            }
        })
        .collect()
    }

    /// Messages stored, each once however many queues hold it.
    pub fn messages(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Bytes of journaled bodies that somebody still needs, in all.
    pub fn live_bytes_total(&self) -> u64 {
        self.messages.live_total()
    }

    /// How long an id is surely remembered.
    pub fn dedup_window_ms(&self) -> u64 {
        self.dedup.real_window_ms(self.now, LEAST_WINDOW_MS)
    }

    /// Ids remembered.
    pub fn dedup_entries(&self) -> u64 {
        self.dedup.len() as u64
    }

    /// Subscriptions.
    pub fn subscriptions(&self) -> u64 {
        self.subscriptions.len() as u64
    }

    /// Messages that subscriptions were too slow for, since the start.
    pub fn subscription_dropped(&self) -> u64 {
        self.subscriptions.dropped
    }
}
