//! What operators do to queues and bodies: purge, pause, cancel, unpark, redrive, relocate. Each command is bounded.

use bytes::Bytes;

use crate::broker::Broker;
use crate::command::{DiskState, Operation};
use crate::effect::{OperateError, Output, Progress};
use crate::ids::{Millis, Position, QueueId, Sequence};
use crate::queue::{Kind, State};
use crate::record::{Raw, Record, Removal};
use crate::redrive::is_copy;

/// Messages that one command moves or removes at most, whatever it asks for.
pub(crate) const MOST: u64 = 16_384;

impl Broker {
    pub(crate) fn operate(
        &mut self,
        now: Millis,
        id: QueueId,
        operation: Operation,
        output: &mut Output,
    ) -> Result<Progress, OperateError> {
        let queue = self.queues.get(id).ok_or(OperateError::UnknownQueue)?;
        if self.disk_full_for(id) {
            return Err(OperateError::DiskFull);
        }
        let letters = match queue.kind {
            Kind::Ordinary { dead } => dead,
            Kind::Dead { .. } => id,
        };
        let ordinary = letters != id;
        match operation {
            Operation::Purge { limit } if ordinary => Ok(self.purge(id, limit, output)),
            Operation::Cancel { id: message } if ordinary => self.cancel(id, &message, output),
            Operation::Unpark { key } if ordinary => self.unpark(id, &key, output),
            Operation::Purge { .. } | Operation::Cancel { .. } | Operation::Unpark { .. } => {
                Err(OperateError::NotAllowed)
            }
            Operation::Pause => Ok(self.pause(id, true, output)),
            Operation::Resume => Ok(self.pause(id, false, output)),
            Operation::PurgeDead { limit } => {
                let progress = self.purge(letters, limit, output);
                self.calm(letters, output);
                self.touch_source(letters);
                Ok(progress)
            }
            Operation::Redrive { select, limit } => {
                self.check_redrive()?;
                if select.reason.is_some_and(is_copy) {
                    return Err(OperateError::NotAllowed);
                }
                Ok(self.redrive(now, letters, &select, limit, output))
            }
            Operation::RedriveAs { sequence, filtered } => {
                self.check_redrive()?;
                self.redrive_as(now, letters, sequence, *filtered, output)
            }
            Operation::RedriveEdited { sequence, message } => {
                self.check_redrive()?;
                self.redrive_edited(now, letters, sequence, message, output)
            }
        }
    }

    fn check_redrive(&self) -> Result<(), OperateError> {
        match self.disk {
            DiskState::Plenty => Ok(()),
            DiskState::Low => Err(OperateError::DiskLow),
            DiskState::Full => Err(OperateError::DiskFull),
        }
    }

    fn purge(&mut self, id: QueueId, limit: u64, output: &mut Output) -> Progress {
        let queue = self.queues.queue(id);
        let free = queue.entries.iter().filter(|(_, entry)| entry.state != State::Leased);
        let sequences: Vec<Sequence> =
            free.take(limit.min(MOST) as usize).map(|(sequence, _)| Sequence(sequence)).collect();
        let count = sequences.len() as u64;
        let (more, journaled) = (queue.len() - queue.leased > count, queue.journaled());
        if count > 0 {
            self.commit(Record::Removed { queue: id, cause: Removal::Purged, sequences }, journaled, output);
            self.touch(id);
        }
        Progress { count, more, full: false }
    }

    fn cancel(&mut self, id: QueueId, message: &[u8], output: &mut Output) -> Result<Progress, OperateError> {
        let hash = self.hash_key.id(message);
        let queue = self.queues.queue(id);
        // What is usually cancelled waits for its time; only what doesn't is searched for.
        let found = queue.scheduled(hash).or_else(|| {
            let mut entries = queue.entries.iter().filter(|(_, entry)| entry.state != State::Leased);
            let found = entries.find(|(sequence, _)| self.messages.row(Sequence(*sequence)).id == hash);
            found.map(|(sequence, _)| Sequence(sequence))
        });
        let sequence = found.ok_or(OperateError::UnknownId)?;
        let journaled = queue.journaled();
        let record = Record::Removed { queue: id, cause: Removal::Cancelled, sequences: vec![sequence] };
        self.commit(record, journaled, output);
        self.touch(id);
        Ok(Progress { count: 1, ..Progress::default() })
    }

    fn unpark(&mut self, id: QueueId, key: &[u8], output: &mut Output) -> Result<Progress, OperateError> {
        let queue = self.queues.queue(id);
        if !queue.parked.contains_key(key) {
            return Err(OperateError::UnknownId);
        }
        let journaled = queue.journaled();
        self.commit(Record::Unparked { queue: id, key: key.to_vec() }, journaled, output);
        self.touch(id);
        Ok(Progress { count: 1, ..Progress::default() })
    }

    fn pause(&mut self, id: QueueId, paused: bool, output: &mut Output) -> Progress {
        let queue = self.queues.queue(id);
        if queue.paused != paused {
            // Journaled for every queue: what an operator stopped stays stopped.
            self.commit(Record::Paused { queue: id, paused }, true, output);
            self.touch(id);
        }
        Progress { count: 1, ..Progress::default() }
    }

    /// Writes bodies again. Those that nobody needs any more are left out.
    pub(crate) fn relocate(&mut self, bodies: Vec<(Position, Bytes)>, output: &mut Output) {
        if self.disk == DiskState::Full {
            return;
        }
        for (from, body) in bodies {
            if let Some(sequence) = self.messages.at(from)
                && self.messages.row(sequence).len as usize == body.len()
            {
                self.commit(Record::Relocated { sequence, from, body: Raw(body) }, true, output);
            }
        }
    }

    /// A body is gone for good: so are its messages.
    pub(crate) fn body_lost(&mut self, now: Millis, position: Position, output: &mut Output) {
        let Some(sequence) = self.messages.at(position) else { return };
        let holders: Vec<QueueId> = self
            .queues
            .iter()
            .filter(|queue| queue.entries.contains(sequence.0))
            .map(|queue| queue.id)
            .collect();
        for id in holders {
            if self.disk_full_for(id) {
                continue;
            }
            let lease = self.lease_of(id, sequence);
            let queue = self.queues.queue(id);
            let journaled = queue.journaled();
            for slot in queue.consumers.clone() {
                if lease.is_some_and(|lease| self.consumers.consumer_mut(slot).drop_lease(lease, sequence)) {
                    self.enlist(slot);
                }
            }
            let record = Record::Removed { queue: id, cause: Removal::Lost, sequences: vec![sequence] };
            self.commit(record, journaled, output);
            self.note_dropped(now, id, 1);
            self.calm(id, output);
            self.touch(id);
            self.touch_source(id);
        }
    }
}
