//! One message on its way through filters: its copies and children, what became of those that ended, and what a verdict does to each.
//! It calls nobody; see [`super::judge`].

use std::sync::Arc;
use std::time::Duration;

use chaski_broker::{
    DeadInfo, DeadReason, Filtered, JudgeError, Millis, Outgoing, QueueId, Stillborn, Targets, Way,
};
use chaski_modules::{Changes, Child, Verdict};

use super::active::{Active, Outcome};
use super::set::{Chain, FilterSet, Place, Plan, Step};
use super::subject::Subject;
use super::trace::{Seen, Trace};
use crate::rules::OnError;

/// Times that filters may send a message to another topic (DESIGN section 3).
pub(crate) const HOP_LIMIT: u32 = 16;

/// Results of one publish at most (SEMANTICS, Filters).
const RESULTS: usize = chaski_modules::RESULTS;

/// A message with everything that filters have made of it so far. A clone is as far as this one.
#[derive(Clone)]
pub(crate) struct Work {
    origin: Subject,
    set: Arc<FilterSet>,
    items: Vec<Item>,
    dropped: u32,
    dead: Vec<Stillborn>,
    /// Whether anything but passes was said.
    changed: bool,
    stateful: bool,
    failed: Option<JudgeError>,
    /// Where it tells what happens to it.
    trace: Option<Trace>,
}

/// A copy or child, and where it stands.
#[derive(Clone)]
struct Item {
    subject: Subject,
    stage: Stage,
    hops: u32,
    /// The filter that routed it here.
    sent_by: Option<Arc<DeadInfo>>,
}

#[derive(Clone)]
enum Stage {
    /// Before the route filter of this number.
    Routes(Arc<Plan>, usize),
    /// Before the binding's filter of this number; the message as the binding got it.
    Binding(QueueId, Chain, usize, Box<Subject>),
    /// Through all filters.
    Done { targets: Targets, subscriptions: bool },
}

impl Item {
    fn step(&self) -> Option<&Step> {
        match &self.stage {
            Stage::Routes(plan, at) => plan.chain.get(*at),
            Stage::Binding(_, chain, at, _) => chain.get(*at),
            Stage::Done { .. } => None,
        }
    }

    /// The same, before the next filter, as `subject`.
    fn on(&self, subject: Subject) -> Item {
        let mut next = Item { subject, ..self.clone() };
        match &mut next.stage {
            Stage::Routes(_, at) | Stage::Binding(_, _, at, _) => *at += 1,
            Stage::Done { .. } => {}
        }
        next
    }
}

impl Work {
    /// A message before the first filter of its topic.
    pub(crate) fn new(set: &Arc<FilterSet>, plan: &Arc<Plan>, origin: Subject) -> Work {
        let stage = Stage::Routes(Arc::clone(plan), 0);
        Work::at(set, origin, stage)
    }

    /// A message that passed the route filters before this one, with what this one said of it.
    pub(super) fn judged_at(
        set: &Arc<FilterSet>,
        plan: &Arc<Plan>,
        origin: Subject,
        at: usize,
        outcome: Outcome,
    ) -> Work {
        let mut work = Work::at(set, origin, Stage::Routes(Arc::clone(plan), at));
        work.take(vec![(0, outcome, Duration::ZERO)]);
        work
    }

    /// A message before the filters of one queue's binding alone.
    pub(crate) fn for_queue(set: &Arc<FilterSet>, queue: QueueId, origin: Subject) -> Work {
        let chain = set.binding(queue).cloned().unwrap_or_else(|| Chain::from([]));
        let stage = Stage::Binding(queue, chain, 0, Box::new(origin.clone()));
        Work::at(set, origin, stage)
    }

    fn at(set: &Arc<FilterSet>, origin: Subject, stage: Stage) -> Work {
        let item = Item { subject: origin.clone(), stage, hops: 0, sent_by: None };
        let mut work = Work {
            origin,
            set: Arc::clone(set),
            items: vec![item],
            dropped: 0,
            dead: Vec::new(),
            changed: false,
            stateful: false,
            failed: None,
            trace: None,
        };
        work.settle();
        work
    }

    /// From now on it tells what happens to it.
    pub(crate) fn traced(&mut self, trace: &Trace) {
        self.trace = Some(trace.clone());
    }

    /// The copies that stand before a filter, by number, with that filter; nobody when it ended.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (usize, &Step, &Subject)> {
        let items = self.items.iter().enumerate().filter(|_| self.failed.is_none());
        items.filter_map(|(number, item)| Some((number, item.step()?, &item.subject)))
    }

    /// The filter that keeps state before which it stands.
    pub(super) fn stateful_module(&self) -> Option<&Arc<Active>> {
        self.waiting().map(|(_, step, _)| &step.module).find(|module| module.keeps_state())
    }

    /// Whether every copy ended.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting().next().is_none()
    }

    /// It comes to nothing.
    pub(super) fn fail(&mut self, error: JudgeError) {
        self.failed.get_or_insert(error);
    }

    /// Takes what filters said of these copies, by number in order, and what each took.
    pub(super) fn take(&mut self, outcomes: Vec<(usize, Outcome, Duration)>) {
        let mut outcomes = outcomes.into_iter().peekable();
        let items = std::mem::take(&mut self.items);
        let count = items.len();
        for (number, item) in items.into_iter().enumerate() {
            match outcomes.next_if(|(concerned, ..)| *concerned == number) {
                Some((_, outcome, took)) => self.one(&item, outcome, took, count),
                None => self.items.push(item),
            }
        }
        self.settle();
    }

    fn one(&mut self, item: &Item, outcome: Outcome, took: Duration, count: usize) {
        let step = item.step().expect("a filter said something of it").clone();
        self.stateful |= step.module.keeps_state();
        if let Some(trace) = &self.trace {
            trace.step(Seen::new(&step, item.hops, &outcome, took));
        }
        match outcome {
            Outcome::Verdict(verdict) => self.verdict(item, &step, verdict, count),
            Outcome::Failed { cause, detail } => self.error(item, &step, cause, &detail),
            Outcome::Busy => {
                let detail = format!("every instance of modules is in use, `{}` got none", step.module.name);
                self.fail(JudgeError::Busy { detail });
            }
        }
    }

    fn verdict(&mut self, item: &Item, step: &Step, verdict: Verdict, count: usize) {
        self.changed |= verdict != Verdict::Pass;
        let made = match verdict {
            Verdict::Pass => Ok(vec![item.on(item.subject.clone())]),
            Verdict::Drop => {
                self.dropped += 1;
                return;
            }
            Verdict::Reject { reason } => return self.bury(item, step, DeadReason::Rejected, &reason),
            Verdict::Transform(changes) => {
                self.set_changes(item, &changes, None, None).map(|subject| vec![item.on(subject)])
            }
            Verdict::Route { topics, changes } => self.routed(item, step, &topics, &changes, None),
            Verdict::Split(children) => self.split(item, step, &children),
        };
        match made {
            Ok(made) if count + made.len() + self.dead.len() > RESULTS + 1 => {
                let detail = format!("it made more than {RESULTS} results of one message");
                self.error(item, step, "results", &detail);
            }
            Ok(made) => {
                for item in made {
                    if item.hops > HOP_LIMIT {
                        let detail = format!("filters sent it to other topics more than {HOP_LIMIT} times");
                        self.bury(&item, step, DeadReason::HopLimit, &detail);
                    } else {
                        self.items.push(item);
                    }
                }
            }
            Err(detail) => self.error(item, step, "contract", &detail),
        }
    }

    fn set_changes(
        &self,
        item: &Item,
        changes: &Changes,
        id: Option<&str>,
        topic: Option<&str>,
    ) -> Result<Subject, String> {
        if *changes == Changes::default() && id.is_none() && topic.is_none() {
            return Ok(item.subject.clone());
        }
        item.subject.changed(changes, id, topic, self.set.bounds)
    }

    /// The message at each of these topics, from the start of their filters.
    fn routed(
        &self,
        item: &Item,
        step: &Step,
        topics: &[String],
        changes: &Changes,
        id: Option<&str>,
    ) -> Result<Vec<Item>, String> {
        let enter = |topic: &String| {
            let subject = self.set_changes(item, changes, id, Some(topic))?;
            let detail = format!("filter `{}` sent it to `{topic}`, which nobody takes", step.module.name);
            let mut sent_by = self.info(step, DeadReason::Unroutable, &detail);
            sent_by.queue = None;
            Ok(Item {
                subject,
                stage: Stage::Routes(self.set.plan_of(topic), 0),
                hops: item.hops + 1,
                sent_by: Some(Arc::new(sent_by)),
            })
        };
        topics.iter().map(enter).collect()
    }

    fn split(&self, item: &Item, step: &Step, children: &[Child]) -> Result<Vec<Item>, String> {
        let mut made = Vec::with_capacity(children.len());
        for (number, child) in (1..).zip(children) {
            let parent = chaski_modules::Message::id(&item.subject);
            let id = format!("{parent}/{number}");
            if child.topics.is_empty() {
                made.push(item.on(self.set_changes(item, &child.changes, Some(&id), None)?));
            } else {
                made.extend(self.routed(item, step, &child.topics, &child.changes, Some(&id))?);
            }
        }
        Ok(made)
    }

    /// A filter failed on a copy: what its rules say.
    fn error(&mut self, item: &Item, step: &Step, cause: &str, detail: &str) {
        match step.module.manners.on_error {
            OnError::Pass => {
                // What passes by an error is as it was.
                self.items.push(item.on(item.subject.clone()));
                return;
            }
            OnError::DeadLetter => {
                let detail = format!("module `{}`: {detail} ({cause})", step.module.name);
                self.bury(item, step, DeadReason::FilterError, &detail);
            }
            OnError::Drop => self.dropped += 1,
            OnError::Retry => {
                let detail = format!(
                    "filter `{}` failed and nothing was stored: {detail}; try again",
                    step.module.name
                );
                self.fail(JudgeError::FilterFailed { detail });
            }
        }
        self.changed = true;
    }

    /// A copy dies: on a route as the client published it, on a binding as the queue would have had it.
    fn bury(&mut self, item: &Item, step: &Step, reason: DeadReason, detail: &str) {
        let (message, queue) = match &item.stage {
            Stage::Binding(queue, _, _, base) if reason != DeadReason::HopLimit => {
                (base.message.clone(), Some(*queue))
            }
            _ => (self.origin.message.clone(), None),
        };
        let mut info = self.info(step, reason, detail);
        if queue.is_none() {
            info.queue = None;
        }
        self.dead.push(Stillborn { message, queue, info });
        self.changed = true;
    }

    fn info(&self, step: &Step, reason: DeadReason, detail: &str) -> DeadInfo {
        let (route, queue) = match &step.place {
            Place::Route(name) => (Some(name.to_string()), None),
            Place::Queue(name) => (None, Some(name.to_string())),
        };
        DeadInfo {
            reason,
            detail: shorten(detail).to_owned(),
            queue,
            route,
            scatter: None,
            saga: None,
            module: Some(step.module.name.to_string()),
            digest: step.module.digest().map(|digest| digest.to_string()),
            attempts: 0,
            first_at: Millis(0),
            last_at: Millis(0),
        }
    }

    /// Takes copies on that have passed the last filter of where they stand.
    fn settle(&mut self) {
        let items = std::mem::take(&mut self.items);
        for item in items {
            match &item.stage {
                Stage::Routes(plan, at) if *at == plan.chain.len() => {
                    let done = Stage::Done { targets: plan.plain.clone(), subscriptions: true };
                    let copies = plan.bound.iter().map(|(queue, chain)| {
                        let stage =
                            Stage::Binding(*queue, Arc::clone(chain), 0, Box::new(item.subject.clone()));
                        Item { stage, ..item.clone() }
                    });
                    // Where a binding has it, it reached somebody, whatever the binding's filters say.
                    let sent_by = item.sent_by.clone().filter(|_| plan.bound.is_empty());
                    self.items.push(Item { stage: done, sent_by, ..item.clone() });
                    self.items.extend(copies);
                }
                Stage::Binding(queue, chain, at, _) if *at == chain.len() => {
                    let stage = Stage::Done { targets: Targets::from([*queue]), subscriptions: false };
                    self.items.push(Item { stage, sent_by: None, ..item });
                }
                _ => self.items.push(item),
            }
        }
    }

    /// What the filters made of it.
    pub(crate) fn finish(self) -> Result<Way, JudgeError> {
        let unchanged = !self.changed && !self.stateful;
        let filtered = self.finish_filtered()?;
        match &filtered.results[..] {
            [only] if unchanged => Ok(Way::Direct(only.targets.clone())),
            _ => Ok(Way::Filtered(Box::new(filtered))),
        }
    }

    /// The same, for one that waited behind the dedup check.
    pub(crate) fn finish_filtered(self) -> Result<Filtered, JudgeError> {
        let Work { origin, items, dropped, dead, stateful, failed, trace, .. } = self;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut results: Vec<Outgoing> = Vec::with_capacity(1);
        for item in items {
            let Stage::Done { targets, subscriptions } = item.stage else {
                unreachable!("only what went through all filters is finished");
            };
            let unroutable = item.sent_by.map(|info| {
                let info = Arc::unwrap_or_clone(info);
                Box::new(Stillborn { message: origin.message.clone(), queue: None, info })
            });
            let message = item.subject.message;
            // Copies of one body are one result, so that it is journaled once.
            let same = |result: &&mut Outgoing| {
                let both = result.subscriptions && subscriptions;
                result.message.body.as_ptr() == message.body.as_ptr() && !both
            };
            match results.iter_mut().find(same) {
                Some(result) => {
                    result.targets = result.targets.iter().chain(targets.iter()).copied().collect();
                    result.subscriptions |= subscriptions;
                }
                None => results.push(Outgoing { message, targets, subscriptions, unroutable }),
            }
        }
        let filtered = Filtered { results, dropped, dead, stateful };
        if let Some(trace) = trace {
            trace.end(&filtered);
        }
        Ok(filtered)
    }
}

/// Details are kept to 1 KiB.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(1024)]
}
