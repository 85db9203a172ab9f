//! Modules that judge no messages: aggregators, which make one answer of many, and compensators, which decide how a saga goes on. The rules
//! name them in scatters and sagas; this is what the router knows of a version before anything calls it.

use chaski_modules::{Compiled, Description, Digest, Host, Limits, World};
use chaski_protocol::Code;

use super::versions::Problem;
use crate::rules::{ModuleSpec, Named, a};

/// A version of an aggregator or compensator.
pub(crate) struct Coordinator {
    pub(crate) world: World,
    pub(crate) description: Description,
    pub(crate) digest: Digest,
}

impl Coordinator {
    /// Looks at what a binary that is no filter says of itself.
    ///
    /// The host makes filters only, so its params are not compared with its description here.
    pub(crate) fn new(
        host: &Host,
        _spec: &ModuleSpec,
        compiled: &Compiled,
        limits: &Limits,
    ) -> Result<Coordinator, String> {
        let description = host.describe(compiled, limits).map_err(|error| error.to_string())?;
        Ok(Coordinator { world: compiled.world(), description, digest: compiled.digest() })
    }

    /// Whether a compensator chooses the next step as well.
    pub(crate) fn advances(&self) -> bool {
        self.world == World::Compensator && self.description.advances
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
