//! Drives a broker as the server does, with a clock that tests turn and a journal in memory that can lose its end. It checks
//! what holds for every run: effects wait for nothing that doesn't exist, records survive their encoding, numbers are never
//! used twice, a body lies where its delivery says.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses its own part")]

mod filters;
mod message;
mod outside;
mod steering;
mod verbs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use chaski_broker::*;

pub use filters::*;
pub use message::*;
pub use outside::*;
pub use steering::*;

/// A wake-up that doesn't come to rest within so many calls is a livelock.
const CALLS_AT_ONE_TIME: usize = 10_000;

/// A broker and its surroundings.
pub struct World {
    pub broker: Broker,
    pub now: Millis,
    /// Records as bytes; position `n` is at `n - 1`.
    pub journal: Vec<Vec<u8>>,
    /// The journal's length after each call: a crash keeps a call whole or not at all.
    pub batches: BTreeSet<usize>,
    /// Records that no crash takes.
    pub synced: usize,
    /// Whether every call is synced at once.
    pub sync_at_once: bool,
    /// Whether deliveries are told to be sent at once.
    pub send_at_once: bool,
    /// Effects in the order in which they came, with those not released yet.
    held: VecDeque<Held>,
    /// What a server says in return, once the call that caused it is over.
    returns: VecDeque<Command>,
    releasing: bool,
    pub confirms: BTreeMap<u64, Result<Confirmation, PublishError>>,
    pub transacted: BTreeMap<u64, Result<Vec<Confirmation>, TransactionError>>,
    pub attached: BTreeMap<ConsumerId, Result<Attached, UnknownQueue>>,
    pub detached: Vec<ConsumerId>,
    pub deliveries: BTreeMap<ConsumerId, VecDeque<Delivery>>,
    pub settled: BTreeMap<u64, Result<(), SettleError>>,
    pub lost: Vec<(Sequence, Lease)>,
    pub passes: BTreeMap<SubscriptionId, VecDeque<(Bytes, u64)>>,
    pub applied: BTreeMap<Ticket, Result<RulesVersion, RulesRefused>>,
    pub done: BTreeMap<Ticket, Result<Progress, OperateError>>,
    /// Work that the broker asked for, and work that it didn't need.
    pub invoked: Vec<JobId>,
    pub spared: Vec<JobId>,
    pub judged: BTreeMap<Ticket, JudgedOutcome>,
    /// Calls of modules that nobody answered yet.
    pub aggregates: VecDeque<Aggregate>,
    pub advice_wanted: VecDeque<Advise>,
    pub steered: BTreeMap<Ticket, Result<SagaState, SteerError>>,
    /// Consumers that stand for the workers of a queue each.
    pub workers: BTreeMap<String, ConsumerId>,
    pub events: Vec<Event>,
    pub windows: Vec<u64>,
    /// What the last calls yielded, in order, released or not: for a checker. Emptied by whoever reads it.
    pub seen: Vec<Seen>,
    /// The same by call, with what the records tell a checker.
    pub calls: Vec<Call>,
    positions: BTreeMap<Sequence, Position>,
    /// What each message for a subscription waited for.
    pub pass_waits: Vec<Wait>,
    pub snapshots: Vec<(Position, Vec<Vec<u8>>)>,
    leases: BTreeSet<Lease>,
    sequences: BTreeSet<Sequence>,
    /// Numbers that somebody outside saw. One that was only drawn may be drawn again when a power cut took its block.
    shown: BTreeSet<u64>,
    seed: u64,
    next: u64,
}

/// One call of the broker.
#[derive(Clone, Debug)]
pub struct Call {
    pub cause: Cause,
    pub at: Millis,
    pub seen: Vec<Seen>,
    /// Messages that the journal got.
    pub stored: Vec<(Sequence, Draft)>,
    /// Letters that it got of messages which no queue had.
    pub laid: Vec<(Sequence, Draft)>,
    /// Until when failed messages wait, as the journal got it: queue, message, time.
    pub returned: Vec<(String, Sequence, Millis)>,
    /// The record of every journaled message so far.
    pub positions: BTreeMap<Sequence, Position>,
    /// The journal's length afterwards.
    pub journal: usize,
}

/// Why the broker was called.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Command,
    Timeout,
    Resume,
}

/// One effect that a checker looks at, with its wait.
#[derive(Clone, Debug)]
pub enum Seen {
    Deliver(Wait, ConsumerId, Delivery),
    Confirm(Wait, u64, Result<Confirmation, PublishError>),
    Transacted(Wait, u64, Result<Vec<Confirmation>, TransactionError>),
    Pass(SubscriptionId, Bytes, u64),
    Settled(u64, Result<(), SettleError>),
    Detached(ConsumerId),
    Lost(Vec<(Sequence, Lease)>),
    Attached(bool),
    Applied(Result<RulesVersion, RulesRefused>),
    Done(Result<Progress, OperateError>),
}

impl World {
    /// A new shard with these queues.
    pub fn new(queues: &[Queue]) -> World {
        let mut world = World::empty();
        world.apply(&rules(1, queues)).expect("the first rules meet nothing");
        world
    }

    /// A new shard without rules.
    pub fn empty() -> World {
        let mut world = World {
            broker: Broker::new(1, render),
            now: Millis(1_000_000),
            journal: Vec::new(),
            batches: BTreeSet::from([0]),
            synced: 0,
            sync_at_once: true,
            send_at_once: true,
            held: VecDeque::new(),
            returns: VecDeque::new(),
            releasing: false,
            confirms: BTreeMap::new(),
            transacted: BTreeMap::new(),
            attached: BTreeMap::new(),
            detached: Vec::new(),
            deliveries: BTreeMap::new(),
            settled: BTreeMap::new(),
            lost: Vec::new(),
            passes: BTreeMap::new(),
            applied: BTreeMap::new(),
            done: BTreeMap::new(),
            invoked: Vec::new(),
            spared: Vec::new(),
            judged: BTreeMap::new(),
            aggregates: VecDeque::new(),
            advice_wanted: VecDeque::new(),
            steered: BTreeMap::new(),
            workers: BTreeMap::new(),
            events: Vec::new(),
            windows: Vec::new(),
            seen: Vec::new(),
            calls: Vec::new(),
            positions: BTreeMap::new(),
            pass_waits: Vec::new(),
            snapshots: Vec::new(),
            leases: BTreeSet::new(),
            sequences: BTreeSet::new(),
            shown: BTreeSet::new(),
            seed: 1,
            next: 0,
        };
        world.resume();
        world
    }

    /// A number that was not used before.
    pub fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One command, and whatever is due then.
    #[track_caller]
    pub fn call(&mut self, command: Command) {
        let mut output = Output::default();
        self.broker.handle(self.now, command, &mut output);
        self.absorb(Cause::Command, output);
        self.run_timers();
    }

    /// Whatever is due now.
    #[track_caller]
    pub fn run_timers(&mut self) {
        for _ in 0..CALLS_AT_ONE_TIME {
            if self.broker.next_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            let mut output = Output::default();
            self.broker.handle_timeout(self.now, &mut output);
            self.absorb(Cause::Timeout, output);
        }
        panic!("timers at {} never come to rest", self.now);
    }

    /// Lets time pass, stopping at every wake-up.
    #[track_caller]
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while let Some(at) = self.broker.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.run_timers();
        }
        self.now = end;
    }

    /// The next wake-up, if there is one.
    #[track_caller]
    pub fn step(&mut self, end: Millis) -> bool {
        match self.broker.next_timeout().filter(|at| *at <= end) {
            Some(at) => {
                self.now = self.now.max(at);
                let mut output = Output::default();
                self.broker.handle_timeout(self.now, &mut output);
                self.absorb(Cause::Timeout, output);
                true
            }
            None => {
                self.now = end;
                false
            }
        }
    }

    /// Everything journaled is durable now.
    pub fn sync(&mut self) {
        self.synced = self.journal.len();
        self.release();
    }

    /// The process dies; of the journal the first `keep` records are left, and at least the synced ones. Starts again from the
    /// newest snapshot that they cover, if there is one.
    #[track_caller]
    pub fn crash(&mut self, keep: usize) {
        assert!(keep >= self.synced && self.batches.contains(&keep), "{keep} is no batch's end");
        self.journal.truncate(keep);
        self.batches.split_off(&(keep + 1));
        self.snapshots.retain(|(position, _)| position.0 as usize <= keep);
        self.synced = keep;
        let kept = |sequence: &Sequence| self.positions.get(sequence).is_some_and(|at| at.0 as usize <= keep);
        self.sequences.retain(|sequence| self.shown.contains(&sequence.0) || kept(sequence));
        self.leases.retain(|lease| self.shown.contains(&lease.0));
        self.positions.retain(|_, at| at.0 as usize <= keep);
        self.seed += 1;
        self.broker = match self.snapshots.last() {
            None => Broker::new(self.seed, render),
            Some((position, chunks)) => {
                let mut restore = Broker::restore(self.seed, render);
                for chunk in chunks {
                    restore.push(chunk).expect("a snapshot's own chunk");
                }
                let broker = restore.finish().expect("all of a snapshot's chunks");
                assert_eq!(broker.position(), *position);
                broker
            }
        };
        let first = self.broker.position().0 as usize;
        for (index, record) in self.journal.iter().enumerate().skip(first) {
            let position = Position(index as u64 + 1);
            self.broker.replay(self.now, position, record).expect("the broker's own record");
        }
        self.held.clear();
        self.deliveries.clear();
        self.passes.clear();
        self.aggregates.clear();
        self.advice_wanted.clear();
        self.workers.clear();
        self.resume();
    }

    /// A crash that loses nothing.
    #[track_caller]
    pub fn restart(&mut self) {
        self.crash(self.journal.len());
    }

    /// Keeps a snapshot; the next start begins from it.
    pub fn snapshot(&mut self) {
        let chunks = self.broker.snapshot().collect();
        self.snapshots.push((self.broker.position(), chunks));
    }

    fn resume(&mut self) {
        let mut output = Output::default();
        self.broker.resume(self.now, &mut output);
        self.absorb(Cause::Resume, output);
        self.run_timers();
    }

    #[track_caller]
    fn absorb(&mut self, cause: Cause, output: Output) {
        let first_seen = self.seen.len();
        let (mut stored, mut laid, mut returned) = (Vec::new(), Vec::new(), Vec::new());
        for record in output.records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record), "a record doesn't survive its encoding");
            self.journal.push(bytes);
            match &record {
                Record::Published { sequence, message, .. } => {
                    self.positions.insert(*sequence, Position(self.journal.len() as u64));
                    stored.push((*sequence, Draft::of(message)));
                }
                Record::Stillborn { sequence, message, .. } => {
                    self.positions.insert(*sequence, Position(self.journal.len() as u64));
                    laid.push((*sequence, Draft::of(message)));
                }
                Record::Flow { queue, moves, .. } => {
                    let queue = self.broker.queue_name(*queue).unwrap_or_default();
                    returned.extend(moves.0.iter().filter_map(|step| match step {
                        Move::Returned { sequence, not_before } => {
                            Some((queue.to_owned(), *sequence, *not_before))
                        }
                        _ => None,
                    }));
                }
                _ => {}
            }
        }
        assert_eq!(self.broker.position(), Position(self.journal.len() as u64), "positions are dense");
        self.batches.insert(self.journal.len());
        for held in output.effects {
            assert!(
                held.wait.position <= self.broker.position(),
                "{held:?} waits for a record that isn't there"
            );
            self.see(&held);
            self.held.push_back(held);
        }
        self.calls.push(Call {
            cause,
            at: self.now,
            seen: self.seen[first_seen..].to_vec(),
            stored,
            laid,
            returned,
            positions: if self.sync_at_once { BTreeMap::new() } else { self.positions.clone() },
            journal: self.journal.len(),
        });
        if self.sync_at_once {
            self.synced = self.journal.len();
        }
        self.release();
    }

    fn see(&mut self, held: &Held) {
        let wait = held.wait;
        let seen = match &held.effect {
            Effect::Deliver { consumer, delivery } => {
                let body = self.body(&delivery.body);
                assert_eq!(body.len(), delivery.len as usize, "the body of {delivery:?}");
                Seen::Deliver(wait, *consumer, delivery.clone())
            }
            Effect::Confirm { number, outcome, .. } => Seen::Confirm(wait, *number, outcome.clone()),
            Effect::Transacted { number, outcome, .. } => {
                Seen::Transacted(wait, *number, outcome.clone().map(|parts| parts.to_vec()))
            }
            Effect::Pass { subscription, body, dropped, .. } => {
                self.pass_waits.push(wait);
                Seen::Pass(*subscription, body.clone(), *dropped)
            }
            Effect::Settled { number, outcome, .. } => Seen::Settled(*number, *outcome),
            Effect::Detached { consumer } => Seen::Detached(*consumer),
            Effect::Extended { lost, .. } => Seen::Lost(lost.clone()),
            Effect::Attached { outcome, .. } => Seen::Attached(outcome.is_ok()),
            Effect::RulesApplied { outcome, .. } => Seen::Applied(outcome.clone()),
            Effect::Done { outcome, .. } => Seen::Done(*outcome),
            _ => return,
        };
        self.seen.push(seen);
    }

    /// The bytes behind a body's name.
    pub fn body(&self, body: &Body) -> Bytes {
        match body {
            Body::Here(bytes) => bytes.clone(),
            Body::At(position) => {
                let record = &self.journal[position.0 as usize - 1];
                let place = body_of(record).expect("the broker's own record").expect("it has a body");
                Bytes::copy_from_slice(&record[place])
            }
        }
    }

    /// Performs effects whose wait is over; one that still waits holds up none but its recipient's, which a test that looks
    /// at one recipient can't tell from holding up all.
    fn release(&mut self) {
        if std::mem::replace(&mut self.releasing, true) {
            return;
        }
        loop {
            self.perform_released();
            match self.returns.pop_front() {
                Some(command) => self.call(command),
                None => break,
            }
        }
        self.releasing = false;
    }

    fn perform_released(&mut self) {
        let mut back = VecDeque::new();
        while let Some(held) = self.held.pop_front() {
            // What `os` asks for, the write, happens at once here.
            let over =
                held.wait.durability != Durability::Fsync || held.wait.position.0 as usize <= self.synced;
            if over && back.is_empty() {
                self.perform(held.effect);
            } else {
                back.push_back(held);
            }
        }
        self.held.append(&mut back);
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Confirm { number, outcome, .. } => {
                // What nobody was told of may be used again: its reservation was lost with it.
                let sequence = outcome.as_ref().ok().filter(|it| !it.duplicate).and_then(|it| it.sequence);
                if let Some(sequence) = sequence {
                    assert!(self.sequences.insert(sequence), "sequence {sequence} is used twice");
                }
                self.confirms.insert(number, outcome);
            }
            Effect::Transacted { number, outcome, .. } => {
                self.transacted.insert(number, outcome.map(|parts| parts.to_vec()));
            }
            Effect::Attached { consumer, outcome } => {
                self.attached.insert(consumer, outcome);
            }
            Effect::Detached { consumer } => {
                self.deliveries.remove(&consumer);
                self.detached.push(consumer);
            }
            Effect::Deliver { consumer, delivery } => {
                assert!(self.leases.insert(delivery.lease), "lease {} is used twice", delivery.lease);
                self.deliveries.entry(consumer).or_default().push_back(delivery);
                if self.send_at_once {
                    self.returns.push_back(Command::Sent { consumer, count: 1 });
                }
            }
            Effect::Settled { number, outcome, .. } => {
                self.settled.insert(number, outcome);
            }
            Effect::Extended { lost, .. } => self.lost.extend(lost),
            Effect::Pass { subscription, body, dropped, .. } => {
                self.passes.entry(subscription).or_default().push_back((body, dropped));
            }
            Effect::Invoke { job } => self.invoked.push(job),
            Effect::Spare { job } => self.spared.push(job),
            Effect::Judged { ticket, outcome } => {
                self.judged.insert(ticket, outcome);
            }
            Effect::RulesApplied { ticket, outcome } => {
                self.applied.insert(ticket, outcome);
            }
            Effect::Done { ticket, outcome } => {
                self.done.insert(ticket, outcome);
            }
            Effect::DedupWindow { window_ms } => self.windows.push(window_ms),
            Effect::Reserved { through } => self.returns.push_back(Command::Reserved { through }),
            Effect::Event(event) => self.events.push(event),
            Effect::Aggregate(call) => self.aggregates.push_back(*call),
            Effect::Gathered { gather } => self.aggregates.retain(|call| call.gather != gather),
            Effect::Advise(call) => self.advice_wanted.push_back(*call),
            Effect::Steered { ticket, outcome } => {
                self.steered.insert(ticket, outcome);
            }
        }
    }
}
