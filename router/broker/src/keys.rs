//! Order by key: for each key of one queue the messages that wait in its order, and whether its first may go. It knows
//! entries by their state only, and no consumer.

use std::collections::HashMap;
use std::sync::Arc;

use crate::hash::HashKey;
use crate::ids::{Position, Sequence};
use crate::lane::{Lane, Lanes};
use crate::pages::PageMap;
use crate::queue::{Entry, State};

/// The lane of a queue ordered by key: priority is ignored there.
pub(crate) const KEY_LANE: u8 = 0;

/// The keys of one queue. A key is here while a message of it is in order or leased.
#[derive(Default)]
pub(crate) struct Keys {
    keys: HashMap<Arc<[u8]>, Key, HashKey>,
    /// Messages behind a head that backs off, or of a parked key.
    pub(crate) waiting_parked: u64,
}

/// One key.
#[derive(Default)]
struct Key {
    /// Waiting in order, ready or backing off.
    lane: Lane,
    /// How many wait in order.
    waiting: u32,
    /// How many of those are ready themselves.
    ready: u32,
    leased: Option<Sequence>,
    /// The record that settled the key's previous message.
    settled: Position,
    /// The head that stands in the queue's ready lane.
    offered: Option<Sequence>,
    /// A dead letter parks it.
    parked: bool,
    /// Its part in `waiting_parked`.
    counted: u32,
}

impl Keys {
    pub(crate) fn new(hash_key: HashKey) -> Keys {
        Keys { keys: HashMap::with_hasher(hash_key), waiting_parked: 0 }
    }

    /// A message takes its place in its key's order.
    pub(crate) fn enter(
        &mut self,
        name: &Arc<[u8]>,
        sequence: Sequence,
        state: State,
        parked: bool,
        entries: &PageMap<Entry>,
        lanes: &mut Lanes,
    ) {
        let key = match self.keys.get_mut(name) {
            Some(key) => key,
            None => self.keys.entry(name.clone()).or_insert(Key { parked, ..Key::default() }),
        };
        key.lane.add(sequence);
        key.waiting += 1;
        key.ready += u32::from(state == State::Ready);
        self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
    }

    /// A waiting message of this state left the order: removed, or leased when `leased`. Its entry says so already.
    pub(crate) fn leave(
        &mut self,
        name: &Arc<[u8]>,
        sequence: Sequence,
        state: State,
        leased: bool,
        entries: &PageMap<Entry>,
        lanes: &mut Lanes,
    ) {
        let key = self.keys.get_mut(name).expect("a key lives as long as a message of it waits");
        key.waiting -= 1;
        key.ready -= u32::from(state == State::Ready);
        if key.offered == Some(sequence) {
            key.offered = None;
        }
        if leased {
            assert!(key.leased.is_none(), "two messages of one key are leased at once");
            key.leased = Some(sequence);
        }
        self.settle(name, entries, lanes);
    }

    /// A message that backed off is ready again.
    pub(crate) fn ripen(&mut self, name: &Arc<[u8]>, entries: &PageMap<Entry>, lanes: &mut Lanes) {
        let key = self.keys.get_mut(name).expect("a key lives as long as a message of it waits");
        key.ready += 1;
        self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
    }

    /// The leased message of this key left the queue, by the record at `settled`; or it returned (`None`), and enters next.
    pub(crate) fn unlease(
        &mut self,
        name: &Arc<[u8]>,
        settled: Option<Position>,
        entries: &PageMap<Entry>,
        lanes: &mut Lanes,
    ) {
        let key = self.keys.get_mut(name).expect("a key lives as long as a message of it is leased");
        key.leased = None;
        if let Some(settled) = settled {
            key.settled = settled;
            self.settle(name, entries, lanes);
        }
    }

    /// A key is parked, or goes on.
    pub(crate) fn park(&mut self, name: &[u8], parked: bool, entries: &PageMap<Entry>, lanes: &mut Lanes) {
        if let Some(key) = self.keys.get_mut(name) {
            key.parked = parked;
            self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
        }
    }

    /// Takes the key's head, if it is this one and may go; the record that its delivery waits for.
    pub(crate) fn take(
        &mut self,
        name: &Arc<[u8]>,
        sequence: Sequence,
        entries: &PageMap<Entry>,
    ) -> Option<Position> {
        let key = self.keys.get_mut(name)?;
        if key.offered == Some(sequence) {
            key.offered = None;
        }
        let free =
            key.leased.is_none() && !key.parked && head(key, entries) == Some((sequence, State::Ready));
        free.then_some(key.settled)
    }

    /// The head that was taken is not delivered after all.
    pub(crate) fn put_back(&mut self, name: &Arc<[u8]>, entries: &PageMap<Entry>, lanes: &mut Lanes) {
        let key = self.keys.get_mut(name).expect("its head was just taken");
        self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
    }

    /// Whether the message waits behind a head that backs off, or its key is parked.
    pub(crate) fn is_parked(&self, name: &[u8]) -> bool {
        self.keys.get(name).is_some_and(|key| key.counted > 0)
    }

    fn settle(&mut self, name: &Arc<[u8]>, entries: &PageMap<Entry>, lanes: &mut Lanes) {
        let key = self.keys.get_mut(name).expect("the caller just had it");
        self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
        if key.waiting == 0 && key.leased.is_none() {
            self.keys.remove(name);
        }
    }
}

/// Offers the head when it may go, and keeps the count of parked messages.
fn refresh(key: &mut Key, waiting_parked: u64, entries: &PageMap<Entry>, lanes: &mut Lanes) -> u64 {
    let head = head(key, entries);
    let blocked = key.parked || matches!(head, Some((_, State::Delayed)));
    if let Some((sequence, State::Ready)) = head
        && !blocked
        && key.leased.is_none()
        && key.offered != Some(sequence)
    {
        lanes.add(KEY_LANE, sequence);
        key.offered = Some(sequence);
    }
    let before = std::mem::replace(&mut key.counted, if blocked { key.ready } else { 0 });
    waiting_parked - u64::from(before) + u64::from(key.counted)
}

/// The first that still waits in order; what no longer does is dropped on the way.
fn head(key: &mut Key, entries: &PageMap<Entry>) -> Option<(Sequence, State)> {
    if key.waiting == 0 {
        key.lane = Lane::default();
        return None;
    }
    loop {
        let first = key.lane.first()?;
        match entries.get(first.0) {
            Some(entry) if entry.in_order() => return Some((first, entry.state)),
            _ => key.lane.pop(),
        };
    }
}
