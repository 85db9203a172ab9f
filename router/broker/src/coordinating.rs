//! The coordinator of sagas: how one begins, what each answer does, what is sent next, how it ends. What follows from which event
//! stands in `saga_table.rs`, what each fact does in `saga.rs`; here facts are made and messages are sent.

use bytes::Bytes;

use crate::backoff::backoff_ms;
use crate::begins::Begin;
use crate::broker::Broker;
use crate::codec::{Kept, Payload};
use crate::command::DiskState;
use crate::config::Durability;
use crate::dead::tell;
use crate::effect::{Advise, Effect, Event as Told, Held, Output, PublishError, SagaCause, Wait};
use crate::gathering::digest_text;
use crate::ids::{Millis, Position, Sequence};
use crate::judging::JudgeError;
use crate::message::{
    DeadInfo, DeadReason, Message, OutcomeMessage, Own, ProgressMessage, StepContent, StepMessage,
};
use crate::messages::RequestName;
use crate::owners::{Departed, Left, Owner};
use crate::publish::Plan;
use crate::record::Record;
use crate::room::Room;
use crate::saga::{Answer, End, Saga, SagaFact};
use crate::saga_settings::{SagaSettings, StepPayload};
use crate::saga_table::{Event, Next, Phase, next};
use crate::sagas::Settled;
use crate::stillborn::Letter;
use crate::timers::SAGAS;
use crate::views::SagaState;

/// Attempts at a compensation before the saga parks.
const UNDO_ATTEMPTS: u32 = 5;
/// Waits between attempts at a compensation.
const UNDO_BACKOFF_MS: [u64; 4] = [1_000, 5_000, 30_000, 120_000];
/// A step whose queue is full is tried again after this.
const FULL_MS: u64 = 1_000;

/// What an event is about.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) step: Option<u16>,
    /// What a module or an operator said.
    pub(crate) why: Option<String>,
}

impl About {
    pub(crate) fn step(step: u16) -> About {
        About { step: Some(step), why: None }
    }

    pub(crate) fn why(why: String) -> About {
        About { step: None, why: Some(why) }
    }
}

impl Broker {
    /// Whether a saga of this definition may begin.
    pub(crate) fn check_saga(
        &self,
        settings: &SagaSettings,
        message: &Message,
        room: &mut Room,
    ) -> Result<(), PublishError> {
        let busy = |detail: String| Err(PublishError::Judge(JudgeError::Busy { detail }));
        if let Some(module) = settings.compensator.as_ref().filter(|module| module.binary.is_none()) {
            let detail = format!("compensator `{}` is not deployed", module.name);
            return Err(PublishError::Judge(JudgeError::ModuleMissing { detail }));
        }
        let limits = &self.rules.limits;
        let bytes = message.body.len() as u64;
        if bytes > limits.saga_max_payload_bytes {
            return Err(PublishError::SagaTooLarge { bytes, limit: limits.saga_max_payload_bytes });
        }
        let (count, all_bytes) = room.begin_saga(bytes);
        if self.sagas.running() + count > limits.sagas_max {
            return busy(format!("{} sagas are under way", limits.sagas_max));
        }
        if self.sagas.bytes() + all_bytes > limits.sagas_max_bytes {
            return busy(format!("sagas under way hold {} bytes", limits.sagas_max_bytes));
        }
        Ok(())
    }

    /// Begins a saga; its number.
    pub(crate) fn begin_saga(
        &mut self,
        now: Millis,
        name: &str,
        message: &Message,
        output: &mut Output,
    ) -> Sequence {
        let number = Sequence(self.draw(output));
        let input = Kept(Message { body: Bytes::copy_from_slice(&message.body), fields: message.fields });
        self.note_saga(now, number, SagaFact::Begun { name: name.to_owned(), input }, output);
        let steps = self.saga_row(number).following();
        match message.fields.deliver_at.filter(|due| *due > now) {
            None => self.go(now, number, steps, None, output),
            // It begins to send when its message would have been delivered.
            Some(until) => {
                let fact = SagaFact::Went { steps: steps.clone(), payload: None };
                self.note_saga(now, number, fact, output);
                for step in steps {
                    self.note_saga(now, number, SagaFact::Waits { step, undo: false, until }, output);
                }
            }
        }
        self.retime_saga(number);
        number
    }

    /// A saga that is known to exist.
    pub(crate) fn saga_row(&self, number: Sequence) -> &Saga {
        self.sagas.get(number).expect("the caller found this saga before")
    }

    pub(crate) fn note_saga(
        &mut self,
        now: Millis,
        saga: Sequence,
        fact: SagaFact,
        output: &mut Output,
    ) -> Position {
        let told = self.sagas.get(saga).map(|saga| saga.lines);
        let position = self.commit(Record::Saga { saga, at: now, fact: Box::new(fact) }, true, output);
        if told != Some(self.saga_row(saga).lines) {
            self.tell_progress(saga, position, output);
        }
        position
    }

    /// Tells who watches this saga what its last line says.
    fn tell_progress(&mut self, number: Sequence, position: Position, output: &mut Output) {
        let watched = !self.subscriptions.is_empty() || self.bindings.any_reserved();
        if !watched || self.out_of_numbers() {
            return;
        }
        let saga = self.saga_row(number);
        let topic = format!("$chaski.saga.{}.{}", percent(&saga.name), percent(&saga.id));
        let mut plan = self.resolve(&topic);
        if plan.targets.is_empty() && plan.subscriptions.is_empty() {
            return;
        }
        plan.after = Wait { position, durability: Durability::Fsync };
        let line = saga.timeline.last().expect("a saga's first line tells that it began");
        let view = saga.line_view(line);
        let sequence = Sequence(self.draw(output));
        let saga = self.saga_row(number);
        let message = (self.render)(Own::Progress(ProgressMessage {
            topic: &topic,
            name: &saga.name,
            id: &saga.id,
            state: saga.state(),
            line: &view,
            sequence,
        }));
        let now = self.now;
        self.store_own(now, message, plan, output);
    }

    /// These steps are done next.
    pub(crate) fn go(
        &mut self,
        now: Millis,
        number: Sequence,
        steps: Vec<u16>,
        payload: Option<Bytes>,
        output: &mut Output,
    ) {
        let fact = SagaFact::Went { steps: steps.clone(), payload: payload.map(Payload) };
        self.note_saga(now, number, fact, output);
        for step in steps {
            self.send_attempt(now, number, step, false, output);
        }
    }

    /// Sends the next attempt at a step, or at undoing it.
    fn send_attempt(&mut self, now: Millis, number: Sequence, step: u16, undo: bool, output: &mut Output) {
        let saga = self.saga_row(number);
        let run = &saga.runs[step as usize];
        let attempt = if undo { run.undo_attempts } else { run.attempts } + 1;
        self.send_again(now, number, step, undo, attempt, output);
    }

    /// Sends this attempt, be it for the second time.
    fn send_again(
        &mut self,
        now: Millis,
        number: Sequence,
        step: u16,
        undo: bool,
        attempt: u32,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let settings = saga.step(step);
        let name = settings.queue_for(undo).expect("a plan has only steps that can be undone");
        let due = now.after(settings.timeout_ms);
        let Some(id) = self.queues.id(name) else {
            let reason = format!("there is no queue `{name}`");
            self.note_saga(
                now,
                number,
                SagaFact::Sent { step, undo, attempt, sequence: Sequence(0), due },
                output,
            );
            let answer = Answer::Unanswered { delivered: false, reason };
            self.attempt_ended(now, number, step, answer, output);
            return;
        };
        let message = self.step_message(now, saga, step, undo, attempt, name);
        let bytes = message.body.len() as u64;
        if self.queues.queue(id).refuses(1, bytes) || self.disk_full_for(id) || self.out_of_numbers() {
            self.note_saga(now, number, SagaFact::Waits { step, undo, until: now.after(FULL_MS) }, output);
            return;
        }
        let (sequence, _) = self.put(now, &message, [id].into(), None, output);
        self.note_saga(now, number, SagaFact::Sent { step, undo, attempt, sequence, due }, output);
        if !self.queues.queue(id).entries.contains(sequence.0) {
            let reason = "its queue was full of leased messages".to_owned();
            self.attempt_ended(now, number, step, Answer::Unanswered { delivered: false, reason }, output);
        }
    }

    fn step_message(
        &self,
        now: Millis,
        saga: &Saga,
        step: u16,
        undo: bool,
        attempt: u32,
        queue: &str,
    ) -> Message {
        let settings = saga.step(step);
        let results = saga.results();
        let given = if undo {
            let planned = saga.plan.iter().find(|(planned, _)| *planned == step);
            planned.and_then(|(_, payload)| payload.as_ref())
        } else {
            saga.payloads.iter().find(|(known, _)| *known == step).map(|(_, payload)| payload)
        };
        let payload = match (given, settings.payload) {
            (Some(payload), _) => StepContent::Bytes(payload),
            (None, StepPayload::Input) if !undo => StepContent::Input,
            (None, StepPayload::Previous) if !undo => {
                let before = saga.runs[..step as usize].iter().rev().find_map(|run| run.result.as_ref());
                before.map_or(StepContent::Input, |result| StepContent::Bytes(&result.0))
            }
            _ => StepContent::All { results, failed: saga.failure().filter(|_| undo) },
        };
        (self.render)(Own::Step(StepMessage {
            queue,
            name: &saga.name,
            id: &saga.id,
            step: &settings.name,
            attempt,
            undo: undo.then(|| saga.runs[step as usize].outcome),
            payload,
            input: &saga.input,
            now,
        }))
    }

    /// A message of the saga's left its queue; how durable what follows is.
    pub(crate) fn attempt_left(
        &mut self,
        now: Millis,
        number: Sequence,
        departed: Departed,
        output: &mut Output,
    ) -> Durability {
        let Departed { queue, sequence, delivered, how } = departed;
        let Some(saga) = self.sagas.get(number) else { return Durability::Memory };
        let found = saga.runs.iter().position(|run| run.attempt.is_some_and(|it| it.sequence == sequence));
        let Some(step) = found.map(|step| step as u16) else { return Durability::Memory };
        let undo = saga.runs[step as usize].attempt.is_some_and(|attempt| attempt.undo);
        let name = saga.step(step).queue_for(undo);
        if name.and_then(|name| self.queues.id(name)) != Some(queue) {
            return Durability::Memory;
        }
        self.owners.disown(sequence);
        let answered = !matches!(how, Left::Gone(_));
        self.sagas.settled(sequence, if answered { Settled::Answered } else { Settled::Withdrawn });
        let answer = match how {
            Left::Acked(result) => Answer::Completed(Payload(result)),
            Left::Failed { reason, retryable } => Answer::Failed { reason, retryable },
            Left::Gone(reason) => Answer::Unanswered { delivered, reason },
        };
        self.attempt_ended(now, number, step, answer, output);
        Durability::Fsync
    }

    /// Whether the answer to this message still fits in its saga. What compensations answer is not kept.
    pub(crate) fn answer_fits(&self, number: Sequence, message: Sequence, bytes: usize) -> bool {
        let mut attempts = self.sagas.get(number).into_iter().flat_map(|saga| &saga.runs);
        let undoes = attempts
            .any(|run| run.attempt.is_some_and(|attempt| attempt.sequence == message && attempt.undo));
        undoes || self.result_fits(number, bytes)
    }

    /// Whether this result still fits in its saga.
    pub(crate) fn result_fits(&self, number: Sequence, bytes: usize) -> bool {
        let held = self.sagas.get(number).map_or(0, Saga::payload_bytes);
        held + bytes as u64 <= self.rules.limits.saga_max_payload_bytes
    }

    /// An attempt ended: it is noted, and what follows is done.
    fn attempt_ended(
        &mut self,
        now: Millis,
        number: Sequence,
        step: u16,
        answer: Answer,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let run = &saga.runs[step as usize];
        let undo = run.attempt.is_some_and(|attempt| attempt.undo);
        let once_more = if undo {
            run.undo_failures + 1 < UNDO_ATTEMPTS
        } else {
            run.attempts <= saga.step(step).retries
        };
        let event = match (&answer, undo) {
            (Answer::Completed(_), false) => Event::Done,
            (Answer::Completed(_), true) => Event::Undone,
            (Answer::Failed { retryable: false, .. }, false) => Event::Failed,
            (Answer::Failed { retryable: false, .. }, true) => Event::UndoFailed,
            (_, false) => {
                if once_more {
                    Event::Faltered
                } else {
                    Event::Failed
                }
            }
            (_, true) => {
                if once_more {
                    Event::UndoFaltered
                } else {
                    Event::UndoFailed
                }
            }
        };
        self.note_saga(now, number, SagaFact::Answered { step, answer }, output);
        if event == Event::Failed {
            self.note_saga(now, number, SagaFact::Closed { step }, output);
        }
        if event == Event::UndoFailed {
            self.keep_compensation(now, number, step, output);
        }
        self.saga_event(now, number, event, About::step(step), output);
    }

    /// Does what the table says. `step`: the one that it is about.
    pub(crate) fn saga_event(
        &mut self,
        now: Millis,
        number: Sequence,
        event: Event,
        about: About,
        output: &mut Output,
    ) {
        let About { step, why } = about;
        let saga = self.saga_row(number);
        match next(saga.phase, event, saga.facts()) {
            Next::Stay | Next::Ignore | Next::Refuse(_) => {}
            Next::Again => {
                let step = step.expect("an attempt is of a step");
                self.back_off(now, number, step, output);
            }
            Next::Choose => {
                self.note_saga(now, number, SagaFact::Asked { cause: None }, output);
                self.ask(now, number, output);
            }
            Next::Proceed => {
                let steps = saga.following();
                self.go(now, number, steps, None, output);
            }
            Next::Jump => unreachable!("the step that a compensator chose is sent with its payload"),
            Next::Repeat => self.repeat_steps(now, number, event, output),
            Next::Compensate => {
                let cause = saga.blame(event, why);
                self.compensate(now, number, cause, output);
            }
            Next::Undo => self.undo_next(now, number, output),
            Next::Park => {
                let reason = saga.why_parked(event, step, why);
                self.park_saga(now, number, reason, output);
            }
            Next::Complete => self.end_saga(now, number, End::Completed, output),
            Next::Compensated => self.end_saga(now, number, End::Compensated, output),
            Next::Abort => self.end_saga(now, number, End::Aborted, output),
        }
        self.retime_saga(number);
    }

    fn back_off(&mut self, now: Millis, number: Sequence, step: u16, output: &mut Output) {
        let saga = self.saga_row(number);
        let run = &saga.runs[step as usize];
        let undo = saga.phase == Phase::Undoing;
        let wait_ms = if undo {
            backoff_ms(&UNDO_BACKOFF_MS, run.undo_failures)
        } else {
            backoff_ms(&saga.step(step).backoff_ms, run.attempts)
        };
        let until = now.after(self.random.spread(wait_ms));
        self.note_saga(now, number, SagaFact::Waits { step, undo, until }, output);
    }

    /// The current steps that did not complete are tried once more.
    fn repeat_steps(&mut self, now: Millis, number: Sequence, event: Event, output: &mut Output) {
        let advised = event == Event::AdviceRetry;
        self.note_saga(now, number, SagaFact::Resumed { advised }, output);
        let saga = self.saga_row(number);
        let open = |step: &&u16| {
            let run = &saga.runs[**step as usize];
            run.outcome == crate::views::StepOutcome::Running
                && run.attempt.is_none_or(|it| it.sequence.0 == 0)
        };
        let steps: Vec<u16> = saga.current.iter().filter(open).copied().collect();
        if steps.is_empty() && !saga.facts().open {
            // Everything is done already: only the time was over.
            self.saga_event(now, number, Event::Done, About::default(), output);
        }
        for step in steps {
            self.send_attempt(now, number, step, false, output);
        }
    }

    /// What was done is to be undone. Attempts under way end first.
    fn compensate(&mut self, now: Millis, number: Sequence, cause: SagaCause, output: &mut Output) {
        self.withdraw_attempts(now, number, output);
        let saga = self.saga_row(number);
        let given_up = saga.phase == Phase::Parked(crate::saga_table::Rest::Planning);
        if saga.settings.compensator.is_some() && !given_up {
            self.note_saga(now, number, SagaFact::Asked { cause: Some(cause) }, output);
            self.ask(now, number, output);
            return;
        }
        let steps = saga.undoable().into_iter().map(|step| (step, None)).collect();
        self.begin_undoing(now, number, cause, steps, output);
    }

    pub(crate) fn begin_undoing(
        &mut self,
        now: Millis,
        number: Sequence,
        cause: SagaCause,
        steps: Vec<(u16, Option<Payload>)>,
        output: &mut Output,
    ) {
        let none = steps.is_empty();
        self.note_saga(now, number, SagaFact::Planned { cause, steps }, output);
        if none {
            self.end_saga(now, number, End::Compensated, output);
        } else {
            self.undo_next(now, number, output);
        }
    }

    fn undo_next(&mut self, now: Millis, number: Sequence, output: &mut Output) {
        if matches!(self.saga_row(number).phase, Phase::Parked(_)) {
            self.note_saga(now, number, SagaFact::Resumed { advised: false }, output);
        }
        if let Some((step, _)) = self.saga_row(number).plan.first() {
            let step = *step;
            self.send_attempt(now, number, step, true, output);
        }
    }

    /// Attempts under way are withdrawn: their leases end.
    fn withdraw_attempts(&mut self, now: Millis, number: Sequence, output: &mut Output) {
        let saga = self.saga_row(number);
        let open: Vec<u16> = (0..saga.runs.len() as u16)
            .filter(|step| {
                let run = &saga.runs[*step as usize];
                run.attempt.is_some() || run.outcome == crate::views::StepOutcome::Running
            })
            .collect();
        for step in open {
            let run = &self.saga_row(number).runs[step as usize];
            let undo = run.attempt.is_some_and(|attempt| attempt.undo);
            if let Some(attempt) = run.attempt.filter(|attempt| attempt.sequence.0 > 0) {
                let delivered = self.withdraw_attempt(number, step, attempt.sequence, undo, output);
                let reason = "it was withdrawn before an answer".to_owned();
                let answer = Answer::Unanswered { delivered, reason };
                self.note_saga(now, number, SagaFact::Answered { step, answer }, output);
            }
            if !undo {
                self.note_saga(now, number, SagaFact::Closed { step }, output);
            }
        }
    }

    /// Takes an attempt's message out of its queue; whether somebody had it.
    fn withdraw_attempt(
        &mut self,
        number: Sequence,
        step: u16,
        sequence: Sequence,
        undo: bool,
        output: &mut Output,
    ) -> bool {
        self.owners.disown(sequence);
        self.sagas.settled(sequence, Settled::Withdrawn);
        let name = self.saga_row(number).step(step).queue_for(undo);
        let id = name.and_then(|name| self.queues.id(name));
        // Where it is gone, nobody knows whether somebody had it.
        id.and_then(|id| self.withdraw(id, sequence, output)).unwrap_or(true)
    }

    /// A step is passed over: what is under way for it is withdrawn.
    pub(crate) fn withdraw_one(&mut self, number: Sequence, step: u16, output: &mut Output) {
        let attempt = self.saga_row(number).runs[step as usize].attempt;
        if let Some(attempt) = attempt.filter(|attempt| attempt.sequence.0 > 0) {
            self.withdraw_attempt(number, step, attempt.sequence, attempt.undo, output);
        }
    }

    pub(crate) fn park_saga(&mut self, now: Millis, number: Sequence, reason: String, output: &mut Output) {
        self.note_saga(now, number, SagaFact::Parked { reason: reason.clone() }, output);
        let saga = self.saga_row(number);
        let (name, id) = (saga.name.to_string(), saga.id.to_string());
        tell(output, Told::SagaParked { saga: name.clone(), id, reason });
        if self.sagas.count_of(&name, SagaState::Parked) == 1 {
            tell(output, Told::AlarmRaised { alarm: "saga_parked", queue: name });
        }
    }

    /// No saga of this definition is parked any more: the alarm is cleared.
    pub(crate) fn calm_sagas(&mut self, name: &str, output: &mut Output) {
        if self.sagas.count_of(name, SagaState::Parked) == 0 {
            tell(output, Told::AlarmCleared { alarm: "saga_parked", queue: name.to_owned() });
        }
    }

    /// A compensation that failed for good: a copy of its message for whoever looks.
    fn keep_compensation(&mut self, now: Millis, number: Sequence, step: u16, output: &mut Output) {
        if self.disk_full_for(crate::queues::CHASKI) || self.out_of_numbers() {
            return;
        }
        let saga = self.saga_row(number);
        let run = &saga.runs[step as usize];
        let queue = saga.step(step).compensate.clone().unwrap_or_default();
        let message = self.step_message(now, saga, step, true, run.undo_attempts, &queue);
        let module = saga.settings.compensator.as_ref();
        let info = DeadInfo {
            reason: DeadReason::CompensationFailed,
            detail: run.reason.as_deref().unwrap_or_default().to_owned(),
            queue: Some(queue),
            saga: Some(saga.key()),
            module: module.map(|module| module.name.clone()),
            digest: module.and_then(|module| module.binary).map(|digest| digest_text(&digest)),
            attempts: run.undo_attempts,
            ..DeadInfo::at(now)
        };
        self.lay(now, Letter::of_no_queue(message, info), None, output);
    }

    fn end_saga(&mut self, now: Millis, number: Sequence, end: End, output: &mut Output) {
        if end == End::Aborted {
            self.withdraw_attempts(now, number, output);
        }
        let until = now.after(self.rules.limits.saga_history_ms);
        let position = self.note_saga(now, number, SagaFact::Over { end, until }, output);
        let wait = Wait { position, durability: Durability::Fsync };
        self.tell_saga_outcome(now, number, wait, output);
    }

    /// Sends who began it the outcome.
    fn tell_saga_outcome(&mut self, now: Millis, number: Sequence, wait: Wait, output: &mut Output) {
        let saga = self.saga_row(number);
        let Some(reply_to) = saga.reply_to.as_deref().map(str::to_owned) else { return };
        let name = RequestName::named(&saga.input, &reply_to);
        if self.out_of_numbers() {
            return;
        }
        let message = self.outcome_message(now, number, &reply_to, output);
        self.answer_with(now, &name, &reply_to, message, wait, output);
    }

    fn outcome_message(
        &mut self,
        now: Millis,
        number: Sequence,
        reply_to: &str,
        output: &mut Output,
    ) -> Message {
        let sequence = Sequence(self.draw(output));
        let saga = self.saga_row(number);
        let undone = saga.runs.iter().zip(&saga.settings.steps).filter(|(run, _)| run.undone);
        (self.render)(Own::Outcome(OutcomeMessage {
            reply_to,
            name: &saga.name,
            id: &saga.id,
            state: saga.state(),
            results: saga.results(),
            failed: saga.failure(),
            compensated: undone.map(|(_, step)| &*step.name).collect(),
            sequence,
            now,
        }))
    }

    /// Who began this saga asks again: it joins, or gets the outcome.
    pub(crate) fn repeat_saga(
        &mut self,
        now: Millis,
        number: Sequence,
        message: &Message,
        output: &mut Output,
    ) {
        let Some(reply_to) = message.reply_to() else { return };
        let reply_to = String::from_utf8_lossy(reply_to).into_owned();
        let saga = self.saga_row(number);
        if !saga.phase.is_over() {
            // A full disk takes no record: who asks once more joins then.
            if saga.reply_to.as_deref() != Some(&*reply_to) && self.disk != DiskState::Full {
                self.note_saga(now, number, SagaFact::Moved { reply_to }, output);
            }
            return;
        }
        if !self.out_of_numbers() {
            // Its end may be on its way to the disk only.
            let after = Wait { position: self.position, durability: Durability::Fsync };
            let answer = self.outcome_message(now, number, &reply_to, output);
            let plan = Plan { after, ..self.resolve(&reply_to) };
            self.store_own(now, answer, plan, output);
        }
    }

    /// The start of a saga came again, as the dedup window knows; false: it is none.
    pub(crate) fn repeated_saga(
        &mut self,
        now: Millis,
        message: &Message,
        first: Sequence,
        output: &mut Output,
    ) -> bool {
        let id = String::from_utf8_lossy(message.id());
        let by_topic = self.begins.of(message.topic()).iter().find_map(|begin| match begin {
            Begin::Saga(name, _) => self.sagas.find(self.hash_key, name, &id),
            Begin::Gather(_) => None,
        });
        let Some(number) = by_topic.or_else(|| self.sagas.get(first).map(|_| first)) else { return false };
        self.repeat_saga(now, number, message, output);
        true
    }

    /// Calls the compensator, in a saga that asked it.
    pub(crate) fn ask(&mut self, now: Millis, number: Sequence, output: &mut Output) {
        self.sagas.change(number, |saga| saga.call += 1);
        let saga = self.saga_row(number);
        let advise = Advise {
            saga: number,
            call: saga.call,
            definition: saga.settings.clone(),
            cause: saga.cause.as_deref().filter(|_| saga.phase == Phase::Planning).cloned(),
            name: saga.name.to_string(),
            id: saga.id.to_string(),
            input: saga.input.body.clone(),
            began_at: saga.began_at,
            steps: saga.step_views(),
            retries: saga.retries,
            now,
        };
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Advise(Box::new(advise)) });
    }

    /// A saga's timer ran: attempts, waits or the whole may be over.
    pub(crate) fn saga_due(&mut self, now: Millis, number: Sequence, output: &mut Output) {
        if self.sagas.get(number).is_none() {
            return;
        }
        self.sagas.change(number, |saga| saga.timer = None);
        let steps = self.saga_row(number).runs.len() as u16;
        for step in 0..steps {
            let saga = self.saga_row(number);
            let Some(attempt) = saga.runs[step as usize].attempt.filter(|it| it.due <= now) else { continue };
            let parked = matches!(saga.phase, Phase::Parked(_));
            if attempt.sequence.0 > 0 {
                let delivered = self.withdraw_attempt(number, step, attempt.sequence, attempt.undo, output);
                let reason = "nobody answered in time".to_owned();
                self.attempt_ended(now, number, step, Answer::Unanswered { delivered, reason }, output);
            } else if !parked {
                self.send_attempt(now, number, step, attempt.undo, output);
            }
        }
        let saga = self.saga_row(number);
        let going = matches!(saga.phase, Phase::Forward | Phase::Choosing);
        if going && saga.deadline.is_some_and(|deadline| deadline <= now) {
            if !saga.facts().beyond {
                // First, since it may leave the pivot unknown: then nothing is undone.
                self.withdraw_attempts(now, number, output);
            }
            self.saga_event(now, number, Event::TimedOut, About::default(), output);
        }
        self.retime_saga(number);
    }

    /// Sets the saga's one timer to when it is to be looked at next.
    pub(crate) fn retime_saga(&mut self, number: Sequence) {
        let Some(saga) = self.sagas.get(number) else { return };
        let (set, wanted) = (saga.timer, saga.next_due());
        if set == wanted {
            return;
        }
        if let Some(at) = set {
            self.timers.unset(at, SAGAS, number);
        }
        if let Some(at) = wanted {
            self.timers.set(at, SAGAS, number);
        }
        self.sagas.change(number, |saga| saga.timer = wanted);
    }

    /// After a start: whose messages are whose, messages that were lost are sent again, and compensators that were asked are
    /// asked again.
    pub(crate) fn resume_sagas(&mut self, now: Millis, output: &mut Output) {
        let under_way: Vec<Sequence> = self
            .sagas
            .rows()
            .iter()
            .filter(|(_, saga)| !saga.phase.is_over())
            .map(|(number, _)| Sequence(number))
            .collect();
        for number in under_way {
            let saga = self.saga_row(number);
            let mut lost = Vec::new();
            let attempts: Vec<_> = saga.runs.iter().map(|run| run.attempt).collect();
            for (step, attempt) in attempts.into_iter().enumerate() {
                let Some(attempt) = attempt.filter(|attempt| attempt.sequence.0 > 0) else { continue };
                let saga = self.saga_row(number);
                let name = saga.step(step as u16).queue_for(attempt.undo);
                let queue = name.and_then(|name| self.queues.id(name)).and_then(|id| self.queues.get(id));
                if queue.is_some_and(|queue| queue.entries.contains(attempt.sequence.0)) {
                    self.owners.own(attempt.sequence, Owner::Saga(number));
                } else {
                    lost.push((step as u16, attempt.undo));
                }
            }
            for (step, undo) in lost {
                let run = &self.saga_row(number).runs[step as usize];
                let attempt = if undo { run.undo_attempts } else { run.attempts };
                self.send_again(now, number, step, undo, attempt, output);
            }
            if matches!(self.saga_row(number).phase, Phase::Choosing | Phase::Planning) {
                self.ask(now, number, output);
            }
            self.retime_saga(number);
        }
    }

    /// Forgets sagas that were remembered long enough, a part of them.
    pub(crate) fn expire_sagas(&mut self, now: Millis, budget: usize) -> usize {
        self.sagas.expire(self.hash_key, now, self.rules.limits.saga_history_max, budget)
    }
}

/// A name or id as one token of a topic.
fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut token = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '.' | '*' | '>' | '%') || character.is_whitespace() || character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(token, "%{byte:02X}");
            }
        } else {
            token.push(character);
        }
    }
    token
}
