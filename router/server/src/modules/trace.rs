//! What a trace sees: each verdict on a message, and what it came to in the end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chaski_broker::Filtered;
use chaski_modules::Verdict;

use super::active::Outcome;
use super::set::{Place, Step};

/// Where a work tells what it sees. Clones are the same trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Told>>);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Each verdict, in order.
    pub(crate) steps: Vec<Seen>,
    /// What it came to; `None` when it came to nothing.
    pub(crate) end: Option<Filtered>,
}

impl Trace {
    pub(super) fn step(&self, seen: Seen) {
        self.told().steps.push(seen);
    }

    pub(super) fn end(&self, filtered: &Filtered) {
        self.told().end = Some(filtered.clone());
    }

    /// Everything so far.
    pub(crate) fn take(&self) -> Told {
        std::mem::take(&mut *self.told())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One filter's word on one copy of a message.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) place: Place,
    pub(crate) hop: u32,
    pub(crate) module: String,
    pub(crate) digest: Option<String>,
    /// The verdict in one word.
    pub(crate) verdict: &'static str,
    /// What there is to say beside it.
    pub(crate) detail: Option<String>,
    pub(crate) took: Duration,
}

impl Seen {
    pub(super) fn new(step: &Step, hop: u32, outcome: &Outcome, took: Duration) -> Seen {
        let (verdict, detail) = told(outcome);
        Seen {
            place: step.place.clone(),
            hop,
            module: step.module.name.to_string(),
            digest: step.module.digest().map(|digest| digest.to_string()),
            verdict,
            detail,
            took,
        }
    }
}

/// The same in one text.
pub(super) fn in_words(outcome: &Outcome) -> String {
    match told(outcome) {
        (verdict, Some(detail)) => format!("{verdict}: {detail}"),
        (verdict, None) => verdict.to_owned(),
    }
}

fn told(outcome: &Outcome) -> (&'static str, Option<String>) {
    match outcome {
        Outcome::Verdict(Verdict::Pass) => ("pass", None),
        Outcome::Verdict(Verdict::Drop) => ("drop", None),
        Outcome::Verdict(Verdict::Reject { reason }) => ("reject", Some(reason.clone())),
        Outcome::Verdict(Verdict::Transform(_)) => ("transform", None),
        Outcome::Verdict(Verdict::Route { topics, .. }) => ("route", Some(topics.join(", "))),
        Outcome::Verdict(Verdict::Split(children)) => ("split", Some(format!("{} messages", children.len()))),
        Outcome::Failed { detail, .. } => ("error", Some(detail.to_string())),
        Outcome::Busy => ("error", Some("every instance of modules is in use".to_owned())),
    }
}
