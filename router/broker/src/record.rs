//! Facts, as the journal keeps them. `apply` is the only thing that changes the durable state, live and in replay. A record
//! names everything that was decided (victims, jittered times, new numbers), so that applying it decides nothing.

use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::{Durability, Rules};
use crate::effect::Confirmation;
use crate::gather::GatherFact;
use crate::ids::{Lease, Millis, Position, QueueId, Sequence};
use crate::message::{DeadInfo, Message};
use crate::saga::SagaFact;
use crate::states::StateWrite;
use crate::targets::Targets;

/// One fact. What few records carry is boxed: it is `Published` that counts.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// A message was stored in these queues (`memory` ones included, which a replay leaves out).
    Published {
        /// Its number.
        sequence: Sequence,
        /// When.
        at: Millis,
        /// How long its id is remembered; `None` bypasses dedup.
        window_ms: Option<u64>,
        /// The queues.
        targets: Targets,
        /// The message; its block is this record's body.
        message: Message,
    },
    /// The everyday moves of a queue's messages, in order.
    Flow {
        /// The queue.
        queue: QueueId,
        /// When.
        at: Millis,
        /// What happened.
        moves: Moves,
    },
    /// A message died: it left the queue for its dead-letter queue.
    Dead {
        /// The source queue.
        queue: QueueId,
        /// The message.
        sequence: Sequence,
        /// The headers that it gets.
        info: DeadInfo,
    },
    /// Messages left the queue for good, unprocessed.
    Removed {
        /// The queue.
        queue: QueueId,
        /// Why.
        cause: Removal,
        /// Which.
        sequences: Vec<Sequence>,
    },
    /// A dead letter went back to its source queue.
    Redriven {
        /// The dead-letter queue.
        queue: QueueId,
        /// The message.
        sequence: Sequence,
        /// When: its time to live runs anew from here.
        at: Millis,
    },
    /// A dead letter went back to its source queue with other bytes.
    Edited {
        /// The dead-letter queue.
        queue: QueueId,
        /// The dead letter.
        sequence: Sequence,
        /// Its number in the source queue: the same, unless another queue still holds the old form.
        renamed: Sequence,
        /// When.
        at: Millis,
        /// The new form; its block is this record's body.
        message: Message,
    },
    /// An operator let a parked key go on.
    Unparked {
        /// The queue.
        queue: QueueId,
        /// The key.
        key: Vec<u8>,
    },
    /// An operator stopped or resumed a queue.
    Paused {
        /// The queue.
        queue: QueueId,
        /// Whether it is stopped now.
        paused: bool,
    },
    /// A transaction was done; its parts are the records around this one.
    Transacted {
        /// The number under which the outcome is kept.
        number: Sequence,
        /// The hash of the transaction's id.
        hash: u128,
        /// When.
        at: Millis,
        /// How long the outcome is remembered.
        window_ms: u64,
        /// The strongest durability among its queues.
        durability: Durability,
        /// One for each publish.
        confirmations: Arc<[Confirmation]>,
    },
    /// New rules.
    Rules {
        /// When.
        at: Millis,
        /// The whole document.
        rules: Box<Rules>,
    },
    /// A start: every recorded lease is lost.
    Started {
        /// When.
        at: Millis,
        /// Numbers up to here are reserved.
        reserved: u64,
        /// The key of the shard's hashes; the first start's stands.
        hash_key: (u64, u64),
    },
    /// Numbers up to here are reserved.
    Reserved {
        /// The last one.
        through: u64,
    },
    /// A body was written again, so that an old segment can go.
    Relocated {
        /// Its message.
        sequence: Sequence,
        /// Where it was.
        from: Position,
        /// The body.
        body: Raw,
    },
    /// A publish that filters concerned was done, its results and letters being the records before: its id is remembered.
    Remembered {
        /// The hash of the topic and id that the client named.
        hash: u128,
        /// The first stored result's number; 0: none was stored.
        sequence: Sequence,
        /// When.
        at: Millis,
        /// How long it is remembered.
        window_ms: u64,
        /// The strongest among everything that it led to.
        durability: Durability,
    },
    /// A message died before a queue had it.
    Stillborn {
        /// Its number.
        sequence: Sequence,
        /// When.
        at: Millis,
        /// The dead-letter queue that keeps it.
        letters: QueueId,
        /// The headers that it gets.
        info: Box<DeadInfo>,
        /// The message; its block is this record's body.
        message: Message,
    },
    /// A batch changed a module's state. Entries that are over by then go with it, so many a record.
    State {
        /// The batch's time.
        at: Millis,
        /// The module's name.
        module: String,
        /// What it wrote; nothing when only time passed.
        writes: Vec<StateWrite>,
    },
    /// An operator emptied a module's state.
    StateDropped {
        /// The module's name.
        module: String,
    },
    /// Something happened to a gather.
    Gather {
        /// Which.
        gather: Sequence,
        /// When.
        at: Millis,
        /// What.
        fact: Box<GatherFact>,
    },
    /// Something happened to a saga.
    Saga {
        /// Which.
        saga: Sequence,
        /// When.
        at: Millis,
        /// What.
        fact: Box<SagaFact>,
    },
}

/// Why messages were removed.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Removal {
    /// Overflow with `drop-oldest`.
    Dropped,
    /// An operator's purge.
    Purged,
    /// An operator's cancel.
    Cancelled,
    /// The body can no longer be read.
    Lost,
    /// Filters judged a dead letter again: what they made of it is stored in its stead.
    Rejudged,
    /// The gather or saga that sent it waits for it no longer.
    Withdrawn,
}

/// One step of one message in one queue.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Leased to a consumer.
    Delivered {
        /// The message.
        sequence: Sequence,
        /// The lease.
        lease: Lease,
    },
    /// Processed.
    Acked {
        /// The message.
        sequence: Sequence,
    },
    /// The lease ended and the delivery counts.
    Returned {
        /// The message.
        sequence: Sequence,
        /// Not again before; `Millis(0)` is at once.
        not_before: Millis,
    },
    /// The lease ended and the delivery does not count.
    Released {
        /// The message.
        sequence: Sequence,
    },
}

/// Moves of one record: few, most often one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves(pub SmallVec<[Move; 2]>);

/// Bytes that lie raw behind a record's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw(pub Bytes);
