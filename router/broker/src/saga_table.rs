//! The saga machine on one page: what follows from each event in each phase. It decides and changes nothing; who carries out
//! what it says is `coordinating.rs`.
//!
//! ```text
//!              next group of steps
//!                 ┌─────┐
//!                 │     ▼        every step is done
//!   begin ────► Forward ──────────────────────────────────────────► Completed
//!                 │  ▲ ▲─────── Choosing (`advance` is asked)
//!                 │  │
//!   a step ended  │  │ retry
//!   failed or     ▼  │
//!   unknown,     Planning (`compensate` is asked; without a compensator at once)
//!   or its time   │
//!   is over       ▼  next compensation
//!               Undoing ──────────────────────────────────────────► Compensated
//!
//!   Beyond the pivot, or where a compensation or the compensator fails: Parked, until an operator says
//!   retry, skip or abort. An abort without compensation ends it: Aborted.
//! ```

use bincode::{Decode, Encode};

/// Where a saga stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Phase {
    /// Steps are done.
    Forward,
    /// The compensator is asked what comes next.
    Choosing,
    /// The compensator is asked what is to be undone.
    Planning,
    /// Steps are undone.
    Undoing,
    /// An operator is awaited.
    Parked(Rest),
    /// Every step is done.
    Completed,
    /// What was done is undone.
    Compensated,
    /// An operator ended it as it stood.
    Aborted,
}

/// What a parked saga was doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Rest {
    /// Its steps.
    Forward,
    /// Asking what comes next.
    Choosing,
    /// Asking what is to be undone.
    Planning,
    /// Its compensations.
    Undoing,
}

/// What happens to a saga. What a step did is noted already.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A step completed.
    Done,
    /// An attempt at a step failed, and another is permitted.
    Faltered,
    /// A step ended failed or unknown.
    Failed,
    /// The saga's time is over.
    TimedOut,
    /// A compensation completed.
    Undone,
    /// An attempt at a compensation failed, and another is permitted.
    UndoFaltered,
    /// A compensation failed for good.
    UndoFailed,
    /// The compensator: the next step, as defined.
    AdviceNext,
    /// The compensator: this step next.
    AdviceStep,
    /// The compensator: it is complete.
    AdviceComplete,
    /// The compensator: compensate.
    AdviceFail,
    /// The compensator: undo these.
    AdviceUndo,
    /// The compensator: once more.
    AdviceRetry,
    /// The compensator: an operator is to decide; or it failed, or said what makes no sense.
    AdvicePark,
    /// The operator: go on.
    Retry,
    /// The operator: this step counts as done, or as undone.
    Skip,
    /// The operator: compensate.
    Abort,
    /// The operator: end it as it stands.
    Drop,
}

/// What the table weighs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    /// A step of the current group is still under way.
    pub(crate) open: bool,
    /// A step of the current group ended failed or unknown.
    pub(crate) failed: bool,
    /// Nothing comes after the current group.
    pub(crate) last: bool,
    /// The compensator chooses what comes next.
    pub(crate) advances: bool,
    /// The pivot has completed, or ended unknown.
    pub(crate) beyond: bool,
    /// A step is still to be undone.
    pub(crate) undo_left: bool,
}

/// What follows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing more for now.
    Stay,
    /// The attempt is made again, after its backoff.
    Again,
    /// The compensator is asked what comes next.
    Choose,
    /// The next group of steps is sent.
    Proceed,
    /// The step that the compensator chose is sent.
    Jump,
    /// Steps of the current group that did not complete are sent again.
    Repeat,
    /// What was done is undone: the compensator is asked how, or last first.
    Compensate,
    /// The next compensation is sent.
    Undo,
    /// An operator is told.
    Park,
    /// Over: completed.
    Complete,
    /// Over: compensated.
    Compensated,
    /// Over: aborted.
    Abort,
    /// Too late, or not in this phase.
    Ignore,
    /// An operator's command that makes no sense here: the sentence says why.
    Refuse(&'static str),
}

/// Every transition of a saga.
pub(crate) fn next(phase: Phase, event: Event, facts: Facts) -> Next {
    use Event::*;
    use Phase::*;
    match (phase, event) {
        // A step was answered, or ended without an answer.
        (Forward, Done | Failed) if facts.open => Next::Stay,
        (Forward, Done | Failed) if facts.failed && facts.beyond => Next::Park,
        (Forward, Done | Failed) if facts.failed => Next::Compensate,
        (Forward, Done | Failed) if facts.advances => Next::Choose,
        (Forward, Done | Failed) if facts.last => Next::Complete,
        (Forward, Done | Failed) => Next::Proceed,
        (Forward, Faltered) => Next::Again,
        (Forward | Choosing, TimedOut) if facts.beyond => Next::Park,
        (Forward | Choosing, TimedOut) => Next::Compensate,

        // The compensator chose.
        (Choosing, AdviceNext) if facts.last => Next::Complete,
        (Choosing, AdviceNext) => Next::Proceed,
        (Choosing, AdviceStep) => Next::Jump,
        (Choosing, AdviceComplete) => Next::Complete,
        (Choosing, AdviceFail) if facts.beyond => Next::Park,
        (Choosing, AdviceFail) => Next::Compensate,
        (Planning, AdviceUndo) if facts.undo_left => Next::Undo,
        (Planning, AdviceUndo) => Next::Compensated,
        (Planning, AdviceRetry) => Next::Repeat,
        (Choosing | Planning, AdvicePark) => Next::Park,

        // A compensation was answered.
        (Undoing, Undone) if facts.undo_left => Next::Undo,
        (Undoing, Undone) => Next::Compensated,
        (Undoing, UndoFaltered) => Next::Again,
        (Undoing, UndoFailed) => Next::Park,

        // While an operator is awaited, answers are noted.
        (Parked(_), Done | Failed | Faltered | Undone | UndoFaltered | UndoFailed) => Next::Stay,

        // An operator spoke.
        (Parked(Rest::Forward | Rest::Planning), Retry) => Next::Repeat,
        (Parked(Rest::Choosing), Retry) => Next::Choose,
        (Parked(Rest::Undoing), Retry | Abort) => Next::Undo,
        (Parked(Rest::Undoing), Skip) if facts.undo_left => Next::Undo,
        (Parked(Rest::Undoing), Skip) => Next::Compensated,
        (Parked(_), Skip) if facts.open || facts.failed => Next::Repeat,
        (Parked(_), Skip) if facts.advances => Next::Choose,
        (Parked(_), Skip) if facts.last => Next::Complete,
        (Parked(_), Skip) => Next::Proceed,
        (Forward | Choosing | Parked(_), Abort) => Next::Compensate,
        (Planning | Undoing, Abort) => Next::Refuse("it is being compensated already"),
        (Forward | Choosing | Planning | Undoing | Parked(_), Drop) => Next::Abort,
        (Forward | Choosing | Planning | Undoing, Retry | Skip) => Next::Refuse("it is not parked"),
        (Completed | Compensated | Aborted, Retry | Skip | Abort | Drop) => Next::Refuse("it has ended"),

        (
            Forward | Choosing | Planning | Undoing | Parked(_) | Completed | Compensated | Aborted,
            Done | Faltered | Failed | TimedOut | Undone | UndoFaltered | UndoFailed | AdviceNext
            | AdviceStep | AdviceComplete | AdviceFail | AdviceUndo | AdviceRetry | AdvicePark,
        ) => Next::Ignore,
    }
}

impl Phase {
    /// Whether it is over.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Phase::Completed | Phase::Compensated | Phase::Aborted)
    }

    /// What it does while it is parked.
    pub(crate) fn rest(self) -> Rest {
        match self {
            Phase::Choosing => Rest::Choosing,
            Phase::Planning => Rest::Planning,
            Phase::Undoing => Rest::Undoing,
            Phase::Parked(rest) => rest,
            Phase::Forward | Phase::Completed | Phase::Compensated | Phase::Aborted => Rest::Forward,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect_file;

    use super::*;

    const PHASES: [Phase; 11] = [
        Phase::Forward,
        Phase::Choosing,
        Phase::Planning,
        Phase::Undoing,
        Phase::Parked(Rest::Forward),
        Phase::Parked(Rest::Choosing),
        Phase::Parked(Rest::Planning),
        Phase::Parked(Rest::Undoing),
        Phase::Completed,
        Phase::Compensated,
        Phase::Aborted,
    ];
    const EVENTS: [Event; 18] = [
        Event::Done,
        Event::Faltered,
        Event::Failed,
        Event::TimedOut,
        Event::Undone,
        Event::UndoFaltered,
        Event::UndoFailed,
        Event::AdviceNext,
        Event::AdviceStep,
        Event::AdviceComplete,
        Event::AdviceFail,
        Event::AdviceUndo,
        Event::AdviceRetry,
        Event::AdvicePark,
        Event::Retry,
        Event::Skip,
        Event::Abort,
        Event::Drop,
    ];

    fn cases() -> Vec<Facts> {
        (0..64u8)
            .map(|bits| Facts {
                open: bits & 1 > 0,
                failed: bits & 2 > 0,
                last: bits & 4 > 0,
                advances: bits & 8 > 0,
                beyond: bits & 16 > 0,
                undo_left: bits & 32 > 0,
            })
            .collect()
    }

    /// The whole table: what follows from each event in each phase. Where it depends on facts, each outcome says in how many of
    /// their 64 combinations it follows.
    #[test]
    fn every_transition() {
        let mut table = String::new();
        for phase in PHASES {
            writeln!(table, "{phase:?}").unwrap();
            for event in EVENTS {
                let mut found: Vec<(Next, u32)> = Vec::new();
                for facts in cases() {
                    let next = next(phase, event, facts);
                    match found.iter_mut().find(|(known, _)| *known == next) {
                        Some((_, count)) => *count += 1,
                        None => found.push((next, 1)),
                    }
                }
                let outcomes: Vec<String> = match &found[..] {
                    [(Next::Ignore, _)] => continue,
                    [(next, _)] => vec![format!("{next:?}")],
                    many => many.iter().map(|(next, count)| format!("{next:?} in {count}")).collect(),
                };
                writeln!(table, "    {event:?}: {}", outcomes.join(", ")).unwrap();
            }
        }
        expect_file!["saga_table.txt"].assert_eq(&table);
    }

    /// No event leads a saga out of its end.
    #[test]
    fn an_end_is_an_end() {
        for phase in PHASES.into_iter().filter(|phase| phase.is_over()) {
            for event in EVENTS {
                for facts in cases() {
                    let next = next(phase, event, facts);
                    assert!(matches!(next, Next::Ignore | Next::Refuse(_)), "{phase:?} {event:?}: {next:?}");
                }
            }
        }
    }

    /// Beyond the pivot nothing is undone but by an operator's word.
    #[test]
    fn beyond_the_pivot_nothing_compensates_by_itself() {
        for event in EVENTS.into_iter().filter(|event| *event != Event::Abort) {
            for facts in cases().into_iter().filter(|facts| facts.beyond) {
                for phase in [Phase::Forward, Phase::Choosing] {
                    assert_ne!(next(phase, event, facts), Next::Compensate, "{phase:?} {event:?} {facts:?}");
                }
            }
        }
    }
}
