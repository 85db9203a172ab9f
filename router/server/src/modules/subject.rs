//! A message as filters read and change it: the broker's message, with the places of its headers and payload. It knows no module
//! and no rules.

use chaski_broker::{Message, Millis, Span};
use chaski_modules::{Changes, HeaderChange};
use chaski_protocol::Head;
use smallvec::SmallVec;

use crate::message::{compose, span_in};

/// What a changed message must keep to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct MessageBounds {
    /// Bytes of a payload.
    pub(crate) max_payload: u32,
    /// Bytes of headers.
    pub(crate) max_headers: u32,
}

/// A message that is judged. Cloning copies no bytes.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) message: Message,
    headers: SmallVec<[(Span, Span); 4]>,
    payload_at: u32,
    /// When the router took it, whatever its client says.
    taken: Millis,
}

impl Subject {
    /// A message whose head was decoded from its own block.
    pub(crate) fn new(message: Message, head: &Head<'_>, payload_at: usize, taken: Millis) -> Subject {
        let span = |text: &str| span_in(&message.body, text);
        let headers = head.headers.iter().map(|(name, value)| (span(name), span(value))).collect();
        Subject { payload_at: payload_at as u32, taken, headers, message }
    }

    /// A message that the router has checked before.
    pub(crate) fn of(message: Message, taken: Millis) -> Subject {
        let block = message.body.clone();
        let (head, payload_at) = Head::decode(&block).expect("the message was checked when it came in");
        Subject::new(message, &head, payload_at, taken)
    }

    /// The same in memory of its own.
    pub(super) fn copied(&self) -> Subject {
        let mut copy = self.clone();
        copy.message.body = bytes::Bytes::copy_from_slice(&self.message.body);
        copy
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.message.body.len() + size_of_val(&self.headers[..])
    }

    /// Its topic.
    pub(crate) fn topic_text(&self) -> &str {
        text(self.message.topic())
    }

    /// What a filter made of it: under another id or topic where one is given. The error is a sentence.
    pub(crate) fn changed(
        &self,
        changes: &Changes,
        id: Option<&str>,
        topic: Option<&str>,
        bounds: MessageBounds,
    ) -> Result<Subject, String> {
        let (mut head, payload_at) = Head::decode(&self.message.body).map_err(|error| error.to_string())?;
        if let Some(id) = id {
            head.id = id;
        }
        if let Some(topic) = topic {
            head.topic = topic;
        }
        if let Some(key) = &changes.key {
            head.key = key.as_deref();
        }
        for change in &changes.headers {
            change_header(&mut head, change);
        }
        if let Some(priority) = changes.priority {
            head.priority = priority;
        }
        if let Some(ttl_ms) = changes.ttl_ms {
            head.ttl_ms = ttl_ms;
        }
        if let Some(deliver_at_ms) = changes.deliver_at_ms {
            head.deliver_at_ms = deliver_at_ms;
        }
        head.check(bounds.max_headers).map_err(|error| error.to_string())?;
        let payload = changes.payload.as_deref().unwrap_or(&self.message.body[payload_at..]);
        if payload.len() > bounds.max_payload as usize {
            let (bytes, most) = (payload.len(), bounds.max_payload);
            return Err(format!("a payload of {bytes} bytes, where max_payload allows {most}"));
        }
        Ok(Subject::of(compose(&head, payload), self.taken))
    }
}

fn change_header<'a>(head: &mut Head<'a>, change: &'a HeaderChange) {
    match change {
        HeaderChange::Set { name, value } => {
            match head.headers.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => head.headers.push((name, value)),
            }
        }
        HeaderChange::Remove { name } => head.headers.retain(|(known, _)| *known != name),
    }
}

impl chaski_modules::Message for Subject {
    fn topic(&self) -> &str {
        self.topic_text()
    }

    fn key(&self) -> Option<&str> {
        self.message.key().map(text)
    }

    fn id(&self) -> &str {
        text(self.message.id())
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| self.message.bytes(*known) == name.as_bytes());
        found.map(|(_, value)| text(self.message.bytes(*value)))
    }

    fn each_header(&self, each: &mut dyn FnMut(&str, &str)) {
        for (name, value) in &self.headers {
            each(text(self.message.bytes(*name)), text(self.message.bytes(*value)));
        }
    }

    fn payload(&self) -> &[u8] {
        &self.message.body[self.payload_at as usize..]
    }

    fn priority(&self) -> u8 {
        self.message.fields.priority
    }

    fn timestamp_ms(&self) -> u64 {
        self.taken.0
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("heads are decoded as UTF-8")
}

#[cfg(test)]
mod tests {
    use chaski_modules::Message as _;

    use super::*;

    const BOUNDS: MessageBounds = MessageBounds { max_payload: 64, max_headers: 64 };

    fn subject() -> Subject {
        let head = Head {
            topic: "orders.eu",
            id: "1",
            key: Some("c42"),
            headers: vec![("region", "eu"), ("kind", "new")],
            priority: 4,
            timestamp_ms: 7,
            ..Head::default()
        };
        Subject::of(compose(&head, b"body"), Millis(9))
    }

    #[test]
    fn every_field_is_read_where_it_lies() {
        let subject = subject();
        assert_eq!((subject.topic(), subject.id(), subject.key()), ("orders.eu", "1", Some("c42")));
        assert_eq!((subject.header("kind"), subject.header("none")), (Some("new"), None));
        assert_eq!((subject.payload(), subject.timestamp_ms()), (&b"body"[..], 9));
    }

    #[test]
    fn changes_make_another_message_and_leave_the_rest() {
        let changes = Changes {
            payload: Some(b"other".to_vec()),
            key: Some(None),
            headers: vec![
                HeaderChange::Set { name: "region".into(), value: "us".into() },
                HeaderChange::Set { name: "seen".into(), value: "yes".into() },
                HeaderChange::Remove { name: "kind".into() },
            ],
            priority: Some(9),
            ..Changes::default()
        };
        let changed = subject().changed(&changes, Some("1/0"), Some("orders.us"), BOUNDS).unwrap();
        assert_eq!((changed.topic(), changed.id(), changed.key()), ("orders.us", "1/0", None));
        assert_eq!((changed.header("region"), changed.header("seen")), (Some("us"), Some("yes")));
        assert_eq!((changed.header("kind"), changed.payload()), (None, &b"other"[..]));
        assert_eq!((changed.priority(), changed.timestamp_ms()), (9, 9));
    }

    #[test]
    fn what_no_client_may_send_no_filter_may_make() {
        let refused = |changes: &Changes, topic| subject().changed(changes, None, topic, BOUNDS).unwrap_err();
        let large = Changes { payload: Some(vec![0; 65]), ..Changes::default() };
        assert!(refused(&large, None).contains("max_payload"));
        assert!(refused(&Changes::default(), Some("$chaski.events.x")).contains("reserved"));
        assert!(refused(&Changes::default(), Some("a..b")).contains("topic"));
        let header = HeaderChange::Set { name: "long".into(), value: "x".repeat(64) };
        let long = Changes { headers: vec![header], ..Changes::default() };
        assert!(refused(&long, None).contains("max_headers"));
    }
}
