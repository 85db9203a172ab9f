//! An aggregator: a version whose calls make one answer of many. The state goes in and out of each call, and none of it stays
//! in an instance, so any instance serves any gather. It must not know where replies come from or what a gather waits for.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::bindings::{self, aggregator as wit};
use crate::failure::Cause;
use crate::gathering::{self, Folded, GatherEnd, GatherEvent, Response};
use crate::guest::Guest;
use crate::instance::Exports;
use crate::limits::Limits;
use crate::meter::Metrics;
use crate::request::Request;
use crate::version::{Answered, Busy, Version, VersionId};
use crate::world::World;

/// One version of an aggregator, ready to be called. Clones are the same version.
#[derive(Clone, Debug)]
pub struct Aggregator(Arc<Version<Exported>>);

/// An aggregator's exports.
pub(crate) struct Exported(wit::Aggregator);

impl Exports for Exported {
    const WORLD: World = World::Aggregator;
    type Pre = wit::AggregatorPre<Guest>;
    type Declared = ();

    fn check(pre: InstancePre<Guest>) -> wasmtime::Result<Self::Pre> {
        wit::AggregatorPre::new(pre)
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

impl Aggregator {
    pub(crate) fn new(version: Version<Exported>) -> Aggregator {
        Aggregator(version.shared())
    }

    /// The module's name in the rules.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What tells this version from others.
    pub fn id(&self) -> VersionId {
        self.0.id
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.recipe.limits
    }

    /// A gather begins: the request, and the names of those that it went to. Answers the first state. Blocks for as long as
    /// the call takes, as the other calls do.
    pub fn begin(&self, request: &Request, recipients: &[String]) -> Result<Answered<Vec<u8>>, Busy> {
        let request = request.to_wit();
        self.0
            .call(|exports, store| exports.0.call_begin(store, &request, recipients), gathering::check_state)
    }

    /// Something happened to one recipient. A failed call leaves the state as it was; it can be made again, or the event be
    /// taken as that recipient's failure.
    pub fn fold(&self, state: &[u8], event: &GatherEvent) -> Result<Answered<Folded>, Busy> {
        let event = event.to_wit();
        self.0.call(|exports, store| exports.0.call_fold(store, state, &event), gathering::check_folded)
    }

    /// The gather ends. Answers what the requester gets, or the module's reason for which the gather fails, of which the
    /// first 1 KiB is kept.
    pub fn finish(&self, state: &[u8], why: GatherEnd) -> Result<Answered<Result<Response, String>>, Busy> {
        self.0.call(
            |exports, store| exports.0.call_finish(store, state, why.to_wit()),
            |finished| gathering::check_finished(finished, self.limits()),
        )
    }

    /// Its figures. A message is a call here.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics(Duration::ZERO)
    }

    /// Drops all idle instances.
    pub fn shrink(&self) {
        self.0.shrink();
    }
}
