//! The way of most messages: every filter of their routes lets them pass, or one drops them. They are judged in batches without more
//! ado; what gets another verdict becomes a [`Work`] at that place.

use std::sync::Arc;

use chaski_broker::{Filtered, JudgeError, Way};
use chaski_modules::Verdict;

use super::active::Outcome;
use super::judge::{Purpose, advance, offer};
use super::lanes::Lanes;
use super::set::{FilterSet, Plan};
use super::subject::Subject;
use super::work::Work;

/// A message before the filters of its topic.
pub(crate) struct Entry {
    pub(crate) subject: Subject,
    pub(crate) plan: Arc<Plan>,
}

/// What became of it.
pub(crate) enum Settled {
    /// It may go to the broker.
    Way(Way),
    /// It is refused.
    Refused(JudgeError),
    /// A filter that keeps state comes next.
    Pending(Box<Work>),
}

/// Takes messages through their filters as far as they go without state; answers one for each, in order.
pub(crate) async fn judge(
    lanes: &Lanes,
    set: &Arc<FilterSet>,
    entries: Vec<Entry>,
    now_ms: u64,
) -> Vec<Settled> {
    let mut settled: Vec<Option<Settled>> = entries.iter().map(|_| None).collect();
    let mut works: Vec<(usize, Work)> = Vec::new();
    let mut groups: Vec<Group> = Vec::new();
    for (number, Entry { subject, plan }) in entries.into_iter().enumerate() {
        if !is_straight(&plan) {
            works.push((number, Work::new(set, &plan, subject)));
            continue;
        }
        match groups.iter_mut().find(|group| Arc::ptr_eq(&group.plan, &plan)) {
            Some(group) => group.add(number, subject),
            None => groups.push(Group { plan, numbers: vec![number], subjects: vec![subject] }),
        }
    }
    for group in groups {
        group.judge(lanes, set, now_ms, &mut settled, &mut works).await;
    }
    let (numbers, mut works): (Vec<usize>, Vec<Work>) = works.into_iter().unzip();
    let went = advance(lanes, &mut works, now_ms, None, Purpose::Publish).await;
    went.expect("without state, none is needed");
    for (number, work) in numbers.into_iter().zip(works) {
        settled[number] = Some(if work.is_done() {
            work.finish().map_or_else(Settled::Refused, Settled::Way)
        } else {
            Settled::Pending(Box::new(work))
        });
    }
    settled.into_iter().map(|settled| settled.expect("each was judged")).collect()
}

/// Whether a plan is a row of filters without state, all deployed, and no queue has its own.
fn is_straight(plan: &Plan) -> bool {
    plan.bound.is_empty()
        && plan.chain.iter().all(|step| step.module.version.is_some() && !step.module.keeps_state())
}

/// Messages of one plan that have passed every filter so far.
struct Group {
    plan: Arc<Plan>,
    numbers: Vec<usize>,
    subjects: Vec<Subject>,
}

impl Group {
    fn add(&mut self, number: usize, subject: Subject) {
        self.numbers.push(number);
        self.subjects.push(subject);
    }

    async fn judge(
        mut self,
        lanes: &Lanes,
        set: &Arc<FilterSet>,
        now_ms: u64,
        settled: &mut [Option<Settled>],
        works: &mut Vec<(usize, Work)>,
    ) {
        let plan = Arc::clone(&self.plan);
        for (at, step) in plan.chain.iter().enumerate() {
            let version = step.module.version.as_ref().expect("a straight plan's modules are deployed");
            let outcomes = version.judge(lanes, &self.subjects, now_ms, None).await;
            step.sample.keep(version.filter.id(), self.subjects.iter().zip(&outcomes));
            offer(&step.module, &self.subjects, &outcomes, now_ms, None);
            if outcomes.iter().all(|outcome| *outcome == Outcome::Verdict(Verdict::Pass)) {
                continue;
            }
            let numbers = std::mem::take(&mut self.numbers);
            let subjects = std::mem::take(&mut self.subjects);
            for ((number, subject), outcome) in numbers.into_iter().zip(subjects).zip(outcomes) {
                match outcome {
                    Outcome::Verdict(Verdict::Pass) => self.add(number, subject),
                    Outcome::Verdict(Verdict::Drop) => settled[number] = Some(Settled::Way(dropped())),
                    outcome => works.push((number, Work::judged_at(set, &plan, subject, at, outcome))),
                }
            }
        }
        for number in self.numbers {
            settled[number] = Some(Settled::Way(Way::Direct(plan.plain.clone())));
        }
    }
}

/// The way of a message that a route's filter dropped.
fn dropped() -> Way {
    Way::Filtered(Box::new(Filtered { dropped: 1, ..Filtered::default() }))
}
