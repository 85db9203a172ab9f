//! The coordinator of sagas: how one begins, what each answer does, what is sent next, how it ends. What follows from which event
//! stands in `saga_table.rs`, what each fact does in `saga.rs`; here facts are made and messages are sent.

use bytes::Bytes;

use crate::broker::Broker;
use crate::codec::{Kept, Payload};
use crate::config::Durability;
use crate::dead::digest_text;
use crate::dead::tell;
use crate::effect::{Advise, Effect, Event as Told, Held, Output, PublishError, SagaCause, Wait};
use crate::ids::{Millis, Position, Sequence};
use crate::judging::JudgeError;
use crate::message::{DeadInfo, DeadReason, Message};
use crate::owners::Owner;
use crate::record::Record;
use crate::room::Room;
use crate::saga::{Answer, End, Saga, SagaFact};
use crate::saga_settings::SagaSettings;
use crate::saga_table::{Event, Next, Phase, next};
use crate::stillborn::Letter;
use crate::timers::SAGAS;
use crate::views::SagaState;

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
    pub(crate) fn keep_compensation(
        &mut self,
        now: Millis,
        number: Sequence,
        step: u16,
        output: &mut Output,
    ) {
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
