//! A message, as it is made by a publisher and as it comes to a consumer. It knows nothing of connections.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chaski_protocol::{Code, DEFAULT_PRIORITY, FRAME_OVERHEAD, Head, HeadError, Refusal};
use serde::Serialize;

use crate::id::{now_ms, uuid_v7};
use crate::text::Text;

/// One message. It draws its id when it is made, so publishing the same message again is a retry, not a second message.
///
/// ```
/// use std::time::Duration;
/// use chaski_client::Message;
///
/// let order = Message::new("orders.eu.created", "two llamas")
///     .key("customer-42")
///     .header("region", "eu")
///     .ttl(Duration::from_secs(3600));
/// assert_eq!(order.topic(), "orders.eu.created");
/// assert_eq!(order.header_value("region"), Some("eu"));
/// ```
#[derive(Clone)]
pub struct Message {
    topic: Text,
    id: Text,
    key: Option<Text>,
    answer: Option<Box<Answer>>,
    headers: Vec<(Text, Text)>,
    payload: Bytes,
    priority: u8,
    mandatory: bool,
    ttl_ms: Option<u64>,
    deliver_at_ms: Option<u64>,
    timestamp_ms: u64,
}

/// What only requests and replies carry, kept out of the way of the others.
#[derive(Clone, Default)]
struct Answer {
    reply_to: Option<Text>,
    correlation_id: Option<Text>,
}

impl Message {
    /// A message to a topic. Its id is a fresh UUIDv7, its priority 4.
    pub fn new(topic: impl AsRef<str>, payload: impl Into<Bytes>) -> Message {
        let timestamp_ms = now_ms();
        let id = uuid_v7(timestamp_ms);
        Message {
            topic: Text::new(topic.as_ref()),
            id: Text::new(std::str::from_utf8(&id).expect("hex and hyphens")),
            key: None,
            answer: None,
            headers: Vec::new(),
            payload: payload.into(),
            priority: DEFAULT_PRIORITY,
            mandatory: false,
            ttl_ms: None,
            deliver_at_ms: None,
            timestamp_ms,
        }
    }

    /// A message whose payload is the JSON of `value`.
    pub fn json<T: Serialize + ?Sized>(
        topic: impl AsRef<str>,
        value: &T,
    ) -> Result<Message, serde_json::Error> {
        Ok(Message::new(topic, serde_json::to_vec(value)?))
    }

    /// Another id: 1 to 128 bytes without control characters. Within the dedup window a second publish of the same topic and
    /// id is confirmed as a duplicate.
    pub fn id(mut self, id: impl AsRef<str>) -> Message {
        self.id = Text::new(id.as_ref());
        self
    }

    /// The ordering key: where a queue has `ordering = "key"`, messages of one key are processed one after another.
    pub fn key(mut self, key: impl AsRef<str>) -> Message {
        self.key = Some(Text::new(key.as_ref()));
        self
    }

    /// Sets a header; a name is given once, a second value replaces the first. Names that begin with `chaski-` are the
    /// router's: they are left out when the message is published.
    pub fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Message {
        let (name, value) = (name.as_ref(), Text::new(value.as_ref()));
        match self.headers.iter_mut().find(|(known, _)| known.as_str() == name) {
            Some((_, known)) => *known = value,
            None => self.headers.push((Text::new(name), value)),
        }
        self
    }

    /// Where a reply goes. [`Client::request`](crate::Client::request) sets it to the client's own inbox.
    pub fn reply_to(mut self, topic: impl AsRef<str>) -> Message {
        self.answer.get_or_insert_default().reply_to = Some(Text::new(topic.as_ref()));
        self
    }

    /// The id of the request that this message answers.
    pub fn correlation_id(mut self, id: impl AsRef<str>) -> Message {
        self.answer.get_or_insert_default().correlation_id = Some(Text::new(id.as_ref()));
        self
    }

    /// 0 to 9, higher first; 4 is the default. Ignored where `ordering = "key"`.
    pub fn priority(mut self, priority: u8) -> Message {
        self.priority = priority;
        self
    }

    /// How long it is of use, from the later of storing and `deliver_at`; then it is dead-lettered as `expired`.
    pub fn ttl(mut self, ttl: Duration) -> Message {
        self.ttl_ms = Some(millis(ttl));
        self
    }

    /// Not to be delivered before this much time has passed, by this machine's clock.
    pub fn delay(mut self, delay: Duration) -> Message {
        self.deliver_at_ms = Some(now_ms().saturating_add(millis(delay)));
        self
    }

    /// Not to be delivered before this time.
    pub fn deliver_at(mut self, time: SystemTime) -> Message {
        self.deliver_at_ms = Some(time.duration_since(UNIX_EPOCH).map_or(0, millis));
        self
    }

    /// Refuse the publish with `unroutable` when no queue and no subscription takes it.
    pub fn mandatory(mut self, mandatory: bool) -> Message {
        self.mandatory = mandatory;
        self
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        self.topic.as_str()
    }

    /// The payload. Cloning it copies nothing.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The payload, read as JSON.
    pub fn payload_json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }

    /// All headers, in the publisher's order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// One header's value.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The id.
    pub fn message_id(&self) -> &str {
        self.id.as_str()
    }

    /// The ordering key, if it has one.
    pub fn ordering_key(&self) -> Option<&str> {
        self.key.as_ref().map(Text::as_str)
    }

    /// Where a reply goes, if one is wanted.
    pub fn reply_topic(&self) -> Option<&str> {
        self.answer.as_ref()?.reply_to.as_ref().map(Text::as_str)
    }

    /// The id of the request that this message answers, if it is a reply.
    pub fn correlation(&self) -> Option<&str> {
        self.answer.as_ref()?.correlation_id.as_ref().map(Text::as_str)
    }

    /// All fields but the payload, as the protocol has them.
    pub fn head(&self) -> Head<'_> {
        Head {
            topic: self.topic(),
            id: self.message_id(),
            key: self.ordering_key(),
            reply_to: self.reply_topic(),
            correlation_id: self.correlation(),
            headers: self.headers().collect(),
            priority: self.priority,
            ttl_ms: self.ttl_ms,
            deliver_at_ms: self.deliver_at_ms,
            timestamp_ms: self.timestamp_ms,
        }
    }

    pub(crate) fn is_mandatory(&self) -> bool {
        self.mandatory
    }

    pub(crate) fn has_ttl(&self) -> bool {
        self.ttl_ms.is_some()
    }

    pub(crate) fn id_text(&self) -> Text {
        self.id.clone()
    }

    /// The head as it is published: without the router's headers.
    pub(crate) fn published_head(&self) -> Head<'_> {
        let mut head = self.head();
        head.headers.retain(|(name, _)| !is_reserved(name));
        head
    }

    /// Checks what would make the frame larger than the router reads; all else the router judges itself.
    pub(crate) fn check_size(&self, max_payload: u32, max_headers: u32) -> Result<(), Refusal> {
        if self.payload.len() > max_payload as usize {
            let detail = format!(
                "a payload of {} bytes, where the router's max_payload allows {max_payload}",
                self.payload.len()
            );
            return Err(Refusal::new(Code::PayloadTooLarge, detail));
        }
        let headers: usize = self.headers().map(|(name, value)| name.len() + value.len() + 2).sum();
        if headers > max_headers as usize {
            let detail =
                format!("headers of {headers} bytes, where the router's max_headers allows {max_headers}");
            return Err(Refusal::new(Code::HeadersTooLarge, detail));
        }
        let names = [self.ordering_key(), self.reply_topic(), self.correlation()];
        let rest = self.topic().len()
            + self.message_id().len()
            + names.iter().map(|name| name.map_or(0, str::len)).sum::<usize>();
        if rest > FRAME_OVERHEAD as usize / 2 {
            let detail = format!("topic, id, key, reply_to and correlation_id take {rest} bytes together");
            return Err(Refusal::new(Code::BadMessage, detail));
        }
        Ok(())
    }

    /// The message of a block, with headers that the router adds to it. Copies no payload.
    pub(crate) fn from_block(block: &Bytes, added: &[(&str, &str)]) -> Result<Message, HeadError> {
        let (head, length) = Head::decode(block)?;
        let part = |text: &str| Text::part_of(block, text);
        let mut headers: Vec<(Text, Text)> = Vec::with_capacity(head.headers.len() + added.len());
        headers.extend(head.headers.iter().map(|(name, value)| (part(name), part(value))));
        headers.extend(added.iter().map(|(name, value)| (Text::new(name), Text::new(value))));
        let answer = (head.reply_to.is_some() || head.correlation_id.is_some()).then(|| {
            Box::new(Answer {
                reply_to: head.reply_to.map(part),
                correlation_id: head.correlation_id.map(part),
            })
        });
        Ok(Message {
            topic: part(head.topic),
            id: part(head.id),
            key: head.key.map(part),
            answer,
            headers,
            payload: block.slice(length..),
            priority: head.priority,
            mandatory: false,
            ttl_ms: head.ttl_ms,
            deliver_at_ms: head.deliver_at_ms,
            timestamp_ms: head.timestamp_ms,
        })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("head", &self.head())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

fn is_reserved(header: &str) -> bool {
    header.as_bytes().first_chunk::<7>().is_some_and(|start| start.eq_ignore_ascii_case(b"chaski-"))
}

/// Whole milliseconds, at least 1 for what is not zero.
pub(crate) fn millis(duration: Duration) -> u64 {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 && !duration.is_zero() { 1 } else { ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_from_its_block_without_the_routers_headers() {
        let sent = Message::new("orders.eu", "payload")
            .id("an id")
            .key("k")
            .header("chaski-dead-reason", "rejected")
            .header("a", "1")
            .header("a", "2")
            .reply_to("answers")
            .correlation_id("c")
            .priority(9)
            .ttl(Duration::from_micros(1));
        let mut block = Vec::new();
        sent.published_head().encode(sent.payload(), &mut block);
        let got = Message::from_block(&block.into(), &[("chaski-dead-queue", "q")]).expect("a block");
        let headers: Vec<_> = got.headers().collect();
        assert_eq!(headers, [("a", "2"), ("chaski-dead-queue", "q")]);
        let expected = Head { headers: got.head().headers, ..sent.head() };
        assert_eq!(got.head(), expected);
        assert_eq!(got.payload(), sent.payload());
        assert_eq!(got.head().ttl_ms, Some(1));
    }

    #[test]
    fn a_payload_that_comes_is_a_part_of_the_block() {
        let mut block = Vec::new();
        Message::new("t", vec![7; 1000]).head().encode(&[7; 1000], &mut block);
        let block = Bytes::from(block);
        let message = Message::from_block(&block, &[]).expect("a block");
        assert!(block.as_ptr_range().contains(&message.payload().as_ptr()));
    }
}
