//! Looking at messages without taking them: a page of a queue, bodies read back from the journal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chaski_broker::{Body, Browsed, Sequence};
use chaski_protocol::admin::MessageView;
use chaski_protocol::{Code, Head, MAX_PAGE, Refusal};

use super::queue_id;
use crate::render::{dead_headers, rfc3339};
use crate::shard::{Shard, read_bodies};

/// A page ends early when its bodies are larger than this, so that an answer stays below the frame's limit however JSON escapes it.
const PAGE_BYTES: u64 = 8 << 20;

/// A payload larger than this is sent as base64 even if it is text: escaped, it could be six times as long.
const MAX_TEXT: usize = 8 << 20;

/// One page by sequence. It can hold fewer messages than asked for; only an empty one is the end.
pub(super) async fn page(
    shard: &Shard,
    name: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<MessageView>, Refusal> {
    let found = browse(shard, name, Sequence(after), limit.min(MAX_PAGE)).await?;
    let views = found.iter().map(|(browsed, body)| view(name, browsed, body));
    views.collect()
}

/// Messages with their blocks.
pub(super) async fn browse(
    shard: &Shard,
    name: &str,
    after: Sequence,
    limit: u32,
) -> Result<Vec<(Browsed, Bytes)>, Refusal> {
    let queue = queue_id(shard, name).await?;
    let mut found = shard.inspect(move |broker| broker.browse(queue, after, limit as usize)).await?;
    let mut bytes = 0;
    let fits = found.iter().take_while(|browsed| {
        let first = bytes == 0;
        bytes += u64::from(browsed.len);
        first || bytes <= PAGE_BYTES
    });
    let fits = fits.count();
    found.truncate(fits);
    let positions: Vec<_> = found.iter().filter_map(|browsed| position(&browsed.body)).collect();
    let mut read = read_bodies(shard.reader(), positions).await?.into_iter();
    let mut whole = Vec::with_capacity(found.len());
    for browsed in found {
        let body = match &browsed.body {
            Body::Here(bytes) => Ok(bytes.clone()),
            Body::At(_) => read.next().expect("one answer for each position"),
        };
        match body {
            Ok(body) => whole.push((browsed, body)),
            // Processed since, and its segment trimmed: no longer there to be seen.
            Err(error) => {
                tracing::debug!(sequence = browsed.sequence.0, %error, "a message left while it was looked at")
            }
        }
    }
    Ok(whole)
}

fn position(body: &Body) -> Option<chaski_broker::Position> {
    match body {
        Body::At(position) => Some(*position),
        Body::Here(_) => None,
    }
}

fn view(queue: &str, browsed: &Browsed, block: &Bytes) -> Result<MessageView, Refusal> {
    let (head, payload_at) = Head::decode(block).map_err(|error| {
        let detail = format!("message {} of queue `{queue}` cannot be decoded: {error}", browsed.sequence);
        Refusal::new(Code::Internal, detail)
    })?;
    let (payload, payload_encoding) = payload(&block[payload_at..]);
    let mut headers: std::collections::BTreeMap<String, String> =
        head.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let dead = browsed.dead.as_deref();
    headers
        .extend(dead.map(dead_headers).into_iter().flatten().map(|(name, value)| (name.to_owned(), value)));
    Ok(MessageView {
        queue: dead.and_then(|dead| dead.queue.as_deref()).unwrap_or(queue).to_owned(),
        sequence: browsed.sequence.0,
        state: browsed.state.name().to_owned(),
        attempts: dead.map_or(browsed.attempts, |dead| dead.attempts),
        topic: head.topic.to_owned(),
        id: head.id.to_owned(),
        key: head.key.map(str::to_owned),
        headers,
        payload,
        payload_encoding: payload_encoding.to_owned(),
        published_at: rfc3339(browsed.published_at),
        not_before: browsed.not_before.map(rfc3339),
        reason: dead.map(|dead| dead.reason.name().to_owned()),
        detail: dead.map(|dead| dead.detail.clone()),
        module: dead.and_then(|dead| dead.module.clone()),
        digest: dead.and_then(|dead| dead.digest.clone()),
    })
}

/// Bytes as a text, and how they are written.
pub(super) fn payload(bytes: &[u8]) -> (String, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= MAX_TEXT => (text.to_owned(), "utf8"),
        _ => (BASE64.encode(bytes), "base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_text_where_it_can_be() {
        assert_eq!(payload("grün".as_bytes()), ("grün".to_owned(), "utf8"));
        assert_eq!(payload(&[0xff, 0]), ("/wA=".to_owned(), "base64"));
        assert_eq!(payload(&vec![b'a'; MAX_TEXT + 1]).1, "base64");
    }
}
