//! Settle and publish, all or nothing: one frame on the publish stream, retried under one id.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chaski_protocol::frames::PublishFrame;
use chaski_protocol::{Code, MAX_TRANSACTION_PARTS, Refusal, encode_frame_with};

use crate::client::Client;
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::id::{now_ms, uuid_v7};
use crate::link::Shared;
use crate::message::Message;
use crate::outbox::{Answer, Frame};
use crate::publisher::{Published, odd_answer};

/// Deliveries to acknowledge and messages to publish, as one: after [`commit`](Transaction::commit) all of it happened, or
/// nothing. Dropped without a commit, its deliveries are given back.
///
/// ```no_run
/// # use chaski_client::{Client, Delivery, Message};
/// # async fn example(client: &Client, delivery: Delivery) -> Result<(), Box<dyn std::error::Error>> {
/// let bill = Message::json("billed", &42)?;
/// let mut tx = client.transaction();
/// tx.ack(delivery).publish(bill);
/// tx.commit().await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction does nothing until it is committed"]
#[derive(Debug)]
pub struct Transaction {
    client: Client,
    acks: Vec<Delivery>,
    messages: Vec<Message>,
}

/// Why a transaction was not done. But for `OutcomeUnknown`, nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum TransactionError {
    /// The leases of these deliveries ended before: their messages may be delivered again. The transaction's other deliveries
    /// were given back.
    #[error("{} of the transaction's leases are no longer current; nothing was done", .0.len())]
    LeaseLost(Vec<Delivery>),
    /// The router refused it.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Refusal),
    /// The dedup window passed before an answer came.
    #[error("the dedup window passed before an answer came: the transaction may or may not be done")]
    OutcomeUnknown,
    /// It was never sent, since there was no connection.
    #[error("the router cannot be reached; the transaction was not sent")]
    Unreachable,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

impl TransactionError {
    /// The code in the one table.
    pub fn code(&self) -> Code {
        match self {
            TransactionError::LeaseLost(_) => Code::LeaseLost,
            TransactionError::Refused(refusal) => refusal.code,
            TransactionError::OutcomeUnknown => Code::OutcomeUnknown,
            TransactionError::Unreachable => Code::Unreachable,
            TransactionError::Closed => Code::NotAllowed,
        }
    }

    /// Whether the same transaction, made anew from what is delivered again, may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.code().is_retryable()
    }
}

impl From<PublishError> for TransactionError {
    fn from(error: PublishError) -> TransactionError {
        match error {
            PublishError::Refused(refusal) => TransactionError::Refused(refusal),
            PublishError::OutcomeUnknown => TransactionError::OutcomeUnknown,
            PublishError::Unreachable => TransactionError::Unreachable,
            PublishError::Closed => TransactionError::Closed,
        }
    }
}

impl Transaction {
    pub(crate) fn new(client: Client) -> Transaction {
        Transaction { client, acks: Vec::new(), messages: Vec::new() }
    }

    /// Acknowledges a delivery with the rest.
    pub fn ack(&mut self, delivery: Delivery) -> &mut Transaction {
        self.acks.push(delivery);
        self
    }

    /// Publishes a message with the rest.
    pub fn publish(&mut self, message: Message) -> &mut Transaction {
        self.messages.push(message);
        self
    }

    /// Does all of it, and answers the publishes in their order. Retried under one id across lost connections, and after
    /// retryable refusals, within the dedup window. At most 1,024 parts.
    pub async fn commit(self) -> Result<Vec<Published>, TransactionError> {
        let Transaction { client, acks, messages } = self;
        commit(client.shared(), acks, messages).await
    }
}

pub(crate) async fn commit(
    shared: &Arc<Shared>,
    mut acks: Vec<Delivery>,
    messages: Vec<Message>,
) -> Result<Vec<Published>, TransactionError> {
    let parts = acks.len() + messages.len();
    if parts == 0 {
        return Ok(Vec::new());
    }
    if parts > MAX_TRANSACTION_PARTS {
        let detail = format!("a transaction has at most {MAX_TRANSACTION_PARTS} parts, this one {parts}");
        return Err(TransactionError::Refused(Refusal::new(Code::LimitExceeded, detail)));
    }
    let (max_payload, max_headers) = shared.limits();
    for message in &messages {
        message.check_size(max_payload, max_headers).map_err(TransactionError::Refused)?;
    }
    let frame = OneTransaction::new(&acks, &messages)?;
    let begun = Instant::now();
    let mut attempt = 0;
    loop {
        let answer = shared.publisher.send(&frame, true).await?.await;
        match answer {
            Answer::Transacted(taken) if taken.len() == messages.len() => {
                acks.iter_mut().for_each(Delivery::forget);
                let published = messages.iter().zip(&taken);
                return Ok(published
                    .map(|(message, taken)| Published::new(message.message_id(), taken))
                    .collect());
            }
            Answer::LeaseLost(lost) => return Err(TransactionError::LeaseLost(take_lost(acks, &lost))),
            Answer::Failed(error) => shared.publisher.pause_after(shared, error, begun, &mut attempt).await?,
            Answer::Transacted(_) | Answer::Published(_) => {
                return Err(TransactionError::Refused(odd_answer()));
            }
        }
    }
}

/// Those whose leases are lost; the others are dropped, and so given back.
fn take_lost(acks: Vec<Delivery>, lost: &[u32]) -> Vec<Delivery> {
    let mut kept = Vec::with_capacity(lost.len());
    for (index, mut delivery) in acks.into_iter().enumerate() {
        if lost.iter().any(|lost| *lost as usize == index) {
            delivery.forget();
            kept.push(delivery);
        }
    }
    kept
}

/// The frame, encoded once: a retry sends the same bytes.
struct OneTransaction(Vec<u8>);

impl OneTransaction {
    fn new(acks: &[Delivery], messages: &[Message]) -> Result<OneTransaction, TransactionError> {
        let id = uuid_v7(now_ms());
        let mut blocks = Vec::new();
        let mut publishes = Vec::with_capacity(messages.len());
        for message in messages {
            let start = blocks.len();
            message.published_head().encode(message.payload(), &mut blocks);
            publishes.push((message.is_mandatory(), (blocks.len() - start) as u32));
        }
        // The router reads a frame of the largest message; a transaction is one frame.
        if blocks.len() > chaski_protocol::MAX_PAYLOAD_CEILING as usize {
            let detail = format!(
                "the transaction's messages take {} bytes together, where one frame holds {}",
                blocks.len(),
                chaski_protocol::MAX_PAYLOAD_CEILING
            );
            return Err(TransactionError::Refused(Refusal::new(Code::LimitExceeded, detail)));
        }
        let header = PublishFrame::Transaction {
            id: std::str::from_utf8(&id).expect("hex and hyphens"),
            acks: acks.iter().map(Delivery::token).collect(),
            publishes,
        };
        let mut frame = Vec::with_capacity(blocks.len() + 64 * (acks.len() + 2));
        encode_frame_with(&header, 0, &mut frame, |out| out.extend_from_slice(&blocks));
        Ok(OneTransaction(frame))
    }
}

impl Frame for OneTransaction {
    fn size(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, out: &mut Vec<u8>) -> Option<Bytes> {
        out.extend_from_slice(&self.0);
        None
    }
}
