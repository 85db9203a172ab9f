//! Modules that judge no messages: aggregators, which make one answer of many, and compensators, which decide how a saga goes on. The rules
//! name them in scatters and sagas; this is what the router knows of a version before anything calls it.

use std::sync::atomic::{AtomicU32, Ordering};

use chaski_modules::{
    Aggregator, Compensator, Compiled, ConfigureError, Description, Digest, Host, Limits, Metrics, Param,
    Spent, World,
};
use chaski_protocol::Code;

use super::active::{INLINE, SMOKE_CALLS};
use super::logbook::Logbook;
use super::versions::Problem;
use crate::rules::{Named, a};

/// A version of an aggregator or compensator.
pub(crate) struct Coordinator {
    pub(crate) callee: Callee,
    pub(crate) description: Description,
    pub(crate) digest: Digest,
    pub(crate) log: Logbook,
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
    pub(crate) fn new(
        host: &Host,
        name: &str,
        compiled: &Compiled,
        description: Description,
        params: &[Param],
        limits: Limits,
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
        Ok(Coordinator { callee, description, digest, log, short_calls })
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

    /// A call took so long: whether the next ones run in the slow lane follows.
    pub(crate) fn took(&self, spent: Spent) {
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
