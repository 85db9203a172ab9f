//! The state machine itself: what it holds, how it is driven, and what it tells about itself. What each command does stands in
//! the files named after it.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::apply::ApplyError;
use crate::backoff::Random;
use crate::begins::Begins;
use crate::bindings::Bindings;
use crate::codec::RecordError;
use crate::command::{Command, DiskState, Operation, Publish};
use crate::config::{Durability, Rules, ShardLimits};
use crate::consumers::Consumers;
use crate::dedup::Dedup;
use crate::effect::{Effect, Held, Output, Wait};
use crate::gathers::Gathers;
use crate::hash::{HashKey, MessageHash};
use crate::ids::{Lease, Millis, Position, QueueId, RulesVersion, Sequence};
use crate::judging::Judging;
use crate::message::Render;
use crate::messages::Messages;
use crate::owners::Owners;
use crate::queue::{Kind, Queue};
use crate::queues::{CHASKI, CHASKI_DLQ, Queues};
use crate::record::{Move, Moves, Record};
use crate::requests::{Owed, Requests};
use crate::rules::{Drops, RulesEntry, chaski_settings};
use crate::sagas::Sagas;
use crate::states::States;
use crate::subscriptions::Subscriptions;
use crate::timers::Timers;
use crate::transactions::Outcomes;

/// Numbers are reserved in blocks of this many.
pub(crate) const NUMBER_BLOCK: u64 = 1 << 20;
/// Items that one call of `handle_timeout` looks at.
pub(crate) const TIMEOUT_BUDGET: usize = 4096;
/// Answers that the broker itself sends within one command; the rest follows by timer. As many as a timeout can owe, so that
/// an answer is in the batch of the death that it tells of.
const ANSWER_BUDGET: usize = TIMEOUT_BUDGET;
/// Ended gathers, and sagas, beyond their bounds that one command forgets: more than it usually ends.
const FORGOTTEN: usize = 4;

/// One shard's state machine.
///
/// # How it is driven
/// 1. [`Broker::new`], or [`Broker::restore`] from a snapshot; then [`Broker::replay`] for every journaled record after it;
///    then [`Broker::resume`] once. Only now may commands come.
/// 2. [`Broker::handle`] for each command, [`Broker::handle_timeout`] when [`Broker::next_timeout`] is due. `now` never goes
///    back. Both push to one [`Output`], which several calls may fill before it is drained; never use two at a time, since
///    moves of one queue are gathered in the last record of the output.
/// 3. The records are journaled in order, all of one call in one batch. Each effect is performed once its [`Wait`] is over:
///    effects to the same recipient in the order in which they came.
/// 4. When a journal's append fails, the broker and all held effects are thrown away.
///
/// A body that an effect names by position is in the journal once its record is written; until then the driver keeps the
/// records' bodies at hand, since `memory` queues wait for nothing.
///
/// ```
/// use chaski_broker::{Broker, Command, DiskState, Millis, Output, Render};
///
/// fn drive(render: Render, commands: Vec<Command>) {
///     let mut broker = Broker::new(7, render);
///     let mut output = Output::default();
///     let mut now = Millis(1_000);
///     broker.resume(now, &mut output);
///     let mut journal: Vec<Vec<u8>> = Vec::new();
///     for command in commands {
///         broker.handle(now, command, &mut output);
///         while broker.next_timeout().is_some_and(|at| at <= now) {
///             broker.handle_timeout(now, &mut output);
///         }
///         for record in output.records.drain(..) {
///             let mut bytes = Vec::new();
///             record.encode(&mut bytes);
///             journal.push(bytes); // Then: write, fdatasync.
///         }
///         for held in output.effects.drain(..) {
///             let _ = held.effect; // Once `held.wait` is over.
///         }
///         now = now.after(1);
///     }
/// }
/// # drive(|_| unreachable!("nobody asks"), vec![Command::Disk(DiskState::Plenty)]);
/// ```
pub struct Broker {
    pub(crate) render: Render,
    pub(crate) random: Random,
    // Durable: changed by `apply` only.
    pub(crate) born: bool,
    pub(crate) hash_key: HashKey,
    /// The last number drawn.
    pub(crate) counter: u64,
    /// The last number that may be drawn.
    pub(crate) reserved: u64,
    pub(crate) position: Position,
    pub(crate) rules: Arc<Rules>,
    pub(crate) history: VecDeque<Arc<RulesEntry>>,
    pub(crate) queues: Queues,
    pub(crate) messages: Messages,
    pub(crate) dedup: Dedup,
    pub(crate) transactions: Outcomes,
    pub(crate) states: States,
    pub(crate) gathers: Gathers,
    pub(crate) sagas: Sagas,
    // Volatile.
    /// Indexes and timers are kept: after `resume`.
    pub(crate) live: bool,
    pub(crate) now: Millis,
    /// Messages up to here are older than this start.
    pub(crate) start: u64,
    /// Numbers up to here are known to be durably reserved.
    pub(crate) surely_reserved: u64,
    /// The record that reserved the last block.
    pub(crate) reserved_at: Position,
    pub(crate) bindings: Arc<Bindings>,
    /// What messages begin, under the rules in force.
    pub(crate) begins: Begins,
    /// Whose messages of gathers and sagas are in queues.
    pub(crate) owners: Owners,
    /// Definitions of which a parked saga went on: their alarms are looked at.
    pub(crate) unparked_sagas: Vec<Arc<str>>,
    pub(crate) timers: Timers,
    pub(crate) consumers: Consumers,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) requests: Requests,
    pub(crate) judging: Judging,
    pub(crate) disk: DiskState,
    /// Queues that may have something for somebody: empty between two commands, but for those that had too much.
    pub(crate) touched: Vec<QueueId>,
    /// Queues that had more to give than one command may, while those are gone through.
    pub(crate) unfinished: Vec<QueueId>,
    /// Answers that the broker itself owes to requesters.
    pub(crate) owed: VecDeque<Owed>,
    /// Leases whose end could not be recorded on a full disk; `true`: released.
    pub(crate) orphans: Vec<(QueueId, Sequence, bool)>,
    /// Answers of modules that came while the disk was full: it takes no record of what follows.
    pub(crate) postponed: Vec<Command>,
    /// Recipients of gathers whose subscription ended, and that are still to be failed.
    pub(crate) deaf: VecDeque<(Sequence, u16)>,
    /// Dropped queues, whose messages are still to be let go.
    pub(crate) drains: Vec<Queue>,
    /// Queues whose time to live changed, and up to where their timers are set anew.
    pub(crate) retimings: Vec<(QueueId, u64)>,
    /// The longest dedup window that the rules ask for.
    pub(crate) wanted_window_ms: u64,
    /// The real dedup window as last told, and before when windows are not tidied again.
    pub(crate) window_told_ms: u64,
    pub(crate) tidy_from: Millis,
}

/// Why a journal can't be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A record is missing or came twice.
    #[error("record {found} came where record {expected} was due")]
    Position {
        /// The next one.
        expected: Position,
        /// The one that came.
        found: Position,
    },
    /// Its bytes are none.
    #[error("record {position} is no record: {error}")]
    Decode {
        /// Which.
        position: Position,
        /// Why.
        error: RecordError,
    },
    /// It doesn't fit what was before it.
    #[error("record {position} contradicts the records before it: {error}")]
    Apply {
        /// Which.
        position: Position,
        /// Why.
        error: ApplyError,
    },
}

impl Broker {
    /// An empty shard: only the built-in dead-letter queue. `seed` feeds jitter and, at a shard's very first start, its hash
    /// key; `render` makes the messages that the broker itself sends.
    pub fn new(seed: u64, render: Render) -> Broker {
        let mut random = Random::new(seed);
        let hash_key = HashKey(random.draw(), random.draw());
        let rules = Rules {
            version: RulesVersion(0),
            author: String::new(),
            document: String::new(),
            queues: Vec::new(),
            limits: ShardLimits::default(),
            modules: Vec::new(),
            failed: Vec::new(),
            scatters: Vec::new(),
            sagas: Vec::new(),
        };
        let mut queues = Queues::default();
        let settings = Arc::new(chaski_settings(&rules.limits));
        queues.insert(Queue::new(CHASKI, CHASKI_DLQ, Kind::Dead { source: None }, settings, hash_key));
        Broker {
            render,
            random,
            born: false,
            hash_key,
            counter: 0,
            reserved: 0,
            position: Position(0),
            dedup: Dedup::new(rules.limits.dedup_max_entries),
            rules: Arc::new(rules),
            history: VecDeque::new(),
            queues,
            messages: Messages::default(),
            transactions: Outcomes::default(),
            states: States::default(),
            gathers: Gathers::default(),
            sagas: Sagas::default(),
            live: false,
            now: Millis(0),
            start: 0,
            surely_reserved: 0,
            reserved_at: Position(0),
            bindings: Arc::new(Bindings::new(RulesVersion(0), hash_key)),
            begins: Begins::default(),
            owners: Owners::default(),
            unparked_sagas: Vec::new(),
            timers: Timers::default(),
            consumers: Consumers::default(),
            subscriptions: Subscriptions::new(hash_key),
            requests: Requests::default(),
            judging: Judging::default(),
            disk: DiskState::Plenty,
            touched: Vec::new(),
            unfinished: Vec::new(),
            owed: VecDeque::new(),
            orphans: Vec::new(),
            postponed: Vec::new(),
            deaf: VecDeque::new(),
            drains: Vec::new(),
            retimings: Vec::new(),
            wanted_window_ms: crate::publish::LEAST_WINDOW_MS,
            window_told_ms: crate::publish::LEAST_WINDOW_MS,
            tidy_from: Millis(0),
        }
    }

    /// Takes the next journaled record. An error means that this journal is not this broker's: nothing may go on.
    pub fn replay(&mut self, now: Millis, position: Position, record: &[u8]) -> Result<(), ReplayError> {
        assert!(!self.live, "records are replayed before `resume`");
        let expected = Position(self.position.0 + 1);
        if position != expected {
            return Err(ReplayError::Position { expected, found: position });
        }
        self.now = self.now.max(now);
        let record = Record::decode(record).map_err(|error| ReplayError::Decode { position, error })?;
        self.apply(position, &record).map_err(|error| ReplayError::Apply { position, error })?;
        self.position = position;
        self.dedup.expire(self.now, 4);
        self.expire_outcomes(self.now, 4);
        self.expire_gathers(self.now, 4);
        self.expire_sagas(self.now, 4);
        Ok(())
    }

    /// One command. Everything that follows from it at once is in `output` when this returns.
    pub fn handle(&mut self, now: Millis, command: Command, output: &mut Output) {
        assert!(self.live, "commands come after `resume`");
        let now = self.tick(now);
        match command {
            Command::Publish(publish) => self.publish(now, publish, output),
            Command::Transaction(transaction) => self.transact(now, transaction, output),
            Command::Attach(attach) => self.attach(attach, output),
            Command::SetCredit { consumer, credit } => self.set_credit(consumer, credit),
            Command::Sent { consumer, count } => self.sent(now, consumer, count),
            Command::Detach { consumer, release } => {
                if let Some(slot) = self.consumers.slot(consumer) {
                    self.detach(now, slot, release, output);
                }
            }
            Command::Settle(settle) => self.settle(now, settle, output),
            Command::Extend { consumer, leases } => self.extend(now, consumer, leases, output),
            Command::Subscribe { subscription, connection, pattern } => {
                self.subscriptions.add(subscription, connection, &pattern);
            }
            Command::Taken { subscription, count } => self.subscriptions.taken(subscription, count),
            Command::Unsubscribe { subscription } => {
                self.subscriptions.remove(subscription);
                self.listener_lost(now, subscription, output);
            }
            Command::Disconnect { connection } => {
                for slot in self.consumers.slots(|consumer| consumer.connection == connection) {
                    self.detach(now, slot, false, output);
                }
                for subscription in self.subscriptions.disconnect(connection) {
                    self.listener_lost(now, subscription, output);
                }
            }
            Command::Shutdown => {
                for slot in self.consumers.slots(|_| true) {
                    self.detach(now, slot, true, output);
                }
            }
            Command::ApplyRules { ticket, rules, drop_queues, drop_states } => {
                let drops = Drops { queues: &drop_queues, states: &drop_states };
                self.change_rules(now, ticket, rules, drops, output);
            }
            Command::Judged { ticket, writes, jobs } => self.judged(now, ticket, writes, jobs, output),
            Command::Operate { ticket, queue, operation } => {
                // A pause is journaled whatever the queue is, and what filters made of a letter may go anywhere.
                let elsewhere =
                    matches!(operation, Operation::Pause | Operation::Resume | Operation::RedriveAs { .. });
                let durability = self.queues.get(queue).map_or(Durability::Memory, |queue| {
                    if elsewhere { Durability::Fsync } else { queue.settings.durability }
                });
                let outcome = self.operate(now, queue, operation, output);
                let position = if outcome.is_ok() { self.position } else { Position(0) };
                let wait = Wait { position, durability };
                output.effects.push(Held { wait, effect: Effect::Done { ticket, outcome } });
            }
            Command::Relocate { bodies } => self.relocate(bodies, output),
            Command::BodyLost { position } => self.body_lost(now, position, output),
            Command::Disk(disk) => self.disk(now, disk, output),
            Command::Aggregated { .. } | Command::Advised { .. } if self.disk == DiskState::Full => {
                self.postponed.push(command);
            }
            Command::Aggregated { gather, outcome, .. } => self.aggregated(now, gather, outcome, output),
            Command::Advised { saga, call, outcome } => self.advised(now, saga, call, outcome, output),
            Command::Steer { ticket, name, id, verb } => self.steer(now, ticket, (&name, &id), verb, output),
            Command::Announce { message } => self.announce(now, message, output),
            Command::Reserved { through } => self.surely_reserved = self.surely_reserved.max(through),
        }
        self.flush(now, output);
    }

    /// Looks where the dedup checks of these commands will look, at all places at once: each check alone would wait for memory.
    /// Changes nothing.
    pub fn look_ahead(&self, commands: &[Command]) {
        let seen = commands.iter().fold(0, |seen, command| match command {
            Command::Publish(Publish { hash: Some(MessageHash(hash)), .. }) => {
                seen ^ self.dedup.glance(*hash)
            }
            _ => seen,
        });
        std::hint::black_box(seen);
    }

    /// The position of the last record handed out.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The rules in force.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The versions that are kept, oldest first; at most 100.
    pub fn rules_history(&self) -> impl Iterator<Item = &RulesEntry> {
        self.history.iter().map(Arc::as_ref)
    }

    /// The current patterns and the queues behind them, to be shared with the sessions.
    pub fn bindings(&self) -> Arc<Bindings> {
        self.bindings.clone()
    }

    /// The queue of this name; `chaski` is the built-in dead-letter queue.
    pub fn queue_id(&self, name: &str) -> Option<QueueId> {
        if name == "chaski" { Some(CHASKI) } else { self.queues.id(name) }
    }

    /// The name of this queue.
    pub fn queue_name(&self, queue: QueueId) -> Option<&str> {
        self.queues.get(queue).map(|queue| &*queue.name)
    }

    /// Bytes of bodies in this range that somebody still needs.
    pub fn live_bytes(&self, positions: RangeInclusive<Position>) -> u64 {
        self.messages.live_bytes(positions)
    }

    /// Where in this range bodies lie that somebody still needs, lowest first: for [`Command::Relocate`].
    pub fn live_positions(&self, positions: RangeInclusive<Position>, limit: usize) -> Vec<Position> {
        self.messages.live_positions(positions, limit)
    }

    /// `now`, which never goes back.
    pub(crate) fn tick(&mut self, now: Millis) -> Millis {
        self.now = self.now.max(now);
        self.now
    }

    /// What follows from a command: deliveries from every queue that has something new, and answers that are owed.
    pub(crate) fn flush(&mut self, now: Millis, output: &mut Output) {
        // Dispatching may bury a message, which touches the dead-letter queue and may owe an answer; an answer touches queues.
        let (mut answers, mut next) = (ANSWER_BUDGET, 0);
        loop {
            self.tell_owners(now, output);
            while answers > 0
                && let Some(owed) = self.owed.pop_front()
            {
                self.answer(now, owed, output);
                answers -= 1;
            }
            let Some(queue) = self.touched.get(next).copied() else { break };
            self.dispatch(now, queue, output);
            next += 1;
        }
        for name in std::mem::take(&mut self.unparked_sagas) {
            self.calm_sagas(&name, output);
        }
        // Only now, when nobody looks at what just ended any more.
        self.expire_gathers(now, FORGOTTEN);
        self.expire_sagas(now, FORGOTTEN);
        self.touched.clear();
        self.touched.append(&mut self.unfinished);
    }

    /// This queue may have something for somebody.
    pub(crate) fn touch(&mut self, queue: QueueId) {
        if self.touched.last() != Some(&queue) {
            self.touched.push(queue);
        }
    }

    /// Applies a record, and hands it out when it is journaled. Its position, or 0.
    pub(crate) fn commit(&mut self, record: Record, journaled: bool, output: &mut Output) -> Position {
        let position = if journaled { Position(self.position.0 + 1) } else { Position(0) };
        self.apply(position, &record).expect("a record made from the state fits the state");
        if journaled {
            self.position = position;
            output.records.push(record);
        }
        position
    }

    /// Applies one move, and hands it out within the output's last record if that is of the same queue and time.
    pub(crate) fn commit_move(
        &mut self,
        now: Millis,
        queue: QueueId,
        step: Move,
        output: &mut Output,
    ) -> Position {
        let journaled = self.queues.queue(queue).journaled();
        let mut position = Position(0);
        if journaled {
            match output.records.last_mut() {
                Some(Record::Flow { queue: last, at, moves })
                    if *last == queue && *at == now && moves.0.len() < TIMEOUT_BUDGET =>
                {
                    moves.0.push(step);
                }
                _ => {
                    self.position.0 += 1;
                    let moves = Moves(smallvec::smallvec![step]);
                    output.records.push(Record::Flow { queue, at: now, moves });
                }
            }
            position = self.position;
        }
        self.apply_move(position, queue, now, step).expect("a move made from the state fits the state");
        position
    }

    /// The next number, from a block that is reserved well ahead.
    pub(crate) fn draw(&mut self, output: &mut Output) -> u64 {
        assert!(self.counter < self.reserved, "numbers are reserved before they are drawn");
        self.counter += 1;
        let number = self.counter;
        if self.counter + NUMBER_BLOCK / 2 > self.reserved && self.disk != DiskState::Full {
            self.reserve(output);
        }
        number
    }

    /// Reserves the next block, and asks to be told when that is durable.
    pub(crate) fn reserve(&mut self, output: &mut Output) {
        let through = self.reserved + NUMBER_BLOCK;
        let position = self.commit(Record::Reserved { through }, true, output);
        self.await_reservation(position, output);
    }

    pub(crate) fn await_reservation(&mut self, position: Position, output: &mut Output) {
        self.reserved_at = position;
        let wait = Wait { position, durability: Durability::Fsync };
        output.effects.push(Held { wait, effect: Effect::Reserved { through: self.reserved } });
    }

    /// Nearly no numbers are left, and the full disk takes no new block.
    pub(crate) fn out_of_numbers(&self) -> bool {
        self.disk == DiskState::Full && self.counter + TIMEOUT_BUDGET as u64 >= self.reserved
    }

    /// The wait of an effect that shows a number drawn by now. A number from a block whose reservation may still be lost waits
    /// for that too, at the price of fdatasync: it happens only when half a block was used up before one fdatasync returned.
    pub(crate) fn numbered(&self, position: Position, durability: Durability) -> Wait {
        if self.counter <= self.surely_reserved {
            return Wait { position, durability };
        }
        Wait { position: position.max(self.reserved_at), durability: Durability::Fsync }
    }

    /// Whether this queue's records can't be taken now.
    pub(crate) fn disk_full_for(&self, queue: QueueId) -> bool {
        self.disk == DiskState::Full && self.queues.get(queue).is_some_and(Queue::journaled)
    }

    /// The lease under which a consumer of this queue holds a message.
    pub(crate) fn lease_of(&self, queue: QueueId, sequence: Sequence) -> Option<Lease> {
        self.queues.get(queue)?.entries.get(sequence.0)?.lease()
    }
}
