//! Settle and publish, all or nothing: one frame on the publish stream, retried under one id.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chaski_protocol::frames::{PublishFrame, Token};
use chaski_protocol::{Code, MAX_PAYLOAD_CEILING, MAX_TRANSACTION_PARTS, Refusal, encode_frame_with};

use crate::client::Client;
use crate::delivery::Delivery;
use crate::error::PublishError;
use crate::id::{now_ms, uuid_v7};
use crate::link::Shared;
use crate::message::Message;
use crate::outbox::{Answer, Frame, is_whole};
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

/// The frame, encoded once: a retry sends the same bytes. Large payloads are not copied into it.
struct OneTransaction {
    start: Vec<u8>,
    /// What follows the start: payloads that are sent as they are, and what lies between them.
    rest: Vec<Bytes>,
}

impl OneTransaction {
    fn new(acks: &[Delivery], messages: &[Message]) -> Result<OneTransaction, TransactionError> {
        let acks = acks.iter().map(Delivery::token).collect();
        OneTransaction::encoded(acks, messages).map_err(TransactionError::Refused)
    }

    fn encoded(acks: Vec<Token<'_>>, messages: &[Message]) -> Result<OneTransaction, Refusal> {
        let id = uuid_v7(now_ms());
        // What comes before the first payload that is not copied, and all from there on.
        let mut first: Option<Vec<u8>> = None;
        let mut rest: Vec<Bytes> = Vec::new();
        let mut piece = Vec::new();
        let mut publishes = Vec::with_capacity(messages.len());
        let mut bytes = 0;
        for message in messages {
            let (head, payload) = (message.published_head(), message.payload());
            let before = piece.len();
            let length = if is_whole(payload) {
                head.encode(&[], &mut piece);
                let length = piece.len() - before + payload.len();
                let before = std::mem::take(&mut piece);
                match first {
                    None => first = Some(before),
                    Some(_) => rest.push(before.into()),
                }
                rest.push(payload.clone());
                length
            } else {
                head.encode(payload, &mut piece);
                piece.len() - before
            };
            bytes += length;
            // The router reads a frame of the largest message; a transaction is one frame.
            if bytes > MAX_PAYLOAD_CEILING as usize {
                let detail = format!(
                    "the transaction's messages take more than the {MAX_PAYLOAD_CEILING} bytes that one frame holds"
                );
                return Err(Refusal::new(Code::LimitExceeded, detail));
            }
            publishes.push((message.is_mandatory(), length as u32));
        }
        let id = std::str::from_utf8(&id).expect("hex and hyphens");
        let header = PublishFrame::Transaction { id, acks, publishes };
        let first = first.unwrap_or_else(|| std::mem::take(&mut piece));
        if !piece.is_empty() {
            rest.push(piece.into());
        }
        let mut start = Vec::with_capacity(first.len() + 256);
        encode_frame_with(&header, rest.iter().map(Bytes::len).sum(), &mut start, |out| {
            out.extend_from_slice(&first);
        });
        Ok(OneTransaction { start, rest })
    }
}

impl Frame for OneTransaction {
    fn size(&self) -> usize {
        self.start.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }

    fn encode(&self, out: &mut Vec<u8>, tail: &mut Vec<Bytes>) {
        out.extend_from_slice(&self.start);
        tail.extend_from_slice(&self.rest);
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use chaski_protocol::{Head, MAX_MESSAGE_FRAME, decode, next_frame};

    use super::*;

    #[test]
    fn a_transaction_is_one_frame_whose_large_payloads_are_not_copied() {
        let large = Bytes::from(vec![7; 64 << 10]);
        let messages =
            [("a", Bytes::from("small")), ("b", large.clone()), ("c", Bytes::new()), ("d", large.clone())]
                .map(|(topic, payload)| Message::new(topic, payload).mandatory(topic == "c"));
        let acks = vec![Token { queue: "q", sequence: 1, lease: 2 }];
        let frame = OneTransaction::encoded(acks.clone(), &messages).expect("it is small enough");
        let (mut out, mut tail) = (Vec::new(), Vec::new());
        frame.encode(&mut out, &mut tail);
        assert_eq!(tail.iter().filter(|piece| piece.as_ptr() == large.as_ptr()).count(), 2);

        let mut sent = BytesMut::from(&out[..]);
        tail.iter().for_each(|piece| sent.extend_from_slice(piece));
        assert_eq!(sent.len(), frame.size());
        let whole = next_frame(&mut sent, MAX_MESSAGE_FRAME).expect("a frame").expect("all of it");
        assert!(sent.is_empty());
        let (header, mut at) = decode::<PublishFrame<'_>>(&whole).expect("a header");
        let PublishFrame::Transaction { acks: sent_acks, publishes, .. } = header else {
            panic!("{header:?}")
        };
        assert_eq!(sent_acks, acks);
        for ((mandatory, length), message) in publishes.into_iter().zip(&messages) {
            let block = &whole[at..at + length as usize];
            at += length as usize;
            let (head, payload_at) = Head::decode(block).expect("a block");
            assert_eq!((head.topic, mandatory), (message.topic(), message.topic() == "c"));
            assert_eq!(&block[payload_at..], message.payload());
        }
        assert_eq!(at, whole.len());
    }

    #[test]
    fn a_transaction_beyond_one_frame_is_refused_before_it_is_sent() {
        let half = Bytes::from(vec![0; MAX_PAYLOAD_CEILING as usize / 2]);
        let messages = [half.clone(), half].map(|payload| Message::new("t", payload));
        let refusal = OneTransaction::encoded(Vec::new(), &messages).err().expect("the heads are too much");
        assert_eq!(refusal.code, Code::LimitExceeded);
    }
}
