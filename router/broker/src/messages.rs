//! What the state keeps of each stored message, whatever queues hold it: one row, found by sequence or by the position of its
//! body. It knows no queue's settings and no lease.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::effect::Body;
use crate::ids::{Millis, Position, Sequence};
use crate::live::LiveBytes;
use crate::message::Message;
use crate::pages::PageMap;

/// Positions that share one line of the index from positions to sequences.
const BLOCK: u64 = 256;

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Where its body is; `Position(0)`: in `more`.
    pub(crate) position: Position,
    pub(crate) published_at: Millis,
    /// Hash of its id alone, to find it by id.
    pub(crate) id: u64,
    /// Length of its block.
    pub(crate) len: u32,
    /// Queues that hold it.
    pub(crate) refs: u32,
    pub(crate) priority: u8,
    /// Its body was written again: its position is out of sequence order.
    pub(crate) relocated: bool,
    /// What few messages have.
    pub(crate) rare: Option<Arc<Rare>>,
}

/// What few messages have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rare {
    pub(crate) key: Option<Arc<[u8]>>,
    pub(crate) more: Option<Box<More>>,
}

/// What even fewer messages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct More {
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) deliver_at: Option<Millis>,
    pub(crate) request: Option<RequestName>,
    /// The body of a message that no journaled queue holds.
    pub(crate) body: Option<Bytes>,
}

/// What an answer to a request needs.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub(crate) struct RequestName {
    pub(crate) topic: String,
    pub(crate) id: String,
    pub(crate) reply_to: String,
}

impl RequestName {
    /// The message's name, if it is a request.
    pub(crate) fn of(message: &Message) -> Option<RequestName> {
        Some(RequestName::answered_at(message, text(message.reply_to()?)))
    }

    /// The name of a message that is answered there, whether it said so itself or one that repeated it did.
    pub(crate) fn answered_at(message: &Message, reply_to: String) -> RequestName {
        RequestName { topic: text(message.topic()), id: text(message.id()), reply_to }
    }
}

impl Stored {
    /// The row of a message with its body at `position`, or, with `keep`, its body here.
    pub(crate) fn new(message: &Message, id: u64, position: Position, at: Millis, keep: bool) -> Stored {
        let fields = &message.fields;
        let request = RequestName::of(message);
        // A copy: the bytes may be a small part of a large network buffer.
        let body = keep.then(|| Bytes::copy_from_slice(&message.body));
        let more = More { ttl_ms: fields.ttl_ms, deliver_at: fields.deliver_at, request, body };
        let more = (more != More::default()).then(|| Box::new(more));
        let key = message.key().map(Arc::from);
        let rare = (key.is_some() || more.is_some()).then(|| Arc::new(Rare { key, more }));
        Stored {
            position,
            published_at: at,
            id,
            len: message.body.len() as u32,
            refs: 0,
            priority: fields.priority.min(9),
            relocated: false,
            rare,
        }
    }

    pub(crate) fn key(&self) -> Option<&Arc<[u8]>> {
        self.rare.as_ref()?.key.as_ref()
    }

    pub(crate) fn more(&self) -> Option<&More> {
        self.rare.as_ref()?.more.as_deref()
    }

    pub(crate) fn deliver_at(&self) -> Option<Millis> {
        self.more()?.deliver_at
    }

    pub(crate) fn ttl_ms(&self) -> Option<u64> {
        self.more()?.ttl_ms
    }

    pub(crate) fn request(&self) -> Option<&RequestName> {
        self.more()?.request.as_ref()
    }

    pub(crate) fn body(&self) -> Body {
        match self.more().and_then(|more| more.body.as_ref()) {
            Some(bytes) => Body::Here(bytes.clone()),
            None => Body::At(self.position),
        }
    }
}

/// Text that a session or the codec has checked already.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every stored message.
#[derive(Default)]
pub(crate) struct Messages {
    rows: PageMap<Stored>,
    live: LiveBytes,
    /// The first sequence of each block of positions: published messages have both in the same order.
    blocks: BTreeMap<u64, Sequence>,
    last_block: Option<u64>,
    /// Where the sweep for blocks with nothing live stands.
    swept: u64,
    /// Messages whose position is out of that order.
    relocated: BTreeMap<Position, Sequence>,
}

impl Messages {
    pub(crate) fn get(&self, sequence: Sequence) -> Option<&Stored> {
        self.rows.get(sequence.0)
    }

    /// The row of a message that a queue's entry names.
    pub(crate) fn row(&self, sequence: Sequence) -> &Stored {
        self.rows.get(sequence.0).expect("an entry's message is stored as long as the entry lives")
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows as they are now, cheaply.
    pub(crate) fn pages(&self) -> PageMap<Stored> {
        self.rows.clone()
    }

    pub(crate) fn insert(&mut self, sequence: Sequence, stored: Stored) {
        if stored.position.0 > 0 {
            self.live.add(stored.position, u64::from(stored.len));
            if stored.relocated {
                self.relocated.insert(stored.position, sequence);
            } else {
                self.note(stored.position, sequence);
            }
        }
        self.rows.insert(sequence.0, stored);
    }

    /// One queue more holds it.
    pub(crate) fn hold(&mut self, sequence: Sequence) {
        self.rows.get_mut(sequence.0).expect("the caller found it").refs += 1;
    }

    /// Removes what no queue holds: at the end of a restore, which counts the holders anew.
    pub(crate) fn drop_unheld(&mut self) {
        let unheld = self.rows.iter().filter(|(_, row)| row.refs == 0);
        let unheld: Vec<u64> = unheld.map(|(sequence, _)| sequence).collect();
        for sequence in unheld {
            self.remove(Sequence(sequence));
        }
    }

    /// One queue less holds it; nobody left means that it goes.
    pub(crate) fn let_go(&mut self, sequence: Sequence) {
        let row =
            self.rows.get_mut(sequence.0).expect("an entry's message is stored as long as the entry lives");
        assert!(row.refs > 0, "message {sequence} is let go by more queues than held it");
        row.refs -= 1;
        if row.refs == 0 {
            self.remove(sequence);
        }
    }

    pub(crate) fn remove(&mut self, sequence: Sequence) {
        if let Some(row) = self.rows.remove(sequence.0)
            && row.position.0 > 0
        {
            self.live.remove(row.position, u64::from(row.len));
            if row.relocated {
                self.relocated.remove(&row.position);
            }
        }
    }

    /// The message's body is at another position now.
    pub(crate) fn relocate(&mut self, sequence: Sequence, to: Position) {
        let row = self.rows.get_mut(sequence.0).expect("the caller found it by its position");
        self.live.remove(row.position, u64::from(row.len));
        self.live.add(to, u64::from(row.len));
        if row.relocated {
            self.relocated.remove(&row.position);
        }
        row.position = to;
        row.relocated = true;
        self.relocated.insert(to, sequence);
    }

    /// The message whose body is there, if it still lives.
    pub(crate) fn at(&self, position: Position) -> Option<Sequence> {
        if let Some(sequence) = self.relocated.get(&position) {
            return Some(*sequence);
        }
        self.of_block(position.0 / BLOCK)
            .find(|(_, row)| row.position == position)
            .map(|(sequence, _)| sequence)
    }

    /// Bytes of journaled bodies that are needed.
    pub(crate) fn live_total(&self) -> u64 {
        self.live.total()
    }

    pub(crate) fn live_bytes(&self, positions: RangeInclusive<Position>) -> u64 {
        self.live.live_bytes(positions)
    }

    /// Where in this range something lives, lowest first, at most `limit`.
    pub(crate) fn live_positions(&self, positions: RangeInclusive<Position>, limit: usize) -> Vec<Position> {
        let (first, last) = (*positions.start(), *positions.end());
        let mut found: Vec<Position> =
            self.relocated.range(positions.clone()).take(limit).map(|(position, _)| *position).collect();
        let mut published = Vec::new();
        for (block, _) in self.blocks.range(first.0 / BLOCK..=last.0 / BLOCK) {
            published.extend(
                self.of_block(*block).map(|(_, row)| row.position).filter(|at| positions.contains(at)),
            );
            if published.len() >= limit {
                break;
            }
        }
        found.append(&mut published);
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    /// Living messages that were published into this block and are still there, in order.
    fn of_block(&self, block: u64) -> impl Iterator<Item = (Sequence, &Stored)> {
        let first = self.blocks.get(&block).copied();
        let end = self.blocks.range(block + 1..).next().map_or(u64::MAX, |(_, sequence)| sequence.0);
        let rows =
            first.map(|first| self.rows.range(first.0..).take_while(move |(sequence, _)| *sequence < end));
        rows.into_iter()
            .flatten()
            .map(|(sequence, row)| (Sequence(sequence), row))
            .filter(move |(_, row)| !row.relocated && row.position.0 / BLOCK == block)
    }

    fn note(&mut self, position: Position, sequence: Sequence) {
        let block = position.0 / BLOCK;
        if self.last_block == Some(block) {
            return;
        }
        self.last_block = Some(block);
        self.blocks.entry(block).or_insert(sequence);
        // Two old lines are looked at for each new one, so dead ones don't pile up.
        for _ in 0..2 {
            let next = self.blocks.range(self.swept..block).next().map(|(next, _)| *next);
            let Some(next) = next else {
                self.swept = 0;
                return;
            };
            self.swept = next + 1;
            if self.live.live_bytes(Position(next * BLOCK)..=Position(next * BLOCK + BLOCK - 1)) == 0 {
                self.blocks.remove(&next);
            }
        }
    }
}
