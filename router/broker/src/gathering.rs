//! Gathers under way: how one begins, what each reply and failure does, how it ends, and what it is owed after a start. What
//! follows from which event stands in `gather.rs`; here it is carried out.

use std::sync::Arc;

use bytes::Bytes;

use crate::begins::Scatter;
use crate::broker::{Broker, TIMEOUT_BUDGET};
use crate::codec::Kept;
use crate::command::{Aggregated, DiskState, ModuleFailure};
use crate::config::Durability;
use crate::dead::digest_text;
use crate::effect::{Aggregate, AggregateCall, Effect, GatherEnd, Held, Output, PublishError, Wait};
use crate::filtered::Sorted;
use crate::gather::{Event, Gather, GatherFact, Listener, Next, Outcome, Phase, Stand, next};
use crate::ids::{Millis, QueueId, Sequence, SubscriptionId};
use crate::judging::JudgeError;
use crate::message::{AnswerMessage, AskedMessage, DeadInfo, DeadReason, Message, Own, Status};
use crate::messages::RequestName;
use crate::owners::{Departed, Left, Owner};
use crate::publish::Plan;
use crate::record::Record;
use crate::replies::GATHER_QUEUE;
use crate::requests::Owed;
use crate::room::Room;
use crate::scatter_settings::{Recipients, ScatterSettings};
use crate::stillborn::Letter;
use crate::targets::Targets;
use crate::timers::GATHERS;

impl Broker {
    /// Whether a gather of this scatter may begin.
    pub(crate) fn check_gather(
        &self,
        scatter: &Scatter,
        message: &Message,
        room: &mut Room,
    ) -> Result<(), PublishError> {
        let settings = &scatter.settings;
        // Whatever the gather's own durability, its requests go where those queues' messages go.
        self.check_disk(self.strongest(&scatter.queues), true, room)?;
        let busy = |detail: String| Err(PublishError::Judge(JudgeError::Busy { detail }));
        if settings.aggregator.binary.is_none() {
            let detail = format!("aggregator `{}` is not deployed", settings.aggregator.name);
            return Err(PublishError::Judge(JudgeError::ModuleMissing { detail }));
        }
        let limits = &self.rules.limits;
        let (count, bytes) = room.begin_gather(message.body.len() as u64);
        if self.gathers.open() + count > limits.gathers_max {
            return busy(format!("{} gathers are under way", limits.gathers_max));
        }
        if self.gathers.open_bytes() + bytes > limits.gathers_max_bytes {
            return busy(format!("gathers under way hold {} bytes", limits.gathers_max_bytes));
        }
        Ok(())
    }

    /// Whether a scatter has anybody to ask now.
    pub(crate) fn somebody_to_ask(&self, scatter: &Scatter) -> bool {
        match &scatter.settings.recipients {
            Recipients::Queues(_) => true,
            Recipients::Pattern(pattern) => {
                !scatter.queues.is_empty() || self.subscriptions.contained(pattern).next().is_some()
            }
        }
    }

    /// Begins a gather; its number.
    pub(crate) fn begin_gather(
        &mut self,
        now: Millis,
        scatter: &Scatter,
        message: &Message,
        output: &mut Output,
    ) -> Sequence {
        let Scatter { name, settings, queues } = scatter;
        let number = Sequence(self.draw(output));
        let most = settings.max_replies as usize;
        let queues: Vec<QueueId> = queues.iter().copied().take(most).collect();
        let subscriptions: Vec<(SubscriptionId, String)> = match &settings.recipients {
            Recipients::Queues(_) => Vec::new(),
            Recipients::Pattern(pattern) => {
                let found = self.subscriptions.contained(pattern).take(most - queues.len());
                found.map(|(id, pattern)| (id, pattern.to_owned())).collect()
            }
        };

        let reply_to = format!("{GATHER_QUEUE}{number}");
        let asked = self.asked_message(settings, message, &reply_to);
        let bytes = asked.body.len() as u64;
        let takes = |id: &&QueueId| !self.queues.queue(**id).refuses(1, bytes) && !self.disk_full_for(**id);
        let targets: Targets = queues.iter().filter(takes).copied().collect();
        let (sequence, _) = self.put(now, asked, targets, None, output);

        let mut recipients: Vec<(Option<QueueId>, String)> =
            queues.iter().map(|id| (Some(*id), self.queues.queue(*id).name.to_string())).collect();
        recipients.extend(subscriptions.iter().map(|(_, pattern)| (None, pattern.clone())));
        let request = Kept(Message { body: Bytes::copy_from_slice(&message.body), fields: message.fields });
        let fact = GatherFact::Begun { scatter: name.clone(), request, asked: sequence, recipients };
        let wait = self.commit_gather(now, number, settings.durability, fact, output);

        let names = self.gather_row(number).recipients.iter().map(|one| one.name.clone()).collect();
        let call = AggregateCall::Begin { request: message.body.clone(), at: now, recipients: names };
        self.call_aggregator(number, call, output);
        self.timers.set(self.gather_row(number).deadline(), GATHERS, number);

        for (place, (subscription, _)) in subscriptions.iter().enumerate() {
            let recipient = (queues.len() + place) as u16;
            let asked = self.asked_message(settings, message, &format!("{reply_to}.{recipient}"));
            self.gathers.listen(Listener { subscription: *subscription, gather: number, recipient });
            self.subscriptions.pass(now, *subscription, &asked.body, wait, &self.rules.limits, output);
        }
        for (place, id) in queues.iter().enumerate() {
            if sequence.0 == 0 || !self.queues.queue(*id).entries.contains(sequence.0) {
                let reason = format!("queue `{}` is full", self.queues.queue(*id).name);
                self.gather_failed(now, number, place as u16, reason, output);
            }
        }
        if queues.is_empty() && subscriptions.is_empty() {
            self.gather_event(now, number, Event::Failed, output);
        }
        number
    }

    fn asked_message(&self, settings: &ScatterSettings, request: &Message, reply_to: &str) -> Message {
        let (priority, ttl_ms) = (settings.priority, settings.ttl_ms);
        (self.render)(Own::Asked(AskedMessage { request, reply_to, priority, ttl_ms }))
    }

    /// A gather that is known to exist.
    pub(crate) fn gather_row(&self, number: Sequence) -> &Gather {
        self.gathers.get(number).expect("the caller found this gather before")
    }

    fn commit_gather(
        &mut self,
        now: Millis,
        gather: Sequence,
        durability: Durability,
        fact: GatherFact,
        output: &mut Output,
    ) -> Wait {
        let record = Record::Gather { gather, at: now, fact: Box::new(fact) };
        let position = self.commit(record, durability != Durability::Memory, output);
        Wait { position, durability }
    }

    /// See [`Broker::commit_gather`]; for one that has begun.
    pub(crate) fn note_gather(
        &mut self,
        now: Millis,
        number: Sequence,
        fact: GatherFact,
        output: &mut Output,
    ) -> Wait {
        let durability = self.gather_row(number).settings.durability;
        self.commit_gather(now, number, durability, fact, output)
    }

    /// A recipient failed, if its answer was still awaited.
    pub(crate) fn gather_failed(
        &mut self,
        now: Millis,
        number: Sequence,
        recipient: u16,
        reason: String,
        output: &mut Output,
    ) -> Durability {
        if !self.gathers.get(number).is_some_and(|gather| gather.awaits(recipient)) {
            return Durability::Memory;
        }
        let fact = GatherFact::Failed { recipient, reason: reason.clone() };
        let wait = self.note_gather(now, number, fact, output);
        let name = self.gather_row(number).recipients[recipient as usize].name.clone();
        self.call_aggregator(number, AggregateCall::Failed { recipient: name, at: now, reason }, output);
        self.gather_event(now, number, Event::Failed, output);
        wait.durability
    }

    /// A request left its recipient's queue without a reply before it.
    pub(crate) fn gather_lost(
        &mut self,
        now: Millis,
        number: Sequence,
        departed: Departed,
        output: &mut Output,
    ) -> Durability {
        let awaited =
            |gather: &Gather| gather.recipient(departed.queue).filter(|recipient| gather.awaits(*recipient));
        let Some(recipient) = self.gathers.get(number).and_then(awaited) else { return Durability::Memory };
        let reason = match departed.how {
            Left::Acked(_) => "it acked the request without a reply".to_owned(),
            Left::Failed { reason, .. } => reason,
            Left::Gone(reason) => reason.into_owned(),
        };
        self.gather_failed(now, number, recipient, reason, output)
    }

    /// A subscription ended: gathers that wait for it wait no longer.
    pub(crate) fn listener_lost(&mut self, now: Millis, subscription: SubscriptionId, output: &mut Output) {
        self.deaf.extend(self.gathers.deaf(subscription));
        self.fail_deaf(now, output);
    }

    /// Fails recipients whose subscription ended, a part of them: many gathers may have waited for one.
    pub(crate) fn fail_deaf(&mut self, now: Millis, output: &mut Output) {
        let mut budget = TIMEOUT_BUDGET;
        while budget > 0
            && self.disk != DiskState::Full
            && let Some((gather, recipient)) = self.deaf.pop_front()
        {
            self.gather_failed(now, gather, recipient, "its subscription ended".to_owned(), output);
            budget -= 1;
        }
    }

    /// Its time is over.
    pub(crate) fn gather_timeout(&mut self, now: Millis, number: Sequence, output: &mut Output) {
        if self.gathers.get(number).is_some_and(|gather| gather.phase == Phase::Open) {
            self.gather_event(now, number, Event::TimedOut, output);
        }
    }

    /// An aggregator answered.
    pub(crate) fn aggregated(
        &mut self,
        now: Millis,
        number: Sequence,
        outcome: Result<Aggregated, ModuleFailure>,
        output: &mut Output,
    ) {
        if !self.gathers.get(number).is_some_and(|gather| gather.phase != Phase::Ended) {
            return;
        }
        match outcome {
            Ok(Aggregated::Folded { done: false }) => {}
            Ok(Aggregated::Folded { done: true }) => self.gather_event(now, number, Event::Done, output),
            Ok(Aggregated::Answer { headers, payload }) => {
                let gather = self.gather_row(number);
                if next(gather.phase, Event::Answered, gather.tally()) == Next::Answer {
                    self.end_answered(now, number, &headers, &payload, output);
                }
            }
            Err(failure) => {
                let gather = self.gather_row(number);
                if next(gather.phase, Event::Broken, gather.tally()) == Next::Break {
                    self.end_broken(now, number, failure.detail, output);
                }
            }
        }
    }

    /// Does what the table says.
    pub(crate) fn gather_event(&mut self, now: Millis, number: Sequence, event: Event, output: &mut Output) {
        let gather = self.gather_row(number);
        match next(gather.phase, event, gather.tally()) {
            Next::Stay | Next::Ignore => {}
            Next::Finish(why) => {
                self.note_gather(now, number, GatherFact::Finishing { why }, output);
                self.withdraw_requests(number, output);
                self.call_finish(number, output);
            }
            Next::TimeOut => {
                let tally = gather.tally();
                let detail = format!(
                    "{} of {} recipients answered, {} are needed",
                    tally.answered,
                    gather.recipients.len(),
                    tally.quorum
                );
                self.end_gather(now, number, Outcome::TimedOut(detail), output);
            }
            Next::Answer | Next::Break => unreachable!("only an aggregator's answer leads there"),
        }
    }

    /// Tells the aggregator who stayed silent, and asks for the answer.
    fn call_finish(&mut self, number: Sequence, output: &mut Output) {
        let gather = self.gather_row(number);
        let Phase::Finishing(why) = gather.phase else { return };
        let over = why == GatherEnd::Timeout;
        let silent = gather.recipients.iter().filter(|recipient| over && recipient.stand == Stand::Silent);
        let silent: Vec<Arc<str>> = silent.map(|recipient| recipient.name.clone()).collect();
        for recipient in silent {
            self.call_aggregator(number, AggregateCall::Silent { recipient }, output);
        }
        self.call_aggregator(number, AggregateCall::Finish { why }, output);
    }

    fn end_answered(
        &mut self,
        now: Millis,
        number: Sequence,
        headers: &[(String, String)],
        payload: &Bytes,
        output: &mut Output,
    ) {
        if self.out_of_numbers() {
            return;
        }
        let sequence = Sequence(self.draw(output));
        let gather = self.gather_row(number);
        let tally = gather.tally();
        let asked = gather.recipients.len() as u32;
        let answer = (self.render)(Own::Answer(AnswerMessage {
            reply_to: gather.reply_to.as_deref().unwrap_or("$inbox.nobody"),
            request_id: &String::from_utf8_lossy(gather.request.id()),
            headers,
            payload,
            complete: tally.answered == asked,
            asked,
            answered: tally.answered,
            failed: gather.failed(),
            sequence,
            now,
        }));
        self.end_gather(now, number, Outcome::Answered(Kept(answer)), output);
    }

    /// The aggregator failed: the replies are kept for whoever looks.
    fn end_broken(&mut self, now: Millis, number: Sequence, detail: String, output: &mut Output) {
        let gather = self.gather_row(number);
        let module = &gather.settings.aggregator;
        let info = DeadInfo {
            reason: DeadReason::AggregationFailed,
            detail: detail.clone(),
            scatter: Some(gather.scatter.to_string()),
            module: Some(module.name.clone()),
            digest: module.binary.map(|digest| digest_text(&digest)),
            ..DeadInfo::at(now)
        };
        let replies = gather.recipients.iter().filter_map(|recipient| match &recipient.stand {
            Stand::Answered { reply: Some(reply), .. } => Some(reply.0.clone()),
            _ => None,
        });
        let replies: Vec<Message> = replies.collect();
        for reply in replies {
            if !self.disk_full_for(crate::queues::CHASKI) && !self.out_of_numbers() {
                self.lay(now, Letter::of_no_queue(reply, info.clone()), None, output);
            }
        }
        self.end_gather(now, number, Outcome::AggregationFailed(detail), output);
    }

    fn end_gather(&mut self, now: Millis, number: Sequence, outcome: Outcome, output: &mut Output) {
        self.withdraw_requests(number, output);
        let window_ms = self.gather_window_ms(number);
        let fact = GatherFact::Ended { outcome, until: now.after(window_ms) };
        let wait = self.note_gather(now, number, fact, output);
        let gather = self.gather_row(number);
        let (asked, deadline) = (gather.asked, gather.deadline());
        self.timers.unset(deadline, GATHERS, number);
        self.owners.disown(asked);
        self.gathers.unlisten(number);
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Gathered { gather: number } });
        self.tell_outcome(now, number, wait, output);
    }

    /// How long the answer is remembered: as long as the request's id is.
    fn gather_window_ms(&self, number: Sequence) -> u64 {
        let queues = self.gather_row(number).recipients.iter().filter_map(|recipient| recipient.queue);
        self.window_ms(&queues.collect::<Vec<_>>())
    }

    /// How long the id of what begins these gathers is remembered: until their answers are forgotten, at the latest.
    pub(crate) fn gathers_window_ms(&self, sorted: &Sorted) -> u64 {
        let windows =
            sorted.scatters().map(|scatter| scatter.settings.timeout_ms + self.window_ms(&scatter.queues));
        windows.max().unwrap_or(0)
    }

    /// Sends the requester what it is owed, unless somebody else answered it before.
    fn tell_outcome(&mut self, now: Millis, number: Sequence, wait: Wait, output: &mut Output) {
        let gather = self.gather_row(number);
        let Some(reply_to) = gather.reply_to.as_deref().map(str::to_owned) else { return };
        let request = RequestName::named(&gather.request, &reply_to);
        let outcome = gather.ended.as_ref().expect("it has just ended").outcome.clone();
        let (status, reason) = match outcome {
            Outcome::Answered(answer) => {
                self.answer_with(now, &request, &reply_to, answer.0, wait, output);
                return;
            }
            Outcome::TimedOut(detail) => (Status::Timeout, detail),
            Outcome::AggregationFailed(detail) => (Status::AggregationFailed, detail),
        };
        self.answer(now, Owed { request, status, reason, after: wait }, output);
    }

    /// The request of a gather came again; false: this was none.
    pub(crate) fn repeat_gather(
        &mut self,
        now: Millis,
        message: &Message,
        hash: u128,
        first: Sequence,
        output: &mut Output,
    ) -> bool {
        let by_number = || self.gathers.get(first).map(|_| first);
        let Some(number) = self.gathers.of_request(hash).or_else(by_number) else { return false };
        let reply_to =
            String::from_utf8_lossy(message.reply_to().expect("a request has a reply_to")).into_owned();
        let gather = self.gather_row(number);
        let Some(ended) = &gather.ended else {
            // A full disk takes no record: who asks once more joins then.
            if gather.reply_to.as_deref() != Some(&*reply_to) && self.disk != DiskState::Full {
                self.note_gather(now, number, GatherFact::Moved { reply_to }, output);
            }
            return true;
        };
        let request =
            RequestName { reply_to: reply_to.clone(), ..RequestName::of(message).expect("it is a request") };
        // Its end may be on its way to the disk only.
        let after = Wait { position: self.position, durability: gather.settings.durability };
        let (status, reason) = match ended.outcome.clone() {
            Outcome::Answered(answer) => {
                let plan = Plan { after, ..self.resolve(&reply_to) };
                self.store_own(now, answer.0, plan, output);
                return true;
            }
            Outcome::TimedOut(detail) => (Status::Timeout, detail),
            Outcome::AggregationFailed(detail) => (Status::AggregationFailed, detail),
        };
        self.say(now, &Owed { request, status, reason, after }, &reply_to, output);
        true
    }

    fn withdraw_requests(&mut self, number: Sequence, output: &mut Output) {
        let gather = self.gather_row(number);
        let asked = gather.asked;
        let queues: Vec<QueueId> = gather.recipients.iter().filter_map(|recipient| recipient.queue).collect();
        for id in queues {
            if !self.disk_full_for(id) {
                self.withdraw(id, asked, output);
            }
        }
    }

    pub(crate) fn call_aggregator(&mut self, number: Sequence, what: AggregateCall, output: &mut Output) {
        let call = self.gathers.next_call(number);
        let module = self.gather_row(number).settings.clone();
        let aggregate = Box::new(Aggregate { gather: number, call, module, what });
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Aggregate(aggregate) });
    }

    /// After a start: what gathers are owed. Their aggregators are told anew what happened, in the order of the journal.
    pub(crate) fn resume_gathers(&mut self, now: Millis, output: &mut Output) {
        let open: Vec<Sequence> = self
            .gathers
            .rows()
            .iter()
            .filter(|(_, gather)| gather.phase != Phase::Ended)
            .map(|(number, _)| Sequence(number))
            .collect();
        for number in open {
            let gather = self.gather_row(number).clone();
            self.owners.own(gather.asked, Owner::Gather(number));
            let names = gather.recipients.iter().map(|one| one.name.clone()).collect();
            let request = gather.request.body.clone();
            let begin = AggregateCall::Begin { request, at: gather.began_at, recipients: names };
            self.call_aggregator(number, begin, output);
            for place in &gather.events {
                let recipient = &gather.recipients[*place as usize];
                let name = recipient.name.clone();
                let call = match &recipient.stand {
                    Stand::Answered { at, reply: Some(reply) } => {
                        AggregateCall::Reply { recipient: name, at: *at, reply: reply.0.body.clone() }
                    }
                    Stand::Failed { at, reason } => {
                        AggregateCall::Failed { recipient: name, at: *at, reason: reason.clone() }
                    }
                    _ => continue,
                };
                self.call_aggregator(number, call, output);
            }
            if gather.phase != Phase::Open {
                self.withdraw_requests(number, output);
                self.call_finish(number, output);
                continue;
            }
            self.timers.set(gather.deadline(), GATHERS, number);
            for (place, recipient) in gather.recipients.iter().enumerate() {
                let here = recipient.queue.and_then(|id| self.queues.get(id));
                if !here.is_some_and(|queue| queue.entries.contains(gather.asked.0)) {
                    let reason = if recipient.queue.is_some() {
                        "its queue lost the request at a restart"
                    } else {
                        "its subscription ended"
                    };
                    self.gather_failed(now, number, place as u16, reason.to_owned(), output);
                }
            }
        }
    }

    /// Forgets answers whose time is over, a part of them.
    pub(crate) fn expire_gathers(&mut self, now: Millis, budget: usize) -> usize {
        let (key, most) = (self.hash_key, self.rules.limits.gathers_max_bytes);
        let hash = |gather: &Gather| key.message(gather.request.topic(), gather.request.id());
        self.gathers.expire(now, most, budget, hash)
    }

    /// Hands an answer to a requester, unless somebody did before.
    pub(crate) fn answer_with(
        &mut self,
        now: Millis,
        request: &RequestName,
        reply_to: &str,
        answer: Message,
        wait: Wait,
        output: &mut Output,
    ) {
        let hash = self.hash_key.message(request.topic.as_bytes(), request.id.as_bytes());
        if self.requests.is_answered(hash) {
            self.requests.late += 1;
            return;
        }
        self.requests.answered_elsewhere(hash);
        let plan = Plan { after: wait, ..self.resolve(reply_to) };
        self.store_own(now, answer, plan, output);
    }
}
