//! The ids of the window: which were taken lately, as what, and until when. It knows hashes, numbers and times, neither topics
//! nor queues.
//!
//! The truth is a log in order of arrival, one for each (window, durability) that occurs, in segments that a snapshot shares.
//! What finds an id in it is 1,024 small open-addressing tables chosen by bits of its hash: one large table stops the world
//! when it grows, a small one for some tens of microseconds. An id costs 28 bytes of log and 12 to 16 of table.

use std::collections::VecDeque;
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::config::Durability;
use crate::effect::Wait;
use crate::ids::{Millis, Position, Sequence};

/// Ids in one segment of the log.
const SEGMENT_IDS: usize = 4_096;
/// Tables: the top 10 bits of a hash choose one.
const TABLES: usize = 1_024;
/// Slots of the smallest table.
const LEAST_SLOTS: usize = 16;
/// The distance of an id under which nothing was stored: it has no number.
const NO_NUMBER: u32 = u32::MAX;
/// Ids that are looked up together when they go.
const GLANCE: usize = 16;
/// Ids that one `insert` lets go at most, expired or early: more than it brings, so that a lowered bound is reached.
const BUDGET: usize = 4;

/// What is remembered of an id.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first stored copy's number (0: none was stored), or the number under which a transaction's outcome is kept.
    pub(crate) sequence: Sequence,
    /// What a duplicate's confirm waits for.
    pub(crate) wait: Wait,
    /// Until when it is remembered.
    pub(crate) expires: Millis,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Dedup {
    tables: Vec<Table>,
    /// Sorted by (window, durability), so that eviction doesn't depend on the order in which they came to be.
    logs: Vec<Log>,
    /// The logs' segments; a place is a segment's index here and an offset in it. Free ones are `None`.
    segments: Vec<Option<Arc<Segment>>>,
    free: Vec<u32>,
    len: usize,
    max: usize,
    /// Arrival of the newest id that had to go early.
    forgotten: Option<Millis>,
}

/// Ids with the same window, so that they expire in the order in which they came.
#[derive(Debug)]
struct Log {
    window_ms: u64,
    durability: Durability,
    segments: VecDeque<u32>,
    /// Ids of the first segment that are gone.
    gone: usize,
    last_at: Millis,
}

/// A run of ids; numbers are kept as distances from the first one's.
#[derive(Clone, Debug)]
struct Segment {
    window_ms: u64,
    durability: Durability,
    at: u64,
    /// 0 as long as no id has a number.
    sequence: u64,
    position: u64,
    ids: Vec<Id>,
}

#[derive(Copy, Clone, Debug)]
struct Id {
    hash: [u32; 4],
    at: u32,
    sequence: u32,
    position: u32,
}

/// A part of the window, as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Remembered {
    pub(crate) window_ms: u64,
    pub(crate) durability: Durability,
    /// In order of arrival.
    pub(crate) ids: Vec<RememberedId>,
}

/// One id of it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct RememberedId {
    pub(crate) hash: u128,
    pub(crate) at: Millis,
    pub(crate) sequence: Sequence,
    pub(crate) position: Position,
}

impl Dedup {
    /// An empty window of at most `max` ids.
    pub(crate) fn new(max: u64) -> Dedup {
        let mut dedup = Dedup {
            tables: (0..TABLES).map(|_| Table::default()).collect(),
            logs: Vec::new(),
            segments: Vec::new(),
            free: Vec::new(),
            len: 0,
            max: 0,
            forgotten: None,
        };
        dedup.set_max(max);
        dedup
    }

    /// Another bound; the surplus goes with the next inserts.
    pub(crate) fn set_max(&mut self, max: u64) {
        // A place has 32 bits.
        self.max = max.clamp(1, 1 << 31) as usize;
    }

    /// Ids remembered, those expired and not yet let go included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What is known of an id.
    pub(crate) fn check(&self, hash: u128, now: Millis) -> Option<Entry> {
        let place = self.table(hash).find(tag(hash), |place| self.hash_at(place) == hash)?.1;
        Some(self.entry(place)).filter(|entry| entry.expires > now)
    }

    /// What lies where [`Dedup::check`] begins to look.
    pub(crate) fn glance(&self, hash: u128) -> u64 {
        let slots = &self.table(hash).slots;
        slots.get(tag(hash) as usize & slots.len().wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Remembers an id from `at` on for the window; times of one window must not decrease. Lets a few old ones go.
    pub(crate) fn insert(&mut self, hash: u128, sequence: Sequence, wait: Wait, at: Millis, window_ms: u64) {
        self.expire(at, BUDGET);
        self.push(hash, sequence, wait, at, window_ms);
        for _ in 0..BUDGET {
            if self.len <= self.max {
                return;
            }
            self.evict(at);
        }
    }

    /// Lets at most `budget` expired ids go; answers how many.
    pub(crate) fn expire(&mut self, now: Millis, budget: usize) -> usize {
        let mut count = 0;
        let mut log = 0;
        while log < self.logs.len() && count < budget {
            match self.glance_at_expired(log, now, (budget - count).min(GLANCE)) {
                // The next log has its turn.
                0 => log += 1,
                expired => {
                    // The log goes with its last id, and the next takes its index.
                    (0..expired).for_each(|_| self.drop_oldest(log));
                    count += expired;
                }
            }
        }
        count
    }

    /// How many of the log's oldest ids have expired, those of its first segment and `most` at most. Looks at where the tables hold
    /// them, all at once: one after another, each would wait for memory.
    fn glance_at_expired(&self, log: usize, now: Millis, most: usize) -> usize {
        let Log { window_ms, segments, gone, .. } = &self.logs[log];
        let Some(first) = segments.front() else { return 0 };
        let segment = self.segment(*first);
        let expired = |id: &&Id| Millis(segment.at + u64::from(id.at)).after(*window_ms) <= now;
        let (mut count, mut seen) = (0, 0);
        for id in segment.ids[*gone..].iter().take(most).take_while(expired) {
            seen ^= self.glance(id.hash());
            count += 1;
        }
        std::hint::black_box(seen);
        count
    }

    /// When the next id expires.
    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        (0..self.logs.len()).filter_map(|log| Some(self.oldest(log)?.after(self.logs[log].window_ms))).min()
    }

    /// How long an id is surely remembered: `wanted_ms`, unless newer ones than that had to go early.
    pub(crate) fn real_window_ms(&self, now: Millis, wanted_ms: u64) -> u64 {
        self.forgotten.map_or(wanted_ms, |at| now.0.saturating_sub(at.0).min(wanted_ms))
    }

    /// Whether ids had to go early, as far as `forgive` was not called since.
    pub(crate) fn forgot(&self) -> bool {
        self.forgotten.is_some()
    }

    /// Arrival of the newest id that had to go early, for a snapshot; see [`Dedup::recall`].
    pub(crate) fn forgotten(&self) -> Option<Millis> {
        self.forgotten
    }

    /// What had to go early before a start is still unknown after it.
    pub(crate) fn recall(&mut self, forgotten: Option<Millis>) {
        self.forgotten = forgotten;
    }

    /// The window is whole again: what went early would have expired by now.
    pub(crate) fn forgive(&mut self) {
        self.forgotten = None;
    }

    /// The window as it is now, cheaply: what only `memory` queues took is left out.
    pub(crate) fn image(&self) -> DedupImage {
        let runs = self.logs.iter().filter(|log| log.durability != Durability::Memory).flat_map(|log| {
            log.segments.iter().enumerate().map(|(index, segment)| {
                let gone = if index == 0 { log.gone } else { 0 };
                (gone, self.segment(*segment).clone())
            })
        });
        DedupImage { runs: runs.collect() }
    }

    /// Takes back what an image yielded, part by part in its order. Never lets anything go.
    pub(crate) fn restore(&mut self, part: Remembered) -> Result<(), &'static str> {
        if !part.ids.is_sorted_by_key(|id| id.at) {
            return Err("ids of the dedup window are out of order");
        }
        if self.len + part.ids.len() > 1 << 31 {
            return Err("the dedup window holds too many ids");
        }
        for id in part.ids {
            let wait = Wait { position: id.position, durability: part.durability };
            self.push(id.hash, id.sequence, wait, id.at, part.window_ms);
        }
        Ok(())
    }

    fn push(&mut self, hash: u128, sequence: Sequence, wait: Wait, at: Millis, window_ms: u64) {
        let key = (window_ms, wait.durability);
        let log = match self.logs.binary_search_by_key(&key, |log| (log.window_ms, log.durability)) {
            Ok(log) => log,
            Err(log) => {
                self.logs.insert(log, Log::new(window_ms, wait.durability));
                log
            }
        };
        let at = at.max(self.logs[log].last_at);
        self.logs[log].last_at = at;
        let place = self.append(log, hash, at, sequence, wait.position);
        self.len += 1;

        let known = self.table(hash).find(tag(hash), |place| self.hash_at(place) == hash);
        let number = table(hash);
        match known {
            // An expired one that was not let go yet gives way; of two parts of a snapshot the later one counts.
            Some((slot, known)) if self.entry(known).expires <= at.after(window_ms) => {
                self.tables[number].slots[slot] = pack(tag(hash), place);
            }
            Some(_) => {}
            None => self.tables[number].insert(tag(hash), place, number),
        }
    }

    /// Writes an id behind the others of its log, in a new segment when the last is full or the numbers are too far apart.
    fn append(&mut self, log: usize, hash: u128, at: Millis, sequence: Sequence, position: Position) -> u32 {
        let words = [hash as u32, (hash >> 32) as u32, (hash >> 64) as u32, (hash >> 96) as u32];
        if let Some(&last) = self.logs[log].segments.back() {
            let segment = self.segments[last as usize].as_mut().expect("a log's segments exist");
            let distance =
                |number: u64, base: u64| number.checked_sub(base).and_then(|far| u32::try_from(far).ok());
            // Until the first id with a number comes, there is none to count from.
            let base = if segment.sequence == 0 { sequence.0 } else { segment.sequence };
            let far = if sequence.0 == 0 {
                Some(NO_NUMBER)
            } else {
                distance(sequence.0, base).filter(|far| *far != NO_NUMBER)
            };
            if segment.ids.len() < SEGMENT_IDS
                && let Some(at) = distance(at.0, segment.at)
                && let Some(sequence) = far
                && let Some(position) = distance(position.0, segment.position)
            {
                let segment = Arc::make_mut(segment);
                segment.sequence = base;
                segment.ids.push(Id { hash: words, at, sequence, position });
                return place(last, segment.ids.len() - 1);
            }
        }
        // The first segment of a log grows with it, the others are made whole.
        let mut ids = Vec::with_capacity(if self.logs[log].segments.is_empty() { 4 } else { SEGMENT_IDS });
        let first = if sequence.0 == 0 { NO_NUMBER } else { 0 };
        ids.push(Id { hash: words, at: 0, sequence: first, position: 0 });
        let Log { window_ms, durability, .. } = self.logs[log];
        let (at, sequence, position) = (at.0, sequence.0, position.0);
        let segment = Arc::new(Segment { window_ms, durability, at, sequence, position, ids });
        let number = match self.free.pop() {
            Some(number) => {
                self.segments[number as usize] = Some(segment);
                number
            }
            None => {
                self.segments.push(Some(segment));
                (self.segments.len() - 1) as u32
            }
        };
        assert!(number < u32::MAX / SEGMENT_IDS as u32, "the log's places have 32 bits");
        self.logs[log].segments.push_back(number);
        place(number, 0)
    }

    fn evict(&mut self, now: Millis) {
        let oldest = (0..self.logs.len()).filter_map(|log| Some((self.oldest(log)?, log))).min();
        let Some((at, log)) = oldest else { return };
        if at.after(self.logs[log].window_ms) > now {
            self.forgotten = self.forgotten.max(Some(at));
        }
        self.drop_oldest(log);
    }

    /// Arrival of the log's oldest id.
    fn oldest(&self, log: usize) -> Option<Millis> {
        let log = &self.logs[log];
        let segment = self.segment(*log.segments.front()?);
        Some(Millis(segment.at + u64::from(segment.ids[log.gone].at)))
    }

    /// Lets the log's oldest id go, and with it what is then empty.
    fn drop_oldest(&mut self, number: usize) {
        let log = &mut self.logs[number];
        let first = *log.segments.front().expect("a log without ids doesn't exist");
        let gone = place(first, log.gone);
        log.gone += 1;
        let segment_ends =
            log.gone == self.segments[first as usize].as_ref().expect("a log's segments exist").ids.len();
        let hash = self.hash_at(gone);
        let slot = self.table(hash).find(tag(hash), |place| place == gone).map(|(slot, _)| slot);
        if let Some(slot) = slot {
            self.tables[table(hash)].remove(slot);
        }
        self.len -= 1;
        if segment_ends {
            let log = &mut self.logs[number];
            log.segments.pop_front();
            log.gone = 0;
            self.segments[first as usize] = None;
            self.free.push(first);
            if log.segments.is_empty() {
                self.logs.remove(number);
            }
        }
    }

    fn table(&self, hash: u128) -> &Table {
        &self.tables[table(hash)]
    }

    fn segment(&self, number: u32) -> &Arc<Segment> {
        self.segments[number as usize].as_ref().expect("a log's and a table's segments exist")
    }

    fn hash_at(&self, place: u32) -> u128 {
        let segment = self.segment(place / SEGMENT_IDS as u32);
        segment.ids[place as usize % SEGMENT_IDS].hash()
    }

    fn entry(&self, place: u32) -> Entry {
        let segment = self.segment(place / SEGMENT_IDS as u32);
        let id = segment.id(place as usize % SEGMENT_IDS);
        let wait = Wait { position: id.position, durability: segment.durability };
        Entry { sequence: id.sequence, wait, expires: id.at.after(segment.window_ms) }
    }
}

impl Log {
    fn new(window_ms: u64, durability: Durability) -> Log {
        Log { window_ms, durability, segments: VecDeque::new(), gone: 0, last_at: Millis(0) }
    }
}

impl Segment {
    fn id(&self, index: usize) -> RememberedId {
        let id = &self.ids[index];
        RememberedId {
            hash: id.hash(),
            at: Millis(self.at + u64::from(id.at)),
            sequence: if id.sequence == NO_NUMBER {
                Sequence(0)
            } else {
                Sequence(self.sequence + u64::from(id.sequence))
            },
            position: Position(self.position + u64::from(id.position)),
        }
    }
}

impl Id {
    fn hash(&self) -> u128 {
        self.hash.iter().rev().fold(0, |hash, word| hash << 32 | u128::from(*word))
    }
}

/// The window as it was; yields its parts. Can go to another thread.
#[derive(Clone, Debug)]
pub(crate) struct DedupImage {
    /// Segments, and how many ids of each are gone.
    runs: VecDeque<(usize, Arc<Segment>)>,
}

impl Iterator for DedupImage {
    type Item = Remembered;

    fn next(&mut self) -> Option<Remembered> {
        let (gone, segment) = self.runs.pop_front()?;
        let ids = (gone..segment.ids.len()).map(|index| segment.id(index)).collect();
        Some(Remembered { window_ms: segment.window_ms, durability: segment.durability, ids })
    }
}

fn place(segment: u32, index: usize) -> u32 {
    segment * SEGMENT_IDS as u32 + index as u32
}

fn table(hash: u128) -> usize {
    (hash >> 118) as usize
}

fn tag(hash: u128) -> u32 {
    hash as u32
}

/// Never 0, which is an empty slot: places stay below 2^32 - 1.
fn pack(tag: u32, place: u32) -> u64 {
    u64::from(tag) << 32 | (u64::from(place) + 1)
}

/// Open addressing with linear probing; a slot holds the tag, whose low bits are its home, and the place plus 1.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<u64>,
    len: usize,
}

impl Table {
    /// The slot and place of the first id with this tag that `is` says is the one.
    fn find(&self, tag: u32, is: impl Fn(u32) -> bool) -> Option<(usize, u32)> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = tag as usize & mask;
        loop {
            let held = self.slots[slot];
            if held == 0 {
                return None;
            }
            let place = held as u32 - 1;
            if (held >> 32) as u32 == tag && is(place) {
                return Some((slot, place));
            }
            slot = (slot + 1) & mask;
        }
    }

    fn insert(&mut self, tag: u32, place: u32, number: usize) {
        // Each table has a bound of its own between 60 and 80 %, so that they don't all grow at the same moment.
        let bound = 60 + number % 21;
        if (self.len + 1) * 100 > self.slots.len() * bound {
            self.resize((self.slots.len() * 2).max(LEAST_SLOTS));
        }
        self.put(pack(tag, place));
        self.len += 1;
    }

    fn remove(&mut self, slot: usize) {
        let mask = self.slots.len() - 1;
        let (mut hole, mut next) = (slot, slot);
        loop {
            next = (next + 1) & mask;
            let held = self.slots[next];
            if held == 0 {
                break;
            }
            // What lies behind the hole moves into it, unless its home lies between them.
            let home = (held >> 32) as usize & mask;
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = held;
                hole = next;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
        if self.slots.len() > LEAST_SLOTS && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        old.into_iter().filter(|held| *held != 0).for_each(|held| self.put(held));
    }

    fn put(&mut self, held: u64) {
        let mask = self.slots.len() - 1;
        let mut slot = (held >> 32) as usize & mask;
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = held;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::backoff::Random;
    use crate::hash::Plain;

    const WINDOW: u64 = 120_000;

    fn wait(position: u64) -> Wait {
        Wait { position: Position(position), durability: Durability::Fsync }
    }

    fn hash(number: u64) -> u128 {
        let mut random = Random::new(number);
        u128::from(random.draw()) << 64 | u128::from(random.draw())
    }

    /// `count` ids, one each millisecond.
    fn filled(count: u64, max: u64) -> Dedup {
        let mut dedup = Dedup::new(max);
        for number in 1..=count {
            dedup.insert(hash(number), Sequence(number), wait(number), Millis(number), WINDOW);
        }
        dedup
    }

    fn knows(dedup: &Dedup, number: u64, now: u64) -> bool {
        dedup.check(hash(number), Millis(now)).is_some_and(|entry| entry.sequence == Sequence(number))
    }

    #[test]
    fn id_is_known_until_its_window_ends() {
        let dedup = filled(10_000, u64::MAX);
        assert_eq!(
            dedup.check(hash(17), Millis(10_000)),
            Some(Entry { sequence: Sequence(17), wait: wait(17), expires: Millis(17 + WINDOW) })
        );
        assert!(knows(&dedup, 17, 16 + WINDOW) && !knows(&dedup, 17, 17 + WINDOW));
        assert!(!knows(&dedup, 10_001, 1));
    }

    #[test]
    fn expiry_is_in_order_of_arrival_and_bounded() {
        let mut dedup = filled(10_000, u64::MAX);
        assert_eq!(dedup.next_expiry(), Some(Millis(1 + WINDOW)));
        assert_eq!(dedup.expire(Millis(5_000 + WINDOW), 3_000), 3_000);
        assert_eq!(dedup.expire(Millis(5_000 + WINDOW), 3_000), 2_000);
        assert_eq!((dedup.len(), dedup.next_expiry()), (5_000, Some(Millis(5_001 + WINDOW))));
        assert_eq!(dedup.expire(Millis(u64::MAX), usize::MAX), 5_000);
        assert!(dedup.logs.is_empty() && dedup.segments.iter().all(Option::is_none));
        assert!(dedup.tables.iter().all(|table| table.len == 0 && table.slots.len() <= LEAST_SLOTS));
        assert_eq!(dedup.next_expiry(), None);
    }

    #[test]
    fn beyond_the_bound_the_oldest_go_early_and_the_real_window_shrinks() {
        let mut dedup = filled(10_000, 4_000);
        assert_eq!(dedup.len(), 4_000);
        assert!(!knows(&dedup, 6_000, 10_000) && knows(&dedup, 6_001, 10_000));
        assert_eq!(dedup.real_window_ms(Millis(10_000), WINDOW), 4_000);
        assert_eq!(dedup.real_window_ms(Millis(70_000), WINDOW), 64_000);
        assert_eq!(dedup.real_window_ms(Millis(500_000), WINDOW), WINDOW);
        dedup.set_max(100);
        for number in 10_001..=12_000 {
            dedup.insert(hash(number), Sequence(number), wait(number), Millis(10_000), WINDOW);
        }
        assert_eq!(dedup.len(), 100);
    }

    #[test]
    fn image_restores_all_but_what_only_memory_had() {
        let mut dedup = filled(10_000, u64::MAX);
        dedup.expire(Millis(500 + WINDOW), 500);
        let memory = Wait { position: Position(0), durability: Durability::Memory };
        dedup.insert(hash(20_000), Sequence(20_000), memory, Millis(10_000), WINDOW);
        dedup.insert(hash(20_001), Sequence(20_001), wait(1), Millis(10_000), 10 * WINDOW);
        let image = dedup.image();
        dedup.expire(Millis(u64::MAX), usize::MAX);
        let mut restored = Dedup::new(u64::MAX);
        for part in image {
            restored.restore(part).expect("an image's own part");
        }
        assert_eq!(restored.len(), 9_501);
        assert!((501..=10_000).all(|number| knows(&restored, number, 10_000)));
        assert!(!knows(&restored, 20_000, 10_000) && knows(&restored, 20_001, 5 * WINDOW));
        assert_eq!(restored.next_expiry(), Some(Millis(501 + WINDOW)));
        let id = |at| RememberedId { hash: 1, at: Millis(at), sequence: Sequence(1), position: Position(1) };
        let disorder = Remembered { window_ms: 1, durability: Durability::Os, ids: vec![id(2), id(1)] };
        assert!(restored.restore(disorder).is_err());
    }

    #[test]
    fn ids_without_a_number_take_no_more_room_than_others() {
        let mut dedup = Dedup::new(u64::MAX);
        let number = |id: u64| if id.is_multiple_of(2) { id } else { 0 };
        for id in 1..=10_000 {
            dedup.insert(hash(id), Sequence(number(id)), wait(id), Millis(id), WINDOW);
        }
        assert_eq!(dedup.logs[0].segments.len(), 3);
        for id in [1, 2, 9_998, 9_999] {
            let known = dedup.check(hash(id), Millis(10_000)).map(|entry| entry.sequence);
            assert_eq!(known, Some(Sequence(number(id))));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert { id: u64, window: u64, durability: Durability, stored: bool },
        Pass(u64),
        Expire(usize),
        Leap,
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        let durability = prop::sample::select(vec![Durability::Os, Durability::Fsync]);
        prop_oneof![
            6 => (0..40_u64, 1..4_u64, durability, any::<bool>()).prop_map(|(id, window, durability, stored)| {
                Step::Insert { id, window: window * 1_000, durability, stored }
            }),
            3 => (0..700_u64).prop_map(Step::Pass),
            1 => (0..20_usize).prop_map(Step::Expire),
            1 => Just(Step::Leap),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn knows_exactly_what_a_map_with_expiries_knows(steps in prop::collection::vec(step(), 0..120)) {
            let mut dedup = Dedup::new(u64::MAX);
            let mut model: HashMap<u64, Entry, Plain> = HashMap::default();
            let (mut now, mut number) = (Millis(1), 1);
            for step in steps {
                match step {
                    Step::Insert { id, window, durability, stored } => {
                        let known = model.get(&id).copied().filter(|entry| entry.expires > now);
                        prop_assert_eq!(dedup.check(hash(id), now), known);
                        if known.is_none() {
                            let wait = Wait { position: Position(number), durability };
                            let sequence = Sequence(if stored { number } else { 0 });
                            dedup.insert(hash(id), sequence, wait, now, window);
                            model.insert(id, Entry { sequence, wait, expires: now.after(window) });
                        }
                    }
                    Step::Pass(ms) => now = now.after(ms),
                    Step::Expire(budget) => { dedup.expire(now, budget); }
                    // Farther than a segment's distances reach.
                    Step::Leap => {
                        number += 1 << 33;
                        now = now.after(1 << 33);
                    }
                    Step::Restart => {
                        let image = dedup.image();
                        dedup = Dedup::new(u64::MAX);
                        for part in image {
                            prop_assert!(dedup.restore(part).is_ok());
                        }
                    }
                }
                number += 1;
                for id in 0..40 {
                    let known = model.get(&id).copied().filter(|entry| entry.expires > now);
                    prop_assert_eq!(dedup.check(hash(id), now), known);
                }
            }
        }
    }
}
