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

/// Tables of the keys of one queue.
const TABLES: usize = 256;

/// The keys of one queue. A key is here while a message of it is in order or leased.
#[derive(Default)]
pub(crate) struct Keys {
    keys: Tables,
    /// Messages behind a head that backs off, or of a parked key.
    pub(crate) waiting_parked: u64,
    /// The last record that settled a message of a key which is no longer here. A message that enters later under an older
    /// record (redriven, or due only now) waits for it.
    forgotten: Position,
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
        Keys { keys: Tables { tables: Vec::new(), hash_key }, waiting_parked: 0, forgotten: Position(0) }
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
            None => self.keys.add(name, Key { parked, settled: self.forgotten, ..Key::default() }),
        };
        key.lane.add(sequence);
        key.waiting += 1;
        key.ready += u32::from(state == State::Ready);
        // Behind a head that stays, what left the middle would pile up.
        if key.lane.len() > 2 * key.waiting as usize + 64 {
            key.lane.retain(|sequence| entries.get(sequence.0).is_some_and(Entry::in_order));
        }
        self.waiting_parked = refresh(key, self.waiting_parked, entries, lanes);
    }

    /// A waiting message of this state left the order: removed by the record at `settled`, or leased (`None`). Its entry says
    /// so already.
    pub(crate) fn leave(
        &mut self,
        name: &Arc<[u8]>,
        sequence: Sequence,
        state: State,
        settled: Option<Position>,
        entries: &PageMap<Entry>,
        lanes: &mut Lanes,
    ) {
        let key = self.keys.get_mut(name).expect("a key lives as long as a message of it waits");
        key.waiting -= 1;
        key.ready -= u32::from(state == State::Ready);
        if key.offered == Some(sequence) {
            key.offered = None;
        }
        match settled {
            Some(settled) => key.settled = key.settled.max(settled),
            None => {
                assert!(key.leased.is_none(), "two messages of one key are leased at once");
                key.leased = Some(sequence);
            }
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
            key.settled = key.settled.max(settled);
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
            self.forgotten = self.forgotten.max(key.settled);
            self.keys.remove(name);
        }
    }

    /// The key's messages go with their queue: nothing of it is asked for again.
    pub(crate) fn forget(&mut self, name: &[u8]) {
        self.keys.remove(name);
    }
}

/// Keys by name, in many small tables: a large one stops the world when it grows.
#[derive(Default)]
struct Tables {
    /// None until the first key comes; then the name's hash chooses one.
    tables: Vec<HashMap<Arc<[u8]>, Key, HashKey>>,
    hash_key: HashKey,
}

impl Tables {
    fn get(&self, name: &[u8]) -> Option<&Key> {
        self.tables.get(self.number(name))?.get(name)
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Key> {
        let number = self.number(name);
        self.tables.get_mut(number)?.get_mut(name)
    }

    fn add(&mut self, name: &Arc<[u8]>, key: Key) -> &mut Key {
        if self.tables.is_empty() {
            self.tables.resize_with(TABLES, || HashMap::with_hasher(self.hash_key));
        }
        let number = self.number(name);
        self.tables[number].entry(name.clone()).insert_entry(key).into_mut()
    }

    fn remove(&mut self, name: &[u8]) {
        let number = self.number(name);
        if let Some(table) = self.tables.get_mut(number) {
            table.remove(name);
        }
    }

    fn number(&self, name: &[u8]) -> usize {
        self.hash_key.id(name) as usize % TABLES
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
