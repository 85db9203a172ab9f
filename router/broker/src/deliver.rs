//! Deliveries: who attaches, who can take one more, and which message goes to whom. Settling is `settle.rs`.

use crate::broker::{Broker, TIMEOUT_BUDGET};
use crate::command::Attach;
use crate::consumers::Consumer;
use crate::effect::{Attached, Delivery, Effect, Held, Output, UnknownQueue, Wait};
use crate::ids::{ConsumerId, Lease, Millis, Position, QueueId, Sequence};
use crate::keys::KEY_LANE;
use crate::message::DeadReason;
use crate::queue::{DELIVERED, Deadline, Index, Queue, REDRIVEN, State};
use crate::record::Move;
use crate::timers::DEADLINES;

/// The next message of a queue, taken out of its lane.
struct Next {
    lane: u8,
    sequence: Sequence,
    /// The record that settled its key's previous message.
    settled: Position,
    len: u32,
    /// Its time to live is over, and its timer didn't run yet.
    expired: bool,
}

impl Broker {
    pub(crate) fn attach(&mut self, attach: Attach, output: &mut Output) {
        let Attach { consumer, connection, queue, credit } = attach;
        let found = self.queue_id(&queue).and_then(|id| self.queues.get_mut(id));
        let outcome = match found {
            Some(queue) => {
                let id = queue.id;
                let slot = self.consumers.insert(Consumer::new(consumer, connection, id, credit));
                queue.consumers.push(slot);
                let attached = Attached { queue: id, ack_wait_ms: queue.settings.ack_wait_ms };
                self.enlist(slot);
                Ok(attached)
            }
            None => Err(UnknownQueue),
        };
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Attached { consumer, outcome } });
    }

    pub(crate) fn set_credit(&mut self, consumer: ConsumerId, credit: u32) {
        let Some(slot) = self.consumers.slot(consumer) else { return };
        self.consumers.consumer_mut(slot).credit = credit;
        self.enlist(slot);
    }

    /// The oldest unsent deliveries are on their way: their leases start.
    pub(crate) fn sent(&mut self, now: Millis, consumer: ConsumerId, count: u32) {
        let Some(slot) = self.consumers.slot(consumer) else { return };
        for _ in 0..count {
            let consumer = self.consumers.consumer_mut(slot);
            let Some((lease, len)) = consumer.unsent.pop_front() else { break };
            consumer.unsent_bytes -= u64::from(len);
            let queue = consumer.queue;
            if consumer.holding(lease).is_some_and(|holding| holding.deadline.is_none()) {
                self.start_lease(now, slot, queue, lease);
            }
        }
        self.enlist(slot);
    }

    /// Sets, or renews, the end of a lease that is in force.
    pub(crate) fn start_lease(&mut self, now: Millis, slot: u32, id: QueueId, lease: Lease) {
        let queue = self.queues.queue_mut(id);
        let at = now.after(queue.settings.ack_wait_ms);
        let holding = self.consumers.consumer_mut(slot).holding(lease).expect("the caller found it in force");
        if holding.deadline == Some(at) {
            // However often a client extends within one moment, there is one deadline.
            return;
        }
        holding.deadline = Some(at);
        let deadline = Deadline { at, sequence: holding.sequence, lease, consumer: slot };
        // ack_wait seldom changes, so the end is the place.
        let place = match queue.deadlines.back() {
            Some(last) if last.at > at => queue.deadlines.partition_point(|other| other.at <= at),
            _ => queue.deadlines.len(),
        };
        queue.deadlines.insert(place, deadline);
        // Leases that ended leave their deadlines behind.
        if queue.deadlines.len() as u64 > 4 * queue.leased + 1024 {
            let consumers = &mut self.consumers;
            queue.deadlines.retain(|deadline| {
                let consumer = consumers.get_mut(deadline.consumer);
                let holding = consumer.and_then(|consumer| consumer.holding(deadline.lease));
                holding.is_some_and(|holding| holding.deadline == Some(deadline.at))
            });
        }
        if queue.deadline_timer.is_none_or(|timer| at < timer) {
            if let Some(timer) = queue.deadline_timer {
                self.timers.unset(timer, id, DEADLINES);
            }
            queue.deadline_timer = Some(at);
            self.timers.set(at, id, DEADLINES);
        }
    }

    /// Puts a consumer that can take one more into its queue's ring.
    pub(crate) fn enlist(&mut self, slot: u32) {
        let consumer = self.consumers.consumer_mut(slot);
        let queue = self.queues.queue_mut(consumer.queue);
        let limit = self.rules.limits.consumer_unsent_bytes;
        if !consumer.in_ring && eligible(consumer, slot, queue, limit) {
            consumer.in_ring = true;
            queue.ring.push_back(slot);
        }
        if !queue.ring.is_empty() {
            let id = queue.id;
            self.touch(id);
        }
    }

    /// Gives what is ready to whom can take it.
    pub(crate) fn dispatch(&mut self, now: Millis, id: QueueId, output: &mut Output) {
        let Some(queue) = self.queues.get(id) else { return };
        if queue.paused || self.disk_full_for(id) {
            return;
        }
        let mut budget = TIMEOUT_BUDGET;
        while self.is_awaited(id) && !self.out_of_numbers() {
            if budget == 0 {
                self.unfinished.push(id);
                break;
            }
            budget -= 1;
            let Some(next) = self.take_next(now, id) else { break };
            if next.expired {
                self.bury(now, id, next.sequence, DeadReason::Expired, "its time to live ran out", output);
                continue;
            }
            if self.worn_out_now(id, next.sequence) {
                self.bury(
                    now,
                    id,
                    next.sequence,
                    DeadReason::MaxDeliver,
                    "the rules permit no further delivery",
                    output,
                );
                continue;
            }
            match self.taker(id, next.len) {
                Some(slot) => self.deliver(now, id, slot, next, output),
                None => {
                    self.put_back(id, &next);
                    break;
                }
            }
        }
    }

    /// Whether somebody can take one more; who no longer can leaves the ring.
    fn is_awaited(&mut self, id: QueueId) -> bool {
        let limit = self.rules.limits.consumer_unsent_bytes;
        let queue = self.queues.queue_mut(id);
        while let Some(slot) = queue.ring.front().copied() {
            let consumer = self.consumers.consumer_mut(slot);
            if eligible(consumer, slot, queue, limit) {
                return true;
            }
            consumer.in_ring = false;
            queue.ring.pop_front();
        }
        false
    }

    /// It was delivered as often as the rules permit by now.
    fn worn_out_now(&self, id: QueueId, sequence: Sequence) -> bool {
        let queue = self.queues.queue(id);
        let attempts = queue.entries.get(sequence.0).map_or(0, |entry| entry.attempts);
        queue.settings.max_deliver.is_some_and(|max| attempts >= max)
    }

    /// Takes the next message that may go out of its lane.
    fn take_next(&mut self, now: Millis, id: QueueId) -> Option<Next> {
        let queue = self.queues.queue_mut(id);
        while let Some((lane, sequence)) = queue.index.lanes.pop() {
            let Some(entry) = queue.entries.get(sequence.0).filter(|entry| entry.state == State::Ready)
            else {
                continue;
            };
            let stored = self.messages.row(sequence);
            let Index { keys, .. } = &mut queue.index;
            let settled = match queue.settings.ordering.by_key(stored) {
                Some(name) => match keys.take(name, sequence, &queue.entries) {
                    Some(settled) => settled,
                    None => continue,
                },
                None => Position(0),
            };
            let expired = queue.expires_at(sequence, entry, stored).is_some_and(|at| at <= now);
            return Some(Next { lane, sequence, settled, len: stored.len, expired });
        }
        None
    }

    fn put_back(&mut self, id: QueueId, next: &Next) {
        let queue = self.queues.queue_mut(id);
        match queue.settings.ordering.by_key(self.messages.row(next.sequence)) {
            Some(name) => queue.index.keys.put_back(name, &queue.entries, &mut queue.index.lanes),
            None => queue.index.lanes.add(if queue.by_key() { KEY_LANE } else { next.lane }, next.sequence),
        }
    }

    /// The next consumer in turn that takes a message of this length.
    fn taker(&mut self, id: QueueId, len: u32) -> Option<u32> {
        let limit = self.rules.limits.consumer_unsent_bytes;
        let queue = self.queues.queue_mut(id);
        while let Some(slot) = queue.ring.pop_front() {
            let consumer = self.consumers.consumer_mut(slot);
            consumer.in_ring = false;
            let fits = consumer.unsent.is_empty() || consumer.unsent_bytes + u64::from(len) <= limit;
            if fits && eligible(consumer, slot, queue, limit) {
                return Some(slot);
            }
        }
        None
    }

    fn deliver(&mut self, now: Millis, id: QueueId, slot: u32, next: Next, output: &mut Output) {
        let sequence = next.sequence;
        let lease = Lease(self.draw(output));
        let before = *self.queues.queue(id).entries.get(sequence.0).expect("it was just taken");
        self.commit_move(now, id, Move::Delivered { sequence, lease }, output);
        let queue = self.queues.queue_mut(id);
        let stored = self.messages.row(sequence);
        let dead = if queue.is_dead() {
            queue.dead.get(sequence.0).map(|info| Box::new((**info).clone()))
        } else {
            None
        };
        let delivery = Delivery {
            sequence,
            lease,
            attempt: before.attempts + 1,
            redelivered: before.has(DELIVERED) || sequence.0 <= self.start,
            published_at: stored.published_at,
            body: stored.body(),
            len: stored.len,
            dead,
        };
        let consumer = self.consumers.consumer_mut(slot);
        consumer.hold(lease, sequence, stored.len);
        let effect = Effect::Deliver { consumer: consumer.id, delivery };
        if eligible(consumer, slot, queue, self.rules.limits.consumer_unsent_bytes) {
            consumer.in_ring = true;
            queue.ring.push_back(slot);
        }
        let durability = queue.settings.durability;
        let mut position = stored.position.max(next.settled);
        // What changed its queue is not here before that record: the last of them stands for its own.
        if queue.is_dead() || before.has(REDRIVEN) {
            position = position.max(queue.moved_in);
        }
        let wait = self.numbered(position, durability);
        output.effects.push(Held { wait, effect });
    }
}

/// Whether a consumer can take one more, as far as is known before the message is.
fn eligible(consumer: &Consumer, slot: u32, queue: &Queue, unsent_limit: u64) -> bool {
    consumer.held < consumer.credit
        && (consumer.unsent.is_empty() || consumer.unsent_bytes < unsent_limit)
        && (!queue.settings.single_active || queue.consumers.first() == Some(&slot))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::ids::ConnectionId;
    use crate::queues::CHASKI;

    #[test]
    fn extending_a_lease_over_and_over_within_a_millisecond_keeps_one_deadline() {
        let mut broker = Broker::new(1, |_| unreachable!("nobody asks"));
        let mut output = Output::default();
        broker.resume(Millis(1000), &mut output);
        let (id, lease, sequence) = (ConsumerId(1), Lease(7), Sequence(6));
        let slot = broker.consumers.insert(Consumer::new(id, ConnectionId(1), CHASKI, 1));
        broker.consumers.consumer_mut(slot).hold(lease, sequence, 1);
        broker.start_lease(Millis(1000), slot, CHASKI, lease);
        let mut extend = |now: Millis, times: usize| {
            let leases = vec![(sequence, lease); 1000];
            for _ in 0..times / leases.len() {
                let leases = leases.clone();
                broker.handle(now, Command::Extend { consumer: id, leases }, &mut output);
                assert!(broker.queues.queue_mut(CHASKI).deadlines.len() <= 2);
            }
        };
        // Within the lease's first millisecond, and within a later one, which has a deadline of its own.
        extend(Millis(1000), 100_000);
        extend(Millis(1001), 100_000);
    }
}
