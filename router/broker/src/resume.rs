//! A start: what was leased is lost, numbers are reserved, and the indexes and timers are built from the durable state.

use crate::broker::{Broker, NUMBER_BLOCK};
use crate::effect::Output;
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::DeadReason;
use crate::queue::{Index, State};
use crate::record::Record;
use crate::subscriptions::Subscriptions;

impl Broker {
    /// Ends recovery; called once, before the first command. For every recorded lease a crash is a lost connection: it counts
    /// as an attempt, without backoff.
    pub fn resume(&mut self, now: Millis, output: &mut Output) {
        assert!(!self.live, "a broker resumes once");
        let now = self.tick(now);
        let worn_out = self.worn_out();
        let reserved = self.reserved.max(self.counter) + NUMBER_BLOCK;
        let hash_key = (self.hash_key.0, self.hash_key.1);
        let position = self.commit(Record::Started { at: now, reserved, hash_key }, true, output);
        self.await_reservation(position, output);
        self.subscriptions = Subscriptions::new(self.hash_key);
        self.rebuild();
        self.live = true;
        self.bind();
        self.recount_alarms();
        self.resume_gathers(now, output);
        self.resume_sagas(now, output);
        for (id, sequence) in worn_out {
            // What gathers and sagas sent again may have pushed it out.
            if !self.queues.queue(id).entries.contains(sequence.0) {
                continue;
            }
            self.bury(
                now,
                id,
                sequence,
                DeadReason::MaxDeliver,
                "the router stopped during its last delivery",
                output,
            );
        }
        self.flush(now, output);
    }

    /// Leased messages whose delivery was the last that is permitted.
    fn worn_out(&self) -> Vec<(QueueId, Sequence)> {
        let mut found = Vec::new();
        for queue in self.queues.iter().filter(|queue| queue.leased > 0) {
            let Some(max) = queue.settings.max_deliver else { continue };
            let worn = queue
                .entries
                .iter()
                .filter(|(_, entry)| entry.state == State::Leased && entry.attempts >= max);
            found.extend(worn.map(|(sequence, _)| (queue.id, Sequence(sequence))));
        }
        found
    }

    fn rebuild(&mut self) {
        self.timers.clear();
        for queue in self.queues.iter_mut() {
            queue.index = Index::new(self.hash_key);
            // The clone shares every page: nothing is copied, since indexing changes no entry.
            let entries = queue.entries.clone();
            for (sequence, _) in entries.iter() {
                queue.index(Sequence(sequence), &self.messages, &mut self.timers);
            }
        }
    }
}
