//! A message that came, as a line of JSON or as a block for people. It knows no connection.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_client::Delivery;
use chaski_protocol::{DEFAULT_PRIORITY, Head};
use serde::Serialize;

use crate::human;

/// What only a delivery has.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Lease<'a> {
    /// The queue that it came from.
    pub(crate) queue: &'a str,
    /// The message's sequence.
    pub(crate) sequence: u64,
    /// 1 at the first delivery.
    pub(crate) attempt: u32,
    /// Whether it may have been delivered before.
    pub(crate) redelivered: bool,
}

/// A message that came.
#[derive(Clone, Debug)]
pub(crate) struct Arrival<'a> {
    /// For a delivery.
    pub(crate) lease: Option<Lease<'a>>,
    /// Everything but the payload.
    pub(crate) head: Head<'a>,
    /// The payload.
    pub(crate) payload: &'a [u8],
    /// When it was stored; for what was not, when it was made.
    pub(crate) published_at: SystemTime,
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    lease: Option<&'a Lease<'a>>,
    topic: &'a str,
    id: &'a str,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    headers: BTreeMap<&'a str, &'a str>,
    payload: Cow<'a, str>,
    payload_encoding: &'static str,
    published_at: String,
}

impl<'a> Arrival<'a> {
    /// Of a delivery.
    pub(crate) fn of(delivery: &'a Delivery) -> Arrival<'a> {
        let lease = Lease {
            queue: delivery.queue(),
            sequence: delivery.sequence(),
            attempt: delivery.attempt(),
            redelivered: delivery.redelivered(),
        };
        Arrival {
            lease: Some(lease),
            head: delivery.head(),
            payload: delivery.payload(),
            published_at: delivery.published_at(),
        }
    }

    /// Of a message that is no delivery.
    pub(crate) fn passed(message: &'a chaski_client::Message) -> Arrival<'a> {
        let head = message.head();
        let published_at = SystemTime::UNIX_EPOCH + Duration::from_millis(head.timestamp_ms);
        Arrival { lease: None, head, payload: message.payload(), published_at }
    }

    /// The object that `--json` prints.
    pub(crate) fn json(&self) -> impl Serialize {
        let (payload, payload_encoding) = encode(self.payload);
        let head = &self.head;
        Json {
            lease: self.lease.as_ref(),
            topic: head.topic,
            id: head.id,
            key: head.key,
            reply_to: head.reply_to,
            correlation_id: head.correlation_id,
            headers: head.headers.iter().copied().collect(),
            payload,
            payload_encoding,
            published_at: human::rfc3339(self.published_at),
        }
    }

    /// A line about it, its headers, its payload.
    pub(crate) fn block(&self) -> String {
        let head = &self.head;
        let mut text = String::new();
        if let Some(lease) = &self.lease {
            let _ = write!(text, "#{} ", lease.sequence);
        }
        let _ = write!(text, "{}  id {}", head.topic, head.id);
        for (name, value) in
            [("key", head.key), ("reply to", head.reply_to), ("answers", head.correlation_id)]
        {
            if let Some(value) = value {
                let _ = write!(text, "  {name} {}", human::harmless(value));
            }
        }
        if head.priority != DEFAULT_PRIORITY {
            let _ = write!(text, "  priority {}", head.priority);
        }
        match &self.lease {
            Some(lease) if lease.attempt > 1 => {
                let _ = write!(text, "  attempt {}", lease.attempt);
            }
            Some(lease) if lease.redelivered => text.push_str("  redelivered"),
            _ => {}
        }
        text.push('\n');
        for (name, value) in &head.headers {
            let _ = writeln!(text, "  {name}: {}", human::harmless(value));
        }
        text.push_str(&payload(self.payload));
        text.push('\n');
        text
    }
}

/// A payload for people: text as it is, without what would move the cursor; other bytes as base64.
pub(crate) fn payload(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => human::harmless(text),
        Err(_) => format!("({} bytes, base64) {}", bytes.len(), BASE64.encode(bytes)),
    }
}

/// A payload for JSON, and how it is encoded.
pub(crate) fn encode(bytes: &[u8]) -> (Cow<'_, str>, &'static str) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.into(), "utf8"),
        Err(_) => (BASE64.encode(bytes).into(), "base64"),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn arrival() -> Arrival<'static> {
        Arrival {
            lease: Some(Lease { queue: "billing", sequence: 17, attempt: 2, redelivered: true }),
            head: Head {
                topic: "orders.eu.created",
                id: "o-1",
                key: Some("c42"),
                headers: vec![("region", "eu"), ("a", "\x1b[31m")],
                priority: DEFAULT_PRIORITY,
                ..Head::default()
            },
            payload: b"two llamas",
            published_at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn json_has_the_documented_fields() {
        let json = |arrival: &Arrival<'_>| serde_json::to_string(&arrival.json()).expect("plain data");
        let mut arrival = arrival();
        expect![[r#"{"queue":"billing","sequence":17,"attempt":2,"redelivered":true,"topic":"orders.eu.created","id":"o-1","key":"c42","headers":{"a":"\u001b[31m","region":"eu"},"payload":"two llamas","payload_encoding":"utf8","published_at":"1970-01-01T00:00:00.000Z"}"#]]
        .assert_eq(&json(&arrival));
        arrival.lease = None;
        arrival.payload = b"\xff\x00";
        arrival.head.reply_to = Some("answers");
        expect![[r#"{"topic":"orders.eu.created","id":"o-1","key":"c42","reply_to":"answers","headers":{"a":"\u001b[31m","region":"eu"},"payload":"/wA=","payload_encoding":"base64","published_at":"1970-01-01T00:00:00.000Z"}"#]]
        .assert_eq(&json(&arrival));
    }

    #[test]
    fn a_block_shows_what_is_unusual() {
        expect![[r#"
            #17 orders.eu.created  id o-1  key c42  attempt 2
              region: eu
              a: �[31m
            two llamas
        "#]]
        .assert_eq(&arrival().block());
        assert_eq!(payload(b"\xff"), "(1 bytes, base64) /w==");
    }
}
