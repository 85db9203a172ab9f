//! Room: whether the disk and the queues take what is published, and what goes when they have to make some. It knows no
//! publisher, and nothing of why a message comes.

use smallvec::SmallVec;

use crate::broker::Broker;
use crate::command::DiskState;
use crate::config::{Durability, Overflow};
use crate::effect::{Output, PublishError};
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::DeadReason;
use crate::record::{Record, Removal};

/// Messages that make room for one newcomer at most; what is then still too much goes with the next ones.
const EVICTIONS: usize = 1024;

/// The room that a command finds.
#[derive(Clone)]
pub(crate) struct Room {
    disk: DiskState,
    /// What other parts of the same command take: by queue, messages and bytes; negative where acks make room.
    taken: SmallVec<[(QueueId, i64, i64); 4]>,
    /// Gathers and sagas that they begin, and their bytes.
    gathers: (u64, u64),
    sagas: (u64, u64),
}

impl Room {
    pub(crate) fn new(disk: DiskState) -> Room {
        Room { disk, taken: SmallVec::new(), gathers: (0, 0), sagas: (0, 0) }
    }

    /// For what was let in while there was plenty of disk: a low one doesn't stop it any more.
    pub(crate) fn admitted() -> Room {
        Room::new(DiskState::Plenty)
    }

    pub(crate) fn disk(&self) -> DiskState {
        self.disk
    }

    /// One gather more, of so many bytes: how many begin, and their bytes.
    pub(crate) fn begin_gather(&mut self, bytes: u64) -> (u64, u64) {
        self.gathers = (self.gathers.0 + 1, self.gathers.1 + bytes);
        self.gathers
    }

    /// One saga more, likewise.
    pub(crate) fn begin_saga(&mut self, bytes: u64) -> (u64, u64) {
        self.sagas = (self.sagas.0 + 1, self.sagas.1 + bytes);
        self.sagas
    }

    /// This queue has so much more in it, or less.
    pub(crate) fn take(&mut self, queue: QueueId, messages: i64, bytes: i64) -> (i64, i64) {
        let place = self.taken.iter().position(|(id, ..)| *id == queue).unwrap_or_else(|| {
            self.taken.push((queue, 0, 0));
            self.taken.len() - 1
        });
        let (_, all_messages, all_bytes) = &mut self.taken[place];
        *all_messages += messages;
        *all_bytes += bytes;
        (*all_messages, *all_bytes)
    }
}

impl Broker {
    /// Whether the disk has room for what is as durable as this, and whether a number is left for it.
    pub(crate) fn check_disk(
        &self,
        strongest: Durability,
        numbered: bool,
        room: &Room,
    ) -> Result<(), PublishError> {
        if room.disk != DiskState::Plenty && strongest != Durability::Memory {
            return Err(if room.disk == DiskState::Low {
                PublishError::DiskLow
            } else {
                PublishError::DiskFull
            });
        }
        if numbered && self.out_of_numbers() {
            return Err(PublishError::DiskFull);
        }
        Ok(())
    }

    /// Whether every queue that may refuse has room for one message more.
    pub(crate) fn check_room(
        &self,
        targets: &[QueueId],
        bytes: u64,
        room: &mut Room,
    ) -> Result<(), PublishError> {
        for target in targets {
            let queue = self.queues.queue(*target);
            if queue.settings.overflow != Overflow::Reject
                || (queue.settings.max_bytes.is_none() && queue.settings.max_messages.is_none())
            {
                continue;
            }
            let (messages, all_bytes) = room.take(*target, 1, bytes as i64);
            if !queue.fits_change(messages, all_bytes) {
                return Err(PublishError::QueueFull { queue: queue.name.to_string() });
            }
        }
        Ok(())
    }

    /// Makes room for one message of so many bytes; false when there is none to be made.
    pub(crate) fn make_room(&mut self, now: Millis, id: QueueId, bytes: u64, output: &mut Output) -> bool {
        let queue = self.queues.queue(id);
        if queue.fits(1, bytes) {
            return true;
        }
        if queue.settings.max_bytes.is_some_and(|max| bytes > max) {
            return false;
        }
        for _ in 0..EVICTIONS {
            let queue = self.queues.queue_mut(id);
            if queue.fits(1, bytes) {
                break;
            }
            let Some(oldest) = queue.oldest() else { return false };
            self.evict(now, id, oldest, output);
        }
        true
    }

    /// Makes room for a message that is in the queue already and may be the oldest; it goes itself when all others are leased.
    pub(crate) fn make_room_for(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        output: &mut Output,
    ) {
        let bytes = u64::from(self.messages.row(sequence).len);
        let too_large = self.queues.queue(id).settings.max_bytes.is_some_and(|max| bytes > max);
        for _ in 0..EVICTIONS {
            let queue = self.queues.queue_mut(id);
            if queue.fits(0, 0) {
                return;
            }
            let other = if too_large { None } else { queue.oldest_but(sequence) };
            self.evict(now, id, other.unwrap_or(sequence), output);
            if other.is_none() {
                return;
            }
        }
    }

    /// Removes a message that is not leased, as the queue's overflow says.
    pub(crate) fn evict(&mut self, now: Millis, id: QueueId, sequence: Sequence, output: &mut Output) {
        let queue = self.queues.queue(id);
        if queue.settings.overflow == Overflow::DeadLetterOldest && !queue.is_dead() {
            self.bury(now, id, sequence, DeadReason::Overflow, "the queue was full", output);
            return;
        }
        let journaled = queue.journaled();
        // Whoever asked for the dropped message is told, as for a dead letter.
        if !queue.is_dead() {
            self.owe_rejection(sequence, "the queue was full");
        }
        let record = Record::Removed { queue: id, cause: Removal::Dropped, sequences: vec![sequence] };
        self.commit(record, journaled, output);
        self.note_dropped(now, id, 1);
    }
}
