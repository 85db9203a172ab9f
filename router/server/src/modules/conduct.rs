//! How a version behaves among live calls, whatever its world: whether it may be called now, and when its manager is told. It makes
//! no calls, and acts on nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chaski_modules::VersionId;
use tokio::sync::mpsc;

use super::health::{Admission, Health, Tolerance, Trouble};

/// What is told of a call that is not made.
pub(super) const SUSPENDED: &str = "the module is suspended, since its calls ran out of time too often";

/// Something happened to a version that its manager must act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// The module's name.
    pub(crate) module: String,
    /// The version.
    pub(crate) version: VersionId,
    /// What is wrong.
    pub(crate) trouble: Trouble,
}

/// Its behaviour, and whom to tell of it.
pub(super) struct Conduct {
    health: Mutex<Health>,
    /// Whether its manager was told and has not yet acted.
    reported: AtomicBool,
    reports: mpsc::UnboundedSender<Report>,
}

impl Conduct {
    pub(super) fn new(tolerance: Tolerance, reports: mpsc::UnboundedSender<Report>) -> Conduct {
        Conduct { health: Mutex::new(Health::new(tolerance)), reported: AtomicBool::new(false), reports }
    }

    /// Other rules: what it may do is this now.
    pub(super) fn bear(&self, tolerance: Tolerance) {
        self.reported.store(false, Ordering::Relaxed);
        self.health().bear(tolerance);
    }

    /// Whether it may be called now.
    pub(super) fn admit(&self) -> Admission {
        self.health().admit(Instant::now())
    }

    /// What calls that were admitted came to: whether each failed, and the CPU time of those that ran out of it.
    pub(super) fn judged(
        &self,
        (module, version): (&str, VersionId),
        admission: Admission,
        mut failed: impl Iterator<Item = bool>,
        timed_out: Duration,
    ) {
        let mut health = self.health();
        if admission == Admission::Probe {
            if health.probed(!failed.any(|failed| failed), Instant::now()) {
                tracing::info!(module, "module resumed: its probe went well");
            }
            return;
        }
        let trouble = health.judged(failed, timed_out, Instant::now());
        drop(health);
        if let Some(trouble) = trouble
            && !self.reported.swap(true, Ordering::Relaxed)
        {
            // Its manager ends with the router.
            let _ = self.reports.send(Report { module: module.to_owned(), version, trouble });
        }
    }

    pub(super) fn is_suspended(&self) -> bool {
        self.health().is_suspended()
    }

    /// Calls it no more but for a probe now and then. True when it was not suspended before.
    pub(super) fn suspend(&self) -> bool {
        self.reported.store(false, Ordering::Relaxed);
        self.health().suspend(Instant::now())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Its fields are whole between any two statements.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
