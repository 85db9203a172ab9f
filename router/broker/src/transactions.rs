//! Settle and publish, all or nothing: everything is judged before anything is done, and the outcome is remembered under the
//! transaction's own id.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::broker::Broker;
use crate::command::{DiskState, Transaction};
use crate::config::Durability;
use crate::effect::{Confirmation, Output, PublishError, TransactionError, Wait};
use crate::ids::{ConnectionId, Lease, Millis, QueueId, Sequence};
use crate::judging::{answer, spare};
use crate::message::Message;
use crate::pages::PageMap;
use crate::publish::{Judged, Offer};
use crate::record::Record;
use crate::replies::{Sender, is_gather_reply};
use crate::room::Room;

/// Outcomes of transactions kept at most; beyond it the oldest go early.
const MAX_OUTCOMES: usize = 1 << 20;
/// Confirmations in all of them at most (32 bytes each), likewise.
const MAX_PARTS: usize = 4 << 20;

/// A transaction that was done.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) until: Millis,
    pub(crate) durability: Durability,
    pub(crate) confirmations: Arc<[Confirmation]>,
}

/// Outcomes by the numbers under which the dedup window names them. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    rows: PageMap<Outcome>,
    /// Confirmations in all of them.
    parts: usize,
}

impl Outcomes {
    pub(crate) fn rows(&self) -> &PageMap<Outcome> {
        &self.rows
    }

    pub(crate) fn insert(&mut self, number: Sequence, outcome: Outcome) {
        self.parts += outcome.confirmations.len();
        if let Some(replaced) = self.rows.insert(number.0, outcome) {
            self.parts -= replaced.confirmations.len();
        }
    }

    fn get(&self, number: Sequence) -> Option<&Outcome> {
        self.rows.get(number.0)
    }

    /// When the oldest leaves the window.
    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        self.rows.first().map(|(_, outcome)| outcome.until)
    }

    /// Lets go what left the window, and the oldest beyond the bounds; at most `budget`.
    fn expire(&mut self, now: Millis, budget: usize) -> usize {
        for count in 0..budget {
            let too_many = self.rows.len() > MAX_OUTCOMES || self.parts > MAX_PARTS;
            let Some((number, outcome)) = self.rows.first().filter(|(_, it)| it.until <= now || too_many)
            else {
                return count;
            };
            self.parts -= outcome.confirmations.len();
            self.rows.remove(number);
        }
        budget
    }
}

/// One ack of a transaction: who holds it.
pub(crate) struct Ack {
    slot: u32,
    pub(crate) queue: QueueId,
    pub(crate) sequence: Sequence,
    lease: Lease,
}

/// Those of one transaction; most have one.
pub(crate) type Acks = SmallVec<[Ack; 2]>;

/// A transaction that may be done.
pub(crate) struct Ready {
    acks: Acks,
    parts: SmallVec<[(Message, Option<Judged>, u128); 1]>,
    /// The strongest among its queues and what else its outcome names.
    durability: Durability,
    window_ms: u64,
}

impl Broker {
    pub(crate) fn transact(&mut self, now: Millis, transaction: Transaction, output: &mut Output) {
        let hash = self.hash_key.transaction(&transaction.id);
        let Some(transaction) = self.await_first_transaction(hash, transaction, output) else { return };
        let (publisher, number, job) = (transaction.publisher, transaction.number, transaction.job);
        if let Some((confirmations, wait)) = self.transacted(now, hash) {
            spare(job, output);
            answer(publisher, number, Ok(confirmations), wait, output);
            return;
        }
        let Some(transaction) = self.begin_transaction(now, hash, transaction, output) else { return };
        let acks = match self.check_transaction(&transaction, self.disk) {
            Ok(acks) => acks,
            Err(error) => {
                if matches!(error, TransactionError::LeaseLost(_)) {
                    let replies = transaction.publishes.into_iter().map(|(message, ..)| message);
                    self.come_late(now, replies.filter(is_gather_reply), output);
                }
                answer(publisher, number, Err(error), Wait::NOTHING, output);
                return;
            }
        };
        let (wait, outcome) = match self.judge_parts(now, transaction, acks, &mut Room::new(self.disk)) {
            Ok(ready) => {
                let (confirmations, wait) = self.perform_transaction(now, hash, ready, output);
                (wait, Ok(confirmations))
            }
            Err(error) => (Wait::NOTHING, Err(error)),
        };
        answer(publisher, number, outcome, wait, output);
    }

    /// The outcome of a transaction that was done before, and what it waits for.
    fn transacted(&self, now: Millis, hash: u128) -> Option<(Arc<[Confirmation]>, Wait)> {
        let known = self.dedup.check(hash, now)?;
        let outcome = self.transactions.get(known.sequence)?;
        Some((outcome.confirmations.clone(), self.numbered(known.wait.position, known.wait.durability)))
    }

    /// Whether a transaction's leases are in force, and the disk takes it.
    pub(crate) fn check_transaction(
        &mut self,
        transaction: &Transaction,
        disk: DiskState,
    ) -> Result<Acks, TransactionError> {
        let acks = self.find_leases(transaction.connection, &transaction.acks)?;
        // Replies to gathers that are under way go on while the disk is low.
        let publishes = transaction.publishes.iter().any(|(message, ..)| !is_gather_reply(message));
        self.check_disk_for(&acks, publishes, disk)?;
        Ok(acks)
    }

    /// Does a transaction of which all is known, and which was not done before.
    pub(crate) fn try_transact(
        &mut self,
        now: Millis,
        transaction: Transaction,
        mut room: Room,
        output: &mut Output,
    ) -> Result<(Arc<[Confirmation]>, Wait), TransactionError> {
        let hash = self.hash_key.transaction(&transaction.id);
        let ready = self.judge_transaction(now, transaction, &mut room)?;
        Ok(self.perform_transaction(now, hash, ready, output))
    }

    /// Decides whether a transaction may be done, and changes nothing but what it takes of the room.
    pub(crate) fn judge_transaction(
        &mut self,
        now: Millis,
        transaction: Transaction,
        room: &mut Room,
    ) -> Result<Ready, TransactionError> {
        let acks = self.check_transaction(&transaction, room.disk())?;
        self.judge_parts(now, transaction, acks, room)
    }

    /// The same, when its leases are known to be in force.
    fn judge_parts(
        &mut self,
        now: Millis,
        transaction: Transaction,
        acks: Acks,
        room: &mut Room,
    ) -> Result<Ready, TransactionError> {
        // Acked messages make room for published ones.
        for ack in &acks {
            let bytes = i64::from(self.messages.row(ack.sequence).len);
            room.take(ack.queue, -1, -bytes);
        }
        let mut queues: SmallVec<[QueueId; 8]> = acks.iter().map(|ack| ack.queue).collect();
        let (mut seen, alone) = (BTreeSet::new(), transaction.publishes.len() == 1);
        let mut strongest_other = Durability::Memory;
        let mut judged = SmallVec::with_capacity(transaction.publishes.len());
        for (index, (message, way, mandatory)) in transaction.publishes.into_iter().enumerate() {
            let id = self.hash_key.message(message.topic(), message.id());
            let one = if !alone && !seen.insert(id) {
                // The second of one id within a transaction is a duplicate once the first is done.
                None
            } else {
                let sender = Sender::Transaction(&acks);
                let rules = transaction.rules;
                let offer = Offer { hash: id, rules, message: &message, mandatory, sender };
                let one = self.judge(now, offer, way, room);
                let index = index as u32;
                Some(one.map_err(|error| TransactionError::Publish { index, error })?)
            };
            match &one {
                Some(Judged::New(plan)) => queues.extend_from_slice(&plan.targets),
                Some(Judged::Filtered(sorted)) => {
                    queues.extend(sorted.targets());
                    strongest_other = strongest_other.max(self.strongest_of(sorted));
                }
                // The outcome names the first copy: it must not be told before that is durable.
                Some(Judged::Reply(replied)) => {
                    strongest_other = strongest_other.max(self.reply_durability(replied));
                }
                Some(Judged::Duplicate(known)) => {
                    strongest_other = strongest_other.max(known.wait.durability);
                }
                _ => {}
            }
            judged.push((message, one, id));
        }

        let durability = self.strongest(&queues).max(strongest_other);
        let window_ms = self.window_ms(&queues);
        Ok(Ready { acks, parts: judged, durability, window_ms })
    }

    fn perform_transaction(
        &mut self,
        now: Millis,
        hash: u128,
        ready: Ready,
        output: &mut Output,
    ) -> (Arc<[Confirmation]>, Wait) {
        let Ready { acks, parts, durability, window_ms } = ready;
        for ack in acks {
            self.consumers.consumer_mut(ack.slot).drop_lease(ack.lease, ack.sequence);
            self.ack(now, ack.queue, ack.sequence, output);
            self.enlist(ack.slot);
            self.touch(ack.queue);
        }
        let mut confirmations: SmallVec<[Confirmation; 2]> = SmallVec::with_capacity(parts.len());
        for (message, one, id) in parts {
            let one = one.or_else(|| self.dedup.check(id, now).map(Judged::Duplicate));
            confirmations.push(
                one.map_or_else(Confirmation::default, |one| self.perform(now, message, one, output).0),
            );
        }
        // A saga's step that was acked is answered: in the same batch, and as surely as the saga.
        let durability = durability.max(self.tell_owners(now, output));
        let number = Sequence(self.draw(output));
        let journaled = durability != Durability::Memory;
        let confirmations: Arc<[Confirmation]> = Arc::from(&confirmations[..]);
        let kept = Arc::clone(&confirmations);
        let record = Record::Transacted { number, hash, at: now, window_ms, durability, confirmations: kept };
        let position = self.commit(record, journaled, output);
        self.expire_outcomes(now, 4);
        (confirmations, self.numbered(position, durability))
    }

    /// Every lease in force on this connection, each named once; or which are not.
    fn find_leases(
        &mut self,
        connection: ConnectionId,
        acks: &[(Option<QueueId>, Sequence, Lease)],
    ) -> Result<Acks, TransactionError> {
        let mut found = Acks::with_capacity(acks.len());
        let mut lost = Vec::new();
        let (mut named, alone) = (BTreeSet::new(), acks.len() == 1);
        for (index, (queue, sequence, lease)) in acks.iter().enumerate() {
            let slot = queue.and_then(|queue| self.holder(queue, *sequence, *lease, connection));
            match slot {
                Some((slot, queue)) if alone || named.insert(*lease) => {
                    found.push(Ack { slot, queue, sequence: *sequence, lease: *lease });
                }
                _ => {
                    self.ignore_answer(*sequence, false);
                    lost.push(index as u32);
                }
            }
        }
        if lost.is_empty() { Ok(found) } else { Err(TransactionError::LeaseLost(lost)) }
    }

    /// The consumer on this connection that holds the lease.
    pub(crate) fn holder(
        &mut self,
        id: QueueId,
        sequence: Sequence,
        lease: Lease,
        connection: ConnectionId,
    ) -> Option<(u32, QueueId)> {
        if self.lease_of(id, sequence) != Some(lease) {
            return None;
        }
        let queue = self.queues.get(id)?;
        let consumers = &mut self.consumers;
        let slot = queue.consumers.iter().copied().find(|slot| {
            let consumer = consumers.consumer_mut(*slot);
            consumer.connection == connection && consumer.holding(lease).is_some()
        })?;
        Some((slot, id))
    }

    fn check_disk_for(&self, acks: &[Ack], publishes: bool, disk: DiskState) -> Result<(), TransactionError> {
        let refuse = match disk {
            DiskState::Plenty => None,
            DiskState::Low => publishes.then_some(PublishError::DiskLow),
            DiskState::Full => {
                let journaled = acks.iter().any(|ack| {
                    self.queues.queue(ack.queue).journaled() || self.owners.of(ack.sequence).is_some()
                });
                (publishes || journaled || self.out_of_numbers()).then_some(PublishError::DiskFull)
            }
        };
        refuse.map_or(Ok(()), |error| Err(TransactionError::Disk(error)))
    }

    /// Lets outcomes go that left the window, and the oldest beyond the bound.
    pub(crate) fn expire_outcomes(&mut self, now: Millis, budget: usize) -> usize {
        self.transactions.expire(now, budget)
    }
}
