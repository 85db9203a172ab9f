//! Every frame header, by stream. PROTOCOL.md says which may follow which, and gives test vectors.
//!
//! A stream begins with the client's [`Open`] and the router's [`Opening`]. Frames of a kind are numbered from 1 in the order of
//! their stream, without the number being sent.

use bincode::{BorrowDecode, Decode, Encode};

use crate::codes::{Code, Refusal};
pub use crate::confirms::{Counts, Outcome, PublishAnswer, Run};

/// The client's first frame on each bidirectional stream: what the stream is for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Open<'a> {
    /// The control stream, exactly one a connection, before anything else is answered.
    Hello {
        /// The protocol's version that the client speaks.
        version: u32,
        /// The client instance: random, kept across reconnects. Its inboxes are `$inbox.<32 hex digits>.>`.
        client: u128,
        /// The SDK's name and version, for the router's log.
        sdk: &'a str,
        /// The bearer token by which the router knows this client ([`check_token`](crate::check_token)); never logged.
        token: Option<&'a str>,
    },
    /// A publish stream: [`PublishFrame`]s one way, [`PublishAnswer`]s the other.
    Publish,
    /// A consumer: [`Delivery`]s one way, [`ConsumeCommand`]s the other.
    Consume {
        /// The queue; `NAME.dlq` for a dead-letter queue.
        queue: &'a str,
        /// Deliveries in flight at most.
        credit: u32,
        /// Filters of the rules that judge before delivery, in this order, at most `MAX_FILTERS`.
        filters: Vec<&'a str>,
    },
    /// A subscription: [`Passed`] frames until the client finishes its side.
    Subscribe {
        /// The pattern; below `$` only `$chaski.>` and the client's own `$inbox.<id>.>`.
        pattern: &'a str,
        /// Filters of the rules that judge before anything is passed, in this order, at most `MAX_FILTERS`.
        filters: Vec<&'a str>,
    },
    /// One administrative call: the rest of the frame is the JSON of an [`AdminRequest`](crate::admin::AdminRequest).
    Admin,
    /// A module's binary: its bytes follow raw, without frames, until the client finishes its side.
    Upload {
        /// How many bytes follow, at most `MAX_MODULE`.
        bytes: u64,
    },
}

/// The router's first frame on each stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Opening<'a> {
    /// To `Hello`.
    Welcome {
        /// The router's name and version.
        server: &'a str,
        /// The real dedup window: how long an id is surely remembered.
        dedup_window_ms: u64,
        /// The limit of a payload in bytes.
        max_payload: u32,
        /// The limit of headers in bytes.
        max_headers: u32,
    },
    /// To `Publish` and `Subscribe`.
    Opened,
    /// To `Consume`.
    Consuming {
        /// The length of a lease; extend within a third of it.
        ack_wait_ms: u64,
    },
    /// To `Admin`, and to `Upload` once all is there: the rest of the frame is the JSON answer.
    Answer,
    /// To anything: the stream ends.
    Refused(Refused<'a>),
}

/// A refusal on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Refused<'a> {
    /// The code's number.
    pub code: u32,
    /// The sentence.
    pub detail: &'a str,
}

impl Refused<'_> {
    /// The refusal; a number that this version doesn't know becomes `internal` with the number in its sentence.
    pub fn to_refusal(&self) -> Refusal {
        match Code::from_number(self.code) {
            Some(code) => Refusal::new(code, self.detail),
            None => Refusal::new(Code::Internal, format!("unknown code {}: {}", self.code, self.detail)),
        }
    }
}

/// What the router says on the control stream after `Welcome`, when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Notice {
    /// The real dedup window.
    DedupWindow {
        /// Milliseconds.
        window_ms: u64,
    },
    /// The limits of a message.
    Limits {
        /// Bytes.
        max_payload: u32,
        /// Bytes.
        max_headers: u32,
    },
    /// The router stops; the client reconnects with backoff.
    ShuttingDown,
}

/// What a client sends on a publish stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum PublishFrame<'a> {
    /// One message; its block follows.
    Publish {
        /// Fail with `unroutable` when it reaches nobody.
        mandatory: bool,
    },
    /// Settle and publish, all or nothing; the blocks follow, end to end.
    Transaction {
        /// Its id: like a message id, kept in the dedup window.
        id: &'a str,
        /// Leases to ack, held on this connection.
        acks: Vec<Token<'a>>,
        /// For each message, in order: mandatory, and its block's length in bytes.
        publishes: Vec<(bool, u32)>,
    },
}

/// A lease token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Token<'a> {
    /// The queue.
    pub queue: &'a str,
    /// The message.
    pub sequence: u64,
    /// The lease.
    pub lease: u64,
}

/// What the router sends on a consume stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum ConsumeFrame<'a> {
    /// A message; its block follows.
    Delivery(Delivery<'a>),
    /// Answers settlements up to and including number `through`.
    Settled {
        /// The last one answered.
        through: u64,
        /// Those that were refused: number, code. All others are done.
        refused: Vec<(u64, u32)>,
    },
    /// Leases that `Extend` named and that are gone: drop them from the buffer.
    Lost {
        /// Sequence and lease.
        leases: Vec<(u64, u64)>,
    },
    /// The consumer is no more: the queue was deleted, the router stops, or it was closed (code 0).
    Closed {
        /// The code's number; 0 answers `Close`.
        code: u32,
        /// The sentence.
        detail: &'a str,
    },
}

/// A delivery's own fields; the message's block follows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Delivery<'a> {
    /// The message.
    pub sequence: u64,
    /// The lease.
    pub lease: u64,
    /// 1 at the first delivery.
    pub attempt: u32,
    /// Delivered before, or older than this start of the router.
    pub redelivered: bool,
    /// When it was stored: milliseconds since 1970.
    pub published_at_ms: u64,
    /// Headers that the router adds (`chaski-dead-*`).
    pub headers: Vec<(&'a str, &'a str)>,
}

/// What a client sends on a consume stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum ConsumeCommand<'a> {
    /// Ends a lease; numbered from 1 on this stream. Behind the verdict `Complete` its payload follows.
    Settle {
        /// The message.
        sequence: u64,
        /// The lease.
        lease: u64,
        /// How.
        verdict: Verdict<'a>,
    },
    /// Renews leases; those that are gone come back in `Lost`.
    Extend {
        /// Sequence and lease, at most `MAX_EXTEND`.
        leases: Vec<(u64, u64)>,
    },
    /// Another credit.
    SetCredit {
        /// Deliveries in flight at most.
        credit: u32,
    },
    /// No more deliveries, please; what is open can still be settled until the client finishes its side, which releases the
    /// rest. Answered by `Closed` with code 0, after which no delivery comes.
    Close,
}

/// How a lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Verdict<'a> {
    /// Processed.
    Ack,
    /// Again, after a delay of the consumer's or the queue's backoff.
    Nack {
        /// Milliseconds.
        delay_ms: Option<u64>,
    },
    /// To the dead-letter queue.
    Reject {
        /// Why, at most 1,024 bytes.
        reason: &'a str,
    },
    /// A responder's failure.
    Fail {
        /// Why, at most 1,024 bytes.
        reason: &'a str,
        /// Whether to try again, when the message is no request.
        retryable: bool,
    },
    /// Never seen by the application.
    Release,
    /// Processed, with a result: the frame's rest. What a saga's step answers; of any other message an ack.
    Complete,
}

/// What the router sends on a subscription's stream; the message's block follows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Passed {
    /// A message.
    Message {
        /// Messages dropped since the last one that was passed, since the buffer was full.
        dropped: u64,
    },
}

/// Headers of the router's own answers to a requester: an inbox message that carries [`STATUS_HEADER`] is no reply.
pub const STATUS_HEADER: &str = "chaski-status";

/// Beside [`STATUS_HEADER`]: the reason, for people.
pub const REASON_HEADER: &str = "chaski-reason";

/// The inbox topics of a client instance begin with this, its 32 hex digits and a dot.
pub const INBOX_PREFIX: &str = "$inbox.";

/// The prefix of all inboxes of a client: `$inbox.<32 hex digits>.`.
pub fn inbox_prefix(client: u128) -> String {
    format!("{INBOX_PREFIX}{client:032x}.")
}
