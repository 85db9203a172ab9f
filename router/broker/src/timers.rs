//! When which entry is to be looked at: one ordered set, exact, so that an entry that leaves leaves nothing behind.
//! What then happens to it, `expire.rs` decides.

use std::collections::BTreeSet;

use crate::ids::{Millis, QueueId, Sequence};

/// Stands for a queue's lease deadlines.
pub(crate) const DEADLINES: Sequence = Sequence(0);
/// Stands for a queue's event about dropped messages.
pub(crate) const DROP_EVENT: Sequence = Sequence(u64::MAX);

/// Stands for gathers: the timer's number is the gather's.
pub(crate) const GATHERS: QueueId = QueueId(u32::MAX);
/// Stands for sagas, likewise.
pub(crate) const SAGAS: QueueId = QueueId(u32::MAX - 1);

/// Every timer that is set.
#[derive(Default)]
pub(crate) struct Timers {
    set: BTreeSet<(Millis, QueueId, Sequence)>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Millis, queue: QueueId, sequence: Sequence) {
        self.set.insert((at, queue, sequence));
    }

    pub(crate) fn unset(&mut self, at: Millis, queue: QueueId, sequence: Sequence) {
        self.set.remove(&(at, queue, sequence));
    }

    pub(crate) fn next(&self) -> Option<Millis> {
        self.set.first().map(|(at, ..)| *at)
    }

    /// The next one that is due.
    pub(crate) fn pop(&mut self, now: Millis) -> Option<(QueueId, Sequence)> {
        let (at, queue, sequence) = *self.set.first()?;
        (at <= now).then(|| {
            self.set.pop_first();
            (queue, sequence)
        })
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
    }
}
