//! Whether the broker's own view of itself is the model's.

use super::*;
use crate::harness::{World, part};

impl Model {
    /// Takes over jittered times that no record told: `memory` queues have none.
    #[track_caller]
    pub(crate) fn learn_delays(&mut self, world: &World) {
        let memory = self.queues.iter().filter(|(_, queue)| queue.settings.durability == Durability::Memory);
        for name in memory.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            for browsed in world.browse(&name) {
                if let Some(until) = browsed.not_before {
                    self.know_delay(&name, browsed.sequence, until);
                }
            }
        }
    }

    /// Compares everything.
    #[track_caller]
    pub(crate) fn compare(&mut self, world: &World) {
        let stats = world.broker.queues();
        let names: Vec<&str> = stats.iter().map(|stats| &*stats.name).collect();
        assert_eq!(names, self.queues.keys().collect::<Vec<_>>());
        for stats in &stats {
            self.compare_queue(&stats.name, stats, world);
        }
        self.compare_state(world);
        assert_eq!(world.broker.replies_late(), self.late, "late replies");
        let live: BTreeMap<Sequence, u64> = self
            .queues
            .values()
            .flat_map(|queue| &queue.entries)
            .filter(|(_, entry)| entry.journaled)
            .map(|(sequence, entry)| (*sequence, entry.draft.build().body.len() as u64))
            .collect();
        let all = Position(1)..=world.broker.position();
        assert_eq!(world.broker.live_bytes(all.clone()), live.values().sum::<u64>(), "live bytes");
        assert_eq!(world.broker.live_positions(all, usize::MAX).len(), live.len(), "live positions");
        if let Some(due) = self.next_due() {
            let next = world.broker.next_timeout();
            assert!(
                next.is_some_and(|next| next <= due),
                "something is due at {due}, and the next wake-up is {next:?}"
            );
        }
    }

    #[track_caller]
    fn compare_queue(&mut self, name: &str, stats: &QueueStats, world: &World) {
        let browsed = world.browse(name);
        let queue = self.queue(name);
        let sequences: Vec<Sequence> = browsed.iter().map(|browsed| browsed.sequence).collect();
        assert_eq!(sequences, queue.entries.keys().copied().collect::<Vec<_>>(), "messages of {name}");
        let mut counts = [0; 4];
        for (browsed, entry) in browsed.iter().zip(queue.entries.values()) {
            let (state, not_before) = match entry.state {
                State::Leased { .. } => (BrowsedState::Leased, None),
                State::Delayed(until, _) => (BrowsedState::Delayed, Some(until)),
                State::Ready if queue.is_parked(entry) => (BrowsedState::Parked, None),
                State::Ready => (BrowsedState::Ready, None),
            };
            counts[match state {
                BrowsedState::Ready => 0,
                BrowsedState::Delayed => 1,
                BrowsedState::Parked => 2,
                BrowsedState::Leased => 3,
            }] += 1;
            let sequence = browsed.sequence;
            assert_eq!(browsed.state, state, "state of {sequence} in {name}");
            assert_eq!(browsed.not_before, not_before, "{sequence} in {name}");
            assert_eq!(browsed.attempts, entry.attempts, "attempts of {sequence} in {name}");
            assert_eq!(browsed.published_at, entry.published_at, "{sequence} in {name}");
            let dead = browsed.dead.as_ref().map(|info| super::lease::without_detail(info));
            assert_eq!(dead, entry.dead, "{sequence} in {name}");
            let body = world.body(&browsed.body);
            assert_eq!(body, entry.draft.build().body, "body of {} in {name}", part(&body, 1));
        }
        assert_eq!([stats.ready, stats.delayed, stats.parked, stats.leased], counts, "counters of {name}");
        let bytes: u64 = queue.entries.values().map(|entry| entry.draft.build().body.len() as u64).sum();
        assert_eq!(stats.bytes, bytes, "bytes of {name}");
        assert_eq!((stats.paused, stats.consumers), (queue.paused, queue.consumers.len() as u64), "{name}");
        let parked: Vec<&[u8]> = queue.parked.keys().map(|key| key.as_bytes()).collect();
        assert_eq!(
            stats.parked_keys.iter().map(|key| &key[..]).collect::<Vec<_>>(),
            parked,
            "keys of {name}"
        );
        // What `memory` queues counted before a start is gone, or not, as a snapshot was taken or not.
        if queue.settings.durability != Durability::Memory {
            let totals = (stats.totals.acked, stats.totals.dead, stats.totals.dropped);
            assert_eq!(totals, (queue.acked, queue.died, queue.dropped), "totals of {name}");
        }
        assert!(self.one_state_each(name), "a message of {name} is in its dead-letter queue too");
    }

    /// A message is in its queue or in the dead-letter queue, not in both.
    fn one_state_each(&self, name: &str) -> bool {
        let letters = self.queues.get(&format!("{name}.dlq"));
        letters.is_none_or(|letters| {
            !self.queue(name).entries.keys().any(|sequence| letters.entries.contains_key(sequence))
        })
    }
}
