//! Every gather of the shard: those in progress, and those that are remembered for requests that come again. Bounded in number
//! and bytes by the callers; it knows no queue.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::gather::{Gather, Listener, Phase};
use crate::hash::Plain;
use crate::ids::{Millis, Sequence, SubscriptionId};
use crate::pages::PageMap;
use crate::pins::Pins;
use crate::views::GatherState;

/// The gathers. Each has a number of its own.
#[derive(Default)]
pub(crate) struct Gathers {
    /// A snapshot shares them.
    rows: PageMap<Arc<Gather>>,
    /// By the hash of (topic, id) of the request: the latest.
    by_request: HashMap<u128, Sequence, Plain>,
    /// Ended ones, in the order in which they are forgotten.
    remembered: BTreeSet<(Millis, Sequence)>,
    /// By scatter and state.
    counts: BTreeMap<Box<str>, [u64; GatherState::ALL.len()]>,
    /// How many requests came on each topic: few topics, whatever the rules say of them now.
    topics: BTreeMap<Box<[u8]>, u64>,
    /// Volatile: subscriptions whose reply is awaited.
    listeners: BTreeMap<SubscriptionId, BTreeSet<(Sequence, u16)>>,
    listened: BTreeMap<Sequence, Vec<SubscriptionId>>,
    bytes: u64,
    /// Aggregators of those that are not over.
    pub(crate) pins: Pins,
    /// Of these, what ended ones hold.
    remembered_bytes: u64,
    /// Replies that came when nobody waited for them.
    pub(crate) late: u64,
}

impl Gathers {
    pub(crate) fn get(&self, number: Sequence) -> Option<&Gather> {
        self.rows.get(number.0).map(Arc::as_ref)
    }

    pub(crate) fn rows(&self) -> &PageMap<Arc<Gather>> {
        &self.rows
    }

    pub(crate) fn of_request(&self, hash: u128) -> Option<Sequence> {
        if self.by_request.is_empty() { None } else { self.by_request.get(&hash).copied() }
    }

    /// Those that are not over.
    pub(crate) fn open(&self) -> u64 {
        (self.rows.len() - self.remembered.len()) as u64
    }

    /// What those that are not over hold, about. Ended ones make room for them.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.bytes - self.remembered_bytes
    }

    pub(crate) fn insert(&mut self, number: Sequence, hash: u128, gather: Gather) {
        self.bytes += gather.bytes();
        self.count(&gather.scatter, gather.state(), 1);
        self.by_request.insert(hash, number);
        match self.topics.get_mut(gather.request.topic()) {
            Some(count) => *count += 1,
            None => {
                self.topics.insert(gather.request.topic().into(), 1);
            }
        }
        if let (Phase::Ended, Some(ended)) = (gather.phase, &gather.ended) {
            self.remembered.insert((ended.until, number));
            self.remembered_bytes += gather.bytes();
        } else {
            self.pins.hold(gather.settings.aggregator.binary);
        }
        self.rows.insert(number.0, Arc::new(gather));
    }

    /// Changes one that is known to be there.
    pub(crate) fn change(&mut self, number: Sequence, change: impl FnOnce(&mut Gather)) {
        let row = self.rows.get_mut(number.0).expect("the caller found this gather before");
        let gather = Arc::make_mut(row);
        let (before, was, state) = (gather.bytes(), gather.phase, gather.state());
        change(gather);
        if gather.state() != state {
            let counts = self.counts.get_mut(&gather.scatter).expect("it is counted since it began");
            counts[state as usize] -= 1;
            counts[gather.state() as usize] += 1;
        }
        self.bytes = self.bytes + gather.bytes() - before;
        if let (Phase::Ended, Some(ended)) = (gather.phase, &gather.ended)
            && was != Phase::Ended
        {
            self.remembered.insert((ended.until, number));
            self.remembered_bytes += gather.bytes();
            self.pins.let_go(gather.settings.aggregator.binary);
        }
    }

    fn count(&mut self, scatter: &str, state: GatherState, change: i64) {
        if !self.counts.contains_key(scatter) {
            self.counts.insert(scatter.into(), Default::default());
        }
        let counts = self.counts.get_mut(scatter).expect("it was just made");
        counts[state as usize] = counts[state as usize].saturating_add_signed(change);
        if counts.iter().all(|count| *count == 0) {
            self.counts.remove(scatter);
        }
    }

    fn forget_topic(&mut self, topic: &[u8]) {
        let count = self.topics.get_mut(topic).expect("it is counted since the gather began");
        *count -= 1;
        if *count == 0 {
            self.topics.remove(topic);
        }
    }

    /// The topics of all their requests.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &[u8]> {
        self.topics.keys().map(|topic| &**topic)
    }

    /// The number of the next call of a gather that is known to be there.
    pub(crate) fn next_call(&mut self, number: Sequence) -> u32 {
        let row = self.rows.get_mut(number.0).expect("the caller found this gather before");
        let gather = Arc::make_mut(row);
        gather.call += 1;
        gather.call - 1
    }

    /// By scatter and state; none that is 0.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, GatherState, u64)> {
        let all = self.counts.iter().flat_map(|(scatter, counts)| {
            GatherState::ALL.iter().map(|state| (&**scatter, *state, counts[*state as usize]))
        });
        all.filter(|(.., count)| *count > 0)
    }

    pub(crate) fn listen(&mut self, listener: Listener) {
        let Listener { subscription, gather, recipient } = listener;
        self.listeners.entry(subscription).or_default().insert((gather, recipient));
        self.listened.entry(gather).or_default().push(subscription);
    }

    /// A subscription is gone: who waits for it.
    pub(crate) fn deaf(&mut self, subscription: SubscriptionId) -> BTreeSet<(Sequence, u16)> {
        self.listeners.remove(&subscription).unwrap_or_default()
    }

    /// Nobody listens any more to requests of this gather.
    pub(crate) fn unlisten(&mut self, gather: Sequence) {
        for subscription in self.listened.remove(&gather).unwrap_or_default() {
            if let Some(waiting) = self.listeners.get_mut(&subscription) {
                let theirs: Vec<_> = waiting.range((gather, 0)..=(gather, u16::MAX)).copied().collect();
                theirs.iter().for_each(|one| {
                    waiting.remove(one);
                });
                if waiting.is_empty() {
                    self.listeners.remove(&subscription);
                }
            }
        }
    }

    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        self.remembered.first().map(|(until, _)| *until)
    }

    /// Forgets what was remembered long enough, and the oldest while all take more than `most` bytes; at most `budget`.
    pub(crate) fn expire(
        &mut self,
        now: Millis,
        most: u64,
        budget: usize,
        hash: impl Fn(&Gather) -> u128,
    ) -> usize {
        for count in 0..budget {
            let Some((until, number)) = self.remembered.first().copied() else { return count };
            if until > now && self.bytes <= most {
                return count;
            }
            self.remembered.pop_first();
            let gather = self.rows.remove(number.0).expect("what is remembered has a row");
            self.bytes -= gather.bytes();
            self.remembered_bytes -= gather.bytes();
            self.count(&gather.scatter, gather.state(), -1);
            self.forget_topic(gather.request.topic());
            let hash = hash(&gather);
            if self.by_request.get(&hash) == Some(&number) {
                self.by_request.remove(&hash);
            }
        }
        budget
    }
}
