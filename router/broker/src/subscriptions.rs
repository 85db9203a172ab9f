//! Subscriptions: patterns, bounded buffers and what had to be dropped. Volatile; they know no queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::begins::contains;
use crate::config::ShardLimits;
use crate::effect::{Effect, Held, Output, Wait};
use crate::hash::HashKey;
use crate::ids::{ConnectionId, Millis, SubscriptionId};
use crate::trie::Trie;

/// One subscription.
struct Subscription {
    connection: ConnectionId,
    pattern: Arc<str>,
    /// Lengths of the messages that were passed and not taken yet.
    buffered: VecDeque<u32>,
    bytes: u64,
    /// Dropped since the last that was passed.
    dropped: u64,
}

/// Every subscription.
pub(crate) struct Subscriptions {
    all: BTreeMap<SubscriptionId, Subscription>,
    /// By pattern: what is contained in another begins as that does.
    by_pattern: BTreeSet<(Arc<str>, SubscriptionId)>,
    patterns: Trie<SubscriptionId>,
    /// Dropped since the start, in all.
    pub(crate) dropped: u64,
}

impl Subscriptions {
    pub(crate) fn new(hash_key: HashKey) -> Subscriptions {
        Subscriptions {
            all: BTreeMap::new(),
            by_pattern: BTreeSet::new(),
            patterns: Trie::new(hash_key),
            dropped: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.patterns.len()
    }

    pub(crate) fn add(&mut self, id: SubscriptionId, connection: ConnectionId, pattern: &str) {
        let pattern: Arc<str> = pattern.into();
        self.patterns.insert(&pattern, id);
        self.by_pattern.insert((pattern.clone(), id));
        let subscription =
            Subscription { connection, pattern, buffered: VecDeque::new(), bytes: 0, dropped: 0 };
        assert!(self.all.insert(id, subscription).is_none(), "subscription {id} is made twice");
    }

    pub(crate) fn remove(&mut self, id: SubscriptionId) {
        if let Some(subscription) = self.all.remove(&id) {
            self.patterns.remove(&subscription.pattern, &id);
            self.by_pattern.remove(&(subscription.pattern, id));
        }
    }

    /// Ends a connection's subscriptions, and says which they were.
    pub(crate) fn disconnect(&mut self, connection: ConnectionId) -> Vec<SubscriptionId> {
        let theirs = self.all.iter().filter(|(_, subscription)| subscription.connection == connection);
        let theirs: Vec<SubscriptionId> = theirs.map(|(id, _)| *id).collect();
        for id in &theirs {
            self.remove(*id);
        }
        theirs
    }

    pub(crate) fn matching(&self, topic: &str, mut visit: impl FnMut(SubscriptionId)) {
        self.patterns.for_each_match(topic.as_bytes(), &mut |id| visit(*id));
    }

    /// Those whose topics are all matched by this pattern.
    pub(crate) fn contained(&self, pattern: &str) -> impl Iterator<Item = (SubscriptionId, &str)> {
        let literal = &pattern[..pattern.find(['*', '>']).unwrap_or(pattern.len())];
        let from = (Arc::from(literal), SubscriptionId(0));
        let theirs = self.by_pattern.range(from..).take_while(move |(other, _)| other.starts_with(literal));
        theirs.filter(move |(other, _)| contains(pattern, other)).map(|(other, id)| (*id, &**other))
    }

    /// Hands a message over, unless the buffer is full.
    pub(crate) fn pass(
        &mut self,
        now: Millis,
        id: SubscriptionId,
        body: &Bytes,
        wait: Wait,
        limits: &ShardLimits,
        output: &mut Output,
    ) {
        let Some(subscription) = self.all.get_mut(&id) else { return };
        let len = body.len() as u64;
        let full = subscription.buffered.len() as u64 >= limits.subscription_max_messages
            || (subscription.bytes + len > limits.subscription_max_bytes
                && !subscription.buffered.is_empty());
        if full {
            subscription.dropped += 1;
            self.dropped += 1;
            return;
        }
        subscription.buffered.push_back(body.len() as u32);
        subscription.bytes += len;
        let dropped = std::mem::take(&mut subscription.dropped);
        let effect = Effect::Pass { subscription: id, published_at: now, body: body.clone(), dropped };
        output.effects.push(Held { wait, effect });
    }

    /// The oldest of them left the buffer.
    pub(crate) fn taken(&mut self, id: SubscriptionId, count: u32) {
        let Some(subscription) = self.all.get_mut(&id) else { return };
        for _ in 0..count {
            let Some(len) = subscription.buffered.pop_front() else { break };
            subscription.bytes -= u64::from(len);
        }
    }
}
