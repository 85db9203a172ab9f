//! Letters of messages that died before a queue had them: on a route, on a queue's binding, or where a filter had sent them
//! and nobody was. Making room for one never refuses.

use crate::broker::Broker;
use crate::dead::{shorten, told};
use crate::effect::Output;
use crate::filtered::Stillborn;
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::{DeadInfo, Message};
use crate::messages::RequestName;
use crate::queue::Kind;
use crate::queues::CHASKI;
use crate::record::{Record, Removal};

/// A letter, and where it goes.
pub(crate) struct Letter {
    /// The dead-letter queue.
    pub(crate) letters: QueueId,
    pub(crate) message: Message,
    pub(crate) info: DeadInfo,
}

impl Letter {
    /// One of `chaski.dlq`.
    pub(crate) fn of_no_queue(message: Message, info: DeadInfo) -> Letter {
        Letter { letters: CHASKI, message, info }
    }
}

impl Broker {
    /// Where a message goes that died before its queue had it; nowhere if that queue is gone.
    pub(crate) fn letter(&self, stillborn: Stillborn) -> Option<Letter> {
        let Stillborn { message, queue, info } = stillborn;
        let letters = match queue {
            None => CHASKI,
            Some(queue) => match self.queues.get(queue)?.kind {
                Kind::Ordinary { dead } => dead,
                Kind::Dead { .. } => return None,
            },
        };
        Some(Letter { letters, message, info })
    }

    /// Stores a letter. `request` is what the client asked with the message that it comes from.
    pub(crate) fn lay(
        &mut self,
        now: Millis,
        letter: Letter,
        request: Option<&RequestName>,
        output: &mut Output,
    ) {
        let Letter { letters, message, mut info } = letter;
        info.detail.truncate(shorten(&info.detail).len());
        (info.first_at, info.last_at) = (now, now);
        if let Some(request) = request {
            self.owe_rejection_of(request.clone(), told(info.reason, &info.detail));
        }
        let (journaled, reason) = (self.queues.queue(letters).journaled(), info.reason);
        let fits = self.make_room(now, letters, message.body.len() as u64, output);
        let sequence = Sequence(self.draw(output));
        let info = Box::new(info);
        self.commit(Record::Stillborn { sequence, at: now, letters, info, message }, journaled, output);
        if !fits {
            let record =
                Record::Removed { queue: letters, cause: Removal::Dropped, sequences: vec![sequence] };
            self.commit(record, journaled, output);
            self.note_dropped(now, letters, 1);
        }
        self.touch(letters);
        if let Kind::Dead { source: Some(source) } = self.queues.queue(letters).kind {
            self.touch(source);
            self.raise(source, letters, reason, output);
        }
    }
}
