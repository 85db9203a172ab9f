//! Which queues a topic reaches under one version of the rules. Made by the broker, shared with the sessions, never changed.
//! It knows names and patterns, not what a queue holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::hash::{HashKey, MessageHash};
use crate::ids::{QueueId, RulesVersion};
use crate::targets::Targets;
use crate::trie::Trie;

/// The patterns of every queue of one rules version, and every queue's name.
#[derive(Clone, Debug)]
pub struct Bindings {
    version: RulesVersion,
    ids: HashMap<Arc<str>, QueueId, HashKey>,
    names: BTreeMap<QueueId, Arc<str>>,
    /// Patterns to places in the document.
    places: Trie<u32>,
    /// The queue at each place.
    queues: Vec<QueueId>,
    /// A pattern names the router's own topics.
    reserved: bool,
}

impl Bindings {
    /// No queues yet.
    pub(crate) fn new(version: RulesVersion, key: HashKey) -> Bindings {
        Bindings {
            version,
            ids: HashMap::with_hasher(key),
            names: BTreeMap::new(),
            places: Trie::new(key),
            queues: Vec::new(),
            reserved: false,
        }
    }

    /// Adds a queue's name; dead-letter queues have one too.
    pub(crate) fn name(&mut self, name: &str, queue: QueueId) {
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), queue);
        self.names.insert(queue, name);
    }

    /// Adds the patterns of the document's next queue.
    pub(crate) fn bind(&mut self, queue: QueueId, patterns: &[String]) {
        let place = self.queues.len() as u32;
        self.queues.push(queue);
        for pattern in patterns {
            self.reserved |= pattern.starts_with('$');
            self.places.insert(pattern, place);
        }
    }

    /// The rules that these are of.
    pub fn version(&self) -> RulesVersion {
        self.version
    }

    /// The queues bound to a topic, each once, in the document's order.
    pub fn resolve(&self, topic: &str) -> Targets {
        let mut places = SmallVec::<[u32; 32]>::new();
        self.places.for_each_match(topic.as_bytes(), &mut |place| places.push(*place));
        if places.len() > 1 {
            places.sort_unstable();
            places.dedup();
        }
        places.iter().map(|place| self.queues[*place as usize]).collect()
    }

    /// Whether a queue binds to topics of the router's own.
    pub(crate) fn any_reserved(&self) -> bool {
        self.reserved
    }

    /// Names a message in the shard's dedup window.
    pub fn message_hash(&self, topic: &[u8], id: &[u8]) -> MessageHash {
        MessageHash(self.ids.hasher().message(topic, id))
    }

    /// The queue of this name, dead-letter queues included.
    pub fn queue_id(&self, name: &str) -> Option<QueueId> {
        self.ids.get(name).copied()
    }

    /// The queue's name.
    pub fn queue_name(&self, queue: QueueId) -> Option<&str> {
        self.names.get(&queue).map(|name| &**name)
    }

    /// Every queue's name, dead-letter queues included, ordered by id.
    pub fn queue_names(&self) -> impl Iterator<Item = (QueueId, &str)> {
        self.names.iter().map(|(queue, name)| (*queue, &**name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings() -> Bindings {
        let mut bindings = Bindings::new(RulesVersion(3), HashKey(1, 2));
        for (id, name, patterns) in [
            (7, "late", vec!["orders.>", "orders.eu"]),
            (2, "eu", vec!["orders.eu"]),
            (5, "own", vec!["own"]),
        ] {
            bindings.name(name, QueueId(id));
            bindings.bind(QueueId(id), &patterns.into_iter().map(String::from).collect::<Vec<_>>());
        }
        bindings.name("late.dlq", QueueId(8));
        bindings
    }

    #[test]
    fn targets_come_once_each_in_the_documents_order() {
        let bindings = bindings();
        assert_eq!(&*bindings.resolve("orders.eu"), [QueueId(7), QueueId(2)]);
        assert_eq!(&*bindings.resolve("orders.us"), [QueueId(7)]);
        assert_eq!(&*bindings.resolve("own"), [QueueId(5)]);
        assert_eq!(&*bindings.resolve("nobody"), []);
    }

    #[test]
    fn dead_letter_queues_have_names_and_no_patterns() {
        let bindings = bindings();
        assert_eq!(bindings.queue_id("late.dlq"), Some(QueueId(8)));
        assert_eq!(bindings.queue_name(QueueId(2)), Some("eu"));
        assert_eq!(&*bindings.resolve("late.dlq"), []);
        assert_eq!(bindings.version(), RulesVersion(3));
        assert_eq!(bindings.queue_names().count(), 4);
    }
}
