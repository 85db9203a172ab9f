//! Modules that judge no messages: aggregators, which make one answer of many, and compensators, which decide how a saga goes on. The rules
//! name them in scatters and sagas; this is what the router knows of a version before anything calls it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chaski_modules::{
    Aggregator, Cause, Compensator, Compiled, ConfigureError, Description, Digest, Host, Limits, Metrics,
    Param, Spent, VersionId, World,
};
use chaski_protocol::Code;

use super::active::{INLINE, SMOKE_CALLS};
use super::conduct::Conduct;
use super::health::Admission;
use super::logbook::Logbook;
use super::versions::Problem;
use crate::rules::{Named, a};

/// A version of an aggregator or compensator.
pub(crate) struct Coordinator {
    pub(crate) callee: Callee,
    pub(crate) description: Description,
    pub(crate) digest: Digest,
    pub(crate) log: Logbook,
    pub(super) conduct: Conduct,
    /// Calls that stayed short, up to [`SMOKE_CALLS`].
    short_calls: AtomicU32,
}

/// What is called.
pub(crate) enum Callee {
    Aggregator(Aggregator),
    Compensator(Compensator),
}

impl Coordinator {
    /// A version of what is no filter.
    pub(super) fn new(
        host: &Host,
        name: &str,
        compiled: &Compiled,
        description: Description,
        params: &[Param],
        limits: Limits,
        conduct: Conduct,
    ) -> Result<Coordinator, ConfigureError> {
        let callee = match compiled.world() {
            World::Compensator => {
                Callee::Compensator(host.compensator(name, compiled, &description, params, limits)?)
            }
            World::Filter | World::Aggregator => {
                Callee::Aggregator(host.aggregator(name, compiled, &description, params, limits)?)
            }
        };
        let digest = compiled.digest();
        let (log, short_calls) = (Logbook::new(), AtomicU32::new(0));
        Ok(Coordinator { callee, description, digest, log, conduct, short_calls })
    }

    pub(crate) fn world(&self) -> World {
        match self.callee {
            Callee::Aggregator(_) => World::Aggregator,
            Callee::Compensator(_) => World::Compensator,
        }
    }

    /// Its name in the rules.
    pub(crate) fn name(&self) -> &str {
        match &self.callee {
            Callee::Aggregator(aggregator) => aggregator.name(),
            Callee::Compensator(compensator) => compensator.name(),
        }
    }

    /// What tells it from other versions.
    pub(super) fn id(&self) -> VersionId {
        match &self.callee {
            Callee::Aggregator(aggregator) => aggregator.id(),
            Callee::Compensator(compensator) => compensator.id(),
        }
    }

    pub(crate) fn metrics(&self) -> Metrics {
        match &self.callee {
            Callee::Aggregator(aggregator) => aggregator.metrics(),
            Callee::Compensator(compensator) => compensator.metrics(),
        }
    }

    /// Whether a compensator chooses the next step as well.
    pub(crate) fn advances(&self) -> bool {
        self.world() == World::Compensator && self.description.advances
    }

    /// Whether it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.conduct.is_suspended()
    }

    /// A call that was admitted took so long and failed for this cause, if it did. What follows for the next ones is seen to.
    pub(super) fn called(&self, admission: Admission, spent: Spent, failed: Option<&Cause>) {
        let timed_out = if failed.is_some_and(Cause::is_overtime) { spent.cpu } else { Duration::ZERO };
        self.conduct.judged((self.name(), self.id()), admission, [failed.is_some()].into_iter(), timed_out);
        self.took(spent);
    }

    /// Whether the next calls run in the slow lane follows from how long one took.
    fn took(&self, spent: Spent) {
        if spent.measured && spent.cpu > INLINE {
            self.short_calls.store(0, Ordering::Relaxed);
        } else if self.is_slow() {
            self.short_calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether its calls run in the slow lane.
    pub(crate) fn is_slow(&self) -> bool {
        self.short_calls.load(Ordering::Relaxed) < SMOKE_CALLS
    }
}

/// Reports each place that wants a module of another world than this one's.
pub(crate) fn check_world(named: &[Named], module: &str, world: World) -> Result<(), Vec<Problem>> {
    let places = named.iter().filter(|place| place.module == module && place.world != world);
    let problem = |place: &Named| Problem {
        code: Code::RulesInvalid,
        path: place.path.clone(),
        detail: format!(
            "`{}` takes {}, and module `{module}` is {}",
            place.place(),
            a(place.world),
            a(world)
        ),
    };
    let problems: Vec<Problem> = places.map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
