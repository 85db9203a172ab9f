//! From a block of bytes to the broker's message: where in it the fields lie. It knows the protocol's head and the broker's
//! spans, and nothing of streams.

use bytes::Bytes;
use chaski_broker::{Fields, Message, Millis, Span};
use chaski_protocol::{Code, Head, HeadError, Refusal};

/// The broker's message for a block whose head was decoded from these very bytes.
pub(crate) fn to_broker(block: &Bytes, head: &Head<'_>) -> Message {
    Message { fields: fields(block, head), body: block.clone() }
}

/// Where in a block the fields lie, given its head, which was decoded from these very bytes.
pub(crate) fn fields(block: &[u8], head: &Head<'_>) -> Fields {
    let span = |text: &str| span_in(block, text);
    Fields {
        topic: span(head.topic),
        id: span(head.id),
        key: head.key.map(span),
        reply_to: head.reply_to.map(span),
        correlation_id: head.correlation_id.map(span),
        priority: head.priority,
        ttl_ms: head.ttl_ms,
        deliver_at: head.deliver_at_ms.map(Millis),
    }
}

/// Encodes a head and payload that the router itself makes.
pub(crate) fn compose(head: &Head<'_>, payload: &[u8]) -> Message {
    let mut block = Vec::with_capacity(256 + payload.len());
    head.encode(payload, &mut block);
    let block = Bytes::from(block);
    let (head, _) = Head::decode(&block).expect("what was just encoded can be decoded");
    to_broker(&block, &head)
}

/// Decodes and checks a client's block against the limits in force; answers its head and where its payload begins. `good_topic`: one
/// that was checked before, if there is one.
pub(crate) fn check<'a>(
    block: &'a [u8],
    max_payload: u32,
    max_headers: u32,
    good_topic: Option<&[u8]>,
) -> Result<(Head<'a>, usize), Refusal> {
    let refuse = |error: HeadError| Refusal::new(error.code(), error.to_string());
    let (head, payload_at) = Head::decode(block).map_err(refuse)?;
    let checked = match good_topic == Some(head.topic.as_bytes()) {
        true => head.check_but_topic(max_headers),
        false => head.check(max_headers),
    };
    checked.map_err(refuse)?;
    let payload = block.len() - payload_at;
    if payload > max_payload as usize {
        let detail = format!("a payload of {payload} bytes, where max_payload allows {max_payload}");
        return Err(Refusal::new(Code::PayloadTooLarge, detail));
    }
    Ok((head, payload_at))
}

/// Where a text that was decoded from this block lies in it.
pub(crate) fn span_in(block: &[u8], text: &str) -> Span {
    let start = text.as_ptr() as usize - block.as_ptr() as usize;
    assert!(start + text.len() <= block.len(), "a head borrows from the block that it was decoded from");
    Span { start: start as u32, len: text.len() as u32 }
}
