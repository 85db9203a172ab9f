//! How leases end: by the consumer's word, by time, or with the consumer itself.

use crate::backoff::backoff_ms;
use crate::broker::Broker;
use crate::command::{DiskState, Settle, Verdict};
use crate::dead::Death;
use crate::effect::{Effect, Held, Output, SettleError, Wait};
use crate::ids::{ConsumerId, Lease, Millis, QueueId, Sequence};
use crate::message::{DeadReason, Status};
use crate::owners::{Left, Owner};
use crate::record::Move;
use crate::requests::Owed;

/// When a message whose delivery failed comes back.
#[derive(Copy, Clone)]
pub(crate) enum Return {
    AtOnce,
    After(u64),
    Backoff,
}

impl Broker {
    pub(crate) fn settle(&mut self, now: Millis, settle: Settle, output: &mut Output) {
        let Settle { consumer, number, sequence, lease, verdict } = settle;
        let outcome = self.try_settle(now, consumer, sequence, lease, verdict, output);
        let (wait, outcome) = match outcome {
            Ok(wait) => (wait, Ok(())),
            Err(error) => (Wait::NOTHING, Err(error)),
        };
        output.effects.push(Held { wait, effect: Effect::Settled { consumer, number, outcome } });
    }

    fn try_settle(
        &mut self,
        now: Millis,
        consumer: ConsumerId,
        sequence: Sequence,
        lease: Lease,
        verdict: Verdict,
        output: &mut Output,
    ) -> Result<Wait, SettleError> {
        let slot = self.consumers.slot(consumer).ok_or(SettleError::LeaseLost)?;
        let consumer = self.consumers.consumer_mut(slot);
        let id = consumer.queue;
        if consumer.holding(lease).is_none_or(|holding| holding.sequence != sequence) {
            self.ignore_answer(sequence, matches!(verdict, Verdict::Complete { .. }));
            return Err(SettleError::LeaseLost);
        }
        let owner = self.owners.of(sequence).filter(|_| !self.queues.queue(id).is_dead());
        if self.disk_full_for(id) || (owner.is_some() && self.disk == DiskState::Full) {
            return Err(SettleError::DiskFull);
        }
        if let (Some(Owner::Saga(saga)), Verdict::Complete { payload }) = (owner, &verdict)
            && !self.answer_fits(saga, sequence, payload.len())
        {
            return Err(SettleError::TooLarge);
        }
        let queue = self.queues.queue(id);
        let deadly =
            matches!(verdict, Verdict::Reject { .. } | Verdict::Fail { .. } | Verdict::Failed { .. });
        if queue.is_dead() && deadly {
            return Err(SettleError::NotAllowed);
        }
        let mut durability = queue.settings.durability;
        self.consumers.consumer_mut(slot).drop_lease(lease, sequence);
        match verdict {
            Verdict::Ack => self.ack(now, id, sequence, output),
            Verdict::Complete { payload } => {
                self.ack(now, id, sequence, output);
                self.owners.explain(sequence, || Left::Acked(payload));
            }
            // To its owner that is an answer: there is no dead letter.
            Verdict::Reject { reason } if owner.is_some() => {
                self.ack(now, id, sequence, output);
                self.owners.explain(sequence, || Left::failed(&reason, false));
            }
            Verdict::Fail { reason, retryable } if owner.is_some() => {
                self.ack(now, id, sequence, output);
                self.owners.explain(sequence, || Left::failed(&reason, retryable));
            }
            Verdict::Nack { delay_ms } => {
                let again = delay_ms.map_or(Return::Backoff, Return::After);
                self.fail_delivery(now, id, sequence, again, output);
            }
            Verdict::Reject { reason } => self.bury(now, id, sequence, DeadReason::Rejected, &reason, output),
            Verdict::Fail { reason, retryable } => {
                if let Some(request) = self.messages.row(sequence).request().cloned() {
                    self.ack(now, id, sequence, output);
                    let reason = crate::dead::shorten(&reason).to_owned();
                    // At once, so that both are in one batch whatever else is owed.
                    let owed = Owed { request, status: Status::Failed, reason, after: Wait::NOTHING };
                    durability = durability.max(self.answer(now, owed, output).durability);
                } else if retryable {
                    self.fail_delivery(now, id, sequence, Return::Backoff, output);
                } else {
                    self.bury(now, id, sequence, DeadReason::Rejected, &reason, output);
                }
            }
            Verdict::Failed { reason, detail, module, digest } => {
                let death = Death { reason, detail: &detail, blame: Some((module, digest)) };
                self.bury_blaming(now, id, sequence, death, output);
            }
            Verdict::Release => {
                self.commit_move(now, id, Move::Released { sequence }, output);
            }
        }
        durability = durability.max(self.tell_owners(now, output));
        self.enlist(slot);
        self.touch(id);
        Ok(Wait { position: self.position, durability })
    }

    /// A message is processed. Its lease slot is gone already.
    pub(crate) fn ack(&mut self, now: Millis, id: QueueId, sequence: Sequence, output: &mut Output) {
        self.commit_move(now, id, Move::Acked { sequence }, output);
        self.owners.explain(sequence, || Left::Acked(bytes::Bytes::new()));
        if self.queues.queue(id).is_dead() {
            self.calm(id, output);
            self.touch_source(id);
        }
    }

    /// A delivery that counts failed: the message comes back, or was delivered often enough.
    pub(crate) fn fail_delivery(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        again: Return,
        output: &mut Output,
    ) {
        let queue = self.queues.queue(id);
        let attempts = queue.entries.get(sequence.0).expect("its lease was in force").attempts;
        if queue.settings.max_deliver.is_some_and(|max| attempts >= max) {
            let detail = format!("delivery {attempts} of {attempts} failed");
            self.bury(now, id, sequence, DeadReason::MaxDeliver, &detail, output);
            return;
        }
        let wait_ms = match again {
            Return::AtOnce => 0,
            Return::After(ms) => ms,
            Return::Backoff => self.random.spread(backoff_ms(&queue.settings.backoff_ms, attempts)),
        };
        let not_before = if wait_ms > 0 { now.after(wait_ms) } else { Millis(0) };
        self.commit_move(now, id, Move::Returned { sequence, not_before }, output);
        self.touch(id);
    }

    pub(crate) fn extend(
        &mut self,
        now: Millis,
        consumer: ConsumerId,
        leases: Vec<(Sequence, Lease)>,
        output: &mut Output,
    ) {
        let slot = self.consumers.slot(consumer);
        let mut lost = Vec::new();
        for (sequence, lease) in leases {
            let held = slot.and_then(|slot| {
                let consumer = self.consumers.consumer_mut(slot);
                let holding = consumer.holding(lease).filter(|holding| holding.sequence == sequence)?;
                // One that was not sent yet has not begun.
                Some((slot, holding.deadline.is_some()))
            });
            match held {
                Some((slot, true)) => {
                    let id = self.consumers.consumer_mut(slot).queue;
                    self.start_lease(now, slot, id, lease);
                }
                Some((_, false)) => {}
                None => lost.push((sequence, lease)),
            }
        }
        if !lost.is_empty() {
            output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Extended { consumer, lost } });
        }
    }

    /// A consumer ends; what it holds is released, or lost.
    pub(crate) fn detach(&mut self, now: Millis, slot: u32, release: bool, output: &mut Output) {
        let Some(consumer) = self.consumers.remove(slot) else { return };
        let id = consumer.queue;
        let full = self.disk_full_for(id);
        for holding in consumer.holdings() {
            if full {
                self.orphans.push((id, holding.sequence, release));
            } else {
                self.let_lease_go(now, id, holding.sequence, release, output);
            }
        }
        let queue = self.queues.queue_mut(id);
        queue.consumers.retain(|other| *other != slot);
        queue.ring.retain(|other| *other != slot);
        let next = queue.consumers.first().copied();
        if let Some(next) = next {
            self.enlist(next);
        }
        self.touch(id);
    }

    fn let_lease_go(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        release: bool,
        output: &mut Output,
    ) {
        if self.lease_of(id, sequence).is_none() {
            return;
        }
        if release {
            self.commit_move(now, id, Move::Released { sequence }, output);
        } else {
            self.fail_delivery(now, id, sequence, Return::AtOnce, output);
        }
    }

    /// The disk's state changed: what a full one held up goes on.
    pub(crate) fn disk(&mut self, now: Millis, disk: DiskState, output: &mut Output) {
        self.disk = disk;
        if disk == DiskState::Full {
            return;
        }
        for (id, sequence, release) in std::mem::take(&mut self.orphans) {
            self.let_lease_go(now, id, sequence, release, output);
        }
        self.catch_up(now, output);
        let waiting: Vec<QueueId> =
            self.queues.iter().filter(|queue| !queue.ring.is_empty()).map(|queue| queue.id).collect();
        for id in waiting {
            self.touch(id);
        }
    }

    /// A dead letter is gone: a key of its source queue may go on.
    pub(crate) fn touch_source(&mut self, letters: QueueId) {
        if let crate::queue::Kind::Dead { source: Some(source) } = self.queues.queue(letters).kind {
            self.touch(source);
        }
    }
}
