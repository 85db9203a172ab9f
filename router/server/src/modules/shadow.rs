//! A version that runs beside the one in force: it judges a sample of the same messages, its verdicts are compared and act on nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chaski_broker::ModuleState;
use tokio::sync::mpsc;

use super::active::{Outcome, Version};
use super::lanes::Lanes;
use super::overlay::Overlay;
use super::subject::Subject;
use super::trace::in_words;

/// Batches that wait for a shadow; what comes beyond it is counted as skipped.
const WAITING: usize = 16;

/// Differences that are kept.
const DIFFERENCES: usize = 100;

/// A shadow and what it saw.
pub(crate) struct Shadow {
    pub(crate) version: Arc<Version>,
    /// What a promotion puts in force.
    pub(crate) pin: chaski_broker::ModulePin,
    /// When it ends by itself, in milliseconds since 1970.
    pub(crate) ends_at_ms: Option<u64>,
    pub(crate) messages: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) differing: AtomicU64,
    differences: Mutex<Vec<Difference>>,
    ended: AtomicBool,
    batches: mpsc::Sender<Sample>,
}

/// One message on which the two differ.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) id: String,
    pub(crate) live: String,
    pub(crate) shadow: String,
}

/// What the version in force was given and said.
struct Sample {
    subjects: Vec<Subject>,
    outcomes: Vec<Outcome>,
    now_ms: u64,
    state: Option<ModuleState>,
}

impl Shadow {
    /// Starts it. It ends when the last handle is dropped.
    pub(crate) fn start(
        version: Arc<Version>,
        pin: chaski_broker::ModulePin,
        ends_at_ms: Option<u64>,
        lanes: Arc<Lanes>,
    ) -> Arc<Shadow> {
        let (batches, samples) = mpsc::channel(WAITING);
        let shadow = Arc::new(Shadow {
            version,
            pin,
            ends_at_ms,
            messages: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            differing: AtomicU64::new(0),
            differences: Mutex::default(),
            ended: AtomicBool::new(false),
            batches,
        });
        tokio::spawn(run(Arc::downgrade(&shadow), samples, lanes));
        shadow
    }

    /// It takes no more; what it saw stays to be looked at until another shadow or a promotion takes its place.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The first messages on which the two differed.
    pub(crate) fn differences(&self) -> Vec<Difference> {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Offers a batch that the version in force has judged.
    pub(crate) fn offer(
        &self,
        subjects: &[Subject],
        outcomes: &[Outcome],
        now_ms: u64,
        state: Option<&Arc<Overlay>>,
    ) {
        if self.has_ended() {
            return;
        }
        match self.batches.try_reserve() {
            Ok(permit) => permit.send(Sample {
                subjects: subjects.to_vec(),
                outcomes: outcomes.to_vec(),
                now_ms,
                state: state.map(|state| state.before()),
            }),
            Err(_) => {
                self.skipped.fetch_add(subjects.len() as u64, Ordering::Relaxed);
            }
        }
    }

    async fn compare(&self, sample: Sample, lanes: &Lanes) {
        let Sample { subjects, outcomes, now_ms, state } = sample;
        // It keeps what it writes to itself: a promotion starts on the state in force.
        let keeps_state = self.version.filter.keeps_state();
        let state = keeps_state.then(|| Overlay::new(state.unwrap_or_default()));
        let judged = self.version.judge_apart(lanes, &subjects, now_ms, state.as_ref()).await;
        self.messages.fetch_add(subjects.len() as u64, Ordering::Relaxed);
        for ((subject, live), shadow) in subjects.iter().zip(&outcomes).zip(&judged) {
            let failed = matches!(shadow, Outcome::Failed { .. });
            if live == shadow && !failed {
                continue;
            }
            self.differing.fetch_add(1, Ordering::Relaxed);
            let mut differences = self.differences.lock().unwrap_or_else(PoisonError::into_inner);
            if differences.len() < DIFFERENCES {
                let id = chaski_modules::Message::id(subject).to_owned();
                differences.push(Difference { id, live: in_words(live), shadow: in_words(shadow) });
            }
        }
    }
}

async fn run(shadow: std::sync::Weak<Shadow>, mut samples: mpsc::Receiver<Sample>, lanes: Arc<Lanes>) {
    while let Some(sample) = samples.recv().await {
        let Some(shadow) = shadow.upgrade() else { return };
        shadow.compare(sample, &lanes).await;
    }
}
