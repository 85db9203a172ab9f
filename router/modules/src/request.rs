//! A whole message, as aggregators and compensators see it. It knows the contract's record, and nothing of calls.

use crate::bindings::chaski::module::types;
use crate::columns::Message;

/// A whole message: the request that a gather asks, or the message that began a saga.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The topic that it was published to.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its headers: names and values, those that begin with `chaski-` included.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Vec<u8>,
    /// 0 to 9.
    pub priority: u8,
    /// When the router took it, in milliseconds since 1970.
    pub timestamp_ms: u64,
}

impl Request {
    /// A copy of a message that can be read.
    pub fn of(message: &impl Message) -> Request {
        let mut headers = Vec::new();
        message.each_header(&mut |name, value| headers.push((name.to_owned(), value.to_owned())));
        Request {
            topic: message.topic().to_owned(),
            id: message.id().to_owned(),
            key: message.key().map(str::to_owned),
            headers,
            payload: message.payload().to_vec(),
            priority: message.priority(),
            timestamp_ms: message.timestamp_ms(),
        }
    }

    pub(crate) fn to_wit(&self) -> types::Message {
        types::Message {
            topic: self.topic.clone(),
            id: self.id.clone(),
            key: self.key.clone(),
            headers: headers_to_wit(&self.headers),
            payload: self.payload.clone(),
            priority: self.priority,
            timestamp: self.timestamp_ms,
        }
    }
}

pub(crate) fn headers_to_wit(headers: &[(String, String)]) -> Vec<types::Header> {
    headers.iter().map(|(name, value)| types::Header { name: name.clone(), value: value.clone() }).collect()
}
