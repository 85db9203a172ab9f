//! Every saga of the shard: those under way, and those that are remembered. Bounded in number and bytes by the callers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::hash::{HashKey, Plain};
use crate::ids::{Millis, Sequence};
use crate::pages::PageMap;
use crate::pins::Pins;
use crate::saga::Saga;
use crate::views::SagaState;

/// Messages of steps that left their queue are known for a while: how their late answers are counted.
const RECENT: usize = 65_536;

/// What became of a step's message that is in no queue any more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Answered,
    Withdrawn,
}

/// Answers that changed nothing, since the start.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Ignored {
    pub(crate) duplicate: u64,
    pub(crate) late: u64,
    pub(crate) foreign: u64,
}

/// The sagas. Each has a number of its own.
#[derive(Default)]
pub(crate) struct Sagas {
    /// A snapshot shares them.
    rows: PageMap<Arc<Saga>>,
    by_key: HashMap<u128, Sequence, Plain>,
    /// Those that are over, in the order in which they are forgotten.
    remembered: BTreeSet<(Millis, Sequence)>,
    /// By definition and state.
    counts: BTreeMap<Arc<str>, [u64; SagaState::ALL.len()]>,
    /// Those that wait for an operator: few, and looked for among all.
    parked: BTreeSet<Sequence>,
    /// Inputs and results of those that are not over.
    bytes: u64,
    /// Compensators of those that are not over.
    pub(crate) pins: Pins,
    /// Volatile.
    recent: BTreeMap<Sequence, Settled>,
    pub(crate) ignored: Ignored,
}

impl Sagas {
    pub(crate) fn get(&self, number: Sequence) -> Option<&Saga> {
        self.rows.get(number.0).map(Arc::as_ref)
    }

    pub(crate) fn rows(&self) -> &PageMap<Arc<Saga>> {
        &self.rows
    }

    /// The saga of this definition that the message with this id began.
    pub(crate) fn find(&self, key: HashKey, name: &str, id: &str) -> Option<Sequence> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&key.saga(name.as_bytes(), id.as_bytes())).copied()
    }

    /// Those that are not over.
    pub(crate) fn running(&self) -> u64 {
        (self.rows.len() - self.remembered.len()) as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn insert(&mut self, key: HashKey, number: Sequence, mut saga: Saga) {
        self.by_key.insert(key.saga(saga.name.as_bytes(), saga.id.as_bytes()), number);
        self.count(&saga.name, saga.state(), 1);
        if saga.state() == SagaState::Parked {
            self.parked.insert(number);
        }
        if let Some((name, _)) = self.counts.get_key_value(&saga.name) {
            saga.name = name.clone();
        }
        match saga.until {
            Some(until) => {
                self.remembered.insert((until, number));
            }
            None => {
                self.bytes += saga.payload_bytes();
                self.pins.hold(compensator(&saga));
            }
        }
        self.rows.insert(number.0, Arc::new(saga));
    }

    /// Changes one that is known to be there.
    pub(crate) fn change(&mut self, number: Sequence, change: impl FnOnce(&mut Saga)) {
        let row = self.rows.get_mut(number.0).expect("the caller found this saga before");
        let saga = Arc::make_mut(row);
        let (bytes, state, was_over) = (saga.payload_bytes(), saga.state(), saga.until.is_some());
        change(saga);
        if !was_over {
            self.bytes -= bytes;
            match saga.until {
                Some(until) => {
                    self.remembered.insert((until, number));
                    self.pins.let_go(compensator(saga));
                }
                None => self.bytes += saga.payload_bytes(),
            }
        }
        let now = saga.state();
        if now != state {
            let counts = self.counts.get_mut(&saga.name).expect("it is counted since it began");
            counts[state as usize] -= 1;
            counts[now as usize] += 1;
            match (state, now) {
                (SagaState::Parked, _) => {
                    self.parked.remove(&number);
                }
                (_, SagaState::Parked) => {
                    self.parked.insert(number);
                }
                _ => {}
            }
        }
    }

    /// Those that wait for an operator, after this number, in order.
    pub(crate) fn parked(&self, after: Sequence) -> impl Iterator<Item = Sequence> {
        self.parked.range(Sequence(after.0.saturating_add(1))..).copied()
    }

    fn count(&mut self, name: &str, state: SagaState, change: i64) {
        if !self.counts.contains_key(name) {
            self.counts.insert(name.into(), Default::default());
        }
        let counts = self.counts.get_mut(name).expect("it was just made");
        counts[state as usize] = counts[state as usize].saturating_add_signed(change);
        if counts.iter().all(|count| *count == 0) {
            self.counts.remove(name);
        }
    }

    /// By definition and state; none that is 0.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, SagaState, u64)> {
        let all = self.counts.iter().flat_map(|(name, counts)| {
            SagaState::ALL.iter().map(|state| (&**name, *state, counts[*state as usize]))
        });
        all.filter(|(.., count)| *count > 0)
    }

    pub(crate) fn count_of(&self, name: &str, state: SagaState) -> u64 {
        self.counts.get(name).map_or(0, |counts| counts[state as usize])
    }

    /// A step's message is in no queue any more.
    pub(crate) fn settled(&mut self, message: Sequence, how: Settled) {
        self.recent.insert(message, how);
        if self.recent.len() > RECENT {
            self.recent.pop_first();
        }
    }

    /// Somebody answered a message without a lease on it.
    pub(crate) fn ignore(&mut self, message: Sequence, owned: bool) {
        match self.recent.get(&message) {
            Some(Settled::Answered) => self.ignored.duplicate += 1,
            Some(Settled::Withdrawn) => self.ignored.late += 1,
            None if owned => self.ignored.late += 1,
            None => self.ignored.foreign += 1,
        }
    }

    pub(crate) fn knows(&self, message: Sequence) -> bool {
        self.recent.contains_key(&message)
    }

    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        self.remembered.first().map(|(until, _)| *until)
    }

    /// Forgets what was remembered long enough, and the oldest beyond `most` of them; at most `budget`.
    pub(crate) fn expire(&mut self, key: HashKey, now: Millis, most: u64, budget: usize) -> usize {
        for count in 0..budget {
            let Some((until, number)) = self.remembered.first().copied() else { return count };
            if until > now && self.remembered.len() as u64 <= most {
                return count;
            }
            self.remembered.pop_first();
            let saga = self.rows.remove(number.0).expect("what is remembered has a row");
            self.count(&saga.name, saga.state(), -1);
            let hash = key.saga(saga.name.as_bytes(), saga.id.as_bytes());
            if self.by_key.get(&hash) == Some(&number) {
                self.by_key.remove(&hash);
            }
        }
        budget
    }
}

/// The binary of its compensator.
fn compensator(saga: &Saga) -> Option<[u8; 32]> {
    saga.settings.compensator.as_ref()?.binary
}
