//! Dead letters come back: as they are, edited, or as filters judge them now. Each goes whole or not at all.

use crate::broker::Broker;
use crate::command::Select;
use crate::effect::{OperateError, Output, Progress, PublishError};
use crate::filtered::Filtered;
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::{DeadReason, Message};
use crate::operate::MOST;
use crate::queue::{Kind, State};
use crate::record::{Record, Removal};
use crate::room::Room;

impl Broker {
    pub(crate) fn redrive(
        &mut self,
        now: Millis,
        letters: QueueId,
        select: &Select,
        limit: u64,
        output: &mut Output,
    ) -> Progress {
        let mut progress = Progress::default();
        let Kind::Dead { source: Some(source) } = self.queues.queue(letters).kind else { return progress };
        let id = select.id.as_ref().map(|id| self.hash_key.id(id));
        let queue = self.queues.queue(letters);
        let limit = limit.min(MOST) as usize;
        let mut chosen: Vec<Sequence> = queue
            .entries
            .iter()
            .take_while(|(sequence, _)| select.through.is_none_or(|last| *sequence <= last.0))
            .filter(|(sequence, entry)| {
                let Some(info) = queue.dead.get(*sequence) else { return false };
                // What a module failed on is judged again before it goes back.
                let unjudged = info.reason == DeadReason::FilterError && info.module.is_some();
                entry.state != State::Leased
                    && !unjudged
                    && select.reason.is_none_or(|wanted| info.reason == wanted)
                    && id.is_none_or(|id| self.messages.row(Sequence(*sequence)).id == id)
            })
            .map(|(sequence, _)| Sequence(sequence))
            .take(limit.saturating_add(1))
            .collect();
        progress.more = chosen.len() > limit;
        chosen.truncate(limit);
        for sequence in chosen {
            // What died to make room for another one may have pushed it out.
            if !self.queues.queue(letters).entries.contains(sequence.0) {
                continue;
            }
            let bytes = u64::from(self.messages.row(sequence).len);
            if self.queues.queue(source).refuses(1, bytes) {
                (progress.full, progress.more) = (true, true);
                break;
            }
            let journaled = self.queues.queue(letters).journaled();
            self.commit(Record::Redriven { queue: letters, sequence, at: now }, journaled, output);
            self.make_room_for(now, source, sequence, output);
            progress.count += 1;
        }
        self.touch(source);
        self.calm(letters, output);
        progress
    }

    pub(crate) fn redrive_edited(
        &mut self,
        now: Millis,
        letters: QueueId,
        sequence: Sequence,
        message: Message,
        output: &mut Output,
    ) -> Result<Progress, OperateError> {
        let queue = self.queues.queue(letters);
        if queue.dead.get(sequence.0).is_some_and(|info| is_copy(info.reason)) {
            return Err(OperateError::NotAllowed);
        }
        let Kind::Dead { source: Some(source) } = queue.kind else { return Err(OperateError::UnknownId) };
        let entry = queue.entries.get(sequence.0).filter(|entry| entry.state != State::Leased);
        entry.ok_or(OperateError::UnknownId)?;
        let journaled = queue.journaled();
        let bytes = message.body.len() as u64;
        if self.queues.queue(source).refuses(1, bytes) {
            return Ok(Progress { count: 0, more: true, full: true });
        }
        // Another queue may hold the same message, in its old form.
        let alone = self.messages.row(sequence).refs == 1;
        let renamed = if alone { sequence } else { Sequence(self.draw(output)) };
        self.commit(
            Record::Edited { queue: letters, sequence, renamed, at: now, message },
            journaled,
            output,
        );
        self.make_room_for(now, source, renamed, output);
        self.touch(source);
        self.calm(letters, output);
        Ok(Progress { count: 1, ..Progress::default() })
    }

    /// What filters made of a dead letter takes its place, wherever that is.
    pub(crate) fn redrive_as(
        &mut self,
        now: Millis,
        letters: QueueId,
        sequence: Sequence,
        filtered: Filtered,
        output: &mut Output,
    ) -> Result<Progress, OperateError> {
        let queue = self.queues.queue(letters);
        let entry = queue.entries.get(sequence.0).filter(|entry| entry.state != State::Leased);
        entry.ok_or(OperateError::UnknownId)?;
        if queue.dead.get(sequence.0).is_some_and(|info| is_copy(info.reason)) {
            return Err(OperateError::NotAllowed);
        }
        let journaled = queue.journaled();
        let sorted = self.sort(None, filtered, None);
        if sorted.is_lost() {
            return Ok(Progress::default());
        }
        match self.check_sorted(&sorted, &mut Room::new(self.disk)) {
            Ok(()) => {}
            Err(PublishError::DiskLow) => return Err(OperateError::DiskLow),
            Err(PublishError::DiskFull) => return Err(OperateError::DiskFull),
            Err(_) => return Ok(Progress { count: 0, more: true, full: true }),
        }
        let record = Record::Removed { queue: letters, cause: Removal::Rejudged, sequences: vec![sequence] };
        self.commit(record, journaled, output);
        self.store_sorted(now, None, sorted, output);
        self.touch_source(letters);
        self.calm(letters, output);
        Ok(Progress { count: 1, ..Progress::default() })
    }
}

/// Letters of gathers and sagas that failed are copies to look at: what they were part of is over, or goes on by itself.
pub(crate) fn is_copy(reason: DeadReason) -> bool {
    matches!(reason, DeadReason::AggregationFailed | DeadReason::CompensationFailed)
}
