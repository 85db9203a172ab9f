//! What a message on a topic begins: gathers and sagas, under the rules in force. Made anew with each version of the rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bindings::Bindings;
use crate::config::Rules;
use crate::hash::HashKey;
use crate::ids::QueueId;
use crate::saga_settings::SagaSettings;
use crate::scatter_settings::{Recipients, ScatterSettings};

/// One thing that a message begins.
#[derive(Clone, Debug)]
pub(crate) enum Begin {
    Gather(Arc<Scatter>),
    Saga(Arc<str>, Arc<SagaSettings>),
}

/// A scatter, its queues found.
#[derive(Debug)]
pub(crate) struct Scatter {
    pub(crate) name: String,
    pub(crate) settings: Arc<ScatterSettings>,
    /// The queues that it asks, in order; a pattern's subscriptions are found when it begins.
    pub(crate) queues: Vec<QueueId>,
}

/// By topic, in the document's order.
#[derive(Debug, Default)]
pub(crate) struct Begins {
    by_topic: HashMap<Box<[u8]>, Vec<Begin>, HashKey>,
}

impl Begins {
    pub(crate) fn new(key: HashKey, rules: &Rules, bindings: &Bindings) -> Begins {
        let mut by_topic: HashMap<Box<[u8]>, Vec<Begin>, HashKey> = HashMap::with_hasher(key);
        for (name, settings) in &rules.scatters {
            let queues = match &settings.recipients {
                Recipients::Queues(names) => {
                    names.iter().filter_map(|name| bindings.queue_id(name)).collect()
                }
                Recipients::Pattern(pattern) => rules
                    .queues
                    .iter()
                    .filter(|(_, queue)| queue.bind.iter().any(|bound| contains(pattern, bound)))
                    .filter_map(|(name, _)| bindings.queue_id(name))
                    .collect(),
            };
            let scatter = Scatter { name: name.clone(), settings: settings.clone(), queues };
            by_topic
                .entry(settings.topic.as_bytes().into())
                .or_default()
                .push(Begin::Gather(Arc::new(scatter)));
        }
        for (name, settings) in &rules.sagas {
            by_topic
                .entry(settings.topic.as_bytes().into())
                .or_default()
                .push(Begin::Saga(Arc::from(&**name), settings.clone()));
        }
        Begins { by_topic }
    }

    pub(crate) fn of(&self, topic: &[u8]) -> &[Begin] {
        if self.by_topic.is_empty() {
            return &[];
        }
        self.by_topic.get(topic).map_or(&[], Vec::as_slice)
    }
}

/// Whether every topic of the inner pattern is one of the outer's.
pub(crate) fn contains(outer: &str, inner: &str) -> bool {
    if inner.starts_with('$') && outer.starts_with(['*', '>']) {
        return false;
    }
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn a_pattern_contains_those_whose_topics_are_all_its_own() {
        for inner in ["suppliers.a", "suppliers.*"] {
            assert!(contains("suppliers.*", inner), "{inner}");
        }
        for inner in ["suppliers.>", "suppliers", "suppliers.a.b", "*.a", ">", "buyers.a"] {
            assert!(!contains("suppliers.*", inner), "{inner}");
        }
        assert!(contains("suppliers.>", "suppliers.>"));
        assert!(contains("suppliers.>", "suppliers.*.b"));
        assert!(contains(">", "a.*"));
        assert!(!contains(">", "$chaski.events.x"));
        assert!(!contains("*", ">"));
    }
}
