//! A publish: judged first (known? a reply? somebody there? room?), then done whole. Transactions judge all theirs before any is
//! done. It knows nothing of consumers: queues that got something are touched, and dispatched at the command's end.

use smallvec::SmallVec;

use crate::broker::Broker;
use crate::command::{DiskState, Publish, Targets};
use crate::config::{Durability, Overflow};
use crate::dedup::Entry as Remembered;
use crate::effect::{Confirmation, Effect, Held, Output, PublishError, Wait};
use crate::filtered::Way;
use crate::ids::{Millis, Position, QueueId, RulesVersion, Sequence, SubscriptionId};
use crate::message::{DeadReason, Message};
use crate::record::{Record, Removal};

/// An id is remembered at least this long.
pub(crate) const LEAST_WINDOW_MS: u64 = 120_000;
/// Messages that make room for one newcomer at most; what is then still too much goes with the next ones.
const EVICTIONS: usize = 1024;

/// What is to become of a publish that is not refused.
pub(crate) enum Judged {
    /// Its id is known.
    Duplicate(Remembered),
    /// Somebody answered that request before.
    Late,
    /// It is to be done.
    New(Plan),
}

/// A publish that may be done.
pub(crate) struct Plan {
    /// Names it in the dedup window; `None` bypasses.
    pub(crate) hash: Option<u128>,
    pub(crate) targets: Targets,
    pub(crate) subscriptions: SmallVec<[SubscriptionId; 4]>,
    /// The request that this is the first reply to.
    pub(crate) answers: Option<u128>,
}

/// What other parts of the same transaction take: by queue, messages and bytes; negative where acks make room.
pub(crate) type Taken = SmallVec<[(QueueId, i64, i64); 4]>;

impl Broker {
    pub(crate) fn publish(&mut self, now: Millis, publish: Publish, output: &mut Output) {
        let Publish { publisher, number, rules, mandatory, message, way, job: _ } = publish;
        let judged = self.judge(now, rules, &message, &way, mandatory, &mut Taken::new());
        let (outcome, wait) = match judged {
            Ok(judged) => {
                let (confirmation, wait) = self.perform(now, message, judged, output);
                (Ok(confirmation), wait)
            }
            Err(error) => (Err(error), Wait::NOTHING),
        };
        if let Some(publisher) = publisher {
            output.effects.push(Held { wait, effect: Effect::Confirm { publisher, number, outcome } });
        }
    }

    /// Decides what becomes of a publish, and changes nothing. `taken` is what parts before it in the same transaction take.
    pub(crate) fn judge(
        &mut self,
        now: Millis,
        rules: RulesVersion,
        message: &Message,
        way: &Way,
        mandatory: bool,
        taken: &mut Taken,
    ) -> Result<Judged, PublishError> {
        let Way::Direct(targets) = way else { return Err(PublishError::Unroutable) };
        let hash = self.hash_key.message(message.topic(), message.id());
        if let Some(known) = self.dedup.check(hash, now) {
            return Ok(Judged::Duplicate(known));
        }
        let mut plan = match message
            .correlation_id()
            .and_then(|id| self.requests.asked(now, self.hash_key, message, id))
        {
            Some(request) if request.answered => return Ok(Judged::Late),
            Some(request) => {
                let (hash, moved_to) = (request.hash, request.moved_to);
                let mut plan = match moved_to {
                    Some(reply_to) => self.resolve(&reply_to),
                    None => self.targets(rules, message, targets),
                };
                plan.answers = Some(hash);
                plan
            }
            None => self.targets(rules, message, targets),
        };
        plan.hash = Some(hash);
        if plan.targets.is_empty() && plan.subscriptions.is_empty() {
            if message.fields.reply_to.is_some() {
                return Err(PublishError::NoResponders);
            }
            if mandatory {
                return Err(PublishError::Unroutable);
            }
            return Ok(Judged::New(plan));
        }
        self.check_room(&plan.targets, message.body.len() as u64, taken)?;
        Ok(Judged::New(plan))
    }

    /// Does what was judged: the confirmation, and what it waits for.
    pub(crate) fn perform(
        &mut self,
        now: Millis,
        message: Message,
        judged: Judged,
        output: &mut Output,
    ) -> (Confirmation, Wait) {
        match judged {
            Judged::Duplicate(known) => {
                if message.fields.reply_to.is_some() {
                    self.repeat_request(now, &message, known, output);
                }
                let sequence = (known.sequence.0 > 0).then_some(known.sequence);
                let wait = self.numbered(known.wait.position, known.wait.durability);
                (Confirmation { sequence, duplicate: true, ..Confirmation::default() }, wait)
            }
            Judged::Late => {
                self.requests.late += 1;
                (Confirmation::default(), Wait::NOTHING)
            }
            // Another part of the same transaction answered it.
            Judged::New(plan) if plan.answers.is_some_and(|hash| self.requests.is_answered(hash)) => {
                self.requests.late += 1;
                (Confirmation::default(), Wait::NOTHING)
            }
            Judged::New(plan) => self.store(now, message, plan, output),
        }
    }

    /// A message of the router's own: past dedup, to whom its topic reaches under the current rules, and nobody waits for it.
    pub(crate) fn announce(&mut self, now: Millis, message: Message, output: &mut Output) {
        let plan = self.resolve(&String::from_utf8_lossy(message.topic()));
        self.store_own(now, message, plan, output);
    }

    /// See [`Broker::announce`]; to whom `plan` says. What its copies wait for.
    pub(crate) fn store_own(
        &mut self,
        now: Millis,
        message: Message,
        mut plan: Plan,
        output: &mut Output,
    ) -> Wait {
        let bytes = message.body.len() as u64;
        let accepts = |target: &QueueId| {
            !self.queues.queue(*target).refuses(1, bytes)
                && !self.disk_full_for(*target)
                && !self.out_of_numbers()
        };
        if !plan.targets.iter().all(accepts) {
            plan.targets = plan.targets.iter().copied().filter(accepts).collect();
        }
        if plan.targets.is_empty() && plan.subscriptions.is_empty() {
            return Wait::NOTHING;
        }
        self.store(now, message, plan, output).1
    }

    /// Whom this topic reaches under the current rules.
    pub(crate) fn resolve(&self, topic: &str) -> Plan {
        let mut subscriptions = SmallVec::new();
        self.subscriptions.matching(topic, |id| subscriptions.push(id));
        Plan { hash: None, targets: self.bindings.resolve(topic), subscriptions, answers: None }
    }

    /// The targets that a session resolved, without those that are gone, and the subscriptions.
    fn targets(&self, rules: RulesVersion, message: &Message, targets: &Targets) -> Plan {
        let mut subscriptions = SmallVec::new();
        if !self.subscriptions.is_empty() {
            let topic = std::str::from_utf8(message.topic()).expect("sessions let only UTF-8 topics pass");
            self.subscriptions.matching(topic, |id| subscriptions.push(id));
        }
        let here = |id: &QueueId| self.queues.get(*id).is_some_and(|queue| !queue.is_dead());
        let targets = if rules == self.rules.version || targets.iter().all(here) {
            targets.clone()
        } else {
            targets.iter().copied().filter(here).collect()
        };
        Plan { hash: None, targets, subscriptions, answers: None }
    }

    /// Whether the disk and every queue that may refuse have room; what it takes is added to `taken`.
    fn check_room(&self, targets: &[QueueId], bytes: u64, taken: &mut Taken) -> Result<(), PublishError> {
        if self.disk != DiskState::Plenty && self.strongest(targets) != Durability::Memory {
            return Err(if self.disk == DiskState::Low {
                PublishError::DiskLow
            } else {
                PublishError::DiskFull
            });
        }
        if !targets.is_empty() && self.out_of_numbers() {
            return Err(PublishError::DiskFull);
        }
        for target in targets {
            let queue = self.queues.queue(*target);
            if queue.settings.overflow != Overflow::Reject
                || (queue.settings.max_bytes.is_none() && queue.settings.max_messages.is_none())
            {
                continue;
            }
            let place = taken.iter().position(|(id, ..)| id == target).unwrap_or_else(|| {
                taken.push((*target, 0, 0));
                taken.len() - 1
            });
            let (_, messages, all_bytes) = &mut taken[place];
            *messages += 1;
            *all_bytes += bytes as i64;
            if !queue.fits_change(*messages, *all_bytes) {
                return Err(PublishError::QueueFull { queue: queue.name.to_string() });
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        now: Millis,
        message: Message,
        plan: Plan,
        output: &mut Output,
    ) -> (Confirmation, Wait) {
        let routed = (plan.targets.len() + plan.subscriptions.len()) as u32;
        if let Some(request) = plan.answers {
            self.requests.answered(request, &message, &self.rules.limits);
        }
        if routed == 0 {
            return (Confirmation::default(), Wait::NOTHING);
        }
        let targets = plan.targets;
        let window_ms = self.window_ms(&targets);
        let mut own = Wait::NOTHING;
        let mut sequence = Sequence(0);
        if !targets.is_empty() {
            let bytes = message.body.len() as u64;
            let mut too_much: SmallVec<[QueueId; 4]> = SmallVec::new();
            for target in targets.iter() {
                if !self.make_room(now, *target, bytes, output) {
                    too_much.push(*target);
                }
            }
            sequence = Sequence(self.draw(output));
            let durability = self.strongest(&targets);
            let journaled = durability != Durability::Memory;
            let position = if journaled { Position(self.position.0 + 1) } else { Position(0) };
            self.apply_published(position, sequence, now, &message, &targets)
                .expect("the targets were looked up in this command");
            if journaled {
                self.position = position;
                let message = message.clone();
                let targets = targets.clone();
                let window_ms = plan.hash.map(|_| window_ms);
                output.records.push(Record::Published { sequence, at: now, window_ms, targets, message });
            }
            own = Wait { position, durability };
            for target in too_much {
                self.evict(now, target, sequence, output);
            }
            for target in targets.iter() {
                self.touch(*target);
            }
        }
        if let Some(hash) = plan.hash {
            self.dedup.insert(hash, sequence, own, now, window_ms);
            if message.fields.reply_to.is_some() {
                let until = now.after(window_ms);
                self.requests.track(self.hash_key, hash, &message, until, &self.rules.limits);
            }
        }
        let wait = if sequence.0 > 0 { self.numbered(own.position, own.durability) } else { own };
        for subscription in plan.subscriptions {
            self.subscriptions.pass(subscription, &message.body, wait, &self.rules.limits, output);
        }
        let sequence = (sequence.0 > 0).then_some(sequence);
        (Confirmation { sequence, routed, ..Confirmation::default() }, wait)
    }

    /// The longest dedup window among these queues.
    pub(crate) fn window_ms(&self, targets: &[QueueId]) -> u64 {
        let windows = targets.iter().filter_map(|id| self.queues.get(*id));
        windows.map(|queue| queue.settings.dedup_window_ms).fold(LEAST_WINDOW_MS, u64::max)
    }

    /// Makes room for one message of so many bytes; false when there is none to be made.
    pub(crate) fn make_room(&mut self, now: Millis, id: QueueId, bytes: u64, output: &mut Output) -> bool {
        let queue = self.queues.queue(id);
        if queue.fits(1, bytes) {
            return true;
        }
        if queue.settings.max_bytes.is_some_and(|max| bytes > max) {
            return false;
        }
        for _ in 0..EVICTIONS {
            let queue = self.queues.queue_mut(id);
            if queue.fits(1, bytes) {
                break;
            }
            let Some(oldest) = queue.oldest() else { return false };
            self.evict(now, id, oldest, output);
        }
        true
    }

    /// Makes room for a message that is in the queue already and may be the oldest; it goes itself when all others are leased.
    pub(crate) fn make_room_for(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        output: &mut Output,
    ) {
        let bytes = u64::from(self.messages.row(sequence).len);
        let too_large = self.queues.queue(id).settings.max_bytes.is_some_and(|max| bytes > max);
        for _ in 0..EVICTIONS {
            let queue = self.queues.queue_mut(id);
            if queue.fits(0, 0) {
                return;
            }
            let other = if too_large { None } else { queue.oldest_but(sequence) };
            self.evict(now, id, other.unwrap_or(sequence), output);
            if other.is_none() {
                return;
            }
        }
    }

    /// Removes a message that is not leased, as the queue's overflow says.
    pub(crate) fn evict(&mut self, now: Millis, id: QueueId, sequence: Sequence, output: &mut Output) {
        let queue = self.queues.queue(id);
        if queue.settings.overflow == Overflow::DeadLetterOldest && !queue.is_dead() {
            self.bury(now, id, sequence, DeadReason::Overflow, "the queue was full", output);
            return;
        }
        let journaled = queue.journaled();
        // Whoever asked for the dropped message is told, as for a dead letter.
        if !queue.is_dead() {
            self.owe_rejection(sequence, "the queue was full");
        }
        let record = Record::Removed { queue: id, cause: Removal::Dropped, sequences: vec![sequence] };
        self.commit(record, journaled, output);
        self.note_dropped(now, id, 1);
    }
}
