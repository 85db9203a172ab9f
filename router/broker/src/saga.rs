//! One saga: what it holds, and what each fact does to it. Which fact follows from what happens, `saga_table.rs` says.

use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{Kept, Payload};
use crate::effect::SagaCause;
use crate::ids::{Millis, Sequence};
use crate::message::Message;
use crate::saga_settings::{SagaSettings, StepSettings};
use crate::saga_table::{Event, Facts, Phase, Rest};
use crate::views::{SagaState, StepOutcome};

/// Lines of a timeline that are kept.
const TIMELINE: usize = 256;

/// One saga.
#[derive(Clone, Debug)]
pub(crate) struct Saga {
    /// One for all sagas of a definition.
    pub(crate) name: Arc<str>,
    pub(crate) id: Box<str>,
    pub(crate) settings: Arc<SagaSettings>,
    /// The message that began it; once it is over, its head only.
    pub(crate) input: Message,
    /// Where the outcome goes: the latest that asked.
    pub(crate) reply_to: Option<Box<str>>,
    pub(crate) began_at: Millis,
    pub(crate) changed_at: Millis,
    /// When it compensates by itself; `None` once an operator or its compensator let it go on beyond that.
    pub(crate) deadline: Option<Millis>,
    pub(crate) phase: Phase,
    /// Why it rests.
    pub(crate) parked: Option<Box<str>>,
    pub(crate) runs: Vec<Run>,
    /// The steps that are done side by side now.
    pub(crate) current: SmallVec<[u16; 4]>,
    /// Payloads that the compensator gave for steps.
    pub(crate) payloads: Vec<(u16, Bytes)>,
    /// What is still to be undone, the next first.
    pub(crate) plan: Vec<(u16, Option<Bytes>)>,
    pub(crate) cause: Option<Box<SagaCause>>,
    /// How often the compensator said `retry`.
    pub(crate) retries: u32,
    /// The ACK queue: answers that the coordinator has not acted upon.
    pub(crate) acks: Vec<u16>,
    pub(crate) timeline: Vec<Line>,
    /// Once it is over: until when it is remembered.
    pub(crate) until: Option<Millis>,
    /// Lines told since the start of the router: volatile.
    pub(crate) lines: u32,
    /// Volatile: the compensator's next call.
    pub(crate) call: u32,
    /// Volatile: its timer, if one is set.
    pub(crate) timer: Option<Millis>,
}

/// One step's run.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Run {
    pub(crate) outcome: StepOutcome,
    pub(crate) undone: bool,
    /// An attempt was delivered and ended without an answer.
    pub(crate) unanswered: bool,
    pub(crate) attempts: u32,
    pub(crate) undo_attempts: u32,
    /// Of these the ones since an operator said `retry`.
    pub(crate) undo_failures: u32,
    pub(crate) attempt: Option<Attempt>,
    pub(crate) result: Option<Payload>,
    pub(crate) reason: Option<Box<str>>,
}

/// An attempt under way, or waited for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Attempt {
    /// The message; 0: it is still to be sent.
    pub(crate) sequence: Sequence,
    /// When its time is over; or when it is to be sent.
    pub(crate) due: Millis,
    pub(crate) undo: bool,
}

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Line {
    pub(crate) at: Millis,
    pub(crate) step: Option<u16>,
    pub(crate) undo: bool,
    pub(crate) attempt: u32,
    pub(crate) what: What,
    pub(crate) detail: Option<Box<str>>,
}

/// What a line tells.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum What {
    Began,
    Sent,
    Completed,
    Failed,
    Unanswered,
    Waits,
    Unknown,
    Asked,
    Compensates,
    Parked,
    Resumed,
    Skipped,
    Ended,
}

impl What {
    pub(crate) fn name(self) -> &'static str {
        match self {
            What::Began => "began",
            What::Sent => "sent",
            What::Completed => "completed",
            What::Failed => "failed",
            What::Unanswered => "unanswered",
            What::Waits => "waits",
            What::Unknown => "unknown",
            What::Asked => "compensator asked",
            What::Compensates => "compensates",
            What::Parked => "parked",
            What::Resumed => "resumed",
            What::Skipped => "skipped",
            What::Ended => "ended",
        }
    }
}

/// A fact about a saga, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum SagaFact {
    /// It began, under the rules in force.
    Begun {
        /// Its definition.
        name: String,
        /// The message that began it.
        input: Kept,
    },
    /// These steps are the current ones; none is sent yet.
    Went {
        /// Which.
        steps: Vec<u16>,
        /// A payload of the compensator's for the one step that it chose.
        payload: Option<Payload>,
    },
    /// An attempt was sent.
    Sent {
        /// The step.
        step: u16,
        /// Whether it undoes the step.
        undo: bool,
        /// From 1; the same again after a start that lost the message.
        attempt: u32,
        /// The message.
        sequence: Sequence,
        /// When its time is over.
        due: Millis,
    },
    /// An attempt ended.
    Answered {
        /// The step.
        step: u16,
        /// How.
        answer: Answer,
    },
    /// The next attempt waits.
    Waits {
        /// The step.
        step: u16,
        /// Whether it undoes the step.
        undo: bool,
        /// Until when.
        until: Millis,
    },
    /// No attempt follows: the step ended failed, or unknown if an attempt was not answered.
    Closed {
        /// The step.
        step: u16,
    },
    /// The compensator is asked.
    Asked {
        /// How to compensate, for this reason; `None`: what comes next.
        cause: Option<SagaCause>,
    },
    /// These steps are undone, in this order.
    Planned {
        /// Why.
        cause: SagaCause,
        /// Which, and payloads in place of what the router makes.
        steps: Vec<(u16, Option<Payload>)>,
    },
    /// An operator is awaited.
    Parked {
        /// Why.
        reason: String,
    },
    /// It goes on: with its steps or, where it was undoing, with that.
    Resumed {
        /// By the compensator's word, not the operator's.
        advised: bool,
    },
    /// An operator said that a step counts as done; or, where it was undoing, as undone.
    Skipped {
        /// The step.
        step: u16,
        /// Its result.
        result: Payload,
    },
    /// The start came again, and wants the outcome elsewhere.
    Moved {
        /// Where.
        reply_to: String,
    },
    /// It is over.
    Over {
        /// How.
        end: End,
        /// Until when it is remembered.
        until: Millis,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Answer {
    /// Complete.
    Completed(Payload),
    /// It failed.
    Failed {
        /// Why.
        reason: String,
        /// Whether the consumer thinks that another attempt helps.
        retryable: bool,
    },
    /// Nobody answered.
    Unanswered {
        /// Whether somebody had it.
        delivered: bool,
        /// What became of it.
        reason: String,
    },
}

/// How a saga ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// Every step is done.
    Completed,
    /// What was done is undone.
    Compensated,
    /// An operator ended it as it stood.
    Aborted,
}

impl Saga {
    pub(crate) fn new(name: &str, id: &str, settings: Arc<SagaSettings>, input: Message, at: Millis) -> Saga {
        let run = Run {
            outcome: StepOutcome::Pending,
            undone: false,
            unanswered: false,
            attempts: 0,
            undo_attempts: 0,
            undo_failures: 0,
            attempt: None,
            result: None,
            reason: None,
        };
        let reply_to = input.reply_to().map(|bytes| String::from_utf8_lossy(bytes).into());
        let mut saga = Saga {
            name: name.into(),
            id: id.into(),
            runs: vec![run; settings.steps.len()],
            deadline: Some(at.max(input.fields.deliver_at.unwrap_or_default()).after(settings.timeout_ms)),
            settings,
            input,
            reply_to,
            began_at: at,
            changed_at: at,
            phase: Phase::Forward,
            parked: None,
            current: SmallVec::new(),
            payloads: Vec::new(),
            plan: Vec::new(),
            cause: None,
            retries: 0,
            acks: Vec::new(),
            // As many as one has that waits for its first step.
            timeline: Vec::with_capacity(2),
            until: None,
            lines: 0,
            call: 0,
            timer: None,
        };
        saga.tell(at, None, false, 0, What::Began, None);
        saga
    }

    /// What a fact does. The caller has checked that the step exists and that the fact is possible.
    pub(crate) fn apply(&mut self, at: Millis, fact: &SagaFact) {
        self.changed_at = at;
        match fact {
            SagaFact::Begun { .. } => unreachable!("it makes the saga"),
            SagaFact::Went { steps, payload } => {
                self.go_on(at);
                self.phase = Phase::Forward;
                self.current = steps.iter().copied().collect();
                for step in steps {
                    let run = &mut self.runs[*step as usize];
                    run.outcome = StepOutcome::Running;
                }
                if let (Some(payload), [step]) = (payload, &steps[..]) {
                    self.payloads.retain(|(known, _)| known != step);
                    self.payloads.push((*step, payload.0.clone()));
                }
            }
            SagaFact::Sent { step, undo, attempt, sequence, due } => {
                let run = &mut self.runs[*step as usize];
                let made = if *undo { &mut run.undo_attempts } else { &mut run.attempts };
                // The same attempt again: nobody knows whether somebody had the message that is gone.
                run.unanswered |= !undo && *made == *attempt;
                *made = *attempt;
                run.attempt = Some(Attempt { sequence: *sequence, due: *due, undo: *undo });
                // Compensations follow one another: what was answered before is acted upon.
                self.acks.retain(|ack| !undo && ack != step);
                self.tell(at, Some(*step), *undo, *attempt, What::Sent, None);
            }
            SagaFact::Answered { step, answer } => self.answered(at, *step, answer),
            SagaFact::Waits { step, undo, until } => {
                let run = &mut self.runs[*step as usize];
                // A message that a start lost, and for which there is no room now: somebody may have had it.
                run.unanswered |= !undo && run.attempt.is_some_and(|attempt| attempt.sequence.0 > 0);
                run.attempt = Some(Attempt { sequence: Sequence(0), due: *until, undo: *undo });
                self.acks.retain(|ack| ack != step);
            }
            SagaFact::Closed { step } => {
                let run = &mut self.runs[*step as usize];
                run.attempt = None;
                run.outcome = if run.unanswered { StepOutcome::Unknown } else { StepOutcome::Failed };
                if run.unanswered {
                    self.tell(at, Some(*step), false, 0, What::Unknown, None);
                }
            }
            SagaFact::Asked { cause } => {
                if let Some(cause) = cause {
                    self.acks.clear();
                    self.parked = None;
                    self.phase = Phase::Planning;
                    self.cause = Some(Box::new(cause.clone()));
                } else {
                    self.go_on(at);
                    self.phase = Phase::Choosing;
                }
                let detail = if cause.is_some() { "how to compensate" } else { "what comes next" };
                self.tell(at, None, false, 0, What::Asked, Some(detail));
            }
            SagaFact::Planned { cause, steps } => {
                self.acks.clear();
                self.phase = Phase::Undoing;
                self.parked = None;
                self.cause = Some(Box::new(cause.clone()));
                self.plan =
                    steps.iter().map(|(step, payload)| (*step, payload.clone().map(|it| it.0))).collect();
                let why = self.failure().map(|(_, reason)| reason.to_owned());
                self.tell(at, None, true, 0, What::Compensates, why.as_deref());
            }
            SagaFact::Parked { reason } => {
                self.phase = Phase::Parked(self.phase.rest());
                self.parked = Some(reason.as_str().into());
                self.tell(at, None, false, 0, What::Parked, Some(reason));
            }
            SagaFact::Resumed { advised } => {
                let undoing = self.phase.rest() == Rest::Undoing;
                self.retries += u32::from(*advised);
                for run in &mut self.runs {
                    run.undo_failures = 0;
                }
                if undoing {
                    self.acks.clear();
                    self.parked = None;
                    self.phase = Phase::Undoing;
                } else {
                    self.go_on(at);
                    self.phase = Phase::Forward;
                    for step in self.current.clone() {
                        let run = &mut self.runs[step as usize];
                        if matches!(run.outcome, StepOutcome::Failed | StepOutcome::Unknown) {
                            run.outcome = StepOutcome::Running;
                        }
                    }
                }
                let by = if *advised { "by its compensator" } else { "by an operator" };
                self.tell(at, None, undoing, 0, What::Resumed, Some(by));
            }
            SagaFact::Skipped { step, result } => {
                let undoing = self.phase == Phase::Parked(Rest::Undoing);
                let run = &mut self.runs[*step as usize];
                run.attempt = None;
                if undoing {
                    run.undone = true;
                    self.plan.retain(|(planned, _)| planned != step);
                } else {
                    run.outcome = StepOutcome::Completed;
                    run.result = (!result.0.is_empty()).then(|| result.clone());
                    run.reason = None;
                    self.cause = None;
                }
                self.tell(at, Some(*step), undoing, 0, What::Skipped, None);
            }
            SagaFact::Moved { reply_to } => self.reply_to = Some(reply_to.as_str().into()),
            SagaFact::Over { end, until } => {
                self.phase = match end {
                    End::Completed => Phase::Completed,
                    End::Compensated => Phase::Compensated,
                    End::Aborted => Phase::Aborted,
                };
                self.until = Some(*until);
                self.parked = None;
                self.deadline = None;
                self.acks = Vec::new();
                self.plan = Vec::new();
                self.payloads = Vec::new();
                for run in &mut self.runs {
                    run.attempt = None;
                }
                self.input = self.input.head_only();
                let state = self.state().name();
                self.tell(at, None, false, 0, What::Ended, Some(state));
            }
        }
    }

    /// It goes on with its steps: nothing is to blame any more, and time that was over while it rested doesn't count.
    fn go_on(&mut self, at: Millis) {
        self.acks.clear();
        self.cause = None;
        if self.parked.take().is_some() || self.phase == Phase::Planning {
            self.deadline = self.deadline.filter(|deadline| *deadline > at);
        }
    }

    fn answered(&mut self, at: Millis, step: u16, answer: &Answer) {
        let run = &mut self.runs[step as usize];
        let undo = run.attempt.take().is_some_and(|attempt| attempt.undo);
        let attempt = if undo { run.undo_attempts } else { run.attempts };
        let (what, detail) = match answer {
            Answer::Completed(result) => {
                if undo {
                    run.undone = true;
                    self.plan.retain(|(planned, _)| *planned != step);
                } else {
                    run.outcome = StepOutcome::Completed;
                    run.result = (!result.0.is_empty()).then(|| result.clone());
                    run.reason = None;
                }
                (What::Completed, None)
            }
            Answer::Failed { reason, .. } => {
                run.reason = Some(reason.as_str().into());
                run.undo_failures += u32::from(undo);
                (What::Failed, Some(reason.as_str()))
            }
            Answer::Unanswered { delivered, reason } => {
                run.unanswered |= !undo && *delivered;
                run.reason = Some(reason.as_str().into());
                run.undo_failures += u32::from(undo);
                (What::Unanswered, Some(reason.as_str()))
            }
        };
        self.acks.push(step);
        self.tell(at, Some(step), undo, attempt, what, detail);
    }

    fn tell(
        &mut self,
        at: Millis,
        step: Option<u16>,
        undo: bool,
        attempt: u32,
        what: What,
        detail: Option<&str>,
    ) {
        if self.timeline.len() == TIMELINE {
            // The beginning stays.
            self.timeline.remove(1);
        }
        self.lines = self.lines.wrapping_add(1);
        self.timeline.push(Line { at, step, undo, attempt, what, detail: detail.map(Into::into) });
    }

    pub(crate) fn step(&self, step: u16) -> &StepSettings {
        &self.settings.steps[step as usize]
    }

    /// The place of the step of this name.
    pub(crate) fn place(&self, name: &str) -> Option<u16> {
        self.settings.steps.iter().position(|step| step.name == name).map(|place| place as u16)
    }

    /// `NAME/ID`.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.name, self.id)
    }

    /// The step that is to blame (empty: none in particular), and why.
    pub(crate) fn failure(&self) -> Option<(&str, &str)> {
        Some(match self.cause.as_deref()? {
            SagaCause::Step { step, reason } => (&*self.step(*step).name, reason),
            SagaCause::Timeout => ("", "its time was over"),
            SagaCause::Aborted { reason } => ("", reason),
        })
    }

    /// The steps after the current ones, one group of them; those that are complete already are passed over.
    pub(crate) fn following(&self) -> Vec<u16> {
        let open = |step: &u16| self.runs[*step as usize].outcome != StepOutcome::Completed;
        let mut after = self.current.iter().max().map_or(0, |last| last + 1)..self.runs.len() as u16;
        let Some(first) = after.find(open) else { return Vec::new() };
        let group = &self.step(first).group;
        let together = |step: &u16| group.is_some() && self.step(*step).group == *group;
        std::iter::once(first).chain(after.take_while(together).filter(open)).collect()
    }

    /// What the table weighs.
    pub(crate) fn facts(&self) -> Facts {
        let outcomes = self.current.iter().map(|step| self.runs[*step as usize].outcome);
        let is = |wanted: StepOutcome| outcomes.clone().any(|outcome| outcome == wanted);
        let pivot = self.settings.steps.iter().position(|step| step.pivot);
        Facts {
            open: is(StepOutcome::Running),
            failed: is(StepOutcome::Failed) || is(StepOutcome::Unknown),
            last: self.following().is_empty(),
            advances: self.settings.advances,
            beyond: pivot.is_some_and(|pivot| {
                matches!(self.runs[pivot].outcome, StepOutcome::Completed | StepOutcome::Unknown)
            }),
            undo_left: !self.plan.is_empty(),
        }
    }

    /// Steps that are undone, in the order in which they were; first those that the timeline doesn't tell of any more.
    pub(crate) fn undone(&self) -> Vec<u16> {
        let mut steps: Vec<u16> =
            (0..).zip(&self.runs).filter(|(_, run)| run.undone).map(|(step, _)| step).collect();
        steps.sort_by_key(|step| {
            let ends = |line: &Line| matches!(line.what, What::Completed | What::Skipped);
            self.timeline.iter().rposition(|line| line.undo && line.step == Some(*step) && ends(line))
        });
        steps
    }

    /// Steps that may have had an effect that is not undone, and can be, last first.
    pub(crate) fn undoable(&self) -> Vec<u16> {
        let steps = (0..self.runs.len() as u16).rev();
        steps
            .filter(|step| {
                let run = &self.runs[*step as usize];
                let done = matches!(run.outcome, StepOutcome::Completed | StepOutcome::Unknown);
                done && !run.undone && self.step(*step).compensate.is_some()
            })
            .collect()
    }

    /// When it is to be looked at next.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        if self.phase.is_over() {
            return None;
        }
        let parked = matches!(self.phase, Phase::Parked(_));
        let attempts = self.runs.iter().filter_map(|run| run.attempt);
        let attempts =
            attempts.filter(|attempt| !parked || attempt.sequence.0 > 0).map(|attempt| attempt.due);
        let deadline = self.deadline.filter(|_| matches!(self.phase, Phase::Forward | Phase::Choosing));
        attempts.chain(deadline).min()
    }

    /// Whether a fact is possible here: bytes from a disk may say anything.
    pub(crate) fn takes(&self, fact: &SagaFact) -> bool {
        let known = |step: &u16| (*step as usize) < self.runs.len();
        match fact {
            SagaFact::Begun { .. } => false,
            SagaFact::Went { steps, .. } => steps.iter().all(known),
            SagaFact::Sent { step, .. }
            | SagaFact::Answered { step, .. }
            | SagaFact::Waits { step, .. }
            | SagaFact::Closed { step }
            | SagaFact::Skipped { step, .. } => known(step),
            SagaFact::Asked { cause: Some(SagaCause::Step { step, .. }) } => known(step),
            SagaFact::Planned { cause, steps } => {
                let blamed = if let SagaCause::Step { step, .. } = cause { known(step) } else { true };
                let undoable = |step: &u16| known(step) && self.step(*step).compensate.is_some();
                blamed && steps.iter().all(|(step, _)| undoable(step))
            }
            SagaFact::Asked { .. }
            | SagaFact::Parked { .. }
            | SagaFact::Resumed { .. }
            | SagaFact::Moved { .. }
            | SagaFact::Over { .. } => true,
        }
    }

    /// What steps answered, in the definition's order.
    pub(crate) fn results(&self) -> Vec<(&str, &Bytes)> {
        let runs = self.settings.steps.iter().zip(&self.runs);
        runs.filter_map(|(step, run)| Some((&*step.name, &run.result.as_ref()?.0))).collect()
    }

    /// Why what an event says leads to compensation.
    pub(crate) fn blame(&self, event: Event, why: Option<String>) -> SagaCause {
        match event {
            Event::TimedOut => SagaCause::Timeout,
            Event::Abort => SagaCause::Aborted { reason: "an operator aborted it".to_owned() },
            Event::AdviceFail => SagaCause::Aborted { reason: why.unwrap_or_default() },
            _ => {
                let ended = |step: &&u16| {
                    matches!(self.runs[**step as usize].outcome, StepOutcome::Failed | StepOutcome::Unknown)
                };
                let step = self.current.iter().find(ended).copied().unwrap_or_default();
                let reason = self.runs[step as usize].reason.as_deref().unwrap_or_default().to_owned();
                SagaCause::Step { step, reason }
            }
        }
    }

    /// Why what an event says parks it, as a sentence.
    pub(crate) fn why_parked(&self, event: Event, step: Option<u16>, why: Option<String>) -> String {
        let named = step.map(|step| &*self.step(step).name).unwrap_or_default();
        let reason = step.and_then(|step| self.runs[step as usize].reason.as_deref()).unwrap_or_default();
        match event {
            Event::UndoFailed => format!("the compensation of `{named}` failed: {reason}"),
            Event::TimedOut => {
                "its time was over beyond the pivot, where nothing is undone by itself".to_owned()
            }
            Event::AdvicePark => why.unwrap_or_default(),
            Event::AdviceFail => {
                let why = why.unwrap_or_default();
                format!("its compensator ended it beyond the pivot, where nothing is undone by itself: {why}")
            }
            _ => match self.blame(event, None) {
                SagaCause::Step { step, reason } => {
                    let named = &self.step(step).name;
                    format!(
                        "step `{named}` ended beyond the pivot, where nothing is undone by itself: {reason}"
                    )
                }
                SagaCause::Timeout | SagaCause::Aborted { .. } => String::new(),
            },
        }
    }

    /// Bytes of its input, its results, and what its compensator gave steps and compensations to carry.
    pub(crate) fn payload_bytes(&self) -> u64 {
        let results = self.runs.iter().filter_map(|run| run.result.as_ref()).map(|result| result.0.len());
        let given = self.payloads.iter().map(|(_, payload)| payload);
        let given = given.chain(self.plan.iter().filter_map(|(_, payload)| payload.as_ref())).map(Bytes::len);
        (self.input.body.len() + results.chain(given).sum::<usize>()) as u64
    }

    pub(crate) fn state(&self) -> SagaState {
        match self.phase {
            Phase::Forward | Phase::Choosing => SagaState::Running,
            Phase::Planning | Phase::Undoing => SagaState::Compensating,
            Phase::Parked(_) => SagaState::Parked,
            Phase::Completed => SagaState::Completed,
            Phase::Compensated => SagaState::Compensated,
            Phase::Aborted => SagaState::Aborted,
        }
    }
}
