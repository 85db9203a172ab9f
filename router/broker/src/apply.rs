//! The one place that changes the durable state: what each record does, live and in replay. It decides nothing; indexes and
//! timers are kept only while the broker is live (a start rebuilds them).

use crate::broker::Broker;
use crate::config::Durability;
use crate::effect::Wait;
use crate::ids::{Lease, Millis, Position, QueueId, Sequence};
use crate::message::Message;
use crate::messages::Stored;
use crate::owners::may_be_delivered;
use crate::queue::{DELIVERED, Entry, Kind, REDRIVEN, State};
use crate::record::{Move, Record, Removal};
use crate::transactions::Outcome;

/// No shard ever draws or journals so much: a number beyond it is a lie.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

/// Why a record doesn't fit the state: it was never made by this broker after those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// No such queue.
    #[error("it names queue {0}, which does not exist")]
    UnknownQueue(QueueId),
    /// The queue doesn't hold the message, or not in a state that permits this.
    #[error("message {sequence} is not in queue {queue}, or not in a state that permits this")]
    Misplaced {
        /// The queue.
        queue: QueueId,
        /// The message.
        sequence: Sequence,
    },
    /// A number that is in use already, or out of order.
    #[error("number {0} is used twice or out of order")]
    Number(u64),
    /// Rules that name an ordinary queue as only dead-letter queues are named.
    #[error("it makes an ordinary queue `{0}`, a reserved name")]
    Name(String),
    /// A module that the rules don't name.
    #[error("it changes the state of module `{0}`, which the rules don't name")]
    UnknownModule(String),
    /// A gather that there is none of, or that this can't happen to.
    #[error("it names gather {0}, which it can't happen to")]
    Gather(Sequence),
    /// A saga that there is none of, or that this can't happen to.
    #[error("it names saga {0}, which it can't happen to")]
    Saga(Sequence),
    /// Rules that don't follow the current ones.
    #[error("rules version {found} follows version {current}")]
    Rules {
        /// The version in force.
        current: u64,
        /// The record's.
        found: u64,
    },
}

impl Broker {
    /// Changes the state as the record says. `position` is the record's; `Position(0)` when it is not journaled.
    pub(crate) fn apply(&mut self, position: Position, record: &Record) -> Result<(), ApplyError> {
        match record {
            Record::Published { sequence, at, window_ms, targets, message } => {
                self.apply_published(position, *sequence, *at, message, targets)?;
                if let Some(window_ms) = window_ms {
                    let hash = self.hash_key.message(message.topic(), message.id());
                    let wait = Wait { position, durability: self.strongest(targets) };
                    self.dedup.insert(hash, *sequence, wait, *at, *window_ms);
                }
                Ok(())
            }
            Record::Flow { queue, at, moves } => {
                moves.0.iter().try_for_each(|step| self.apply_move(position, *queue, *at, *step))
            }
            Record::Dead { queue, sequence, info } => self.apply_dead(position, *queue, *sequence, info),
            Record::Removed { queue, cause, sequences } => sequences
                .iter()
                .try_for_each(|sequence| self.apply_removed(position, *queue, *cause, *sequence)),
            Record::Redriven { queue, sequence, at } => {
                self.apply_redriven(position, *queue, *sequence, *sequence, *at, None)
            }
            Record::Edited { queue, sequence, renamed, at, message } => {
                self.apply_redriven(position, *queue, *sequence, *renamed, *at, Some(message))
            }
            Record::Unparked { queue, key } => self.apply_unparked(*queue, key),
            Record::Paused { queue, paused } => {
                self.queues.get_mut(*queue).ok_or(ApplyError::UnknownQueue(*queue))?.paused = *paused;
                Ok(())
            }
            Record::Transacted { number, hash, at, window_ms, durability, confirmations } => {
                self.draw_through(number.0)?;
                let wait = Wait { position, durability: *durability };
                self.dedup.insert(*hash, *number, wait, *at, *window_ms);
                let outcome = Outcome {
                    until: at.after(*window_ms),
                    durability: *durability,
                    confirmations: confirmations.clone(),
                };
                self.transactions.insert(*number, outcome);
                Ok(())
            }
            Record::Rules { at, rules } => self.apply_rules(*at, rules),
            Record::Started { at, reserved, hash_key } => self.apply_started(*at, *reserved, *hash_key),
            Record::Reserved { through } => {
                if *through < self.reserved || *through > MAX_NUMBER {
                    return Err(ApplyError::Number(*through));
                }
                self.reserved = self.reserved.max(*through);
                Ok(())
            }
            Record::Relocated { sequence, from, body } => {
                // The message may have gone since: then there is nothing to repoint.
                if self.messages.get(*sequence).is_some_and(|stored| stored.position == *from) {
                    if self.messages.row(*sequence).len as usize != body.0.len() {
                        return Err(ApplyError::Number(from.0));
                    }
                    self.messages.relocate(*sequence, position);
                }
                Ok(())
            }
            Record::Remembered { hash, sequence, at, window_ms, durability } => {
                let wait = Wait { position, durability: *durability };
                self.dedup.insert(*hash, *sequence, wait, *at, *window_ms);
                Ok(())
            }
            Record::Stillborn { sequence, at, letters, info, message } => {
                self.apply_stillborn(position, *sequence, *at, *letters, info, message)
            }
            Record::State { at, module, writes } => {
                if !self.rules.names(module) {
                    return Err(ApplyError::UnknownModule(module.clone()));
                }
                self.states.write(*at, module, writes);
                Ok(())
            }
            Record::StateDropped { module } => {
                self.states.drop_state(module);
                Ok(())
            }
            Record::Gather { gather, at, fact } => self.apply_gather(*gather, *at, fact),
            Record::Saga { saga, at, fact } => self.apply_saga(*saga, *at, fact),
        }
    }

    /// Stores a message in its targets. A replay leaves `memory` queues out.
    pub(crate) fn apply_published(
        &mut self,
        position: Position,
        sequence: Sequence,
        at: Millis,
        message: &Message,
        targets: &[QueueId],
    ) -> Result<(), ApplyError> {
        if self.messages.get(sequence).is_some() || sequence.0 == 0 {
            return Err(ApplyError::Number(sequence.0));
        }
        self.draw_through(sequence.0)?;
        let id = self.hash_key.id(message.id());
        let mut stored = Stored::new(message, id, position, at, position.0 == 0);
        let due = stored.deliver_at().filter(|due| *due > at);
        for target in targets {
            let queue = self.queues.get(*target).ok_or(ApplyError::UnknownQueue(*target))?;
            stored.refs += u32::from(self.live || queue.journaled());
        }
        if stored.refs == 0 {
            return Ok(());
        }
        let bytes = u64::from(stored.len);
        self.messages.insert(sequence, stored);
        for target in targets {
            let queue = self.queues.queue_mut(*target);
            if !self.live && !queue.journaled() {
                continue;
            }
            let entry = due.map_or_else(Entry::ready, Entry::scheduled);
            if queue.entries.insert(sequence.0, entry).is_some() {
                return Err(ApplyError::Misplaced { queue: *target, sequence });
            }
            queue.bytes += bytes;
            queue.delayed += u64::from(due.is_some());
            queue.totals.published += 1;
            if self.live {
                queue.index(sequence, &self.messages, &mut self.timers);
            }
        }
        Ok(())
    }

    /// One step of one message in one queue.
    pub(crate) fn apply_move(
        &mut self,
        position: Position,
        queue: QueueId,
        at: Millis,
        step: Move,
    ) -> Result<(), ApplyError> {
        match step {
            Move::Delivered { sequence, lease } => self.apply_delivered(queue, at, sequence, lease),
            Move::Acked { sequence } => {
                self.take_entry(position, queue, sequence, Some(State::Leased))?;
                self.forget_letter(queue, sequence);
                self.messages.let_go(sequence);
                self.queues.queue_mut(queue).totals.acked += 1;
                Ok(())
            }
            Move::Returned { sequence, not_before } => self.apply_returned(queue, sequence, not_before, true),
            Move::Released { sequence } => self.apply_returned(queue, sequence, Millis(0), false),
        }
    }

    fn apply_delivered(
        &mut self,
        id: QueueId,
        at: Millis,
        sequence: Sequence,
        lease: Lease,
    ) -> Result<(), ApplyError> {
        self.draw_through(lease.0)?;
        let queue = self.queues.get_mut(id).ok_or(ApplyError::UnknownQueue(id))?;
        let misplaced = ApplyError::Misplaced { queue: id, sequence };
        let entry = queue.entries.get_mut(sequence.0).ok_or(misplaced.clone())?;
        let before = *entry;
        if before.state == State::Leased {
            return Err(misplaced);
        }
        entry.state = State::Leased;
        entry.value = lease.0;
        entry.attempts += 1;
        entry.flags = (entry.flags | DELIVERED) & !crate::queue::SCHEDULED;
        if entry.first_at == Millis(0) {
            entry.first_at = at;
        }
        queue.delayed -= u64::from(before.state == State::Delayed);
        queue.leased += 1;
        queue.totals.delivered += 1;
        if self.live {
            queue.unindex(sequence, &before, self.messages.row(sequence), None, &mut self.timers);
        }
        Ok(())
    }

    fn apply_returned(
        &mut self,
        id: QueueId,
        sequence: Sequence,
        not_before: Millis,
        counted: bool,
    ) -> Result<(), ApplyError> {
        let queue = self.queues.get_mut(id).ok_or(ApplyError::UnknownQueue(id))?;
        let misplaced = ApplyError::Misplaced { queue: id, sequence };
        let entry = queue.entries.get_mut(sequence.0).ok_or(misplaced.clone())?;
        if entry.state != State::Leased {
            return Err(misplaced);
        }
        entry.state = if not_before.0 > 0 { State::Delayed } else { State::Ready };
        entry.value = not_before.0;
        entry.attempts -= u32::from(!counted);
        queue.leased -= 1;
        queue.delayed += u64::from(not_before.0 > 0);
        if self.live {
            let stored = self.messages.row(sequence);
            if let Some(name) = queue.settings.ordering.by_key(stored) {
                queue.index.keys.unlease(name, None, &queue.entries, &mut queue.index.lanes);
            }
            queue.index(sequence, &self.messages, &mut self.timers);
        }
        Ok(())
    }

    fn apply_removed(
        &mut self,
        position: Position,
        id: QueueId,
        cause: Removal,
        sequence: Sequence,
    ) -> Result<(), ApplyError> {
        self.take_entry(position, id, sequence, None)?;
        self.forget_letter(id, sequence);
        self.messages.let_go(sequence);
        let counted = match (cause, self.queues.queue(id).kind) {
            // As for any letter that came back, its source queue counts it.
            (Removal::Rejudged, Kind::Dead { source: Some(source) }) if self.queues.get(source).is_some() => {
                source
            }
            _ => id,
        };
        let totals = &mut self.queues.queue_mut(counted).totals;
        match cause {
            Removal::Dropped | Removal::Lost => totals.dropped += 1,
            Removal::Purged | Removal::Cancelled | Removal::Withdrawn => totals.removed += 1,
            Removal::Rejudged => totals.redriven += 1,
        }
        Ok(())
    }

    /// Takes a message out of a queue, counters and indexes included; the message itself is still held.
    pub(crate) fn take_entry(
        &mut self,
        position: Position,
        id: QueueId,
        sequence: Sequence,
        state: Option<State>,
    ) -> Result<Entry, ApplyError> {
        let queue = self.queues.get_mut(id).ok_or(ApplyError::UnknownQueue(id))?;
        let misplaced = ApplyError::Misplaced { queue: id, sequence };
        let entry = match queue.entries.get(sequence.0) {
            Some(entry) if state.is_none_or(|state| entry.state == state) => *entry,
            _ => return Err(misplaced),
        };
        queue.entries.remove(sequence.0);
        let stored = self.messages.row(sequence);
        queue.bytes -= u64::from(stored.len);
        queue.delayed -= u64::from(entry.state == State::Delayed);
        queue.leased -= u64::from(entry.state == State::Leased);
        if self.live {
            let delivered = may_be_delivered(sequence, &entry, self.start);
            self.owners.note(id, sequence, delivered);
            if entry.state == State::Leased {
                if let Some(at) = queue.expires_at(sequence, &entry, stored) {
                    self.timers.unset(at, id, sequence);
                }
                if let Some(name) = queue.settings.ordering.by_key(stored) {
                    queue.index.keys.unlease(name, Some(position), &queue.entries, &mut queue.index.lanes);
                }
            } else {
                queue.unindex(sequence, &entry, stored, Some(position), &mut self.timers);
            }
        }
        if entry.has(REDRIVEN) {
            queue.redriven.remove(sequence.0);
        }
        Ok(entry)
    }

    /// Every recorded lease is lost: it counts, without backoff.
    fn apply_started(&mut self, _at: Millis, reserved: u64, hash_key: (u64, u64)) -> Result<(), ApplyError> {
        if reserved < self.reserved || reserved > MAX_NUMBER {
            return Err(ApplyError::Number(reserved));
        }
        if !self.born {
            self.hash_key = crate::hash::HashKey(hash_key.0, hash_key.1);
            self.born = true;
        }
        self.counter = self.reserved.max(self.counter);
        self.reserved = reserved;
        self.start = self.counter;
        for queue in self.queues.iter_mut().filter(|queue| queue.leased > 0) {
            let leased: Vec<u64> = queue
                .entries
                .iter()
                .filter(|(_, entry)| entry.state == State::Leased)
                .map(|(sequence, _)| sequence)
                .collect();
            for sequence in leased {
                let entry = queue.entries.get_mut(sequence).expect("it was just listed");
                entry.state = State::Ready;
                entry.value = 0;
            }
            queue.leased = 0;
        }
        Ok(())
    }

    /// A number was drawn up to here.
    pub(crate) fn draw_through(&mut self, number: u64) -> Result<(), ApplyError> {
        if number > self.reserved {
            return Err(ApplyError::Number(number));
        }
        self.counter = self.counter.max(number);
        Ok(())
    }

    /// The strongest durability among queues.
    pub(crate) fn strongest(&self, targets: &[QueueId]) -> Durability {
        let durabilities = targets.iter().filter_map(|id| self.queues.get(*id));
        durabilities.map(|queue| queue.settings.durability).max().unwrap_or(Durability::Memory)
    }
}
