//! Messages through their filters: in rounds, in each of which every module gets all messages that stand before it in one batched
//! call. No verdict depends on the batch that a message came in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chaski_broker::JudgeError;
use chaski_modules::VersionId;

use super::active::{Active, Outcome};
use super::lanes::Lanes;
use super::overlay::Overlay;
use super::samples::Sample;
use super::subject::Subject;
use super::work::Work;

/// The state of the modules that a batch may call, by name.
pub(crate) type States = BTreeMap<String, Arc<Overlay>>;

/// Why messages are judged.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// They were published: shadows see them too.
    Publish,
    /// Somebody wants to know, or a dead letter comes back.
    Look,
}

/// A filter keeps state that the batch doesn't hold. Nothing of the batch may be used; it is judged again with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs(pub(crate) String);

/// Takes all messages as far as they go: to the end, or, without `states`, to before the first filter that keeps state.
pub(crate) async fn advance(
    lanes: &Lanes,
    works: &mut [Work],
    now_ms: u64,
    states: Option<&States>,
    purpose: Purpose,
) -> Result<(), Needs> {
    loop {
        let groups = groups(works, states.is_some());
        if groups.is_empty() {
            return Ok(());
        }
        let mut outcomes: Vec<Vec<_>> = works.iter().map(|_| Vec::new()).collect();
        for Group { module, members, samples, subjects } in groups {
            let Some(version) = &module.version else {
                for (work, _) in members {
                    let detail = format!(
                        "the module `{}` is named by the rules and not deployed: `chaski module deploy FILE --name {0}`",
                        module.name
                    );
                    works[work].fail(JudgeError::ModuleMissing { detail });
                }
                continue;
            };
            let state = match states {
                Some(states) if module.keeps_state() => {
                    Some(states.get(&*module.name).ok_or_else(|| Needs(module.name.to_string()))?)
                }
                _ => None,
            };
            let began = Instant::now();
            let judged = version.judge(lanes, &subjects, now_ms, state).await;
            if purpose == Purpose::Publish {
                keep(version.filter.id(), &samples, &subjects, &judged);
                offer(&module, &subjects, &judged, now_ms, state);
            }
            let took = began.elapsed() / members.len() as u32;
            for ((work, item), outcome) in members.into_iter().zip(judged) {
                outcomes[work].push((item, outcome, took));
            }
        }
        for (work, mut outcomes) in works.iter_mut().zip(outcomes) {
            if !outcomes.is_empty() {
                outcomes.sort_by_key(|(item, ..)| *item);
                work.take(outcomes);
            }
        }
    }
}

/// Keeps a few of what was judged, each where its filter stands.
fn keep(version: VersionId, samples: &[Arc<Sample>], subjects: &[Subject], outcomes: &[Outcome]) {
    let mut kept: Vec<&Arc<Sample>> = Vec::with_capacity(1);
    for sample in samples {
        if kept.iter().any(|known| Arc::ptr_eq(known, sample)) {
            continue;
        }
        kept.push(sample);
        let judged = samples.iter().zip(subjects.iter().zip(outcomes));
        sample.keep(version, judged.filter(|(of, _)| Arc::ptr_eq(of, sample)).map(|(_, judged)| judged));
    }
}

/// Lets a module's shadow see what was judged.
pub(super) fn offer(
    module: &Active,
    subjects: &[Subject],
    outcomes: &[Outcome],
    now_ms: u64,
    state: Option<&Arc<Overlay>>,
) {
    if let Some(shadow) = &*module.shadow.load() {
        shadow.offer(subjects, outcomes, now_ms, state);
    }
}

/// Messages that stand before the same filter.
struct Group {
    module: Arc<Active>,
    /// The number of the work, and of the copy in it.
    members: Vec<(usize, usize)>,
    /// Of each where it stands.
    samples: Vec<Arc<Sample>>,
    subjects: Vec<Subject>,
}

fn groups(works: &[Work], with_state: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (number, work) in works.iter().enumerate() {
        if !with_state && work.stateful_module().is_some() {
            continue;
        }
        for (item, step, subject) in work.waiting() {
            let known = groups.iter_mut().find(|group| Arc::ptr_eq(&group.module, &step.module));
            match known {
                Some(group) => {
                    group.members.push((number, item));
                    group.samples.push(Arc::clone(&step.sample));
                    group.subjects.push(subject.clone());
                }
                None => groups.push(Group {
                    module: Arc::clone(&step.module),
                    members: vec![(number, item)],
                    samples: vec![Arc::clone(&step.sample)],
                    subjects: vec![subject.clone()],
                }),
            }
        }
    }
    groups
}
