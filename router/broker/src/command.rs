//! Everything that can be asked of the broker: one enum, handled in order, each command whole.

use bytes::Bytes;

use crate::config::Rules;
use crate::filtered::{Filtered, Way};
use crate::hash::MessageHash;
use crate::ids::{
    ConnectionId, ConsumerId, JobId, Lease, Position, PublisherId, QueueId, RulesVersion, Sequence,
    SubscriptionId, Ticket,
};
use crate::judging::JudgeError;
use crate::message::{DeadReason, Message};
use crate::states::StateWrite;

/// Outside input. Names (`QueueId`, `ConsumerId` …) that are gone are answered, never a panic.
#[derive(Clone, Debug)]
pub enum Command {
    /// Store a message in its targets and hand it to subscriptions.
    Publish(Publish),
    /// Settle and publish, all or nothing.
    Transaction(Transaction),
    /// A consumer begins; answered by `Effect::Attached`.
    Attach(Attach),
    /// A consumer's credit (deliveries in flight at most) changes.
    SetCredit {
        /// Which.
        consumer: ConsumerId,
        /// The new bound.
        credit: u32,
    },
    /// The oldest `count` unsent deliveries of this consumer were handed to its stream: their leases start now.
    Sent {
        /// Which.
        consumer: ConsumerId,
        /// How many.
        count: u32,
    },
    /// A consumer ends. Its leases are released (no attempt counted) or lost (an attempt, returned at once).
    Detach {
        /// Which.
        consumer: ConsumerId,
        /// True for an orderly close.
        release: bool,
    },
    /// Ends one lease; answered by `Effect::Settled`.
    Settle(Settle),
    /// Renews leases; those that are gone are named in `Effect::Extended`.
    Extend {
        /// The consumer that holds them.
        consumer: ConsumerId,
        /// The tokens.
        leases: Vec<(Sequence, Lease)>,
    },
    /// A subscription begins. Patterns are checked by the session.
    Subscribe {
        /// Its name.
        subscription: SubscriptionId,
        /// Whose it is.
        connection: ConnectionId,
        /// Its pattern.
        pattern: String,
    },
    /// The oldest `count` messages of this subscription's buffer were handed to its stream.
    Taken {
        /// Which.
        subscription: SubscriptionId,
        /// How many messages.
        count: u32,
    },
    /// A subscription ends.
    Unsubscribe {
        /// Which.
        subscription: SubscriptionId,
    },
    /// A connection is gone: its consumers are lost, its subscriptions end.
    Disconnect {
        /// Which.
        connection: ConnectionId,
    },
    /// An orderly stop of the router: every lease is released.
    Shutdown,
    /// A new rules document; answered by `Effect::RulesApplied`.
    ApplyRules {
        /// Names the answer.
        ticket: Ticket,
        /// The whole document, checked.
        rules: Rules,
        /// Queues that may vanish with messages in them.
        drop_queues: Vec<String>,
        /// Modules whose state may vanish with their name, or is emptied where the name stays.
        drop_states: Vec<String>,
    },
    /// What the filters that keep state made of publishes that waited for them (`Effect::Invoke`), applied whole; answered by
    /// `Effect::Judged`. With writes it is done only if none of its publishes is refused. Jobs that the broker doesn't know are
    /// passed over.
    Judged {
        /// Names the answer.
        ticket: Ticket,
        /// By module, what the batch wrote. A name that is gone from the rules keeps no state: its writes are left out.
        writes: Vec<(String, Vec<StateWrite>)>,
        /// By job, in order: for a publish one judgement; for a transaction one for each pending part, in order.
        jobs: Vec<(JobId, Result<Vec<Filtered>, JudgeError>)>,
    },
    /// An operator's command on one queue; answered by `Effect::Done`.
    Operate {
        /// Names the answer.
        ticket: Ticket,
        /// The queue that it is about (for dead letters: the source queue, or `chaski`'s own).
        queue: QueueId,
        /// What to do.
        operation: Operation,
    },
    /// Write these bodies again, so that an old segment can go. At most 256 a command.
    Relocate {
        /// Old position and the body that was read there.
        bodies: Vec<(Position, Bytes)>,
    },
    /// The body at this position can no longer be read (an accepted loss): its messages are removed, counted.
    BodyLost {
        /// Where it was.
        position: Position,
    },
    /// How full the disk is, until said otherwise: commands are refused accordingly.
    Disk(DiskState),
    /// Gives back [`Effect::Reserved`](crate::Effect::Reserved) once its wait was over.
    Reserved {
        /// Its number.
        through: u64,
    },
    /// What an aggregator made of a gather's event (`Effect::Aggregate`). Answers to calls that are over are passed over.
    Aggregated {
        /// The gather.
        gather: Sequence,
        /// The call's number.
        call: u32,
        /// What it said.
        outcome: Result<Aggregated, ModuleFailure>,
    },
    /// What a compensator said (`Effect::Advise`). Answers to calls that are over are passed over.
    Advised {
        /// The saga.
        saga: Sequence,
        /// The call's number.
        call: u32,
        /// What it said.
        outcome: Result<Advice, ModuleFailure>,
    },
    /// An operator's command on one saga; answered by `Effect::Steered`.
    Steer {
        /// Names the answer.
        ticket: Ticket,
        /// Its definition's name.
        name: String,
        /// The id of the message that began it.
        id: String,
        /// What to do.
        verb: SagaVerb,
    },
    /// The server's own message (an event): like a publish that nobody waits for, without dedup.
    Announce {
        /// The message.
        message: Message,
    },
}

/// What an aggregator says.
#[derive(Clone, Debug)]
pub enum Aggregated {
    /// Of the beginning or an event: whether it has seen enough.
    Folded {
        /// Then the gather ends.
        done: bool,
    },
    /// Of the end: what the requester gets.
    Answer {
        /// Headers, none of which begins with `chaski-`.
        headers: Vec<(String, String)>,
        /// The body.
        payload: Bytes,
    },
}

/// Why a module came to no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFailure {
    /// A sentence: the trap, the limit, or the module's own reason.
    pub detail: String,
}

/// What a compensator says.
#[derive(Clone, Debug)]
pub enum Advice {
    /// The next step, as defined.
    Next,
    /// This step, which is not complete yet; those between are left out.
    Step {
        /// Its name.
        step: String,
        /// Its payload, in place of what the definition says.
        payload: Option<Bytes>,
    },
    /// The saga is complete.
    Complete,
    /// It is to be compensated, with this reason.
    Fail {
        /// Why.
        reason: String,
    },
    /// These steps are undone, one after another.
    Undo {
        /// Names, and payloads in place of what the router makes.
        steps: Vec<(String, Option<Bytes>)>,
    },
    /// The step that failed is tried once more.
    Retry,
    /// An operator is to decide.
    Park {
        /// Why.
        reason: String,
    },
}

/// What an operator does to a saga.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SagaVerb {
    /// A parked one goes on: what failed is tried once more.
    Retry,
    /// A step of a parked one counts as completed; while it compensates, as undone.
    Skip {
        /// Which.
        step: String,
        /// Its result.
        payload: Bytes,
    },
    /// It is compensated now.
    Abort {
        /// False: it ends as it stands.
        compensate: bool,
    },
}

/// What the journal has room for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum DiskState {
    /// Everything.
    #[default]
    Plenty,
    /// Publishes, transactions with publishes and redrives get `disk_low`; settlements go on.
    Low,
    /// Whatever needs a record gets `disk_full`; timers pause.
    Full,
}

/// One publish.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The stream that waits for the confirm; `None` for a datagram.
    pub publisher: Option<PublisherId>,
    /// The connection that it came on: a reply to a gather is known by the lease that is held there.
    pub connection: Option<ConnectionId>,
    /// The frame's number on that stream.
    pub number: u64,
    /// The rules under which `way` was found.
    pub rules: RulesVersion,
    /// Fail with `unroutable` when it reaches nobody.
    pub mandatory: bool,
    /// The message, as the client named it.
    pub message: Message,
    /// Its name's hash, where the session has it already.
    pub hash: Option<MessageHash>,
    /// Where it goes.
    pub way: Way,
    /// With [`Way::Pending`], and only then: the work that is under way for it.
    pub job: Option<JobId>,
}

/// One transaction: at most 1,024 parts, checked by the session.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The stream that waits for the answer.
    pub publisher: PublisherId,
    /// The frame's number on that stream.
    pub number: u64,
    /// The connection, on which the leases must be held.
    pub connection: ConnectionId,
    /// Its own id, kept in the dedup window.
    pub id: Bytes,
    /// The rules under which the ways were found.
    pub rules: RulesVersion,
    /// Leases to ack: queue (`None`: no such queue, so lost), sequence, lease.
    pub acks: Vec<(Option<QueueId>, Sequence, Lease)>,
    /// Messages to publish, where they go, and whether they are mandatory.
    pub publishes: Vec<(Message, Way, bool)>,
    /// If a part is [`Way::Pending`], and only then: the work that is under way for all such parts.
    pub job: Option<JobId>,
}

/// A consumer's beginning.
#[derive(Clone, Debug)]
pub struct Attach {
    /// Its name.
    pub consumer: ConsumerId,
    /// Whose it is.
    pub connection: ConnectionId,
    /// The queue, a dead-letter queue included.
    pub queue: String,
    /// Deliveries in flight at most; 0 pauses.
    pub credit: u32,
}

/// The end of one lease.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The consumer that holds it.
    pub consumer: ConsumerId,
    /// The frame's number on that stream; `Effect::Settled` repeats it.
    pub number: u64,
    /// The message.
    pub sequence: Sequence,
    /// The lease.
    pub lease: Lease,
    /// How it ends.
    pub verdict: Verdict,
}

/// How a consumer ends a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Processed.
    Ack,
    /// Not processed: again after the delay, or after the queue's backoff.
    Nack {
        /// The consumer's own delay.
        delay_ms: Option<u64>,
    },
    /// Processed, with a result: what a saga's step answers. Of any other message an ack.
    Complete {
        /// The result.
        payload: Bytes,
    },
    /// Never processable: to the dead-letter queue.
    Reject {
        /// Why, for people.
        reason: String,
    },
    /// A responder's failure: on a request ack and answer `failed`; else nack (retryable) or reject.
    Fail {
        /// Why, for people.
        reason: String,
        /// Without reply_to: whether to try again.
        retryable: bool,
    },
    /// Never seen by the application: returned, no attempt counted.
    Release,
    /// A filter of the consumer's rejected it or failed on it: to the dead-letter queue.
    Failed {
        /// Which of the two.
        reason: DeadReason,
        /// Why, for people.
        detail: String,
        /// The filter's module.
        module: String,
        /// Its binary, as `sha256:HEX`.
        digest: String,
    },
}

/// What an operator does to a queue. Those with a `limit` do so much and answer whether there is more.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Remove ready, delayed and parked messages.
    Purge {
        /// Messages at most in this command.
        limit: u64,
    },
    /// Stop delivering.
    Pause,
    /// Deliver again.
    Resume,
    /// Remove a message that is not leased, by id.
    Cancel {
        /// The message id.
        id: Bytes,
    },
    /// Let a key that a dead letter parked go on.
    Unpark {
        /// The key.
        key: Bytes,
    },
    /// Move dead letters back: not those that a module failed on, which are to be judged again ([`Operation::RedriveAs`]).
    Redrive {
        /// Only those.
        select: Select,
        /// Messages at most in this command.
        limit: u64,
    },
    /// Move one dead letter back with other bytes (same topic and id).
    RedriveEdited {
        /// Which dead letter.
        sequence: Sequence,
        /// Its new form.
        message: Message,
    },
    /// Take one dead letter away, and store what filters made of it in its stead: past dedup, all or nothing. A full queue
    /// that refuses stops it (`Progress::full`), and one that would reach nobody stays where it is (`Progress::count` 0).
    RedriveAs {
        /// Which dead letter.
        sequence: Sequence,
        /// What is stored.
        filtered: Box<Filtered>,
    },
    /// Remove dead letters.
    PurgeDead {
        /// Messages at most in this command.
        limit: u64,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Those with this reason.
    pub reason: Option<DeadReason>,
    /// Those with this message id.
    pub id: Option<Bytes>,
    /// Those up to this sequence, so that a loop ends.
    pub through: Option<Sequence>,
}
