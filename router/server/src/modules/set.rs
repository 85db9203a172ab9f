//! Which filters concern a topic under one version of the rules: routes by pattern in the document's order, then each queue's own.
//! Made when rules are applied, shared with the sessions, never changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chaski_broker::{Bindings, QueueId, Targets, Trie};
use chaski_modules::VersionId;

use super::active::Active;
use super::samples::{Sample, Samples};
use super::subject::MessageBounds;

/// One filter in its place.
#[derive(Clone)]
pub(crate) struct Step {
    pub(crate) module: Arc<Active>,
    pub(crate) place: Place,
    /// What it judged last there.
    pub(super) sample: Arc<Sample>,
}

/// Where a filter stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// On a route, by its name.
    Route(Arc<str>),
    /// On a queue's binding.
    Queue(Arc<str>),
}

/// Filters, one after another.
pub(crate) type Chain = Arc<[Step]>;

/// What concerns one topic.
pub(crate) struct Plan {
    /// The routes that match, in the document's order.
    pub(crate) routes: Vec<Arc<str>>,
    /// Their filters.
    pub(crate) chain: Chain,
    /// The queues without filters of their own.
    pub(crate) plain: Targets,
    /// Those with.
    pub(crate) bound: Vec<(QueueId, Chain)>,
}

/// Where a topic leads.
#[derive(Clone)]
pub(crate) enum Resolved {
    /// To these queues; no filter concerns it.
    Direct(Targets),
    /// Through filters.
    Through(Arc<Plan>),
}

/// A route with its filters.
pub(crate) struct Route {
    pub(crate) name: Arc<str>,
    pub(crate) topics: Vec<String>,
    pub(crate) filters: Vec<Arc<Active>>,
}

/// Routes, bindings and modules of one rules version, before the broker has given its queues their numbers.
#[derive(Default)]
pub(crate) struct Filters {
    pub(crate) routes: Vec<Route>,
    pub(crate) queues: Vec<(String, Vec<Arc<Active>>)>,
    /// Every module of the rules by name, and every built-in one that is used without being named.
    pub(crate) modules: BTreeMap<String, Arc<Active>>,
    /// What filters judged last, under whatever rules.
    pub(super) samples: Arc<Samples>,
}

impl Filters {
    /// Whether this module is a compensator that chooses the next step as well.
    pub(crate) fn advances(&self, module: &str) -> bool {
        let coordinator = self.modules.get(module).and_then(|module| module.coordinator.as_ref());
        coordinator.is_some_and(|coordinator| coordinator.advances())
    }
}

/// The same, by topic and queue.
pub(crate) struct FilterSet {
    bindings: Arc<Bindings>,
    pub(crate) bounds: MessageBounds,
    routes: Vec<(Arc<str>, Chain)>,
    patterns: Trie<u32>,
    queues: HashMap<QueueId, Chain>,
    pub(crate) filters: Arc<Filters>,
}

impl FilterSet {
    pub(crate) fn new(filters: Arc<Filters>, bindings: Arc<Bindings>, bounds: MessageBounds) -> FilterSet {
        let chain = |modules: &[Arc<Active>], place: &Place| -> Chain {
            let step = |(index, module): (usize, &Arc<Active>)| Step {
                module: Arc::clone(module),
                place: place.clone(),
                sample: filters.samples.at(place, index, modules.len(), &module.name),
            };
            modules.iter().enumerate().map(step).collect()
        };
        let mut patterns = Trie::of_rules();
        let mut routes = Vec::new();
        for route in filters.routes.iter().filter(|route| !route.filters.is_empty()) {
            for pattern in &route.topics {
                patterns.insert(pattern, routes.len() as u32);
            }
            routes.push((
                Arc::clone(&route.name),
                chain(&route.filters, &Place::Route(Arc::clone(&route.name))),
            ));
        }
        let filtered = filters.queues.iter().filter(|(_, filters)| !filters.is_empty());
        let queues = filtered
            .filter_map(|(name, filters)| {
                let place = Place::Queue(name.as_str().into());
                Some((bindings.queue_id(name)?, chain(filters, &place)))
            })
            .collect();
        FilterSet { bindings, bounds, routes, patterns, queues, filters }
    }

    /// Where this topic leads.
    pub(crate) fn resolve(&self, topic: &str) -> Resolved {
        let targets = self.bindings.resolve(topic);
        if self.routes.is_empty() && self.queues.is_empty() {
            return Resolved::Direct(targets);
        }
        let plan = self.plan(topic, targets);
        if plan.chain.is_empty() && plan.bound.is_empty() {
            return Resolved::Direct(plan.plain);
        }
        Resolved::Through(Arc::new(plan))
    }

    /// What concerns this topic, filters or not.
    pub(crate) fn plan_of(&self, topic: &str) -> Arc<Plan> {
        match self.resolve(topic) {
            Resolved::Through(plan) => plan,
            Resolved::Direct(plain) => {
                Arc::new(Plan { routes: Vec::new(), chain: Chain::from([]), plain, bound: Vec::new() })
            }
        }
    }

    fn plan(&self, topic: &str, targets: Targets) -> Plan {
        let mut places = Vec::new();
        self.patterns.for_each_match(topic.as_bytes(), &mut |place| places.push(*place as usize));
        places.sort_unstable();
        places.dedup();
        let chain = match places[..] {
            [] => Chain::from([]),
            [place] => Arc::clone(&self.routes[place].1),
            _ => places.iter().flat_map(|place| self.routes[*place].1.iter().cloned()).collect(),
        };
        let routes = places.iter().map(|place| Arc::clone(&self.routes[*place].0)).collect();
        let bound: Vec<_> =
            targets.iter().filter_map(|queue| Some((*queue, Arc::clone(self.queues.get(queue)?)))).collect();
        let plain = if bound.is_empty() {
            targets
        } else {
            targets.iter().copied().filter(|queue| !self.queues.contains_key(queue)).collect()
        };
        Plan { routes, chain, plain, bound }
    }

    /// The filters of a queue's own, for a message that is judged for it again.
    pub(crate) fn binding(&self, queue: QueueId) -> Option<&Chain> {
        self.queues.get(&queue)
    }

    /// The queue's name.
    pub(crate) fn queue_name(&self, queue: QueueId) -> Option<&str> {
        self.bindings.queue_name(queue)
    }

    /// The version of each filter, by name.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&str, VersionId)> {
        let versions = self.filters.modules.values();
        versions.filter_map(|module| Some((&*module.name, module.version.as_ref()?.filter.id())))
    }

    /// The module of this name.
    pub(crate) fn module(&self, name: &str) -> Option<&Arc<Active>> {
        self.filters.modules.get(name)
    }
}
