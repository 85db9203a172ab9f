//! What records do to dead letters: how a message becomes one, and how it is none any more. A part of `apply`, so it decides
//! nothing.

use std::sync::Arc;

use crate::apply::ApplyError;
use crate::broker::Broker;
use crate::config::OnPoison;
use crate::ids::{Millis, Position, QueueId, Sequence};
use crate::message::{DeadInfo, Message};
use crate::messages::Stored;
use crate::queue::{DELIVERED, Entry, Kind, PARKS, REDRIVEN};

impl Broker {
    /// A message leaves its queue for the dead-letter queue.
    pub(crate) fn apply_dead(
        &mut self,
        position: Position,
        id: QueueId,
        sequence: Sequence,
        info: &DeadInfo,
    ) -> Result<(), ApplyError> {
        let entry = self.take_entry(position, id, sequence, None)?;
        let queue = self.queues.queue_mut(id);
        let Kind::Ordinary { dead } = queue.kind else {
            return Err(ApplyError::Misplaced { queue: id, sequence });
        };
        queue.totals.dead += 1;
        queue.totals.expired += u64::from(info.reason == crate::message::DeadReason::Expired);
        let flags = entry.flags & DELIVERED | self.park(id, sequence);
        self.place_letter(position, dead, sequence, flags, info)
    }

    /// A message that no queue has yet becomes a dead letter.
    pub(crate) fn apply_stillborn(
        &mut self,
        position: Position,
        sequence: Sequence,
        at: Millis,
        letters: QueueId,
        info: &DeadInfo,
        message: &Message,
    ) -> Result<(), ApplyError> {
        let queue = self.queues.get(letters).ok_or(ApplyError::UnknownQueue(letters))?;
        let Kind::Dead { source } = queue.kind else {
            return Err(ApplyError::Misplaced { queue: letters, sequence });
        };
        if self.messages.get(sequence).is_some() || sequence.0 == 0 {
            return Err(ApplyError::Number(sequence.0));
        }
        let kept = self.live || queue.journaled();
        self.draw_through(sequence.0)?;
        if !kept {
            return Ok(());
        }
        let id = self.hash_key.id(message.id());
        let mut stored = Stored::new(message, id, position, at, position.0 == 0);
        stored.refs = 1;
        self.messages.insert(sequence, stored);
        let mut flags = 0;
        if let Some(source) = source.filter(|source| self.queues.get(*source).is_some()) {
            self.queues.queue_mut(source).totals.dead += 1;
            flags = self.park(source, sequence);
        }
        self.place_letter(position, letters, sequence, flags, info)
    }

    /// Under `park-key` a dead letter of this queue parks its key; answers its entry's flags.
    fn park(&mut self, id: QueueId, sequence: Sequence) -> u8 {
        let queue = self.queues.queue_mut(id);
        let key = queue.settings.ordering.by_key(self.messages.row(sequence));
        let Some(name) = key.filter(|_| queue.settings.on_poison == OnPoison::ParkKey) else { return 0 };
        queue.parked.entry(name.clone()).or_default().insert(sequence);
        if self.live {
            queue.index.keys.park(name, true, &queue.entries, &mut queue.index.lanes);
        }
        PARKS
    }

    /// Puts a stored message into a dead-letter queue.
    fn place_letter(
        &mut self,
        position: Position,
        id: QueueId,
        sequence: Sequence,
        flags: u8,
        info: &DeadInfo,
    ) -> Result<(), ApplyError> {
        let stored = self.messages.row(sequence);
        let letters = self.queues.queue_mut(id);
        if letters.entries.contains(sequence.0) {
            return Err(ApplyError::Misplaced { queue: id, sequence });
        }
        letters.bytes += u64::from(stored.len);
        letters.moved_in = letters.moved_in.max(position);
        letters.entries.insert(sequence.0, Entry { flags, ..Entry::ready() });
        letters.reasons[info.reason as usize] += 1;
        letters.dead.insert(sequence.0, Arc::new(info.clone()));
        letters.totals.published += 1;
        if self.live {
            letters.index(sequence, &self.messages, &mut self.timers);
        }
        Ok(())
    }

    /// A key that dead letters park goes on; later dead letters park it anew.
    pub(crate) fn apply_unparked(&mut self, id: QueueId, key: &[u8]) -> Result<(), ApplyError> {
        let queue = self.queues.get_mut(id).ok_or(ApplyError::UnknownQueue(id))?;
        let Kind::Ordinary { dead } = queue.kind else { return Err(ApplyError::UnknownQueue(id)) };
        let parking = queue.parked.remove(key).unwrap_or_default();
        if self.live {
            queue.index.keys.park(key, false, &queue.entries, &mut queue.index.lanes);
        }
        let letters = self.queues.queue_mut(dead);
        for sequence in parking {
            letters.entries.get_mut(sequence.0).expect("what parks a key is a dead letter").flags &= !PARKS;
        }
        Ok(())
    }

    /// A dead letter goes back to its source queue, with another form and number if it was edited.
    pub(crate) fn apply_redriven(
        &mut self,
        position: Position,
        id: QueueId,
        sequence: Sequence,
        renamed: Sequence,
        at: Millis,
        edited: Option<&Message>,
    ) -> Result<(), ApplyError> {
        let misplaced = ApplyError::Misplaced { queue: id, sequence };
        let letters = self.queues.get(id).ok_or(ApplyError::UnknownQueue(id))?;
        let Kind::Dead { source: Some(source) } = letters.kind else {
            return Err(misplaced);
        };
        let entry = self.take_entry(position, id, sequence, None)?;
        self.forget_letter(id, sequence);
        if let Some(message) = edited {
            let hash = self.hash_key.id(message.id());
            let old = self.messages.row(sequence);
            let mut stored = Stored::new(message, hash, position, old.published_at, position.0 == 0);
            stored.relocated = position.0 > 0;
            stored.refs = 1;
            self.draw_through(renamed.0)?;
            self.messages.let_go(sequence);
            if self.messages.get(renamed).is_some() {
                return Err(ApplyError::Number(renamed.0));
            }
            self.messages.insert(renamed, stored);
        }
        let stored = self.messages.row(renamed);
        let queue = self.queues.get_mut(source).ok_or(ApplyError::UnknownQueue(source))?;
        if queue.entries.get(renamed.0).is_some() {
            return Err(misplaced);
        }
        let due = stored.deliver_at().filter(|due| *due > at);
        let mut back = due.map_or_else(Entry::ready, Entry::scheduled);
        back.flags |= entry.flags & DELIVERED | REDRIVEN;
        queue.entries.insert(renamed.0, back);
        queue.bytes += u64::from(stored.len);
        queue.delayed += u64::from(due.is_some());
        queue.moved_in = queue.moved_in.max(position);
        queue.redriven.insert(renamed.0, at);
        queue.totals.redriven += 1;
        if self.live {
            queue.index(renamed, &self.messages, &mut self.timers);
        }
        Ok(())
    }

    /// A dead letter is none any more: its headers go, and its key if it was the last one that parked it.
    pub(crate) fn forget_letter(&mut self, id: QueueId, sequence: Sequence) {
        let queue = self.queues.queue_mut(id);
        let Kind::Dead { source } = queue.kind else { return };
        if let Some(info) = queue.dead.remove(sequence.0) {
            queue.reasons[info.reason as usize] -= 1;
        }
        let stored = self.messages.row(sequence);
        let Some(source) = source.and_then(|source| self.queues.get_mut(source)) else { return };
        let Some(name) = stored.key() else { return };
        let Some(letters) = source.parked.get_mut(name) else { return };
        letters.remove(&sequence);
        if letters.is_empty() {
            source.parked.remove(name);
            if self.live {
                source.index.keys.park(name, false, &source.entries, &mut source.index.lanes);
            }
        }
    }
}
