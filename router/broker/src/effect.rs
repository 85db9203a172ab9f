//! Everything that the broker wants done outside: one enum, each effect with the record that it waits for.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Durability;
use crate::ids::{
    ConsumerId, JobId, Lease, Millis, Position, PublisherId, QueueId, RulesVersion, Sequence, SubscriptionId,
    Ticket,
};
use crate::judging::JudgeError;
use crate::message::{DeadInfo, DeadReason};
use crate::record::Record;
use crate::saga_settings::SagaSettings;
use crate::scatter_settings::ScatterSettings;
use crate::views::{SagaState, StepView};

/// What one or several calls of the broker yielded; reused by the caller.
#[derive(Debug, Default)]
pub struct Output {
    /// Facts to journal, in order; the first has the position after the last one handed out. Already applied.
    pub records: Vec<Record>,
    /// What to do once each one's wait is over. Effects with the same recipient keep their order.
    pub effects: Vec<Held>,
}

/// An effect and what it waits for.
#[derive(Debug)]
pub struct Held {
    /// Until when it must be held back.
    pub wait: Wait,
    /// What to do then.
    pub effect: Effect,
}

/// "Everything up to `position` is durable at `durability`." `Wait::NOTHING` holds at once.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The last record that must be durable.
    pub position: Position,
    /// How durable; `Memory` means not at all.
    pub durability: Durability,
}

impl Wait {
    /// No wait.
    pub const NOTHING: Wait = Wait { position: Position(0), durability: Durability::Memory };

    /// Both.
    pub(crate) fn and(self, other: Wait) -> Wait {
        Wait {
            position: self.position.max(other.position),
            durability: self.durability.max(other.durability),
        }
    }
}

/// What to do outside.
#[derive(Debug)]
pub enum Effect {
    /// Answer a publish.
    Confirm {
        /// The stream.
        publisher: PublisherId,
        /// The frame.
        number: u64,
        /// What became of it.
        outcome: Result<Confirmation, PublishError>,
    },
    /// Answer a transaction.
    Transacted {
        /// The stream.
        publisher: PublisherId,
        /// The frame.
        number: u64,
        /// One confirmation for each publish, in order; or why nothing was done.
        outcome: Result<Arc<[Confirmation]>, TransactionError>,
    },
    /// Answer an attach. On error the consumer does not exist.
    Attached {
        /// Which.
        consumer: ConsumerId,
        /// The queue's id and its ack_wait, or that there is no such queue.
        outcome: Result<Attached, UnknownQueue>,
    },
    /// The queue of this consumer is gone; the consumer does not exist any more.
    Detached {
        /// Which.
        consumer: ConsumerId,
    },
    /// Deliver a message.
    Deliver {
        /// To whom.
        consumer: ConsumerId,
        /// What.
        delivery: Delivery,
    },
    /// Answer a settlement.
    Settled {
        /// The consumer.
        consumer: ConsumerId,
        /// The frame.
        number: u64,
        /// Done, or why not.
        outcome: Result<(), SettleError>,
    },
    /// Leases that could not be renewed, since they are gone. Sent only when there are some.
    Extended {
        /// The consumer.
        consumer: ConsumerId,
        /// The tokens that are lost.
        lost: Vec<(Sequence, Lease)>,
    },
    /// A message for a subscription.
    Pass {
        /// To whom.
        subscription: SubscriptionId,
        /// When it was taken.
        published_at: Millis,
        /// The message's block.
        body: Bytes,
        /// Messages dropped since the last one that was passed.
        dropped: u64,
    },
    /// This publish or transaction is neither known nor refused: its filters that keep state are to judge it now. What they
    /// find comes back as `Command::Judged`.
    Invoke {
        /// The work.
        job: JobId,
    },
    /// This work is not needed: its publish was a duplicate, or was refused.
    Spare {
        /// The work.
        job: JobId,
    },
    /// Answer a `Command::Judged`, at once.
    Judged {
        /// The command.
        ticket: Ticket,
        /// What became of it.
        outcome: JudgedOutcome,
    },
    /// An aggregator is to be called; what it says comes back as `Command::Aggregated`. The calls of one gather are made one
    /// after another, in the order in which they come; the state between them is the server's.
    Aggregate(Box<Aggregate>),
    /// This gather is over: its state may be forgotten, and calls that are not made yet.
    Gathered {
        /// Which.
        gather: Sequence,
    },
    /// A compensator is to be called; what it says comes back as `Command::Advised`.
    Advise(Box<Advise>),
    /// Answer an operator's command on a saga.
    Steered {
        /// The command.
        ticket: Ticket,
        /// Where the saga stands now; or why nothing was done.
        outcome: Result<SagaState, SteerError>,
    },
    /// Answer a rules change.
    RulesApplied {
        /// The command.
        ticket: Ticket,
        /// The new version, or why nothing changed.
        outcome: Result<RulesVersion, RulesRefused>,
    },
    /// Answer an operation.
    Done {
        /// The command.
        ticket: Ticket,
        /// How many messages (or 1), and whether there is more to do; or why not.
        outcome: Result<Progress, OperateError>,
    },
    /// The real dedup window changed: tell every client.
    DedupWindow {
        /// How long an id is surely remembered.
        window_ms: u64,
    },
    /// Numbers up to here are durably reserved: give it back as `Command::Reserved`. Without that, effects that show later
    /// numbers all wait for fdatasync.
    Reserved {
        /// The last number of the block.
        through: u64,
    },
    /// Something that an operator must know.
    Event(Event),
}

/// What became of a `Command::Judged`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JudgedOutcome {
    /// It was done.
    Taken,
    /// The disk is full: nothing of it was done, and every publish in it was refused.
    DiskFull,
    /// These jobs were refused, by a full queue for example, and their publishers told so. Nothing else was done: the others, whose
    /// verdicts may rest on what was written for the refused, are to be judged again without them.
    Refused(Vec<JobId>),
}

/// One call of an aggregator.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The gather.
    pub gather: Sequence,
    /// Numbers the gather's calls, from 0.
    pub call: u32,
    /// The module.
    pub module: Arc<ScatterSettings>,
    /// What it is called with.
    pub what: AggregateCall,
}

/// What an aggregator is called with.
#[derive(Clone, Debug)]
pub enum AggregateCall {
    /// The gather begins.
    Begin {
        /// The request's block.
        request: Bytes,
        /// When the router took it.
        at: Millis,
        /// Whom it asked.
        recipients: Vec<Arc<str>>,
    },
    /// A recipient answered.
    Reply {
        /// Who.
        recipient: Arc<str>,
        /// When.
        at: Millis,
        /// The reply's block.
        reply: Bytes,
    },
    /// A recipient failed.
    Failed {
        /// Who.
        recipient: Arc<str>,
        /// When.
        at: Millis,
        /// Why.
        reason: String,
    },
    /// A recipient had said nothing when the time was over.
    Silent {
        /// Who.
        recipient: Arc<str>,
    },
    /// The answer is wanted.
    Finish {
        /// Why the gather ends.
        why: GatherEnd,
    },
}

/// Why a gather ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum GatherEnd {
    /// As many replies as its quorum are in.
    Quorum,
    /// The aggregator has seen enough.
    Done,
    /// Every recipient has answered or failed.
    Settled,
    /// Its time is over.
    Timeout,
}

/// One call of a compensator.
#[derive(Clone, Debug)]
pub struct Advise {
    /// The saga.
    pub saga: Sequence,
    /// Numbers the saga's calls.
    pub call: u32,
    /// The module, and what the steps are.
    pub definition: Arc<SagaSettings>,
    /// `None`: what comes next? Else: how is it compensated, that failed of this?
    pub cause: Option<SagaCause>,
    /// Its definition's name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The block of the message that began it.
    pub input: Bytes,
    /// When the router took that.
    pub began_at: Millis,
    /// Its steps, as in the definition.
    pub steps: Vec<StepView>,
    /// How often its compensator has answered `retry`.
    pub retries: u32,
    /// The time of this call.
    pub now: Millis,
}

/// Why a saga is compensated.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum SagaCause {
    /// This step (its index) failed, or nobody knows what became of it.
    Step {
        /// Which.
        step: u16,
        /// Why.
        reason: String,
    },
    /// The saga's time is over.
    Timeout,
    /// An operator or the coordinator ended it.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// Why an operator's command on a saga was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SteerError {
    /// No such saga runs or is remembered.
    UnknownSaga,
    /// It has no such step.
    UnknownStep,
    /// Not in the state that it is in.
    NotAllowed {
        /// A sentence.
        detail: String,
    },
    /// Full disk.
    DiskFull,
}

/// What became of a publish.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default, bincode::Encode, bincode::Decode)]
pub struct Confirmation {
    /// The first stored copy's sequence.
    pub sequence: Option<Sequence>,
    /// Whether the id was known; then the counts are zero.
    pub duplicate: bool,
    /// Copies taken by queues and subscriptions.
    pub routed: u32,
    /// Results that filters dropped.
    pub dropped: u32,
    /// Results that filters rejected.
    pub rejected: u32,
}

/// Why a publish was refused; nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// This queue is full and refuses.
    QueueFull {
        /// Its name.
        queue: String,
    },
    /// Mandatory, and nobody there.
    Unroutable {
        /// Its topic.
        topic: String,
    },
    /// A request, and nobody there.
    NoResponders,
    /// Low disk; retry later.
    DiskLow,
    /// Full disk; retry later.
    DiskFull,
    /// It would begin a saga, which keeps no more than so many bytes.
    SagaTooLarge {
        /// The message's.
        bytes: u64,
        /// `saga_max_payload`.
        limit: u64,
    },
    /// Its filters came to no result, or a gather or saga can't begin now.
    Judge(JudgeError),
}

/// Why a transaction was refused; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionError {
    /// These acks (by index) name leases that are no longer current.
    LeaseLost(Vec<u32>),
    /// The publish with this index was refused.
    Publish {
        /// Which.
        index: u32,
        /// Why.
        error: PublishError,
    },
    /// Full or low disk; retry later.
    Disk(PublishError),
}

/// A consumer that exists.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its queue.
    pub queue: QueueId,
    /// The length of a lease.
    pub ack_wait_ms: u64,
}

/// There is no queue of that name.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct UnknownQueue;

/// Where a message's block is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the journal (or the driver's cache of recent bodies).
    At(Position),
    /// Here: a message of a `memory` queue.
    Here(Bytes),
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub sequence: Sequence,
    /// The lease: with the sequence, the token.
    pub lease: Lease,
    /// 1 at the first delivery.
    pub attempt: u32,
    /// Delivered before, or older than this start of the router.
    pub redelivered: bool,
    /// When it was stored.
    pub published_at: Millis,
    /// Its bytes.
    pub body: Body,
    /// Its length in bytes.
    pub len: u32,
    /// For a dead letter: its `chaski-dead-*` headers.
    pub dead: Option<Box<DeadInfo>>,
}

/// Why a settlement was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SettleError {
    /// The token is no longer current; nothing changed.
    LeaseLost,
    /// Rejecting a dead letter.
    NotAllowed,
    /// The saga that it answers keeps no more than so many bytes; the lease stands.
    TooLarge,
    /// Full disk; the lease stands.
    DiskFull,
}

/// Why a rules change was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RulesRefused {
    /// Another change came first; the current version is here.
    Version(RulesVersion),
    /// The queue would vanish with so many messages (dead letters counted) in it.
    NotEmpty {
        /// The queue.
        queue: String,
        /// What it holds.
        messages: u64,
    },
    /// `durability` or `ordering` would change on a queue that is not empty.
    InUse {
        /// The queue.
        queue: String,
        /// The setting.
        setting: &'static str,
    },
    /// The queue would vanish while gathers or sagas in progress send to it.
    Needed {
        /// The queue.
        queue: String,
        /// One scatter or saga that does.
        by: String,
    },
    /// The module would vanish with its state.
    StateNotEmpty {
        /// The module.
        module: String,
        /// Bytes of keys and values.
        bytes: u64,
    },
    /// Full disk.
    DiskFull,
}

/// How far an operation came.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages concerned.
    pub count: u64,
    /// Whether a repeat would do more.
    pub more: bool,
    /// Why it stopped early: the source queue is full.
    pub full: bool,
}

/// Why an operation was refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OperateError {
    /// No such queue.
    UnknownQueue,
    /// No message with that id (or it is leased), or no such parked key.
    UnknownId,
    /// Not on this queue.
    NotAllowed,
    /// Low disk.
    DiskLow,
    /// Full disk.
    DiskFull,
}

/// What an operator must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Dead letters reached the queue's `dead_alarm`, or a tenfold of it.
    DeadLetter {
        /// The source queue.
        queue: String,
        /// How many there are.
        count: u64,
        /// Why the last one died.
        reason: DeadReason,
    },
    /// A queue dropped messages that nobody processed (overflow, lost bodies), told at most once a second a queue.
    QueueDropped {
        /// The queue.
        queue: String,
        /// How many since the last time.
        count: u64,
    },
    /// The real dedup window is shorter than the rules ask for, or whole again.
    DedupWindow {
        /// The real window.
        window_ms: u64,
        /// The one of the rules.
        wanted_ms: u64,
    },
    /// A saga waits for an operator.
    SagaParked {
        /// Its definition.
        saga: String,
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
    /// An alarm stands until it is cleared.
    AlarmRaised {
        /// `dead_letters`, or `saga_parked`.
        alarm: &'static str,
        /// The queue, or the saga's definition.
        queue: String,
    },
    /// It is cleared.
    AlarmCleared {
        /// `dead_letters`, or `saga_parked`.
        alarm: &'static str,
        /// The queue, or the saga's definition.
        queue: String,
    },
}
