//! Attempts at a saga's steps and at undoing them: how one is sent, what its end says, how one is withdrawn. What follows for the saga
//! is `coordinating.rs`.

use crate::backoff::backoff_ms;
use crate::broker::Broker;
use crate::codec::Payload;
use crate::config::Durability;
use crate::coordinating::About;
use crate::effect::Output;
use crate::ids::{Millis, Sequence};
use crate::message::{Message, Own, StepContent, StepMessage};
use crate::owners::{Departed, Left};
use crate::saga::{Answer, Saga, SagaFact};
use crate::saga_settings::StepPayload;
use crate::saga_table::{Event, Phase};
use crate::sagas::Settled;

/// Attempts at a compensation before the saga parks.
const UNDO_ATTEMPTS: u32 = 5;
/// Waits between attempts at a compensation.
const UNDO_BACKOFF_MS: [u64; 4] = [1_000, 5_000, 30_000, 120_000];
/// A step whose queue is full is tried again after this.
const FULL_MS: u64 = 1_000;

impl Broker {
    /// Sends the next attempt at a step, or at undoing it.
    pub(crate) fn send_attempt(
        &mut self,
        now: Millis,
        number: Sequence,
        step: u16,
        undo: bool,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let run = &saga.runs[step as usize];
        let attempt = if undo { run.undo_attempts } else { run.attempts } + 1;
        self.send_again(now, number, step, undo, attempt, output);
    }

    /// Sends this attempt, be it for the second time.
    pub(crate) fn send_again(
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
        let (sequence, _) = self.put(now, message, [id].into(), None, output);
        self.note_saga(now, number, SagaFact::Sent { step, undo, attempt, sequence, due }, output);
        if !self.queues.queue(id).entries.contains(sequence.0) {
            let reason = "its queue was full of leased messages".to_owned();
            self.attempt_ended(now, number, step, Answer::Unanswered { delivered: false, reason }, output);
        }
    }

    pub(crate) fn step_message(
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
            Left::Gone(reason) => Answer::Unanswered { delivered, reason: reason.into_owned() },
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
    pub(crate) fn attempt_ended(
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

    pub(crate) fn back_off(&mut self, now: Millis, number: Sequence, step: u16, output: &mut Output) {
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

    /// Attempts under way are withdrawn: their leases end.
    pub(crate) fn withdraw_attempts(&mut self, now: Millis, number: Sequence, output: &mut Output) {
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
    pub(crate) fn withdraw_attempt(
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
}
