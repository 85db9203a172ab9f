//! Effects that wait for their records. Nothing is confirmed or delivered before it is durable at the durability asked for.
//!
//! Two queues, one for each durability that waits. Each is first in, first out: an effect that names an older record than the
//! one before it waits a little longer than it must, which is never wrong.

use std::collections::VecDeque;

use chaski_broker::{Durability, Effect, Held, Position, Wait};

/// What is durable so far.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Written to the file.
    pub(crate) written: Position,
    /// fdatasync returned.
    pub(crate) synced: Position,
}

impl Marks {
    fn cover(&self, wait: Wait) -> bool {
        match wait.durability {
            Durability::Memory => true,
            Durability::Os => wait.position <= self.written,
            Durability::Fsync => wait.position <= self.synced,
        }
    }
}

/// The effects that are held back.
#[derive(Default)]
pub(crate) struct HeldEffects {
    os: VecDeque<Held>,
    fsync: VecDeque<Held>,
}

impl HeldEffects {
    /// Takes an effect; gives it back at once when nothing is to be waited for.
    pub(crate) fn hold(&mut self, held: Held, marks: Marks) -> Option<Effect> {
        if marks.cover(held.wait) {
            return Some(held.effect);
        }
        match held.wait.durability {
            Durability::Fsync => self.fsync.push_back(held),
            Durability::Os | Durability::Memory => self.os.push_back(held),
        }
        None
    }

    /// The next effect whose wait is over.
    pub(crate) fn release(&mut self, marks: Marks) -> Option<Effect> {
        for queue in [&mut self.os, &mut self.fsync] {
            if queue.front().is_some_and(|held| marks.cover(held.wait)) {
                return queue.pop_front().map(|held| held.effect);
            }
        }
        None
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.os.len() + self.fsync.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaski_broker::Event;

    fn event(position: u64, durability: Durability) -> Held {
        let effect = Effect::Event(Event::QueueDropped { queue: "q".into(), count: position });
        Held { wait: Wait { position: Position(position), durability }, effect }
    }

    #[test]
    fn effects_wait_for_their_own_durability() {
        let mut held = HeldEffects::default();
        let marks = |written, synced| Marks { written: Position(written), synced: Position(synced) };
        assert!(held.hold(event(5, Durability::Memory), marks(0, 0)).is_some());
        assert!(held.hold(event(5, Durability::Os), marks(4, 4)).is_none());
        assert!(held.hold(event(5, Durability::Fsync), marks(4, 4)).is_none());
        assert!(held.release(marks(4, 4)).is_none());
        assert!(held.release(marks(5, 4)).is_some());
        assert!(held.release(marks(5, 4)).is_none());
        assert!(held.release(marks(5, 5)).is_some());
        assert_eq!(held.len(), 0);
    }
}
