//! A publish: judged first (known? a reply? somebody there? room?), then done whole. Transactions judge all theirs before any is
//! done. It knows nothing of consumers: queues that got something are touched, and dispatched at the command's end.

use smallvec::SmallVec;

use crate::broker::Broker;
use crate::command::{DiskState, Publish};
use crate::config::Durability;
use crate::dedup::Entry as Remembered;
use crate::effect::{Confirmation, Effect, Held, Output, PublishError, Wait};
use crate::filtered::{Filtered, Outgoing, Sorted, Way};
use crate::hash::MessageHash;
use crate::ids::{Millis, Position, PublisherId, QueueId, RulesVersion, Sequence, SubscriptionId};
use crate::message::Message;
use crate::record::Record;
use crate::replies::{Replied, Sender};
use crate::requests::Asked;
use crate::room::Room;
use crate::targets::Targets;

/// An id is remembered at least this long.
pub(crate) const LEAST_WINDOW_MS: u64 = 120_000;

/// A publish to be judged, beside where it goes.
#[derive(Copy, Clone)]
pub(crate) struct Offer<'a> {
    /// Names it in the dedup window.
    pub(crate) hash: u128,
    pub(crate) rules: RulesVersion,
    pub(crate) message: &'a Message,
    pub(crate) mandatory: bool,
    pub(crate) sender: Sender<'a>,
}

/// What is to become of a publish that is not refused.
pub(crate) enum Judged {
    /// Its id is known.
    Duplicate(Remembered),
    /// Somebody answered that request before.
    Late,
    /// It is to be done.
    New(Plan),
    /// What filters made of it, or what it begins, is to be done.
    Filtered(Box<Sorted>),
    /// It replies to a gather's request.
    Reply(Replied),
}

/// A publish that may be done.
pub(crate) struct Plan {
    /// Names it in the dedup window; `None` bypasses.
    pub(crate) hash: Option<u128>,
    pub(crate) targets: Targets,
    pub(crate) subscriptions: SmallVec<[SubscriptionId; 4]>,
    /// The request that this is the first reply to.
    pub(crate) answers: Option<u128>,
    /// What subscriptions wait for, beside the message itself.
    pub(crate) after: Wait,
}

impl Broker {
    pub(crate) fn publish(&mut self, now: Millis, publish: Publish, output: &mut Output) {
        let hash = match publish.hash {
            Some(MessageHash(hash)) => hash,
            None => self.hash_key.message(publish.message.topic(), publish.message.id()),
        };
        if self.judging.is_under_way(hash) {
            self.await_first(hash, publish, output);
            return;
        }
        if matches!(publish.way, Way::Pending) {
            self.begin_publish(now, hash, publish, output);
            return;
        }
        let (publisher, number) = (publish.publisher, publish.number);
        let (outcome, wait) = self.do_publish(now, hash, publish, Room::new(self.disk), output);
        confirm(publisher, number, outcome, wait, output);
    }

    /// Judges and does a publish of which all is known.
    pub(crate) fn do_publish(
        &mut self,
        now: Millis,
        hash: u128,
        publish: Publish,
        mut room: Room,
        output: &mut Output,
    ) -> (Result<Confirmation, PublishError>, Wait) {
        let Publish { rules, mandatory, message, way, connection, .. } = publish;
        let sender = Sender::Connection(connection);
        let offer = Offer { hash, rules, message: &message, mandatory, sender };
        match self.judge(now, offer, way, &mut room) {
            Ok(judged) => {
                let (confirmation, wait) = self.perform(now, message, judged, output);
                (Ok(confirmation), wait)
            }
            Err(error) => (Err(error), Wait::NOTHING),
        }
    }

    /// Decides what becomes of a publish, and changes nothing but what it takes of the room.
    pub(crate) fn judge(
        &mut self,
        now: Millis,
        offer: Offer<'_>,
        way: Way,
        room: &mut Room,
    ) -> Result<Judged, PublishError> {
        let Offer { hash, rules, message, mandatory, sender } = offer;
        if let Some(replied) = self.replied(message, sender) {
            if room.disk() == DiskState::Full || self.out_of_numbers() {
                return Err(PublishError::DiskFull);
            }
            return Ok(Judged::Reply(replied));
        }
        if let Some(known) = self.dedup.check(hash, now) {
            return Ok(Judged::Duplicate(known));
        }
        let asked = self.asked(now, message);
        if asked.as_ref().is_some_and(|request| request.answered) {
            return Ok(Judged::Late);
        }
        let targets = match way {
            Way::Direct(targets) if !self.begins.of(message.topic()).is_empty() => {
                let message = message.clone();
                let result = Outgoing { message, targets, subscriptions: true, unroutable: None };
                let filtered = Filtered { results: vec![result], ..Filtered::default() };
                let sorted = self.judge_filtered(offer, filtered, asked, room)?;
                return Ok(Judged::Filtered(Box::new(sorted)));
            }
            Way::Direct(targets) => targets,
            Way::Filtered(filtered) => {
                let sorted = self.judge_filtered(offer, *filtered, asked, room)?;
                return Ok(Judged::Filtered(Box::new(sorted)));
            }
            Way::Pending => unreachable!("a pending publish is judged by its filters before it comes here"),
        };
        let mut plan = match asked {
            Some(request) => {
                let mut plan = match &request.moved_to {
                    Some(reply_to) => self.resolve(reply_to),
                    None => self.targets(rules, message, targets),
                };
                plan.answers = Some(request.hash);
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
                let topic = String::from_utf8_lossy(message.topic()).into_owned();
                return Err(PublishError::Unroutable { topic });
            }
            return Ok(Judged::New(plan));
        }
        self.check_disk(self.strongest(&plan.targets), !plan.targets.is_empty(), room)?;
        self.check_room(&plan.targets, message.body.len() as u64, room)?;
        Ok(Judged::New(plan))
    }

    /// The request that this message replies to, if it is known.
    pub(crate) fn asked(&self, now: Millis, message: &Message) -> Option<Asked> {
        let id = message.correlation_id()?;
        self.requests.asked(now, self.hash_key, message, id)
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
            Judged::Reply(replied) => {
                let (awaited, wait) = self.take_reply(now, replied, message, output);
                (Confirmation { routed: u32::from(awaited), ..Confirmation::default() }, wait)
            }
            // Another part of the same transaction answered it.
            Judged::New(plan) if plan.answers.is_some_and(|hash| self.requests.is_answered(hash)) => {
                self.requests.late += 1;
                (Confirmation::default(), Wait::NOTHING)
            }
            Judged::New(plan) => self.store(now, message, plan, output),
            Judged::Filtered(sorted)
                if sorted.answers.is_some_and(|hash| self.requests.is_answered(hash)) =>
            {
                self.requests.late += 1;
                (Confirmation::default(), Wait::NOTHING)
            }
            Judged::Filtered(sorted) => self.store_sorted(now, Some(&message), *sorted, output),
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
        Plan {
            hash: None,
            targets: self.bindings.resolve(topic),
            subscriptions,
            answers: None,
            after: Wait::NOTHING,
        }
    }

    /// The targets that a session resolved, without those that are gone, and the subscriptions.
    fn targets(&self, rules: RulesVersion, message: &Message, targets: Targets) -> Plan {
        let subscriptions = self.subscribers(message);
        Plan {
            hash: None,
            targets: self.still_there(Some(rules), targets),
            subscriptions,
            answers: None,
            after: Wait::NOTHING,
        }
    }

    /// The subscriptions of the message's topic.
    pub(crate) fn subscribers(&self, message: &Message) -> SmallVec<[SubscriptionId; 4]> {
        let mut subscriptions = SmallVec::new();
        if !self.subscriptions.is_empty() {
            let topic = std::str::from_utf8(message.topic()).expect("sessions let only UTF-8 topics pass");
            self.subscriptions.matching(topic, |id| subscriptions.push(id));
        }
        subscriptions
    }

    /// Those targets, found under these rules if that is known, that still take messages.
    pub(crate) fn still_there(&self, rules: Option<RulesVersion>, targets: Targets) -> Targets {
        let here = |id: &QueueId| self.queues.get(*id).is_some_and(|queue| !queue.is_dead());
        if rules == Some(self.rules.version) || targets.iter().all(here) {
            return targets;
        }
        targets.iter().copied().filter(here).collect()
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
        let window_ms = self.window_ms(&plan.targets);
        let remembered = plan.hash.map(|_| window_ms);
        // A message of its own for those that few publishes concern: most move into their record.
        let others = message.fields.reply_to.is_some() || !plan.subscriptions.is_empty();
        let others = others.then(|| message.clone());
        let (sequence, own) = self.put(now, message, plan.targets, remembered, output);
        if let Some(hash) = plan.hash {
            self.dedup.insert(hash, sequence, own, now, window_ms);
            if let Some(message) = &others {
                self.track_request(now, hash, message, window_ms);
            }
        }
        let wait = if sequence.0 > 0 { self.numbered(own.position, own.durability) } else { own };
        let wait = wait.and(plan.after);
        if let Some(message) = others {
            for subscription in plan.subscriptions {
                self.subscriptions.pass(now, subscription, &message.body, wait, &self.rules.limits, output);
            }
        }
        let sequence = (sequence.0 > 0).then_some(sequence);
        (Confirmation { sequence, routed, ..Confirmation::default() }, wait)
    }

    /// If the message is a request, its reply is awaited from now on.
    pub(crate) fn track_request(&mut self, now: Millis, hash: u128, message: &Message, window_ms: u64) {
        if message.fields.reply_to.is_some() {
            let until = now.after(window_ms);
            self.requests.track(self.hash_key, hash, message, until, &self.rules.limits);
        }
    }

    /// Stores a message in its targets, room made first; `Sequence(0)` if there are none. `window_ms` is how long the record
    /// itself says that its id is remembered.
    pub(crate) fn put(
        &mut self,
        now: Millis,
        message: Message,
        targets: Targets,
        window_ms: Option<u64>,
        output: &mut Output,
    ) -> (Sequence, Wait) {
        if targets.is_empty() {
            return (Sequence(0), Wait::NOTHING);
        }
        let bytes = message.body.len() as u64;
        let mut too_much: SmallVec<[QueueId; 4]> = SmallVec::new();
        for target in targets.iter() {
            if !self.make_room(now, *target, bytes, output) {
                too_much.push(*target);
            }
        }
        let sequence = Sequence(self.draw(output));
        let durability = self.strongest(&targets);
        let journaled = durability != Durability::Memory;
        let position = if journaled { Position(self.position.0 + 1) } else { Position(0) };
        self.apply_published(position, sequence, now, &message, &targets)
            .expect("the targets were looked up in this command");
        let taken = targets.clone();
        if journaled {
            self.position = position;
            output.records.push(Record::Published { sequence, at: now, window_ms, targets, message });
        }
        for target in too_much {
            self.evict(now, target, sequence, output);
        }
        for target in taken.iter() {
            self.touch(*target);
        }
        (sequence, Wait { position, durability })
    }

    /// The longest dedup window among these queues.
    pub(crate) fn window_ms(&self, targets: &[QueueId]) -> u64 {
        let windows = targets.iter().filter_map(|id| self.queues.get(*id));
        windows.map(|queue| queue.settings.dedup_window_ms).fold(LEAST_WINDOW_MS, u64::max)
    }
}

/// Answers a publish, if somebody waits for it.
pub(crate) fn confirm(
    publisher: Option<PublisherId>,
    number: u64,
    outcome: Result<Confirmation, PublishError>,
    wait: Wait,
    output: &mut Output,
) {
    if let Some(publisher) = publisher {
        output.effects.push(Held { wait, effect: Effect::Confirm { publisher, number, outcome } });
    }
}
