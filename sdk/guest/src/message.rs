//! A message that a filter makes: the one that it judges, with changes.

use std::time::Duration;

use crate::bindings::filter::chaski::module::columns::EditKind;

/// The message that is being judged, with changes; what isn't changed stays. Its id can't be changed, and its topic only by
/// [`Message::route`].
///
/// ```
/// # use chaski_guest::prelude::*;
/// let verdict = Verdict::transform(Message::new().header("checked", "yes").payload("[]"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The changes in order, as they cross to the router.
    edits: Vec<(EditKind, Vec<u8>)>,
}

impl Message {
    /// The message as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this body.
    pub fn payload(self, payload: impl Into<Vec<u8>>) -> Self {
        self.edit(EditKind::SetPayload, payload)
    }

    /// With this ordering key.
    pub fn key(self, key: impl Into<String>) -> Self {
        self.edit(EditKind::SetKey, key.into())
    }

    /// Without an ordering key.
    pub fn without_key(self) -> Self {
        self.edit(EditKind::RemoveKey, [])
    }

    /// With this header, in place of one of the same name.
    pub fn header(self, name: &str, value: &str) -> Self {
        let mut bytes = Vec::with_capacity(4 + name.len() + value.len());
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(value.as_bytes());
        self.edit(EditKind::SetHeader, bytes)
    }

    /// Without the header of this name.
    pub fn without_header(self, name: &str) -> Self {
        self.edit(EditKind::RemoveHeader, name)
    }

    /// With this priority, 0 to 9; the higher goes first.
    pub fn priority(self, priority: u8) -> Self {
        self.edit(EditKind::SetPriority, [priority])
    }

    /// With this time to live.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.edit(EditKind::SetTtl, (ttl.as_millis() as u64).to_le_bytes())
    }

    /// Without a time to live.
    pub fn without_ttl(self) -> Self {
        self.edit(EditKind::RemoveTtl, [])
    }

    /// Not delivered before this time, in milliseconds since 1970.
    pub fn deliver_at(self, time_ms: u64) -> Self {
        self.edit(EditKind::SetDeliverAt, time_ms.to_le_bytes())
    }

    /// Delivered at once, whatever its publisher asked for.
    pub fn without_deliver_at(self) -> Self {
        self.edit(EditKind::RemoveDeliverAt, [])
    }

    /// Sent to this topic instead, past the rest of the chain. Called several times it names several topics.
    pub fn route(self, topic: impl Into<String>) -> Self {
        self.edit(EditKind::Route, topic.into())
    }

    fn edit(mut self, kind: EditKind, bytes: impl Into<Vec<u8>>) -> Self {
        self.edits.push((kind, bytes.into()));
        self
    }

    pub(crate) fn edits(&self) -> &[(EditKind, Vec<u8>)] {
        &self.edits
    }
}
