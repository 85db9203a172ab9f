//! A whole message, as aggregators and compensators see it.

use crate::bindings::filter::chaski::module::types;

/// The message that a gather asks with, or that began a saga.
///
/// ```
/// # use chaski_guest::prelude::*;
/// let request = Request { payload: b"{}".to_vec(), ..Request::default() };
/// assert_eq!(request.header("region"), None);
/// ```
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
    /// 0 to 9; the higher goes first.
    pub priority: u8,
    /// When the router took it, in milliseconds since 1970.
    pub timestamp: u64,
}

impl Request {
    /// The value of the header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON. The error is a sentence.
    #[cfg(feature = "serde_json")]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, String> {
        json(&self.payload)
    }
}

impl From<types::Message> for Request {
    fn from(message: types::Message) -> Self {
        let types::Message { topic, id, key, headers, payload, priority, timestamp } = message;
        Self { topic, id, key, headers: pairs(headers), payload, priority, timestamp }
    }
}

pub(crate) fn pairs(headers: Vec<types::Header>) -> Vec<(String, String)> {
    headers.into_iter().map(|header| (header.name, header.value)).collect()
}

pub(crate) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(feature = "serde_json")]
pub(crate) fn json<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("the payload is not the JSON expected: {error}"))
}
