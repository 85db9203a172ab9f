//! One queue: its entries (which message, in which state), its counters, and the volatile indexes that say what goes next. It
//! knows messages by sequence only; who may take them is `deliver.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::config::{Durability, Ordering, Overflow, QueueSettings};
use crate::hash::HashKey;
use crate::ids::{Lease, Millis, Position, QueueId, Sequence};
use crate::keys::{KEY_LANE, Keys};
use crate::lane::Lanes;
use crate::message::{DeadInfo, DeadReason};
use crate::messages::{Messages, Stored};
use crate::pages::PageMap;
use crate::timers::Timers;

/// What a message does in one queue. Parked is no state of its own: it follows from the key.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum State {
    Ready,
    /// Waits for a time: `value`.
    Delayed,
    /// Held by a consumer under lease `value`.
    Leased,
}

/// One message in one queue.
#[derive(Copy, Clone, Debug, Encode, Decode)]
pub(crate) struct Entry {
    /// The lease, or the time before which it is not ready.
    pub(crate) value: u64,
    /// When it was first delivered; 0 before.
    pub(crate) first_at: Millis,
    /// Deliveries that count, the current one included.
    pub(crate) attempts: u32,
    pub(crate) state: State,
    pub(crate) flags: u8,
}

/// It was handed out before, whether that counted or not.
pub(crate) const DELIVERED: u8 = 1;
/// Its `deliver_at` is not due: it is outside its key's order.
pub(crate) const SCHEDULED: u8 = 2;
/// It came back from the dead: its time to live counts from `Queue::redriven`.
pub(crate) const REDRIVEN: u8 = 4;
/// In a dead-letter queue: it parks its key.
pub(crate) const PARKS: u8 = 8;

impl Entry {
    pub(crate) fn ready() -> Entry {
        Entry { value: 0, first_at: Millis(0), attempts: 0, state: State::Ready, flags: 0 }
    }

    pub(crate) fn scheduled(due: Millis) -> Entry {
        Entry { value: due.0, state: State::Delayed, flags: SCHEDULED, ..Entry::ready() }
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Waits in its key's order.
    pub(crate) fn in_order(&self) -> bool {
        self.state == State::Ready || (self.state == State::Delayed && !self.has(SCHEDULED))
    }

    pub(crate) fn lease(&self) -> Option<Lease> {
        (self.state == State::Leased).then_some(Lease(self.value))
    }
}

impl Ordering {
    /// The key that orders this message, if any does.
    pub(crate) fn by_key(self, stored: &Stored) -> Option<&Arc<[u8]>> {
        if self == Ordering::Key { stored.key() } else { None }
    }
}

/// What a queue is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Kind {
    /// Takes what is published.
    Ordinary {
        /// Its dead-letter queue.
        dead: QueueId,
    },
    /// Keeps the dead letters of `source`; without one it is `chaski.dlq`.
    Dead {
        /// Whose.
        source: Option<QueueId>,
    },
}

/// What happened in a queue since it was made.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Totals {
    /// Messages stored.
    pub published: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Messages acked.
    pub acked: u64,
    /// Messages that died here.
    pub dead: u64,
    /// Those of them that died of their time to live.
    pub expired: u64,
    /// Messages dropped by overflow, or whose body was lost.
    pub dropped: u64,
    /// Messages that an operator removed.
    pub removed: u64,
    /// Messages that came back from the dead.
    pub redriven: u64,
}

/// A lease's end: kept in order of time.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Millis,
    pub(crate) sequence: Sequence,
    pub(crate) lease: Lease,
    /// The consumer's slot.
    pub(crate) consumer: u32,
}

/// What says what goes next: rebuilt at a start, maintained live.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) lanes: Lanes,
    pub(crate) keys: Keys,
    /// Everything before is leased: where the search for the oldest begins.
    pub(crate) unleased_from: u64,
    /// Messages whose `deliver_at` is not due, by the hash of their id: for those that cancel them.
    scheduled: BTreeSet<(u64, Sequence)>,
}

impl Index {
    pub(crate) fn new(hash_key: HashKey) -> Index {
        Index { keys: Keys::new(hash_key), ..Index::default() }
    }
}

/// One queue.
pub(crate) struct Queue {
    pub(crate) id: QueueId,
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) settings: Arc<QueueSettings>,
    // Durable.
    pub(crate) entries: PageMap<Entry>,
    pub(crate) bytes: u64,
    pub(crate) delayed: u64,
    pub(crate) leased: u64,
    pub(crate) paused: bool,
    pub(crate) totals: Totals,
    /// When messages came back from the dead.
    pub(crate) redriven: PageMap<Millis>,
    /// Parked keys, each with the dead letters that park it: those with [`PARKS`] in the dead-letter queue.
    pub(crate) parked: BTreeMap<Arc<[u8]>, BTreeSet<Sequence>>,
    /// In a dead-letter queue: what the letters' headers say.
    pub(crate) dead: PageMap<Arc<DeadInfo>>,
    /// In a dead-letter queue: letters by reason, as in `DeadReason::ALL`.
    pub(crate) reasons: [u64; DeadReason::ALL.len()],
    // Volatile.
    /// The last record that moved a message here from the dead-letter queue, or in one from its source.
    pub(crate) moved_in: Position,
    pub(crate) index: Index,
    /// Slots of its consumers, longest attached first.
    pub(crate) consumers: Vec<u32>,
    /// Slots of consumers that can take one more, in turn.
    pub(crate) ring: VecDeque<u32>,
    pub(crate) deadlines: VecDeque<Deadline>,
    /// The one timer for `deadlines` that is set.
    pub(crate) deadline_timer: Option<Millis>,
    /// Dropped messages that no event told yet, and when the next may.
    pub(crate) dropped_untold: u64,
    pub(crate) drop_event_at: Millis,
    /// The highest threshold of dead letters that was told; 0: no alarm.
    pub(crate) alarm: u64,
}

impl Queue {
    pub(crate) fn new(
        id: QueueId,
        name: &str,
        kind: Kind,
        settings: Arc<QueueSettings>,
        hash_key: HashKey,
    ) -> Queue {
        Queue {
            id,
            name: Arc::from(name),
            kind,
            settings,
            entries: PageMap::default(),
            bytes: 0,
            delayed: 0,
            leased: 0,
            paused: false,
            totals: Totals::default(),
            redriven: PageMap::default(),
            parked: BTreeMap::new(),
            dead: PageMap::default(),
            reasons: [0; DeadReason::ALL.len()],
            moved_in: Position(0),
            index: Index::new(hash_key),
            consumers: Vec::new(),
            ring: VecDeque::new(),
            deadlines: VecDeque::new(),
            deadline_timer: None,
            dropped_untold: 0,
            drop_event_at: Millis(0),
            alarm: 0,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.kind, Kind::Dead { .. })
    }

    pub(crate) fn journaled(&self) -> bool {
        self.settings.durability != Durability::Memory
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn by_key(&self) -> bool {
        self.settings.ordering == Ordering::Key
    }

    /// Whether `count` messages of `bytes` fit.
    pub(crate) fn fits(&self, count: u64, bytes: u64) -> bool {
        self.settings.max_messages.is_none_or(|max| self.len() + count <= max)
            && self.settings.max_bytes.is_none_or(|max| self.bytes + bytes <= max)
    }

    /// Whether these limits hold after a change by so much.
    pub(crate) fn fits_change(&self, messages: i64, bytes: i64) -> bool {
        let holds = |now: u64, change: i64, max: Option<u64>| {
            max.is_none_or(|max| now.saturating_add_signed(change) <= max)
        };
        holds(self.len(), messages, self.settings.max_messages)
            && holds(self.bytes, bytes, self.settings.max_bytes)
    }

    pub(crate) fn refuses(&self, count: u64, bytes: u64) -> bool {
        self.settings.overflow == Overflow::Reject && !self.fits(count, bytes)
    }

    /// When this entry's time to live ends.
    pub(crate) fn expires_at(&self, sequence: Sequence, entry: &Entry, stored: &Stored) -> Option<Millis> {
        let ttl_ms = match (self.settings.ttl_ms, stored.ttl_ms()) {
            (None, None) => return None,
            (Some(queue), Some(message)) => queue.min(message),
            (queue, message) => queue.or(message)?,
        };
        if self.is_dead() {
            return None;
        }
        let from = match self.redriven.get(sequence.0) {
            Some(at) if entry.has(REDRIVEN) => *at,
            _ => stored.published_at,
        };
        Some(from.max(stored.deliver_at().unwrap_or_default()).after(ttl_ms))
    }

    /// The oldest message that is not leased.
    pub(crate) fn oldest(&mut self) -> Option<Sequence> {
        let found = self
            .entries
            .range(self.index.unleased_from..)
            .find(|(_, entry)| entry.state != State::Leased)
            .map(|(sequence, _)| Sequence(sequence));
        self.index.unleased_from = found.map_or(u64::MAX, |sequence| sequence.0);
        found
    }

    /// The oldest message that is not leased, nor this one.
    pub(crate) fn oldest_but(&mut self, spared: Sequence) -> Option<Sequence> {
        let oldest = self.oldest()?;
        if oldest != spared {
            return Some(oldest);
        }
        let mut later = self.entries.range(spared.0 + 1..);
        later.find(|(_, entry)| entry.state != State::Leased).map(|(sequence, _)| Sequence(sequence))
    }

    /// Puts an entry in its place of the indexes. The entry is in `entries` already, and not leased.
    pub(crate) fn index(&mut self, sequence: Sequence, messages: &Messages, timers: &mut Timers) {
        let entry = *self.entries.get(sequence.0).expect("the caller just put it there");
        let stored = messages.row(sequence);
        if let Some(at) = self.expires_at(sequence, &entry, stored) {
            timers.set(at, self.id, sequence);
        }
        if entry.state == State::Delayed {
            timers.set(Millis(entry.value), self.id, sequence);
        }
        if entry.has(SCHEDULED) {
            self.index.scheduled.insert((stored.id, sequence));
        }
        self.index.unleased_from = self.index.unleased_from.min(sequence.0);
        let key = self.settings.ordering.by_key(stored);
        match key {
            Some(name) if entry.in_order() => {
                let parked = self.parked.contains_key(name);
                let Index { lanes, keys, .. } = &mut self.index;
                keys.enter(name, sequence, entry.state, parked, &self.entries, lanes);
            }
            None if entry.state == State::Ready => {
                let lane = if self.by_key() { KEY_LANE } else { stored.priority };
                self.index.lanes.add(lane, sequence);
            }
            _ => {}
        }
        self.tidy_lanes();
    }

    /// Takes an entry that was not leased out of the indexes: it is leased now (`None`), or gone from `entries` by the record
    /// at `settled`.
    pub(crate) fn unindex(
        &mut self,
        sequence: Sequence,
        before: &Entry,
        stored: &Stored,
        settled: Option<Position>,
        timers: &mut Timers,
    ) {
        let leased = settled.is_none();
        if let Some(at) = self.expires_at(sequence, before, stored).filter(|_| !leased) {
            timers.unset(at, self.id, sequence);
        }
        if before.state == State::Delayed {
            timers.unset(Millis(before.value), self.id, sequence);
        }
        if before.has(SCHEDULED) {
            self.index.scheduled.remove(&(stored.id, sequence));
        }
        let key = self.settings.ordering.by_key(stored);
        let Index { lanes, keys, .. } = &mut self.index;
        match key {
            Some(name) if before.in_order() => {
                keys.leave(name, sequence, before.state, settled, &self.entries, lanes);
            }
            None if !leased && before.state == State::Ready => {
                let lane = if self.settings.ordering == Ordering::Key { KEY_LANE } else { stored.priority };
                lanes.trim(lane, |first| self.entries.get(first.0).is_some());
            }
            _ => {}
        }
    }

    /// A waiting `deliver_at` is over: who cancels the message finds it as any other.
    pub(crate) fn is_due(&mut self, sequence: Sequence, stored: &Stored) {
        self.index.scheduled.remove(&(stored.id, sequence));
    }

    /// The first message with this id that waits for its `deliver_at`.
    pub(crate) fn scheduled(&self, id: u64) -> Option<Sequence> {
        let found = self.index.scheduled.range((id, Sequence(0))..=(id, Sequence(u64::MAX))).next();
        found.map(|(_, sequence)| *sequence)
    }

    /// Ready to be delivered, and not held up by its key.
    pub(crate) fn ready(&self) -> u64 {
        self.len() - self.delayed - self.leased - self.index.keys.waiting_parked
    }

    /// A lane that nobody takes from collects what left the queue in the middle: beyond twice the queue's length it goes.
    fn tidy_lanes(&mut self) {
        if self.index.lanes.len() > 2 * self.entries.len() + 1024 {
            self.index.lanes.retain(|sequence| {
                self.entries.get(sequence.0).is_some_and(|entry| entry.state == State::Ready)
            });
        }
    }
}
