//! What an aggregator is told of a gather, and what it answers, checked: an answer can be too large, or name a header that it
//! may not. It knows the contract's records, and nothing of calls.

use crate::answer::Lie;
use crate::bindings::aggregator::chaski::module::gathering as wit;
use crate::guest::cut;
use crate::limits::{GATHER_STATE_BYTES, Limits};
use crate::request::headers_to_wit;

/// What happened to one recipient of a gather.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatherEvent {
    /// It answered.
    Reply {
        /// A name among those given to `begin`.
        recipient: String,
        /// When the router took the answer, in milliseconds since 1970.
        at_ms: u64,
        /// The answer's headers.
        headers: Vec<(String, String)>,
        /// The answer's body.
        payload: Vec<u8>,
    },
    /// It failed.
    Failed {
        /// A name among those given to `begin`.
        recipient: String,
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// Why, as a sentence.
        reason: String,
    },
    /// It had said nothing when the gather's time was over.
    Silent {
        /// A name among those given to `begin`.
        recipient: String,
    },
}

/// Why a gather ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatherEnd {
    /// As many replies as the scatter asks for are in.
    Quorum,
    /// The aggregator was done.
    Done,
    /// Every recipient has answered or failed, without reaching the quorum.
    Settled,
    /// Its time is over.
    Timeout,
}

/// The aggregator's state after an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded {
    /// The new state, at most [`GATHER_STATE_BYTES`].
    pub state: Vec<u8>,
    /// Whether the aggregator has seen enough.
    pub done: bool,
}

/// What the requester gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Headers to set: names and values. No name begins with `chaski-`, and none is there twice.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Vec<u8>,
}

impl GatherEvent {
    pub(crate) fn to_wit(&self) -> wit::Event {
        match self {
            GatherEvent::Reply { recipient, at_ms, headers, payload } => wit::Event::Reply(wit::Reply {
                recipient: recipient.clone(),
                at: *at_ms,
                headers: headers_to_wit(headers),
                payload: payload.clone(),
            }),
            GatherEvent::Failed { recipient, at_ms, reason } => wit::Event::Failed(wit::Failure {
                recipient: recipient.clone(),
                at: *at_ms,
                reason: reason.clone(),
            }),
            GatherEvent::Silent { recipient } => wit::Event::Silent(recipient.clone()),
        }
    }
}

impl GatherEnd {
    pub(crate) fn to_wit(self) -> wit::End {
        match self {
            GatherEnd::Quorum => wit::End::Quorum,
            GatherEnd::Done => wit::End::Done,
            GatherEnd::Settled => wit::End::Settled,
            GatherEnd::Timeout => wit::End::Timeout,
        }
    }
}

/// A state that is small enough to be kept.
pub(crate) fn check_state(state: Vec<u8>) -> Result<Vec<u8>, Lie> {
    match state.len() <= GATHER_STATE_BYTES {
        true => Ok(state),
        false => Err(Lie::State { got: state.len() }),
    }
}

pub(crate) fn check_folded(folded: wit::Folded) -> Result<Folded, Lie> {
    Ok(Folded { state: check_state(folded.state)?, done: folded.done })
}

/// The response, or the reason for which the gather fails.
pub(crate) fn check_finished(
    finished: Result<wit::Response, String>,
    limits: &Limits,
) -> Result<Result<Response, String>, Lie> {
    let wit::Response { headers, payload } = match finished {
        Ok(response) => response,
        Err(reason) => return Ok(Err(cut(reason))),
    };
    check_payload(&payload, limits)?;
    let bytes = headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    if bytes > limits.headers_bytes {
        return Err(Lie::Headers { got: bytes, limit: limits.headers_bytes });
    }
    let mut checked: Vec<(String, String)> = Vec::with_capacity(headers.len());
    for header in headers {
        let name = header.name;
        let wrong = name.is_empty() || !name.is_ascii() || name.starts_with("chaski-");
        if wrong || checked.iter().any(|(known, _)| *known == name) {
            return Err(Lie::ResponseHeader { name: cut(name) });
        }
        checked.push((name, header.value));
    }
    Ok(Ok(Response { headers: checked, payload }))
}

/// A body that the router would take from anybody.
pub(crate) fn check_payload(payload: &[u8], limits: &Limits) -> Result<(), Lie> {
    match payload.len() <= limits.payload_bytes {
        true => Ok(()),
        false => Err(Lie::Payload { got: payload.len(), limit: limits.payload_bytes }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::chaski::module::types::Header;

    fn finish(headers: &[(&str, &str)], payload: usize) -> Result<Result<Response, String>, Lie> {
        let header = |(name, value): &(&str, &str)| Header { name: (*name).into(), value: (*value).into() };
        let headers = headers.iter().map(header).collect();
        let limits = Limits { payload_bytes: 3, headers_bytes: 10, ..Limits::default() };
        check_finished(Ok(wit::Response { headers, payload: vec![0; payload] }), &limits)
    }

    #[test]
    fn a_response_keeps_to_what_a_message_may_be() {
        assert!(finish(&[("a", "1"), ("b", "2")], 3).is_ok());
        assert_eq!(finish(&[], 4), Err(Lie::Payload { got: 4, limit: 3 }));
        assert_eq!(finish(&[("a", "1234567890")], 0), Err(Lie::Headers { got: 11, limit: 10 }));
        for name in ["chaski-x", "", "ü"] {
            assert_eq!(finish(&[(name, "")], 0), Err(Lie::ResponseHeader { name: name.into() }));
        }
        assert_eq!(finish(&[("a", ""), ("a", "")], 0), Err(Lie::ResponseHeader { name: "a".into() }));
    }

    #[test]
    fn a_reason_is_kept_as_far_as_a_line_of_the_log() {
        let finished = check_finished(Err("é".repeat(1_000)), &Limits::default());
        assert_eq!(finished, Ok(Err("é".repeat(512))));
    }

    #[test]
    fn a_state_of_one_mebibyte_is_kept_and_no_more() {
        assert!(check_state(vec![0; 1 << 20]).is_ok());
        assert_eq!(check_state(vec![0; (1 << 20) + 1]), Err(Lie::State { got: (1 << 20) + 1 }));
    }
}
