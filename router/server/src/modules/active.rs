//! One version of a module under its name in the rules, as messages meet it: where it is called, what its failures do, and how it
//! behaves. It makes calls; what a verdict means for a message is the judge's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chaski_modules::{
    Context, Description, Digest, Failure, Filter, Judged, Metrics, Verdict, VersionId, World,
};
use tokio::sync::mpsc;

use super::conduct::{Conduct, Report, SUSPENDED};
use super::coordinators::Coordinator;
use super::health::{Admission, Tolerance};
use super::lanes::{Lanes, Place};
use super::logbook::Logbook;
use super::overlay::Overlay;
use super::samples::Sample;
use super::shadow::Shadow;
use super::subject::Subject;
use crate::rules::OnError;

/// A call of a version that runs inline takes less CPU time than this.
pub(super) const INLINE: Duration = Duration::from_micros(500);

/// So many calls must stay below it before a version runs inline.
pub(super) const SMOKE_CALLS: u32 = 32;

/// Messages of one call at most.
const BATCH: usize = chaski_modules::BATCH_MESSAGES;

/// Times that a batch is given again when every instance is in use.
const BUSY_RETRIES: u32 = 100;

/// What becomes of one message of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The module's word.
    Verdict(Verdict),
    /// It failed on this message.
    Failed {
        /// The cause in one word.
        cause: &'static str,
        /// The cause in a sentence, with a panic's text.
        detail: Box<str>,
    },
    /// All instances are in use.
    Busy,
}

/// What the rules say of a module beside its binary and params.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manners {
    pub(crate) on_error: OnError,
    pub(crate) tolerance: Tolerance,
}

/// A version that is ready to judge.
pub(crate) struct Version {
    pub(crate) filter: Filter,
    pub(crate) description: Description,
    place: Place,
    /// Calls that stayed short, up to [`SMOKE_CALLS`].
    short_calls: AtomicU32,
    conduct: Conduct,
    log: Logbook,
    /// Whether it bore its smoke run, or was spared it.
    proven: AtomicBool,
}

/// A module's name with the version in force, if there is one.
pub(crate) struct Active {
    pub(crate) name: Arc<str>,
    pub(crate) manners: Manners,
    /// `None`: named and not yet deployed, or no filter.
    pub(crate) version: Option<Arc<Version>>,
    /// What it is where it is no filter.
    pub(crate) coordinator: Option<Arc<Coordinator>>,
    /// A version that runs beside it.
    pub(crate) shadow: Arc<ArcSwapOption<Shadow>>,
    /// What it judged last for consumers and subscriptions.
    pub(super) sample: Arc<Sample>,
}

impl Active {
    /// Whether it is judged behind the dedup check, with a table.
    pub(crate) fn keeps_state(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.filter.keeps_state())
    }

    /// The digest of its binary as people read it.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let coordinator = || self.coordinator.as_ref().map(|coordinator| coordinator.digest);
        self.version.as_ref().map(|version| version.filter.id().binary).or_else(coordinator)
    }

    /// What its binary says of itself.
    pub(crate) fn description(&self) -> Option<&Description> {
        let coordinator = || self.coordinator.as_ref().map(|coordinator| &coordinator.description);
        self.version.as_ref().map(|version| &version.description).or_else(coordinator)
    }

    /// Its figures, if it has a version.
    pub(crate) fn metrics(&self) -> Option<Metrics> {
        let coordinator = || self.coordinator.as_ref().map(|coordinator| coordinator.metrics());
        self.version.as_ref().map(|version| version.filter.metrics()).or_else(coordinator)
    }

    /// What tells its version from others.
    pub(super) fn id(&self) -> Option<VersionId> {
        let coordinator = || self.coordinator.as_ref().map(|coordinator| coordinator.id());
        self.version.as_ref().map(|version| version.filter.id()).or_else(coordinator)
    }

    /// Calls its version no more but for a probe now and then. True when it was not suspended before.
    pub(super) fn suspend(&self) -> bool {
        let filter = self.version.as_ref().is_some_and(|version| version.suspend());
        filter || self.coordinator.as_ref().is_some_and(|coordinator| coordinator.conduct.suspend())
    }

    /// What its binary is, if it has one.
    pub(crate) fn world(&self) -> Option<World> {
        let coordinator = || self.coordinator.as_ref().map(|coordinator| coordinator.world());
        self.version.as_ref().map(|_| World::Filter).or_else(coordinator)
    }
}

impl Version {
    pub(crate) fn new(
        filter: Filter,
        description: Description,
        tolerance: Tolerance,
        lanes: &Lanes,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Version {
        Version {
            filter,
            description,
            place: lanes.place(),
            short_calls: AtomicU32::new(0),
            conduct: Conduct::new(tolerance, reports),
            log: Logbook::new(),
            proven: AtomicBool::new(false),
        }
    }

    /// Whether its calls run in the slow lane.
    pub(crate) fn is_slow(&self) -> bool {
        self.short_calls.load(Ordering::Relaxed) < SMOKE_CALLS
    }

    /// Whether it needs no smoke run any more.
    pub(super) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }

    /// From now on it needs none.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.conduct.is_suspended()
    }

    /// Calls it no more but for a probe now and then. True when it was not suspended before.
    pub(crate) fn suspend(&self) -> bool {
        self.conduct.suspend()
    }

    /// Judges all of these messages, in batches, here or in the slow lane. Writes of a filter that keeps state go into `state`.
    pub(crate) async fn judge(
        self: &Arc<Self>,
        lanes: &Lanes,
        subjects: &[Subject],
        now_ms: u64,
        state: Option<&Arc<Overlay>>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut busy = 0;
        while outcomes.len() < subjects.len() {
            let rest = &subjects[outcomes.len()..];
            let admission = self.conduct.admit();
            if admission == Admission::Suspended {
                let suspended = Outcome::Failed { cause: "suspended", detail: SUSPENDED.into() };
                outcomes.extend(std::iter::repeat_n(suspended, rest.len()));
                break;
            }
            let context = Context { now_ms, state: state.map(|state| state.table()) };
            let judged = if self.is_slow() || admission == Admission::Probe {
                self.judge_in_lane(lanes, rest, context).await
            } else {
                self.filter.judge(rest, &context)
            };
            match judged {
                Ok(judged) => self.take(judged, admission, state, &mut outcomes),
                Err(_) if busy < BUSY_RETRIES => {
                    busy += 1;
                    // Those who hold an instance give it back within their time limit.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(_) => {
                    let left = subjects.len() - outcomes.len();
                    outcomes.extend(std::iter::repeat_n(Outcome::Busy, left));
                }
            }
        }
        outcomes
    }

    /// The same for a shadow: always in the slow lane, and how it behaves is nobody's business.
    pub(crate) async fn judge_apart(
        self: &Arc<Self>,
        lanes: &Lanes,
        subjects: &[Subject],
        now_ms: u64,
        state: Option<&Arc<Overlay>>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(subjects.len());
        while outcomes.len() < subjects.len() {
            let context = Context { now_ms, state: state.map(|state| state.table()) };
            match self.judge_in_lane(lanes, &subjects[outcomes.len()..], context).await {
                Ok(judged) => {
                    if let Some(state) = state {
                        state.write(judged.writes);
                    }
                    outcomes.extend(judged.outcomes.into_iter().map(told));
                }
                Err(_) => outcomes.push(Outcome::Busy),
            }
        }
        outcomes
    }

    /// One batch of the first of these messages, when this version's turn comes.
    async fn judge_in_lane(
        self: &Arc<Self>,
        lanes: &Lanes,
        subjects: &[Subject],
        context: Context,
    ) -> Result<Judged, chaski_modules::Busy> {
        let (version, batch) = (Arc::clone(self), subjects[..subjects.len().min(BATCH)].to_vec());
        lanes.run(&self.place, move || version.filter.judge(&batch, &context)).await
    }

    /// What one batch came to: how the version behaves, its log, its writes, the verdicts.
    fn take(
        &self,
        judged: Judged,
        admission: Admission,
        state: Option<&Arc<Overlay>>,
        outcomes: &mut Vec<Outcome>,
    ) {
        self.log.write(self.filter.name(), &judged.lines, judged.lines_left_out);
        self.count_calls(&judged);
        if let Some(state) = state {
            state.write(judged.writes);
        }
        let failed = judged.outcomes.iter().map(Result::is_err);
        self.conduct.judged((self.filter.name(), self.filter.id()), admission, failed, judged.timed_out);
        let told = judged.outcomes.into_iter().map(told);
        if outcomes.is_empty() {
            // As a rule one batch is all there is.
            *outcomes = told.collect();
        } else {
            outcomes.extend(told);
        }
    }

    /// Whether its calls stay short decides where it runs.
    pub(super) fn count_calls(&self, judged: &Judged) {
        if judged.longest.measured && judged.longest.cpu > INLINE {
            self.short_calls.store(0, Ordering::Relaxed);
        } else if self.is_slow() {
            self.short_calls.fetch_add(judged.calls.min(SMOKE_CALLS), Ordering::Relaxed);
        }
    }
}

fn told(outcome: Result<Verdict, Box<Failure>>) -> Outcome {
    match outcome {
        Ok(verdict) => Outcome::Verdict(verdict),
        Err(failure) => {
            let cause = &failure.cause;
            Outcome::Failed { cause: cause.name(), detail: cause.to_string().into() }
        }
    }
}
