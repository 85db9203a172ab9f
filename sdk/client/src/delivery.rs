//! One delivery: a message on loan, and the ways to give an answer about it. Settling takes it by value, so that settling twice
//! doesn't compile.

use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chaski_protocol::frames::{Token, Verdict};
use chaski_protocol::{Code, MAX_PAYLOAD_CEILING, MAX_REASON, Refusal};

use crate::answers::Ticket;
use crate::consumer::Handle;
use crate::error::{ReplyError, SettleError};
use crate::leases::{Parcel, Settlement};
use crate::message::{Message, millis};
use crate::publisher::Published;
use crate::step::Step;
use crate::transaction::{self, TransactionError};

/// Whether what failed should be tried again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may succeed later.
    Yes,
    /// It never will.
    No,
}

/// A message that was lent to this consumer. It derefs to [`Message`].
///
/// Dropped without an answer it is given back as by [`nack`](Delivery::nack). While it lies in the SDK's buffer the SDK keeps
/// its lease; from the moment that the application has it, the application does, by [`extend`](Delivery::extend) where
/// `ack_wait` is too short.
#[must_use = "a delivery that is dropped is given back, and comes again"]
pub struct Delivery {
    message: Message,
    handle: Arc<Handle>,
    epoch: u64,
    sequence: u64,
    lease: u64,
    attempt: u32,
    redelivered: bool,
    published_at_ms: u64,
    settled: bool,
}

impl Delivery {
    pub(crate) fn new(handle: Arc<Handle>, epoch: u64, parcel: Parcel) -> Delivery {
        let Parcel { message, sequence, lease, attempt, redelivered, published_at_ms } = parcel;
        Delivery {
            message,
            handle,
            epoch,
            sequence,
            lease,
            attempt,
            redelivered,
            published_at_ms,
            settled: false,
        }
    }

    /// The queue that it comes from.
    pub fn queue(&self) -> &str {
        self.handle.state.queue()
    }

    /// The message's sequence, the same in every queue and never used twice.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// 1 at the first delivery.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether it may have been delivered before: at another attempt, or before the router's last start.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// When the router stored it.
    pub fn published_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.published_at_ms)
    }

    /// The message's id.
    pub fn id(&self) -> &str {
        self.message.message_id()
    }

    /// The ordering key, if it has one.
    pub fn key(&self) -> Option<&str> {
        self.message.ordering_key()
    }

    /// Where a reply goes, if one is wanted.
    pub fn reply_to(&self) -> Option<&str> {
        self.message.reply_topic()
    }

    /// The id of the request that this answers, if it is a reply.
    pub fn correlation_id(&self) -> Option<&str> {
        self.message.correlation()
    }

    /// One header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.header_value(name)
    }

    /// The saga's step that this is, if it is one.
    pub fn step(&self) -> Option<Step<'_>> {
        Step::of(&self.message)
    }

    /// What is the same at every delivery and every publish of the message: its topic and id; of a saga's step its own key, the same
    /// at all attempts. What an idempotent consumer remembers.
    pub fn idempotency_key(&self) -> String {
        if let Some(step) = self.step() {
            return step.key().to_owned();
        }
        // A topic holds no white space, so no two pairs share a key.
        format!("{} {}", self.message.topic(), self.id())
    }

    /// A copy of the message, to keep or to publish elsewhere. Its payload is shared.
    pub fn message(&self) -> Message {
        self.message.clone()
    }

    /// It is processed. Sent at once; the future resolves when it is durable, and may be awaited later or with others.
    pub fn ack(mut self) -> Settling {
        self.settle(Verdict::Ack)
    }

    /// It is processed, and nobody waits for the answer.
    pub fn ack_nowait(mut self) {
        drop(self.settle(Verdict::Ack));
    }

    /// It is processed, with a result: what a saga's step answers. Of any other message it is an [`ack`](Delivery::ack), and the result
    /// is dropped.
    pub fn complete(mut self, result: impl Into<Bytes>) -> Settling {
        let result = result.into();
        if result.len() > MAX_PAYLOAD_CEILING as usize {
            // No frame holds it. The delivery is given back.
            return Settling::refused(Code::PayloadTooLarge.into());
        }
        self.settle_with(Verdict::Complete, &result)
    }

    /// Again, after the queue's backoff. Counts as an attempt.
    pub fn nack(mut self) -> Settling {
        self.settle(Verdict::Nack { delay_ms: None })
    }

    /// Again, after this delay. Counts as an attempt.
    pub fn nack_after(mut self, delay: Duration) -> Settling {
        self.settle(Verdict::Nack { delay_ms: Some(millis(delay)) })
    }

    /// To the dead-letter queue, with the reason (of which at most 1,024 bytes are kept). A requester is told `rejected`.
    pub fn reject(mut self, reason: impl AsRef<str>) -> Settling {
        self.settle(Verdict::Reject { reason: shortened(reason.as_ref()) })
    }

    /// A responder's failure: a requester is told `failed`, and the request is acknowledged. A message that is no request is
    /// given back with [`Retry::Yes`], and rejected with [`Retry::No`]. A saga's step fails, and `retry` says whether another attempt
    /// may help.
    pub fn fail(mut self, reason: impl AsRef<str>, retry: Retry) -> Settling {
        self.settle(Verdict::Fail { reason: shortened(reason.as_ref()), retryable: retry == Retry::Yes })
    }

    /// Gives it back as never seen: at once, and without counting an attempt.
    pub fn release(mut self) -> Settling {
        self.settle(Verdict::Release)
    }

    /// Renews the lease: in progress. An error says that the lease is known to be lost; one that is lost on the way shows at
    /// the next call.
    pub async fn extend(&self) -> Result<(), SettleError> {
        let known = self.handle.state.extend(self.epoch, (self.sequence, self.lease));
        known.then_some(()).ok_or(SettleError::LeaseLost)
    }

    /// Answers the request: the reply is published and the request acknowledged in one transaction. Of a saga's step it is
    /// [`complete`](Delivery::complete): nothing is published, so the answer has no sequence and counts 0.
    pub async fn reply(self, payload: impl Into<Bytes>) -> Result<Published, ReplyError> {
        if self.step().is_some() {
            let published = Published::nothing(self.id());
            return match self.complete(payload).await {
                Ok(()) => Ok(published),
                Err(SettleError::LeaseLost) => Err(ReplyError::LeaseLost),
                Err(SettleError::Refused(refusal)) => Err(ReplyError::Refused(refusal)),
            };
        }
        let reply_to = self.reply_to().ok_or(ReplyError::NoReplyTo)?;
        let reply = Message::new(reply_to, payload).correlation_id(self.id());
        let shared = Arc::clone(self.handle.client().shared());
        match transaction::commit(&shared, vec![self], vec![reply]).await {
            Ok(mut published) => {
                published.pop().ok_or_else(|| ReplyError::from(crate::publisher::odd_answer()))
            }
            Err(TransactionError::LeaseLost(_)) => Err(ReplyError::LeaseLost),
            Err(TransactionError::Refused(refusal)) => Err(ReplyError::Refused(refusal)),
            Err(TransactionError::OutcomeUnknown) => Err(ReplyError::OutcomeUnknown),
            Err(TransactionError::Unreachable) => Err(ReplyError::Unreachable),
            Err(TransactionError::Closed) => Err(ReplyError::Closed),
        }
    }

    /// The lease, as a transaction names it.
    pub(crate) fn token(&self) -> Token<'_> {
        Token { queue: self.queue(), sequence: self.sequence, lease: self.lease }
    }

    /// It was settled by a transaction, or its lease is known to be lost.
    pub(crate) fn forget(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.handle.state.forget(self.epoch, (self.sequence, self.lease));
        }
    }

    fn settle(&mut self, verdict: Verdict<'_>) -> Settling {
        self.settle_with(verdict, &[])
    }

    fn settle_with(&mut self, verdict: Verdict<'_>, result: &[u8]) -> Settling {
        self.settled = true;
        let ticket = self.handle.state.settle(self.epoch, (self.sequence, self.lease), verdict, result);
        Settling { ticket: ticket.ok_or(SettleError::LeaseLost) }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.settled {
            drop(self.settle(Verdict::Nack { delay_ms: None }));
        }
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("queue", &self.queue())
            .field("sequence", &self.sequence)
            .field("attempt", &self.attempt)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// The answer to a settlement that was sent already. It may be dropped; the settlement counts all the same.
#[must_use = "the settlement is sent, but only the answer says whether it counts"]
pub struct Settling {
    /// An error when it was not sent: the lease was gone before, or no frame holds the result.
    ticket: Result<Ticket<Settlement>, SettleError>,
}

impl Settling {
    fn refused(refusal: Refusal) -> Settling {
        Settling { ticket: Err(SettleError::Refused(refusal)) }
    }
}

impl Future for Settling {
    type Output = Result<(), SettleError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.ticket {
            Ok(ticket) => Pin::new(ticket).poll(context),
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

impl std::fmt::Debug for Settling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settling").finish_non_exhaustive()
    }
}

/// The beginning of a reason that the router takes.
fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}
