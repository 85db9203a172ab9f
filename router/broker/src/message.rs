//! A message as the broker sees it: one opaque block of bytes, and where in it the few fields lie that steer it.
//!
//! The block is what the client sent, what the journal keeps and what a consumer gets. The broker never encodes one;
//! the server tells it the fields' places, and a [`Render`] function makes the few messages that the broker itself sends.

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::ids::{Millis, Sequence};
use crate::views::{SagaState, StepOutcome, TimelineView};

/// A run of bytes inside a message's block.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// Where a message's fields lie in its block, and its numbers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fields {
    /// The topic.
    pub topic: Span,
    /// The message id.
    pub id: Span,
    /// The ordering key.
    pub key: Option<Span>,
    /// Where a reply goes; its presence makes the message a request.
    pub reply_to: Option<Span>,
    /// The id of the request that this answers.
    pub correlation_id: Option<Span>,
    /// 0..=9, higher first.
    pub priority: u8,
    /// Time to live, from the later of storing and `deliver_at`.
    pub ttl_ms: Option<u64>,
    /// Not to be delivered before.
    pub deliver_at: Option<Millis>,
}

/// A message: its block and its fields. Cloning copies no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The whole block, head and payload.
    pub body: Bytes,
    /// Where its fields lie.
    pub fields: Fields,
}

impl Message {
    /// The bytes of a span. Spans are made by the server from this very block, so one outside it is a bug.
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.body[span.start as usize..span.start as usize + span.len as usize]
    }

    /// The topic's bytes.
    pub fn topic(&self) -> &[u8] {
        self.bytes(self.fields.topic)
    }

    /// The id's bytes.
    pub fn id(&self) -> &[u8] {
        self.bytes(self.fields.id)
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.fields.key.map(|span| self.bytes(span))
    }

    /// The reply topic's bytes.
    pub fn reply_to(&self) -> Option<&[u8]> {
        self.fields.reply_to.map(|span| self.bytes(span))
    }

    /// The same without its payload.
    pub(crate) fn head_only(&self) -> Message {
        let fields = self.fields;
        let named = [Some(fields.topic), Some(fields.id), fields.key, fields.reply_to, fields.correlation_id];
        let end = named.into_iter().flatten().map(|span| span.start + span.len).max().unwrap_or(0);
        Message { body: Bytes::copy_from_slice(&self.body[..end as usize]), fields }
    }

    /// The correlation id's bytes.
    pub fn correlation_id(&self) -> Option<&[u8]> {
        self.fields.correlation_id.map(|span| self.bytes(span))
    }
}

/// What the broker itself tells a requester.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The request was rejected or became a dead letter.
    Rejected,
    /// The responder failed it.
    Failed,
    /// The request was answered before, and the reply is no longer kept.
    ReplyLost,
    /// A gather's time was over, or nobody was left to answer, with too few replies.
    Timeout,
    /// A gather's aggregator failed.
    AggregationFailed,
}

/// A status for a requester, to be rendered as a message: topic `reply_to`, correlation id `request_id`, no payload, id
/// unique by `sequence`.
#[derive(Copy, Clone, Debug)]
pub struct StatusReply<'a> {
    /// The topic that it goes to.
    pub reply_to: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// What happened.
    pub status: Status,
    /// The reason, for people.
    pub reason: &'a str,
    /// The sequence drawn for this message.
    pub sequence: Sequence,
    /// When.
    pub now: Millis,
}

/// A message that the broker itself sends, to be rendered.
#[derive(Debug)]
pub enum Own<'a> {
    /// A status for a requester.
    Status(StatusReply<'a>),
    /// A gather's request to its recipients.
    Asked(AskedMessage<'a>),
    /// A gather's answer.
    Answer(AnswerMessage<'a>),
    /// A saga's step, or its compensation.
    Step(StepMessage<'a>),
    /// A saga's outcome, for who began it.
    Outcome(OutcomeMessage<'a>),
    /// What a saga just did, for whoever watches it.
    Progress(ProgressMessage<'a>),
}

/// Makes a message. Pure: the same input always yields the same block.
pub type Render = fn(Own<'_>) -> Message;

/// The message that began a gather, as its recipients get it: the same but for what is named here.
#[derive(Debug)]
pub struct AskedMessage<'a> {
    /// The message.
    pub request: &'a Message,
    /// Where replies go.
    pub reply_to: &'a str,
    /// Its priority, if another.
    pub priority: Option<u8>,
    /// Its time to live, if another.
    pub ttl_ms: Option<u64>,
}

/// What an aggregator made, as a message: topic `reply_to`, correlation id `request_id`, id unique by `sequence`.
#[derive(Debug)]
pub struct AnswerMessage<'a> {
    /// The topic that it goes to.
    pub reply_to: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// Headers of the aggregator's.
    pub headers: &'a [(String, String)],
    /// The body.
    pub payload: &'a [u8],
    /// Whether every recipient has answered.
    pub complete: bool,
    /// Recipients.
    pub asked: u32,
    /// Those that answered.
    pub answered: u32,
    /// Those that failed.
    pub failed: u32,
    /// The number drawn for this message.
    pub sequence: Sequence,
    /// When.
    pub now: Millis,
}

/// One attempt at a step or at its compensation.
#[derive(Debug)]
pub struct StepMessage<'a> {
    /// The topic: the queue's name.
    pub queue: &'a str,
    /// The saga's definition.
    pub name: &'a str,
    /// The saga's id.
    pub id: &'a str,
    /// The step.
    pub step: &'a str,
    /// From 1.
    pub attempt: u32,
    /// For a compensation: how the step ended.
    pub undo: Option<StepOutcome>,
    /// What it carries.
    pub payload: StepContent<'a>,
    /// The message that began the saga.
    pub input: &'a Message,
    /// When.
    pub now: Millis,
}

/// What a step's message carries.
#[derive(Debug)]
pub enum StepContent<'a> {
    /// `{"input": …, "results": {"STEP": …}}`, and for a compensation `failed: {step, reason}`.
    All {
        /// Results of the steps before it, in the definition's order.
        results: Vec<(&'a str, &'a Bytes)>,
        /// The step that failed (empty: none in particular), and why.
        failed: Option<(&'a str, &'a str)>,
    },
    /// The payload of the message that began the saga.
    Input,
    /// These bytes.
    Bytes(&'a Bytes),
}

/// A saga's outcome: topic `reply_to`, correlation id the saga's id, payload `{saga, state, results, failed, compensated}`.
#[derive(Debug)]
pub struct OutcomeMessage<'a> {
    /// The topic that it goes to.
    pub reply_to: &'a str,
    /// The saga's definition.
    pub name: &'a str,
    /// The saga's id.
    pub id: &'a str,
    /// How it ended.
    pub state: SagaState,
    /// What its steps answered, in the definition's order.
    pub results: Vec<(&'a str, &'a Bytes)>,
    /// The step that failed (empty: none in particular), and why.
    pub failed: Option<(&'a str, &'a str)>,
    /// Steps that were undone, in that order.
    pub compensated: Vec<&'a str>,
    /// The number drawn for this message.
    pub sequence: Sequence,
    /// When.
    pub now: Millis,
}

/// One line of a saga's timeline, as a message on `$chaski.saga.NAME.ID`.
#[derive(Debug)]
pub struct ProgressMessage<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The saga's definition.
    pub name: &'a str,
    /// The saga's id.
    pub id: &'a str,
    /// Where it stands.
    pub state: SagaState,
    /// What happened.
    pub line: &'a TimelineView,
    /// The number drawn for this message.
    pub sequence: Sequence,
}

/// Why a message is a dead letter: a closed set, named as in DESIGN section 3.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum DeadReason {
    /// A consumer rejected it.
    Rejected,
    /// Its time to live ran out.
    Expired,
    /// Its last permitted delivery failed.
    MaxDeliver,
    /// The queue was full and made room.
    Overflow,
    /// A filter failed on it.
    FilterError,
    /// A filter's result reached nobody.
    Unroutable,
    /// Filters routed it in a loop.
    HopLimit,
    /// An aggregator failed.
    AggregationFailed,
    /// A compensation failed.
    CompensationFailed,
}

impl DeadReason {
    /// Every reason, in the order of DESIGN section 3.
    pub const ALL: [DeadReason; 9] = [
        DeadReason::Rejected,
        DeadReason::Expired,
        DeadReason::MaxDeliver,
        DeadReason::Overflow,
        DeadReason::FilterError,
        DeadReason::Unroutable,
        DeadReason::HopLimit,
        DeadReason::AggregationFailed,
        DeadReason::CompensationFailed,
    ];

    /// The reason's name, as headers, commands and metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            DeadReason::Rejected => "rejected",
            DeadReason::Expired => "expired",
            DeadReason::MaxDeliver => "max_deliver",
            DeadReason::Overflow => "overflow",
            DeadReason::FilterError => "filter_error",
            DeadReason::Unroutable => "unroutable",
            DeadReason::HopLimit => "hop_limit",
            DeadReason::AggregationFailed => "aggregation_failed",
            DeadReason::CompensationFailed => "compensation_failed",
        }
    }
}

/// What a dead letter's `chaski-dead-*` headers say.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeadInfo {
    /// Why.
    pub reason: DeadReason,
    /// The consumer's reason, or a sentence of the router's.
    pub detail: String,
    /// The queue that it died in, or on whose binding; `None`: on a route.
    pub queue: Option<String>,
    /// The route that it died on.
    pub route: Option<String>,
    /// The scatter that it belongs to.
    pub scatter: Option<String>,
    /// The saga that it belongs to, as `NAME/ID`.
    pub saga: Option<String>,
    /// The module that rejected it or failed on it.
    pub module: Option<String>,
    /// That module's binary, as `sha256:HEX`.
    pub digest: Option<String>,
    /// Deliveries that it had.
    pub attempts: u32,
    /// When it was first delivered; when never delivered, when it died.
    pub first_at: Millis,
    /// When it died.
    pub last_at: Millis,
}

impl DeadInfo {
    /// One about nothing yet, of a message that no queue had.
    pub(crate) fn at(now: Millis) -> DeadInfo {
        DeadInfo {
            reason: DeadReason::Unroutable,
            detail: String::new(),
            queue: None,
            route: None,
            scatter: None,
            saga: None,
            module: None,
            digest: None,
            attempts: 0,
            first_at: now,
            last_at: now,
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let texts = [&self.queue, &self.route, &self.scatter, &self.saga, &self.module, &self.digest];
        48 + self.detail.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    }
}
