//! The smoke run: what a version must bear before it judges a live message. An empty batch comes first, when the version is made; here it
//! gets the messages that were judged last where it is to stand, each in a call of its own. Its verdicts go nowhere, and so does what it
//! writes, on top of the state as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chaski_broker::ModuleState;
use chaski_modules::{Context, Failure, Message as _, VersionId};
use chaski_protocol::Code;

use super::active::{Active, Version};
use super::overlay::Overlay;
use super::samples::{Samples, Seen};
use super::set::Place;
use super::versions::{Problem, now_ms};
use crate::rules::{Checked, ModuleSpec};

/// Messages that one version is tried on, where it stands at many places.
const MOST: usize = 256;

/// No further message is tried after so long: a time limit can be 10 s, and whoever deploys waits.
const LONGEST: Duration = Duration::from_secs(5);

/// What a version must bear before it comes into force.
#[derive(Clone)]
pub(crate) enum Proof {
    /// The messages that were judged last where it is to stand.
    Messages(Now),
    /// Nothing: it was in force before, or somebody knows better.
    Waived,
    /// Nothing yet: it does not come into force.
    Later,
}

/// How things stand: what a version is tried on top of, and compared with.
#[derive(Clone, Default)]
pub(crate) struct Now {
    /// What each module keeps, by name.
    pub(crate) states: BTreeMap<String, ModuleState>,
    /// The version of each filter that is in force, by name.
    pub(crate) in_force: BTreeMap<String, VersionId>,
}

/// Tries a module's version on messages, unless it was in force before.
pub(super) fn prove(
    samples: &Samples,
    active: &Active,
    spec: &ModuleSpec,
    checked: &Checked,
    proof: &Proof,
) -> Result<(), Problem> {
    let Some(version) = &active.version else { return Ok(()) };
    let now = match proof {
        Proof::Later => return Ok(()),
        Proof::Messages(now) if !version.is_proven() => now,
        Proof::Messages(_) | Proof::Waived => {
            version.prove();
            return Ok(());
        }
    };
    let seen = samples.seen(&active.name, &places(checked, &active.name), MOST);
    match run(version, &seen, now, spec) {
        Run { of, failed, first: Some(first) } if beyond(failed, of, spec) => {
            Err(refused(spec, of, failed, first))
        }
        _ => {
            version.prove();
            Ok(())
        }
    }
}

fn refused(spec: &ModuleSpec, of: usize, failed: usize, (first, failure): (&Seen, Failure)) -> Problem {
    let detail = format!(
        "module `{}`: tried on the messages that were judged last where it is to stand, it fails on {failed} of {of}, where its `rollback` \
         allows {}%; message `{}` of topic `{}`: {}. The rules stay as they are; `chaski module deploy --force` deploys it all the same",
        spec.name,
        spec.rollback.errors_percent,
        first.subject.id(),
        first.subject.topic(),
        failure.cause,
    );
    Problem { code: Code::ModuleFailed, path: vec!["module".to_owned(), spec.name.clone()], detail }
}

/// The places of a module, each with its index there.
fn places(checked: &Checked, module: &str) -> Vec<(Place, usize)> {
    let routes =
        checked.routes.iter().map(|route| (Place::Route(route.name.as_str().into()), &route.filters));
    let queues = checked.queue_filters.iter();
    let queues = queues.map(|(queue, filters)| (Place::Queue(queue.as_str().into()), filters));
    let mut places = Vec::new();
    for (place, filters) in routes.chain(queues) {
        let here = filters.iter().enumerate().filter(|(_, name)| *name == module);
        places.extend(here.map(|(index, _)| (place.clone(), index)));
    }
    places
}

/// What came of it.
struct Run<'a> {
    /// Messages that count.
    of: usize,
    /// Those of them that it failed on.
    failed: usize,
    /// The first of those.
    first: Option<(&'a Seen, Failure)>,
}

fn run<'a>(version: &Arc<Version>, seen: &'a [Seen], now: &Now, spec: &ModuleSpec) -> Run<'a> {
    let (began, now_ms) = (Instant::now(), now_ms());
    let in_force = now.in_force.get(&spec.name);
    let state = || Overlay::new(now.states.get(&spec.name).cloned().unwrap_or_default());
    let state = version.filter.keeps_state().then(state);
    let mut run = Run { of: 0, failed: 0, first: None };
    for message in seen {
        // Whatever the others come to, it is enough.
        if beyond(run.failed, seen.len(), spec) || began.elapsed() > LONGEST {
            break;
        }
        let context = Context { now_ms, state: state.as_ref().map(|state| state.table()) };
        // All instances are in use: what was tried so far must do.
        let Ok(judged) = version.filter.judge(std::slice::from_ref(&message.subject), &context) else {
            break;
        };
        version.count_calls(&judged);
        if let Some(state) = &state {
            state.write(judged.writes);
        }
        if let Some(Err(failure)) = judged.outcomes.into_iter().next() {
            if message.failed_by.is_some() && message.failed_by.as_ref() == in_force {
                // The version in force is no better, and this one may be the remedy for something else.
                continue;
            }
            run.failed += 1;
            run.first.get_or_insert((message, *failure));
        }
        run.of += 1;
    }
    // They tell of live messages only.
    version.filter.forget_figures();
    run
}

/// Whether so many failures are more than the rules allow a version before it is rolled back.
fn beyond(failed: usize, of: usize, spec: &ModuleSpec) -> bool {
    failed * 100 > of * spec.rollback.errors_percent as usize
}
