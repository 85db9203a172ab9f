//! Modules in the router: which filters concern a message, where they are called, what their verdicts do, and how versions come and go. The
//! host itself, with its limits, is `chaski-modules`; what is stored in the end is the broker's business.
//!
//! A publish stream takes its messages through [`judge`] as far as the first filter that keeps state; from there on [`jobs`] takes them
//! behind the broker's dedup check. Versions are made by [`versions`] and put in force with the rules; [`keeper`] looks after those in force.

mod active;
mod conduct;
mod coordinators;
mod health;
mod jobs;
mod judge;
mod keeper;
mod lanes;
mod life;
mod logbook;
mod overlay;
mod samples;
mod set;
mod shadow;
mod smoke;
mod steering;
mod straight;
mod subject;
mod sweep;
mod trace;
mod translate;
mod versions;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use chaski_broker::{JobId, ModulePin};
use chaski_journal::Blobs;
use tokio::sync::mpsc;

use crate::rules::Checked;
use crate::shard::Shard;
use crate::start::StartError;

pub(crate) use active::{Active, Outcome, Version};
pub(crate) use coordinators::check_world;
pub(crate) use jobs::JobOutcome;
pub(crate) use keeper::keep;
pub(crate) use life::*;
pub(crate) use set::{FilterSet, Filters, Place, Resolved};
pub(crate) use shadow::Shadow;
pub(crate) use smoke::{Now, Proof};
pub(crate) use steering::Ask;
pub(crate) use straight::{Entry, Settled};
pub(crate) use subject::{MessageBounds, Subject};
pub(crate) use sweep::{named_binaries, new_binaries, sweep, sweep_later};
pub(crate) use trace::{Seen, Trace};
pub(crate) use versions::{Problem, now_ms, refusal};
pub(crate) use work::Work;

use conduct::Report;
use jobs::Jobs;
use judge::{Needs, Purpose, States};
use overlay::Overlay;
use steering::Steering;
use versions::Versions;

/// Everything about modules that outlives one version of the rules.
pub(crate) struct Modules {
    versions: Arc<Versions>,
    steering: Arc<Steering>,
    jobs: Arc<Jobs>,
    /// What versions report, until the keeper takes it.
    reports: Mutex<Option<mpsc::UnboundedReceiver<Report>>>,
}

impl Modules {
    /// `program`: see [`crate::Config::module_compiler`].
    pub(crate) fn new(cache: PathBuf, program: Option<PathBuf>, blobs: Blobs) -> Result<Modules, StartError> {
        let (report, reports) = mpsc::unbounded_channel();
        let versions = Arc::new(Versions::new(cache, program, blobs, report)?);
        Ok(Modules {
            versions,
            steering: Arc::default(),
            jobs: Arc::default(),
            reports: Mutex::new(Some(reports)),
        })
    }

    /// Takes messages as far as they go without state.
    pub(crate) async fn judge(&self, works: &mut [Work]) {
        let went = judge::advance(&self.versions.lanes, works, now_ms(), None, Purpose::Publish).await;
        went.expect("without state, none is needed");
    }

    /// The same for messages that are published: one answer for each, in order.
    pub(crate) async fn judge_entries(&self, set: &Arc<FilterSet>, entries: Vec<Entry>) -> Vec<Settled> {
        straight::judge(&self.versions.lanes, set, entries, now_ms()).await
    }

    /// Takes messages to the end, with the state of each module as it is now, and keeps nothing of what they write: for a trace, and for a
    /// dead letter that is judged again.
    pub(crate) async fn judge_dry(
        &self,
        works: &mut [Work],
        shard: &Shard,
    ) -> Result<(), crate::shard::Stopped> {
        let states = shard.inspect(|broker| {
            broker
                .modules_with_state()
                .map(|(name, state)| (name.to_owned(), state.clone()))
                .collect::<Vec<_>>()
        });
        let mut states: States =
            states.await?.into_iter().map(|(name, state)| (name, Overlay::new(state))).collect();
        loop {
            match judge::advance(&self.versions.lanes, works, now_ms(), Some(&states), Purpose::Look).await {
                Ok(()) => return Ok(()),
                Err(Needs(name)) => {
                    states.insert(name, Overlay::new(Default::default()));
                }
            }
        }
    }

    /// The work that waits behind the dedup check.
    pub(crate) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// The broker wants a job. An answer at once where it can't wait.
    pub(crate) fn invoke(&self, job: JobId, shard: &Shard) -> Option<JobOutcome> {
        self.jobs.invoke(job, &self.versions.lanes, shard)
    }

    /// Aggregators and compensators are to be called, and gathers forgotten, in this order. Leaves the list empty.
    pub(crate) fn steer(&self, asks: &mut Vec<Ask>, shard: &Shard) {
        self.steering.ask(asks, &self.versions, shard);
    }

    /// What versions report; once.
    fn take_reports(&self) -> Option<mpsc::UnboundedReceiver<Report>> {
        self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// The host's side: binaries, versions, blobs.
    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Judges deliveries of a consumer or messages of a subscription by one filter.
    pub(crate) async fn judge_by(
        &self,
        module: &Active,
        version: &Arc<Version>,
        subjects: &[Subject],
    ) -> Vec<Outcome> {
        let outcomes = version.judge(&self.versions.lanes, subjects, now_ms(), None).await;
        module.sample.keep(version.filter.id(), subjects.iter().zip(&outcomes));
        outcomes
    }

    /// The filters of a document under the binaries that are pinned. Blocks while they compile, and while new versions are tried.
    pub(crate) fn filters(
        &self,
        checked: &Checked,
        pins: &[ModulePin],
        proof: &Proof,
    ) -> Result<Arc<Filters>, Vec<Problem>> {
        Ok(self.joined(checked, self.versions.make(checked, pins, proof)?))
    }

    /// The same at a start: what can't be made waits for a deploy.
    pub(crate) fn filters_at_start(
        &self,
        checked: &Checked,
        pins: &[ModulePin],
    ) -> (Arc<Filters>, Vec<Problem>) {
        let (made, problems) = self.versions.make_what_can_be(checked, pins);
        (self.joined(checked, made), problems)
    }

    /// Routes and bindings with their modules.
    fn joined(&self, checked: &Checked, made: Vec<Arc<Active>>) -> Arc<Filters> {
        let modules: BTreeMap<String, Arc<Active>> =
            made.into_iter().map(|module| (module.name.to_string(), module)).collect();
        let chain = |names: &[String]| -> Vec<Arc<Active>> {
            // The document was checked: every filter is a module of it.
            names.iter().filter_map(|name| modules.get(name)).cloned().collect()
        };
        let routes = checked.routes.iter().map(|route| set::Route {
            name: route.name.as_str().into(),
            topics: route.topics.clone(),
            filters: chain(&route.filters),
        });
        let routes = routes.collect();
        let queues =
            checked.queue_filters.iter().map(|(queue, names)| (queue.clone(), chain(names))).collect();
        Arc::new(Filters { routes, queues, modules, samples: Arc::clone(&self.versions.samples) })
    }
}
