//! A snapshot: the durable state as it was at one moment, in chunks that another thread encodes, and the way back. Not in it:
//! what can be rebuilt (indexes, timers, reference counts) and what is volatile (`memory` queues' messages among it).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::apply::MAX_NUMBER;
use crate::broker::Broker;
use crate::codec::{self, RecordError};
use crate::config::{Durability, QueueSettings, Rules};
use crate::dedup::{DedupImage, Remembered};
use crate::effect::Confirmation;
use crate::hash::HashKey;
use crate::ids::{Millis, Position, QueueId, Sequence};
use crate::message::{DeadInfo, Render};
use crate::messages::{More, Rare, RequestName, Stored};
use crate::pages::PageMap;
use crate::queue::{Entry, Kind, PARKS, Queue, State, Totals};
use crate::queues::{CHASKI, MAX_QUEUE_ID, Queues};
use crate::rules::{RulesEntry, chaski_settings, dead_settings};
use crate::states::{StateRow, StatesImage};
use crate::steering_image::{GatherRows, Restored, SagaRows, SteeringImage};
use crate::transactions::{Outcome, Outcomes};

/// The version of the chunks' form.
const FORMAT: u32 = 3;
/// A chunk has about so many bytes; one row more than fits.
const CHUNK_BYTES: usize = 1 << 20;

/// Why chunks are no snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A chunk doesn't decode.
    #[error("a chunk of the snapshot is damaged: {0}")]
    Decode(RecordError),
    /// The form is another version's.
    #[error("the snapshot has format {found}; this version reads {FORMAT}")]
    Format {
        /// Its version.
        found: u32,
    },
    /// What one chunk says contradicts another.
    #[error("the snapshot contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The last chunk never came.
    #[error("the snapshot is not whole")]
    Incomplete,
}

/// What one chunk holds.
#[derive(Encode, Decode)]
enum Part {
    Head(Head),
    History(RulesEntry),
    Queue(QueueRow),
    Messages(Vec<(Sequence, MessageRow)>),
    Entries { queue: QueueId, rows: Vec<(Sequence, Entry)> },
    Letters { queue: QueueId, rows: Vec<(Sequence, DeadInfo)> },
    Redriven { queue: QueueId, rows: Vec<(Sequence, Millis)> },
    Window(Remembered),
    Outcomes(Vec<(Sequence, OutcomeRow)>),
    State { module: String, rows: Vec<StateRow> },
    Gathers(GatherRows),
    Sagas(SagaRows),
    End { messages: u64, entries: u64 },
}

#[derive(Encode, Decode)]
struct Head {
    format: u32,
    hash_key: (u64, u64),
    reserved: u64,
    position: Position,
    now: Millis,
    next_queue: u32,
    /// Arrival of the newest id that had to leave the dedup window early.
    forgotten: Option<Millis>,
    rules: Arc<Rules>,
}

#[derive(Encode, Decode)]
struct QueueRow {
    id: QueueId,
    name: Arc<str>,
    kind: Kind,
    paused: bool,
    totals: Totals,
}

#[derive(Encode, Decode)]
struct MessageRow {
    position: Position,
    published_at: Millis,
    id: u64,
    len: u32,
    priority: u8,
    relocated: bool,
    key: Option<Vec<u8>>,
    more: Option<(Option<u64>, Option<Millis>, Option<RequestName>)>,
}

#[derive(Encode, Decode)]
struct OutcomeRow {
    until: Millis,
    durability: Durability,
    confirmations: Vec<Confirmation>,
}

/// The state at one moment. Taking it copies a few pointers a thousand messages; its chunks are made as they are asked for,
/// on whatever thread that is.
pub struct Snapshot {
    first: VecDeque<Part>,
    history: VecDeque<Arc<RulesEntry>>,
    messages: PageMap<Stored>,
    next_message: u64,
    queues: VecDeque<QueueImage>,
    window: DedupImage,
    outcomes: Outcomes,
    next_outcome: u64,
    states: StatesImage,
    steering: SteeringImage,
    messages_told: u64,
    entries_told: u64,
    ended: bool,
}

struct QueueImage {
    id: QueueId,
    entries: PageMap<Entry>,
    next_entry: u64,
    letters: PageMap<Arc<DeadInfo>>,
    next_letter: u64,
    redriven: PageMap<Millis>,
    next_redriven: u64,
}

impl Broker {
    /// The durable state as it is now.
    pub fn snapshot(&self) -> Snapshot {
        let mut first = VecDeque::from([Part::Head(Head {
            format: FORMAT,
            hash_key: (self.hash_key.0, self.hash_key.1),
            reserved: self.reserved,
            position: self.position,
            now: self.now,
            next_queue: self.queues.next_id().0,
            forgotten: self.dedup.forgotten(),
            rules: self.rules.clone(),
        })]);
        let mut queues = VecDeque::new();
        for queue in self.queues.iter() {
            let (id, name) = (queue.id, queue.name.clone());
            first.push_back(Part::Queue(QueueRow {
                id,
                name,
                kind: queue.kind,
                paused: queue.paused,
                totals: queue.totals,
            }));
            if queue.journaled() && queue.len() > 0 {
                queues.push_back(QueueImage {
                    id,
                    entries: queue.entries.clone(),
                    next_entry: 0,
                    letters: queue.dead.clone(),
                    next_letter: 0,
                    redriven: queue.redriven.clone(),
                    next_redriven: 0,
                });
            }
        }
        Snapshot {
            first,
            history: self.history.clone(),
            messages: self.messages.pages(),
            next_message: 0,
            queues,
            window: self.dedup.image(),
            outcomes: self.transactions.clone(),
            next_outcome: 0,
            states: self.states.image(),
            steering: SteeringImage::new(&self.gathers, &self.sagas),
            messages_told: 0,
            entries_told: 0,
            ended: false,
        }
    }

    /// Takes a snapshot's chunks back, in their order.
    pub fn restore(seed: u64, render: Render) -> Restore {
        Restore {
            broker: Broker::new(seed, render),
            settings: BTreeMap::new(),
            next_queue: 0,
            begun: false,
            ended: false,
            messages: 0,
            entries: 0,
            steering: Restored::default(),
        }
    }
}

impl Iterator for Snapshot {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        while chunk.len() < CHUNK_BYTES
            && let Some(part) = self.next_part()
        {
            codec::encode(&part, &mut chunk);
        }
        (!chunk.is_empty()).then_some(chunk)
    }
}

impl Snapshot {
    fn next_part(&mut self) -> Option<Part> {
        if let Some(part) = self.first.pop_front() {
            return Some(part);
        }
        if let Some(entry) = self.history.pop_front() {
            return Some(Part::History((*entry).clone()));
        }
        let rows = gather(&self.messages, &mut self.next_message, |stored| {
            let row = (stored.position.0 > 0).then(|| MessageRow::from(stored))?;
            let size = 32 + row.key.as_ref().map_or(0, Vec::len) + row.more.as_ref().map_or(0, |_| 512);
            Some((row, size))
        });
        if !rows.is_empty() {
            self.messages_told += rows.len() as u64;
            return Some(Part::Messages(rows));
        }
        while let Some(queue) = self.queues.front_mut() {
            let rows = gather(&queue.entries, &mut queue.next_entry, |entry| Some((*entry, 24)));
            if !rows.is_empty() {
                self.entries_told += rows.len() as u64;
                return Some(Part::Entries { queue: queue.id, rows });
            }
            let rows =
                gather(&queue.letters, &mut queue.next_letter, |info| Some(((**info).clone(), info.size())));
            if !rows.is_empty() {
                return Some(Part::Letters { queue: queue.id, rows });
            }
            let rows = gather(&queue.redriven, &mut queue.next_redriven, |at| Some((*at, 16)));
            if !rows.is_empty() {
                return Some(Part::Redriven { queue: queue.id, rows });
            }
            self.queues.pop_front();
        }
        if let Some(part) = self.window.next() {
            return Some(Part::Window(part));
        }
        let rows = gather(self.outcomes.rows(), &mut self.next_outcome, |outcome| {
            let Outcome { until, durability, ref confirmations } = *outcome;
            let confirmations = confirmations.to_vec();
            let size = 16 + 16 * confirmations.len();
            (durability != Durability::Memory)
                .then_some((OutcomeRow { until, durability, confirmations }, size))
        });
        if !rows.is_empty() {
            return Some(Part::Outcomes(rows));
        }
        if let Some((module, rows)) = self.states.next_rows(CHUNK_BYTES) {
            return Some(Part::State { module, rows });
        }
        if let Some(part) = self.steering.next_gathers(CHUNK_BYTES) {
            return Some(Part::Gathers(part));
        }
        if let Some(part) = self.steering.next_sagas(CHUNK_BYTES) {
            return Some(Part::Sagas(part));
        }
        let end = Part::End { messages: self.messages_told, entries: self.entries_told };
        (!std::mem::replace(&mut self.ended, true)).then_some(end)
    }
}

/// The next rows, about a chunk of them. None means that there are no more.
fn gather<T: Clone, R>(
    map: &PageMap<T>,
    next: &mut u64,
    row: impl Fn(&T) -> Option<(R, usize)>,
) -> Vec<(Sequence, R)> {
    let mut rows = Vec::new();
    let mut size = 0;
    for (key, value) in map.range(*next..) {
        if size >= CHUNK_BYTES {
            break;
        }
        *next = key + 1;
        if let Some((value, bytes)) = row(value) {
            rows.push((Sequence(key), value));
            size += bytes;
        }
    }
    rows
}

impl From<&Stored> for MessageRow {
    fn from(stored: &Stored) -> MessageRow {
        let more = stored.more().map(|more| (more.ttl_ms, more.deliver_at, more.request.clone()));
        MessageRow {
            position: stored.position,
            published_at: stored.published_at,
            id: stored.id,
            len: stored.len,
            priority: stored.priority,
            relocated: stored.relocated,
            key: stored.key().map(|key| key.to_vec()),
            more,
        }
    }
}

impl MessageRow {
    fn stored(self) -> Stored {
        let key = self.key.map(Arc::from);
        let more = self
            .more
            .map(|(ttl_ms, deliver_at, request)| Box::new(More { ttl_ms, deliver_at, request, body: None }));
        Stored {
            position: self.position,
            published_at: self.published_at,
            id: self.id,
            len: self.len,
            refs: 0,
            priority: self.priority.min(9),
            relocated: self.relocated,
            rare: (key.is_some() || more.is_some()).then(|| Arc::new(Rare { key, more })),
        }
    }
}

/// A snapshot on its way back: nobody vouches for its bytes.
pub struct Restore {
    broker: Broker,
    /// The rules' queues by name.
    settings: BTreeMap<String, QueueSettings>,
    next_queue: u32,
    begun: bool,
    ended: bool,
    messages: u64,
    entries: u64,
    steering: Restored,
}

impl Restore {
    /// Takes the next chunk.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), RestoreError> {
        while !chunk.is_empty() {
            let (part, used): (Part, usize) = codec::decode(chunk).map_err(RestoreError::Decode)?;
            chunk = &chunk[used..];
            if self.ended {
                return Err(RestoreError::Contradiction("something follows its end"));
            }
            if matches!(part, Part::Head(_)) == self.begun {
                return Err(RestoreError::Contradiction("its head is not its only beginning"));
            }
            self.take(part)?;
        }
        Ok(())
    }

    /// The broker as it was; records after [`Broker::position`] are to be replayed.
    pub fn finish(mut self) -> Result<Broker, RestoreError> {
        if !self.ended {
            return Err(RestoreError::Incomplete);
        }
        let broker = &mut self.broker;
        for name in self.settings.keys() {
            if broker.queues.id(name).is_none() {
                return Err(RestoreError::Contradiction("a queue of its rules is missing"));
            }
        }
        if broker.queues.get(CHASKI).is_none_or(|queue| !queue.is_dead()) {
            return Err(RestoreError::Contradiction("the built-in dead-letter queue is missing"));
        }
        for queue in broker.queues.iter() {
            let (letters, own) = (queue.dead.len(), queue.entries.len());
            let pair = match queue.kind {
                Kind::Ordinary { dead } => {
                    let dead = broker.queues.get(dead).map(|queue| queue.kind);
                    letters == 0 && dead == Some(Kind::Dead { source: Some(queue.id) })
                }
                Kind::Dead { .. } => letters == own,
            };
            if !pair {
                return Err(RestoreError::Contradiction("a queue and its dead letters don't fit"));
            }
        }
        broker.queues.reserve(self.next_queue);
        // Held only by queues that are not in it: `memory` ones, or those that were just dropped.
        broker.messages.drop_unheld();
        Ok(self.broker)
    }

    fn take(&mut self, part: Part) -> Result<(), RestoreError> {
        match part {
            Part::Head(head) => self.head(head),
            Part::History(entry) => {
                self.broker.history.push_back(Arc::new(entry));
                Ok(())
            }
            Part::Queue(row) => self.queue(row),
            Part::Messages(rows) => {
                rows.into_iter().try_for_each(|(sequence, row)| self.message(sequence, row))
            }
            Part::Entries { queue, rows } => {
                rows.into_iter().try_for_each(|(sequence, entry)| self.entry(queue, sequence, entry))
            }
            Part::Letters { queue, rows } => {
                let queue = self.find(queue)?;
                for (sequence, info) in rows {
                    if !queue.entries.contains(sequence.0) {
                        return Err(RestoreError::Contradiction("a dead letter is not in its queue"));
                    }
                    queue.reasons[info.reason as usize] += 1;
                    queue.dead.insert(sequence.0, Arc::new(info));
                }
                Ok(())
            }
            Part::Redriven { queue, rows } => {
                let queue = self.find(queue)?;
                for (sequence, at) in rows {
                    queue.redriven.insert(sequence.0, at);
                }
                Ok(())
            }
            Part::Window(part) => self.broker.dedup.restore(part).map_err(RestoreError::Contradiction),
            Part::Outcomes(rows) => {
                for (number, OutcomeRow { until, durability, confirmations }) in rows {
                    let confirmations = Arc::from(confirmations);
                    self.broker.transactions.insert(number, Outcome { until, durability, confirmations });
                }
                Ok(())
            }
            Part::State { module, rows } => {
                if !self.broker.rules.names(&module) {
                    return Err(RestoreError::Contradiction("a module has a state that is not in its rules"));
                }
                self.broker.states.restore(&module, rows);
                Ok(())
            }
            Part::Gathers(part) => {
                let Broker { hash_key, reserved, gathers, .. } = &mut self.broker;
                let restored = self.steering.gathers(*hash_key, *reserved, part, gathers);
                restored.map_err(RestoreError::Contradiction)
            }
            Part::Sagas(part) => {
                let Broker { hash_key, reserved, sagas, .. } = &mut self.broker;
                let restored = self.steering.sagas(*hash_key, *reserved, part, sagas);
                restored.map_err(RestoreError::Contradiction)
            }
            Part::End { messages, entries } => {
                if (messages, entries) != (self.messages, self.entries) {
                    return Err(RestoreError::Incomplete);
                }
                self.ended = true;
                Ok(())
            }
        }
    }

    fn head(&mut self, head: Head) -> Result<(), RestoreError> {
        if head.format != FORMAT {
            return Err(RestoreError::Format { found: head.format });
        }
        if head.reserved > MAX_NUMBER || head.position.0 > MAX_NUMBER {
            return Err(RestoreError::Contradiction("its numbers are higher than a shard ever counts"));
        }
        if head.next_queue > MAX_QUEUE_ID {
            return Err(RestoreError::Contradiction("it numbers more queues than there can be"));
        }
        self.begun = true;
        self.next_queue = head.next_queue;
        self.settings = head.rules.queues.iter().cloned().collect();
        let broker = &mut self.broker;
        broker.born = true;
        broker.hash_key = HashKey(head.hash_key.0, head.hash_key.1);
        broker.reserved = head.reserved;
        broker.position = head.position;
        broker.now = head.now;
        broker.dedup.set_max(head.rules.limits.dedup_max_entries);
        broker.dedup.recall(head.forgotten);
        broker.rules = head.rules;
        // The empty shard's own goes: the snapshot has it too.
        broker.queues = Queues::default();
        Ok(())
    }

    fn queue(&mut self, row: QueueRow) -> Result<(), RestoreError> {
        let QueueRow { id, name, kind, paused, totals } = row;
        let unknown = RestoreError::Contradiction("a queue is not in its rules");
        let settings = match kind {
            Kind::Ordinary { .. } => self.settings.get(&*name).cloned().ok_or(unknown)?,
            Kind::Dead { source: None } if id == CHASKI => chaski_settings(&self.broker.rules.limits),
            Kind::Dead { source } => {
                let source = source.and_then(|source| self.broker.queues.get(source)).ok_or(unknown)?;
                dead_settings(&source.settings)
            }
        };
        if id.0 >= self.next_queue
            || self.broker.queues.get(id).is_some()
            || self.broker.queues.id(&name).is_some()
        {
            return Err(RestoreError::Contradiction("two queues have one number or name"));
        }
        let mut queue = Queue::new(id, &name, kind, Arc::new(settings), self.broker.hash_key);
        queue.paused = paused;
        queue.totals = totals;
        self.broker.queues.insert(queue);
        Ok(())
    }

    fn message(&mut self, sequence: Sequence, row: MessageRow) -> Result<(), RestoreError> {
        let broker = &mut self.broker;
        let in_range = (1..=broker.position.0).contains(&row.position.0);
        let taken = broker.messages.get(sequence).is_some()
            || broker.messages.live_bytes(row.position..=row.position) > 0;
        if !in_range || !(1..=broker.reserved).contains(&sequence.0) || taken {
            return Err(RestoreError::Contradiction("a message has an impossible number or position"));
        }
        broker.messages.insert(sequence, row.stored());
        self.messages += 1;
        Ok(())
    }

    fn entry(&mut self, id: QueueId, sequence: Sequence, entry: Entry) -> Result<(), RestoreError> {
        let broker = &mut self.broker;
        let queue =
            broker.queues.get_mut(id).ok_or(RestoreError::Contradiction("it names an unknown queue"))?;
        let len = broker.messages.get(sequence).map(|stored| u64::from(stored.len));
        let len = len.ok_or(RestoreError::Contradiction("a queue holds a message that isn't there"))?;
        if queue.entries.contains(sequence.0) {
            return Err(RestoreError::Contradiction("a queue holds a message twice"));
        }
        if entry.state == State::Leased && entry.attempts == 0 {
            return Err(RestoreError::Contradiction("a message is leased and was never delivered"));
        }
        queue.entries.insert(sequence.0, entry);
        queue.bytes += len;
        queue.delayed += u64::from(entry.state == State::Delayed);
        queue.leased += u64::from(entry.state == State::Leased);
        let source = match queue.kind {
            Kind::Dead { source } => source,
            Kind::Ordinary { .. } => None,
        };
        if entry.has(PARKS) {
            let key = broker.messages.row(sequence).key().cloned();
            let source = source.and_then(|source| broker.queues.get_mut(source));
            let (Some(key), Some(source)) = (key, source) else {
                return Err(RestoreError::Contradiction("what parks a key is no dead letter with one"));
            };
            source.parked.entry(key).or_default().insert(sequence);
        }
        broker.messages.hold(sequence);
        self.entries += 1;
        Ok(())
    }

    fn find(&mut self, id: QueueId) -> Result<&mut Queue, RestoreError> {
        self.broker.queues.get_mut(id).ok_or(RestoreError::Contradiction("it names an unknown queue"))
    }
}
