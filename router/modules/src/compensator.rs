//! A compensator: a version whose calls decide how a saga goes on and how it is undone. It keeps nothing between calls, so any
//! instance serves any saga. It must not know how steps are sent or what a plan must not leave out.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::{self, compensator as wit};
use crate::compensation::{self, Course, History, Plan};
use crate::failure::Cause;
use crate::guest::Guest;
use crate::instance::Exports;
use crate::limits::Limits;
use crate::meter::Metrics;
use crate::version::{Answered, Busy, Version, VersionId};
use crate::world::World;

/// One version of a compensator, ready to be called. Clones are the same version.
#[derive(Clone, Debug)]
pub struct Compensator {
    version: Arc<Version<Exported>>,
    advances: bool,
}

/// A compensator's exports.
pub(crate) struct Exported(wit::Compensator);

impl Exports for Exported {
    const WORLD: World = World::Compensator;
    type Pre = wit::CompensatorPre<Guest>;
    type Declared = ();

    fn check(pre: InstancePre<Guest>) -> wasmtime::Result<Self::Pre> {
        wit::CompensatorPre::new(pre)
    }

    fn make(pre: &Self::Pre, store: &mut Store<Guest>) -> wasmtime::Result<Exported> {
        pre.instantiate(store).map(Exported)
    }

    fn configure(
        &mut self,
        store: &mut Store<Guest>,
        params: &[bindings::Param],
    ) -> wasmtime::Result<Result<(), String>> {
        self.0.call_configure(store, params)
    }

    fn other((): &(), (): &()) -> Cause {
        unreachable!("it declares nothing, so never something else")
    }
}

impl Compensator {
    pub(crate) fn new(version: Version<Exported>, advances: bool) -> Compensator {
        Compensator { version: version.shared(), advances }
    }

    /// The module's name in the rules.
    pub fn name(&self) -> &str {
        &self.version.name
    }

    /// What tells this version from others.
    pub fn id(&self) -> VersionId {
        self.version.id
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.version.recipe.limits
    }

    /// Whether its description asks for [`advance`](Compensator::advance) to be called. Without, the saga's steps follow one
    /// another.
    pub fn advances(&self) -> bool {
        self.advances
    }

    /// A step was answered: what next? A step that it names is in the history, and can be sent. Blocks for as long as the
    /// call takes, as the other call does.
    pub fn advance(&self, history: &History) -> Result<Answered<Course>, Busy> {
        let wit = history.to_wit();
        self.version.call(
            |exports, store| exports.0.call_advance(store, &wit),
            |course| compensation::check_course(course, history, self.limits()),
        )
    }

    /// Something failed: how are the steps undone? Steps that it names are in the history, and can be undone.
    pub fn compensate(&self, history: &History) -> Result<Answered<Plan>, Busy> {
        let wit = history.to_wit();
        self.version.call(
            |exports, store| exports.0.call_compensate(store, &wit),
            |plan| compensation::check_plan(plan, history, self.limits()),
        )
    }

    /// Its figures. A message is a call here.
    pub fn metrics(&self) -> Metrics {
        self.version.metrics(Duration::ZERO)
    }

    /// Drops all idle instances.
    pub fn shrink(&self) {
        self.version.shrink();
    }
}
