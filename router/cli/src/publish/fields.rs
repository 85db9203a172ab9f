//! What is said about a message beside its payload, from options or from a line of input.

use std::time::Duration;

use bytes::Bytes;
use chaski_client::Message;
use chaski_protocol::Code;

use crate::failure::fail;

/// Everything in a message but its payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields {
    pub(crate) topic: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) reply_to: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) priority: Option<u8>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) delay: Option<Duration>,
    pub(crate) mandatory: bool,
}

impl Fields {
    /// These, and the others' where these say nothing; of a header given in both, these win.
    pub(crate) fn or(mut self, others: &Fields) -> Fields {
        for (name, value) in &others.headers {
            if !self.headers.iter().any(|(known, _)| known == name) {
                self.headers.push((name.clone(), value.clone()));
            }
        }
        Fields {
            topic: self.topic.or_else(|| others.topic.clone()),
            id: self.id.or_else(|| others.id.clone()),
            key: self.key.or_else(|| others.key.clone()),
            headers: self.headers,
            reply_to: self.reply_to.or_else(|| others.reply_to.clone()),
            correlation_id: self.correlation_id.or_else(|| others.correlation_id.clone()),
            priority: self.priority.or(others.priority),
            ttl: self.ttl.or(others.ttl),
            delay: self.delay.or(others.delay),
            mandatory: self.mandatory || others.mandatory,
        }
    }

    /// The message.
    pub(crate) fn message(&self, payload: Bytes) -> anyhow::Result<Message> {
        let topic = self.topic.as_deref().ok_or_else(|| {
            fail(Code::BadTopic, "the line names no topic, and none is given beside --ndjson")
        })?;
        let mut message = Message::new(topic, payload).mandatory(self.mandatory);
        if let Some(id) = &self.id {
            message = message.id(id);
        }
        if let Some(key) = &self.key {
            message = message.key(key);
        }
        for (name, value) in &self.headers {
            message = message.header(name, value);
        }
        if let Some(reply_to) = &self.reply_to {
            message = message.reply_to(reply_to);
        }
        if let Some(correlation_id) = &self.correlation_id {
            message = message.correlation_id(correlation_id);
        }
        if let Some(priority) = self.priority {
            message = message.priority(priority);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        Ok(message)
    }
}
