//! Effects that wait for their records. Nothing is confirmed or delivered before it is durable at the durability asked for.
//!
//! Two queues, one for each durability that waits. Each is first in, first out: an effect that names an older record than the
//! one before it waits a little longer than it must, which is never wrong. What goes to one consumer or subscription keeps its
//! order, even where a later effect would wait for less.

use std::collections::VecDeque;

use chaski_broker::{Durability, Effect, Held, Position, Wait};

use crate::mailboxes::IdMap;

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
    /// How many wait in each for a consumer or subscription: what comes for it later must not overtake them.
    waiting: IdMap<Waiting>,
}

#[derive(Default)]
struct Waiting {
    os: u32,
    fsync: u32,
}

impl HeldEffects {
    /// Takes an effect; gives it back at once when nothing is to be waited for.
    pub(crate) fn hold(&mut self, held: Held, marks: Marks) -> Option<Effect> {
        let covered = marks.cover(held.wait);
        if covered && self.waiting.is_empty() {
            return Some(held.effect);
        }
        let recipient = recipient(&held.effect);
        let before = recipient.and_then(|recipient| self.waiting.get(&recipient));
        if covered && before.is_none() {
            return Some(held.effect);
        }
        let behind_fsync = before.is_some_and(|before| before.fsync > 0);
        let fsync = behind_fsync || (!covered && held.wait.durability == Durability::Fsync);
        if let Some(recipient) = recipient {
            let waiting = self.waiting.entry(recipient).or_default();
            *(if fsync { &mut waiting.fsync } else { &mut waiting.os }) += 1;
        }
        (if fsync { &mut self.fsync } else { &mut self.os }).push_back(held);
        None
    }

    /// The next effect whose wait is over.
    pub(crate) fn release(&mut self, marks: Marks) -> Option<Effect> {
        let due = |queue: &VecDeque<Held>| queue.front().is_some_and(|held| marks.cover(held.wait));
        let fsync = !due(&self.os);
        if fsync && !due(&self.fsync) {
            return None;
        }
        let held = (if fsync { &mut self.fsync } else { &mut self.os }).pop_front()?;
        if let Some(recipient) = recipient(&held.effect) {
            let waiting = self.waiting.get_mut(&recipient).expect("it was counted when it was held");
            *(if fsync { &mut waiting.fsync } else { &mut waiting.os }) -= 1;
            if (waiting.os, waiting.fsync) == (0, 0) {
                self.waiting.remove(&recipient);
            }
        }
        Some(held.effect)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.os.len() + self.fsync.len()
    }
}

/// Whose order matters: a consumer's deliveries, and what passes to a subscription. Answers to numbered frames are put in order
/// where they are sent. Consumers and subscriptions are numbered by one counter.
fn recipient(effect: &Effect) -> Option<u64> {
    match effect {
        Effect::Deliver { consumer, .. } => Some(consumer.0),
        Effect::Pass { subscription, .. } => Some(subscription.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use chaski_broker::{Event, Millis, SubscriptionId};

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

    fn pass(subscription: u64, position: u64, durability: Durability) -> Held {
        let subscription = SubscriptionId(subscription);
        let effect =
            Effect::Pass { subscription, published_at: Millis(0), body: Bytes::new(), dropped: position };
        Held { wait: Wait { position: Position(position), durability }, effect }
    }

    #[test]
    fn what_waits_for_nothing_does_not_overtake_what_waits_for_the_same_recipient() {
        let mut held = HeldEffects::default();
        let marks = |written, synced| Marks { written: Position(written), synced: Position(synced) };
        assert!(held.hold(pass(1, 5, Durability::Fsync), marks(0, 0)).is_none());
        assert!(held.hold(pass(1, 6, Durability::Memory), marks(0, 0)).is_none());
        assert!(held.hold(pass(1, 7, Durability::Os), marks(0, 0)).is_none());
        assert!(held.hold(pass(2, 8, Durability::Memory), marks(0, 0)).is_some(), "another one's");
        assert!(held.release(marks(7, 4)).is_none());
        let order: Vec<u64> = std::iter::from_fn(|| held.release(marks(7, 7)))
            .map(|effect| match effect {
                Effect::Pass { dropped, .. } => dropped,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [5, 6, 7]);
        assert!(held.hold(pass(1, 9, Durability::Memory), marks(7, 7)).is_some(), "nothing waits any more");
    }
}
