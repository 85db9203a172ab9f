//! What happens by itself as time passes: leases end, delays are over, messages expire, windows are tidied. Bounded a call.

use crate::broker::{Broker, TIMEOUT_BUDGET};
use crate::command::DiskState;
use crate::dead::tell;
use crate::effect::{Effect, Event, Held, Output, Wait};
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::DeadReason;
use crate::publish::LEAST_WINDOW_MS;
use crate::queue::{Index, SCHEDULED, State};
use crate::settle::Return;
use crate::timers::{DEADLINES, DROP_EVENT, GATHERS, SAGAS};

/// Windows are tidied, and their real length told, at most once in this time.
const TIDY_MS: u64 = 1000;

impl Broker {
    /// When [`Broker::handle_timeout`] is to be called; in the past when there is more to do at once.
    pub fn next_timeout(&self) -> Option<Millis> {
        let undone = !self.touched.is_empty() || !self.retimings.is_empty();
        let deaf = !self.deaf.is_empty() && self.disk != DiskState::Full;
        if undone || deaf || !self.owed.is_empty() || !self.drains.is_empty() {
            return Some(self.now);
        }
        // On a full disk nothing that needs a record happens by itself.
        let timer = if self.disk == DiskState::Full { None } else { self.timers.next() };
        let outcome = self.transactions.next_expiry();
        // While ids go early, how long they are remembered changes by itself.
        let shrunk = self.dedup.real_window_ms(self.now, self.wanted_window_ms) != self.window_told_ms;
        let shrunk = shrunk.then_some(self.tidy_from);
        let state = if self.disk == DiskState::Full { None } else { self.states.next_expiry() };
        let ended = [self.gathers.next_expiry(), self.sagas.next_expiry()];
        let windows = [self.dedup.next_expiry(), self.requests.next_expiry(), outcome, shrunk, state];
        let windows = windows.into_iter().chain(ended);
        let tidy = windows.flatten().min().map(|at| at.max(self.tidy_from));
        // A window that is too short changes by itself, and is told.
        let watch = self.dedup.forgot().then_some(self.tidy_from);
        timer.into_iter().chain(tidy).chain(watch).min()
    }

    /// Does what is due, a bounded part of it: [`Broker::next_timeout`] is still due when there is more.
    pub fn handle_timeout(&mut self, now: Millis, output: &mut Output) {
        assert!(self.live, "timeouts come after `resume`");
        let now = self.tick(now);
        self.retime();
        self.fail_deaf(now, output);
        let mut budget = TIMEOUT_BUDGET;
        while budget > 0 && self.disk != DiskState::Full {
            let Some((queue, sequence)) = self.timers.pop(now) else { break };
            budget -= 1;
            match sequence {
                number if queue == GATHERS => self.gather_timeout(now, number, output),
                number if queue == SAGAS => self.saga_due(now, number, output),
                DEADLINES => budget = self.end_leases(now, queue, budget, output),
                DROP_EVENT => self.tell_dropped(now, queue, output),
                sequence => self.look_at(now, queue, sequence, output),
            }
        }
        if now >= self.tidy_from {
            let left = TIMEOUT_BUDGET;
            let done = self.dedup.expire(now, left)
                + self.requests.expire(now, left)
                + self.expire_outcomes(now, left)
                + self.expire_gathers(now, left)
                + self.expire_sagas(now, left);
            let more = self.disk != DiskState::Full && self.expire_states(now, output);
            // What the budget left over is due at once.
            self.tidy_from = if done >= left || more { now } else { now.after(TIDY_MS) };
            self.watch_window(now, output);
        }
        self.drain();
        self.flush(now, output);
    }

    /// A message's time to live, or its delay, may be over.
    fn look_at(&mut self, now: Millis, id: QueueId, sequence: Sequence, output: &mut Output) {
        let Some(queue) = self.queues.get_mut(id) else { return };
        let Some(entry) = queue.entries.get(sequence.0).filter(|entry| entry.state != State::Leased) else {
            return;
        };
        let before = *entry;
        let stored = self.messages.row(sequence);
        if queue.expires_at(sequence, &before, stored).is_some_and(|at| at <= now) {
            self.bury(now, id, sequence, DeadReason::Expired, "its time to live ran out", output);
            return;
        }
        if before.state != State::Delayed || before.value > now.0 {
            return;
        }
        let entry = queue.entries.get_mut(sequence.0).expect("it was just there");
        entry.state = State::Ready;
        entry.value = 0;
        entry.flags &= !SCHEDULED;
        queue.delayed -= 1;
        queue.is_due(sequence, stored);
        match queue.settings.ordering.by_key(stored) {
            Some(name) if before.in_order() => {
                let Index { lanes, keys, .. } = &mut queue.index;
                keys.ripen(name, &queue.entries, lanes);
            }
            _ => queue.index(sequence, &self.messages, &mut self.timers),
        }
        self.touch(id);
    }

    /// Ends the leases of a queue whose time is over, and sets the timer for the next.
    fn end_leases(&mut self, now: Millis, id: QueueId, mut budget: usize, output: &mut Output) -> usize {
        loop {
            let Some(queue) = self.queues.get_mut(id) else { return budget };
            queue.deadline_timer = None;
            let Some(deadline) = queue.deadlines.front().copied() else { return budget };
            let consumer = self.consumers.get_mut(deadline.consumer);
            let current = consumer
                .and_then(|consumer| consumer.holding(deadline.lease))
                .is_some_and(|holding| holding.deadline == Some(deadline.at));
            if current && (deadline.at > now || budget == 0) {
                queue.deadline_timer = Some(deadline.at);
                self.timers.set(deadline.at, id, DEADLINES);
                return budget;
            }
            queue.deadlines.pop_front();
            if current {
                budget -= 1;
                self.consumers.consumer_mut(deadline.consumer).drop_lease(deadline.lease, deadline.sequence);
                self.fail_delivery(now, id, deadline.sequence, Return::Backoff, output);
                self.enlist(deadline.consumer);
            }
        }
    }

    /// Lets messages of dropped queues go, a part of them.
    fn drain(&mut self) {
        let mut budget = TIMEOUT_BUDGET;
        while let Some(queue) = self.drains.last_mut() {
            while budget > 0
                && let Some((sequence, _)) = queue.entries.first()
            {
                queue.entries.remove(sequence);
                queue.dead.remove(sequence);
                if let Some(key) = self.messages.row(Sequence(sequence)).key() {
                    queue.index.keys.forget(key);
                    queue.parked.remove(key);
                }
                self.messages.let_go(Sequence(sequence));
                budget -= 1;
            }
            if !queue.entries.is_empty() {
                return;
            }
            self.drains.pop();
        }
    }

    /// Sets timers of queues whose time to live changed, a part of them. Those of the old one stay: they find nothing to do.
    fn retime(&mut self) {
        let mut budget = TIMEOUT_BUDGET;
        while let Some((id, from)) = self.retimings.last_mut()
            && budget > 0
        {
            let Some(queue) = self.queues.get(*id) else {
                self.retimings.pop();
                continue;
            };
            let mut done = true;
            for (sequence, entry) in queue.entries.range(*from..) {
                if budget == 0 {
                    done = false;
                    break;
                }
                budget -= 1;
                *from = sequence + 1;
                let sequence = Sequence(sequence);
                let at = queue.expires_at(sequence, entry, self.messages.row(sequence));
                if let Some(at) = at.filter(|_| entry.state != State::Leased) {
                    self.timers.set(at, *id, sequence);
                }
            }
            if done {
                self.retimings.pop();
            }
        }
    }

    /// Tells how long ids are really remembered, when that changes by a tenth or more.
    fn watch_window(&mut self, now: Millis, output: &mut Output) {
        let wanted_ms = self.wanted_window_ms;
        let real_ms = self.dedup.real_window_ms(now, wanted_ms);
        let told_ms = self.window_told_ms;
        let whole_again = real_ms == wanted_ms && told_ms != wanted_ms;
        if real_ms == wanted_ms {
            self.dedup.forgive();
        }
        if whole_again || real_ms.abs_diff(told_ms) > told_ms / 10 {
            self.window_told_ms = real_ms;
            if told_ms < wanted_ms || real_ms < wanted_ms {
                tell(output, Event::DedupWindow { window_ms: real_ms, wanted_ms });
            }
            if real_ms.min(LEAST_WINDOW_MS) != told_ms.min(LEAST_WINDOW_MS) {
                let window_ms = real_ms.min(LEAST_WINDOW_MS);
                output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::DedupWindow { window_ms } });
            }
        }
    }
}
