//! What the broker should do, said as plainly as possible: maps, scans and clones. It is told every operation and predicts
//! its outcome; what is free (numbers, jitter, which consumer gets its turn) it takes from the broker, and checks that it
//! was permitted.

mod filtered;
mod lease;
mod operate;
mod publish;
mod view;

pub(crate) use filtered::{Judgement, Pending, confirmed};

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chaski_broker::*;

use crate::harness::{Call, Draft, Seen};

/// A message in one queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) draft: Draft,
    pub(crate) published_at: Millis,
    /// From when its time to live counts.
    pub(crate) lives_from: Millis,
    pub(crate) state: State,
    /// Outside its key's order until due.
    pub(crate) scheduled: bool,
    pub(crate) attempts: u32,
    pub(crate) first_at: Option<Millis>,
    /// Delivered before, or older than this start.
    pub(crate) redelivered: bool,
    /// In the journal's oldest form a mixed message has a position.
    pub(crate) journaled: bool,
    pub(crate) dead: Option<DeadInfo>,
    /// The least position of the record that moved it here, if it wasn't published here.
    pub(crate) moved: u64,
}

/// What it does there.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum State {
    Ready,
    /// Until then; a jittered time within bounds until it is known.
    Delayed(Millis, Millis),
    Leased {
        consumer: ConsumerId,
        lease: Lease,
        ends: Option<Millis>,
    },
}

/// One queue.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) settings: QueueSettings,
    /// For a dead-letter queue: whose.
    pub(crate) source: Option<String>,
    pub(crate) entries: BTreeMap<Sequence, Entry>,
    pub(crate) paused: bool,
    /// Parked keys and the dead letters that park them.
    pub(crate) parked: BTreeMap<String, BTreeSet<Sequence>>,
    /// For each key the least position of the record that settled its last message.
    pub(crate) settled: BTreeMap<String, u64>,
    /// In order of attaching.
    pub(crate) consumers: Vec<ConsumerId>,
    pub(crate) acked: u64,
    pub(crate) died: u64,
    pub(crate) dropped: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) queue: String,
    pub(crate) connection: u64,
    pub(crate) credit: u32,
    pub(crate) unsent: VecDeque<Lease>,
}

#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) connection: u64,
    pub(crate) pattern: String,
    pub(crate) buffered: u64,
    pub(crate) dropped: u64,
}

/// An id in the window.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) sequence: Option<Sequence>,
    pub(crate) expires: Millis,
    pub(crate) durability: Durability,
}

/// A request in the window.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) reply_to: String,
    pub(crate) moved_to: Option<String>,
    pub(crate) reply: Option<Draft>,
    pub(crate) until: Millis,
}

/// A transaction in the window.
#[derive(Clone, Debug)]
pub(crate) struct Transacted {
    pub(crate) confirmations: Vec<Confirmation>,
    pub(crate) expires: Millis,
    pub(crate) durability: Durability,
}

/// What the router itself says to a requester.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) reply_to: String,
    pub(crate) request_id: String,
    pub(crate) status: &'static str,
}

/// The whole shard.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) now: Millis,
    /// The journal's length before the current call.
    pub(crate) journal: usize,
    pub(crate) rules: Rules,
    pub(crate) queues: BTreeMap<String, Queue>,
    pub(crate) consumers: BTreeMap<ConsumerId, Consumer>,
    pub(crate) subscriptions: BTreeMap<SubscriptionId, Subscription>,
    pub(crate) known: BTreeMap<(String, String), Known>,
    pub(crate) requests: BTreeMap<(String, String), Request>,
    pub(crate) transactions: BTreeMap<String, Transacted>,
    pub(crate) late: u64,
    /// What waits for a filter with state.
    pub(crate) pending: BTreeMap<JobId, Pending>,
    /// What the one module remembers: values, and when they are over.
    pub(crate) state: BTreeMap<String, (String, Option<Millis>)>,
    /// Deaths of requests that are still to be answered.
    pub(crate) owed: Vec<(Draft, &'static str)>,
    /// Broker-made messages expected from this call, and the numbers of those that came.
    pub(crate) stored: VecDeque<(Sequence, Draft)>,
    /// Letters that were laid by this call.
    pub(crate) laid: VecDeque<(Sequence, Draft)>,
    /// What subscriptions are to be passed by this call.
    pub(crate) passes: Vec<(SubscriptionId, Vec<u8>, u64)>,
}

impl Model {
    pub(crate) fn new(now: Millis) -> Model {
        let rules = crate::harness::rules(0, &[]);
        Model {
            now,
            journal: 0,
            rules,
            queues: BTreeMap::from([("chaski.dlq".to_owned(), filtered::chaski())]),
            consumers: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            known: BTreeMap::new(),
            requests: BTreeMap::new(),
            transactions: BTreeMap::new(),
            late: 0,
            pending: BTreeMap::new(),
            state: BTreeMap::new(),
            owed: Vec::new(),
            stored: VecDeque::new(),
            laid: VecDeque::new(),
            passes: Vec::new(),
        }
    }

    /// Begins one call of the broker: what it told of free choices.
    pub(crate) fn begin(&mut self, call: &Call) {
        self.now = self.now.max(call.at);
        self.stored = call.stored.iter().cloned().collect();
        self.laid = call.laid.iter().cloned().collect();
        self.passes.clear();
    }

    /// Ends it: answers go out, then deliveries, and nobody who could have one is left without.
    #[track_caller]
    pub(crate) fn end(&mut self, call: &Call) {
        self.answer_owed();
        for (queue, sequence, until) in &call.returned {
            self.know_delay(queue, *sequence, *until);
        }
        for seen in &call.seen {
            if let Seen::Deliver(wait, consumer, delivery) = seen {
                self.bury_worn_out();
                self.delivered(*wait, *consumer, delivery, call);
            }
        }
        self.bury_worn_out();
        self.nothing_undelivered();
        assert!(self.stored.is_empty(), "nobody expected the messages {:?}", self.stored);
        assert!(self.laid.is_empty(), "nobody expected the letters {:?}", self.laid);
        let mut passed: Vec<_> = call
            .seen
            .iter()
            .filter_map(|seen| match seen {
                Seen::Pass(subscription, body, dropped) => Some((*subscription, body.to_vec(), *dropped)),
                _ => None,
            })
            .collect();
        passed.sort_by_key(|(subscription, ..)| *subscription);
        self.passes.sort_by_key(|(subscription, ..)| *subscription);
        assert_eq!(passed, self.passes, "what subscriptions get");
        self.journal = call.journal;
    }

    /// The least position of a record of the current call.
    pub(crate) fn next_position(&self) -> u64 {
        self.journal as u64 + 1
    }

    /// A message left this queue: the next one of its key waits for that.
    pub(crate) fn settled(&mut self, name: &str, entry: &Entry) {
        let position = self.next_position();
        let queue = self.queue_mut(name);
        // One that waits for its time is outside the order.
        let in_order = !entry.scheduled && queue.settings.durability != Durability::Memory;
        if let Some(key) = queue.key(entry).filter(|_| in_order).cloned() {
            queue.settled.insert(key, position);
        }
    }

    /// The queue's settings of the current rules, and of its dead-letter queue.
    pub(crate) fn queue(&self, name: &str) -> &Queue {
        self.queues.get(name).unwrap_or_else(|| panic!("queue {name} is unknown to the model"))
    }

    pub(crate) fn queue_mut(&mut self, name: &str) -> &mut Queue {
        self.queues.get_mut(name).unwrap_or_else(|| panic!("queue {name} is unknown to the model"))
    }

    /// The process dies and starts again.
    #[track_caller]
    pub(crate) fn crash(&mut self, now: Millis) {
        self.now = now;
        self.consumers.clear();
        self.subscriptions.clear();
        self.requests.clear();
        self.pending.clear();
        self.owed.clear();
        self.late = 0;
        self.known.retain(|_, known| known.durability != Durability::Memory);
        self.transactions.retain(|_, transacted| transacted.durability != Durability::Memory);
        let mut worn_out = Vec::new();
        for (name, queue) in &mut self.queues {
            queue.consumers.clear();
            queue.settled.clear();
            if queue.settings.durability == Durability::Memory {
                *queue = Queue {
                    paused: queue.paused,
                    ..Queue::new(queue.settings.clone(), queue.source.clone())
                };
            }
            for (sequence, entry) in &mut queue.entries {
                entry.redelivered = true;
                entry.moved = 0;
                if matches!(entry.state, State::Leased { .. }) {
                    entry.state = State::Ready;
                    if queue.settings.max_deliver.is_some_and(|max| entry.attempts >= max) {
                        worn_out.push((name.clone(), *sequence));
                    }
                }
            }
        }
        for (name, sequence) in worn_out {
            self.bury(&name, sequence, DeadReason::MaxDeliver);
        }
    }

    /// What a clean stop does to leases.
    pub(crate) fn shutdown(&mut self) {
        for consumer in self.consumers.keys().copied().collect::<Vec<_>>() {
            self.detach(consumer, true);
        }
    }
}

impl Queue {
    pub(crate) fn new(settings: QueueSettings, source: Option<String>) -> Queue {
        Queue {
            settings,
            source,
            entries: BTreeMap::new(),
            paused: false,
            parked: BTreeMap::new(),
            settled: BTreeMap::new(),
            consumers: Vec::new(),
            acked: 0,
            died: 0,
            dropped: 0,
        }
    }

    /// The key that orders this message.
    pub(crate) fn key<'e>(&self, entry: &'e Entry) -> Option<&'e String> {
        entry.draft.key.as_ref().filter(|_| self.settings.ordering == Ordering::Key)
    }

    /// The first of a key that waits in order.
    pub(crate) fn head(&self, key: &str) -> Option<(Sequence, &Entry)> {
        let waits = |entry: &Entry| !entry.scheduled && !matches!(entry.state, State::Leased { .. });
        let found =
            self.entries.iter().find(|(_, entry)| self.key(entry).is_some_and(|k| k == key) && waits(entry));
        found.map(|(sequence, entry)| (*sequence, entry))
    }

    /// Ready by itself, and held up by its key.
    pub(crate) fn is_parked(&self, entry: &Entry) -> bool {
        entry.state == State::Ready
            && self.key(entry).is_some_and(|key| {
                let head_waits =
                    self.head(key).is_some_and(|(_, head)| matches!(head.state, State::Delayed(..)));
                self.parked.contains_key(key) || head_waits
            })
    }

    /// May go now.
    pub(crate) fn may_go(&self, sequence: Sequence, entry: &Entry) -> bool {
        let free = |key: &String| {
            let same = |other: &Entry| self.key(other) == Some(key);
            let leased =
                self.entries.values().any(|other| same(other) && matches!(other.state, State::Leased { .. }));
            !leased && self.head(key).is_some_and(|(head, _)| head == sequence)
        };
        entry.state == State::Ready && !self.is_parked(entry) && self.key(entry).is_none_or(free)
    }

    /// The next message to deliver.
    pub(crate) fn next(&self) -> Option<Sequence> {
        let by_key = self.settings.ordering == Ordering::Key;
        let may_go = self.entries.iter().filter(|(sequence, entry)| self.may_go(**sequence, entry));
        let rank = |entry: &Entry| if by_key { 0 } else { 9 - entry.draft.priority };
        may_go.min_by_key(|(sequence, entry)| (rank(entry), **sequence)).map(|(sequence, _)| *sequence)
    }

    /// When its time to live ends; a dead letter has none.
    pub(crate) fn expires(&self, entry: &Entry) -> Option<Millis> {
        let ttl = [self.settings.ttl_ms, entry.draft.ttl_ms].into_iter().flatten().min()?;
        self.source.is_none().then(|| entry.lives_from.after(ttl))
    }

    /// What happens next by itself, up to then, and to which message; leases first.
    pub(crate) fn first_due(&self, now: Millis) -> Option<(Millis, Sequence)> {
        let due = self.entries.iter().filter_map(|(sequence, entry)| {
            let (leased, due) = match entry.state {
                State::Leased { ends, .. } => (true, ends),
                State::Delayed(_, until) => (false, self.expires(entry).into_iter().chain([until]).min()),
                State::Ready => (false, self.expires(entry)),
            };
            Some((due.filter(|due| *due <= now)?, !leased, *sequence))
        });
        due.min().map(|(due, _, sequence)| (due, sequence))
    }

    pub(crate) fn oldest_unleased(&self) -> Option<Sequence> {
        let mut free = self.entries.iter().filter(|(_, entry)| !matches!(entry.state, State::Leased { .. }));
        free.next().map(|(sequence, _)| *sequence)
    }

    pub(crate) fn full(&self, more: i64) -> bool {
        self.settings.max_messages.is_some_and(|max| self.entries.len() as i64 + more > max as i64)
    }
}
