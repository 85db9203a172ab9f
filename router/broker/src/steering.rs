//! What compensators and operators say of sagas, and what facts do to them. What follows is carried out in `coordinating.rs`.

use std::sync::Arc;

use bytes::Bytes;

use crate::apply::ApplyError;
use crate::broker::Broker;
use crate::codec::Payload;
use crate::command::{Advice, DiskState, ModuleFailure, SagaVerb};
use crate::config::Durability;
use crate::coordinating::About;
use crate::effect::{Effect, Held, Output, SagaCause, SteerError, Wait};
use crate::ids::{Millis, Sequence, Ticket};
use crate::owners::Owner;
use crate::saga::{Saga, SagaFact};
use crate::saga_settings::SagaSettings;
use crate::saga_table::{Event, Facts, Next, Phase, Rest, next};
use crate::views::{SagaState, StepOutcome};

/// `retry` verdicts of a compensator a saga.
const RETRIES: u32 = 16;

impl Broker {
    /// A compensator answered.
    pub(crate) fn advised(
        &mut self,
        now: Millis,
        number: Sequence,
        call: u32,
        outcome: Result<Advice, ModuleFailure>,
        output: &mut Output,
    ) {
        let Some(saga) = self.sagas.get(number).filter(|saga| saga.call == call) else { return };
        let advice = match (saga.phase, outcome) {
            (Phase::Choosing | Phase::Planning, Err(failure)) => {
                Advice::Park { reason: format!("its compensator failed: {}", failure.detail) }
            }
            (Phase::Choosing | Phase::Planning, Ok(advice)) => advice,
            _ => return,
        };
        match (saga.phase, advice) {
            (Phase::Choosing, Advice::Next) => {
                self.saga_event(now, number, Event::AdviceNext, About::default(), output);
            }
            (Phase::Choosing, Advice::Step { step, payload }) => {
                self.jump(now, number, &step, payload, output);
            }
            (Phase::Choosing, Advice::Complete) => {
                self.saga_event(now, number, Event::AdviceComplete, About::default(), output);
            }
            (Phase::Choosing, Advice::Fail { reason }) => {
                self.saga_event(now, number, Event::AdviceFail, About::why(reason), output);
            }
            (Phase::Planning, Advice::Undo { steps }) => self.plan_undo(now, number, steps, output),
            (Phase::Planning, Advice::Retry)
                if matches!(saga.cause.as_deref(), Some(SagaCause::Aborted { .. })) =>
            {
                let why = "its compensator said `retry`, but it was ended: no step failed".to_owned();
                self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
            }
            (Phase::Planning, Advice::Retry) if saga.retries < RETRIES => {
                self.saga_event(now, number, Event::AdviceRetry, About::default(), output);
            }
            (Phase::Planning, Advice::Retry) => {
                let why = format!("its compensator said `retry` more than {RETRIES} times");
                self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
            }
            (_, Advice::Park { reason }) => {
                self.saga_event(now, number, Event::AdvicePark, About::why(reason), output);
            }
            (_, advice) => {
                let why = format!("its compensator gave the wrong kind of answer: {advice:?}");
                self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
            }
        }
        self.retime_saga(number);
    }

    /// The compensator chose a step.
    fn jump(
        &mut self,
        now: Millis,
        number: Sequence,
        step: &str,
        payload: Option<Bytes>,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let found = saga.place(step);
        let wrong = match found {
            None => Some(format!("its compensator chose step `{step}`, which its definition doesn't have")),
            Some(place) if saga.runs[place as usize].outcome == StepOutcome::Completed => {
                Some(format!("its compensator chose step `{step}`, which is complete"))
            }
            Some(_) => self.too_large(number, payload.iter().map(Bytes::len).sum()),
        };
        if let Some(why) = wrong {
            self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
            return;
        }
        if next(saga.phase, Event::AdviceStep, saga.facts()) == Next::Jump {
            self.go(now, number, found.into_iter().collect(), payload, output);
        }
    }

    /// The compensator said what is to be undone.
    fn plan_undo(
        &mut self,
        now: Millis,
        number: Sequence,
        steps: Vec<(String, Option<Bytes>)>,
        output: &mut Output,
    ) {
        let saga = self.saga_row(number);
        let (cause, facts, phase) = (saga.cause.as_deref().cloned(), saga.facts(), saga.phase);
        let plan = match checked_plan(saga, steps) {
            Ok(plan) => plan,
            Err(why) => {
                self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
                return;
            }
        };
        let bytes = plan.iter().filter_map(|(_, payload)| payload.as_ref()).map(|payload| payload.0.len());
        if let Some(why) = self.too_large(number, bytes.sum()) {
            self.saga_event(now, number, Event::AdvicePark, About::why(why), output);
            return;
        }
        let facts = Facts { undo_left: !plan.is_empty(), ..facts };
        if matches!(next(phase, Event::AdviceUndo, facts), Next::Undo | Next::Compensated) {
            let cause = cause.unwrap_or(SagaCause::Timeout);
            self.begin_undoing(now, number, cause, plan, output);
        }
    }

    /// Why payloads of so many bytes, which its compensator gave, have no room in this saga.
    fn too_large(&self, number: Sequence, bytes: usize) -> Option<String> {
        let limit = self.rules.limits.saga_max_payload_bytes;
        (bytes > 0 && !self.result_fits(number, bytes)).then(|| {
            format!("its compensator gave {bytes} bytes of payloads, where the saga keeps at most {limit} in all (limits.saga_max_payload)")
        })
    }

    /// An operator's command.
    pub(crate) fn steer(
        &mut self,
        now: Millis,
        ticket: Ticket,
        (name, id): (&str, &str),
        verb: SagaVerb,
        output: &mut Output,
    ) {
        let outcome = self.try_steer(now, name, id, verb, output);
        let wait = match outcome {
            Ok(_) => Wait { position: self.position, durability: Durability::Fsync },
            Err(_) => Wait::NOTHING,
        };
        output.effects.push(Held { wait, effect: Effect::Steered { ticket, outcome } });
    }

    fn try_steer(
        &mut self,
        now: Millis,
        name: &str,
        id: &str,
        verb: SagaVerb,
        output: &mut Output,
    ) -> Result<SagaState, SteerError> {
        let number = self.sagas.find(self.hash_key, name, id).ok_or(SteerError::UnknownSaga)?;
        if self.disk == DiskState::Full {
            return Err(SteerError::DiskFull);
        }
        let event = match &verb {
            SagaVerb::Retry => Event::Retry,
            SagaVerb::Skip { .. } => Event::Skip,
            SagaVerb::Abort { compensate: true } => Event::Abort,
            SagaVerb::Abort { compensate: false } => Event::Drop,
        };
        let saga = self.saga_row(number);
        if let Next::Refuse(why) = next(saga.phase, event, saga.facts()) {
            let detail = format!("saga {} is {}: {why}", saga.key(), saga.state().name());
            return Err(SteerError::NotAllowed { detail });
        }
        if let SagaVerb::Skip { step, payload } = verb {
            self.skip(now, number, &step, payload, output)?;
        }
        self.saga_event(now, number, event, About::default(), output);
        Ok(self.saga_row(number).state())
    }

    fn skip(
        &mut self,
        now: Millis,
        number: Sequence,
        step: &str,
        payload: Bytes,
        output: &mut Output,
    ) -> Result<(), SteerError> {
        let saga = self.saga_row(number);
        let place = saga.place(step).ok_or(SteerError::UnknownStep)?;
        let undoing = saga.phase == Phase::Parked(Rest::Undoing);
        let refuse = |why: &str| {
            let detail = format!("step `{step}` of saga {} {why}", saga.key());
            Err(SteerError::NotAllowed { detail })
        };
        if undoing && !saga.plan.iter().any(|(planned, _)| *planned == place) {
            return refuse("is not to be undone");
        }
        if !undoing && saga.runs[place as usize].outcome == StepOutcome::Completed {
            return refuse("is complete already");
        }
        if !undoing && !self.result_fits(number, payload.len()) {
            return refuse("can't take so large a result");
        }
        self.withdraw_one(number, place, output);
        self.note_saga(now, number, SagaFact::Skipped { step: place, result: Payload(payload) }, output);
        Ok(())
    }

    /// What facts do: a part of `apply`, so it decides nothing.
    pub(crate) fn apply_saga(
        &mut self,
        number: Sequence,
        at: Millis,
        fact: &SagaFact,
    ) -> Result<(), ApplyError> {
        if let SagaFact::Begun { name, input } = fact {
            let settings: Arc<SagaSettings> = self.rules.saga(name).ok_or(ApplyError::Saga(number))?.clone();
            if self.sagas.get(number).is_some() || number.0 == 0 {
                return Err(ApplyError::Number(number.0));
            }
            self.draw_through(number.0)?;
            let id = String::from_utf8_lossy(input.0.id()).into_owned();
            let saga = Saga::new(name, &id, settings, input.0.clone(), at);
            self.sagas.insert(self.hash_key, number, saga);
            return Ok(());
        }
        let saga = self.sagas.get(number).filter(|saga| !saga.phase.is_over());
        let saga = saga.ok_or(ApplyError::Saga(number))?;
        if !saga.takes(fact) {
            return Err(ApplyError::Saga(number));
        }
        let (name, was) = (saga.name.clone(), saga.state());
        self.sagas.change(number, |saga| saga.apply(at, fact));
        if let SagaFact::Sent { sequence, .. } = fact
            && self.live
        {
            self.owners.own(*sequence, Owner::Saga(number));
        }
        if was == SagaState::Parked && self.live && self.saga_row(number).state() != was {
            self.unparked_sagas.push(name);
        }
        Ok(())
    }
}

/// A compensator's plan, by steps' places; or why it makes no sense.
fn checked_plan(
    saga: &Saga,
    steps: Vec<(String, Option<Bytes>)>,
) -> Result<Vec<(u16, Option<Payload>)>, String> {
    let undoable = saga.undoable();
    let mut plan: Vec<(u16, Option<Payload>)> = Vec::with_capacity(steps.len());
    for (name, payload) in steps {
        let Some(place) = saga.place(&name) else {
            return Err(format!(
                "its compensator's plan names step `{name}`, which its definition doesn't have"
            ));
        };
        if !undoable.contains(&place) {
            return Err(format!("its compensator's plan names step `{name}`, which has nothing to undo"));
        }
        if plan.iter().any(|(known, _)| *known == place) {
            return Err(format!("its compensator's plan names step `{name}` twice"));
        }
        plan.push((place, payload.map(Payload)));
    }
    let left_out = undoable.iter().find(|step| !plan.iter().any(|(place, _)| place == *step));
    match left_out {
        Some(step) => Err(format!("its compensator's plan leaves out step `{}`", saga.step(*step).name)),
        None => Ok(plan),
    }
}
