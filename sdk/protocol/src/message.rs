//! A message block: a bincode head and the raw payload. The same bytes are published, journaled and delivered.

use bincode::{BorrowDecode, Encode};

use crate::codec::{self, DecodeError};
use crate::codes::Code;
use crate::limits::*;
use crate::topic::{check_publish_topic, check_topic, shown};

/// What most heads take beside their topic: room is made for them once.
const USUAL_HEAD: usize = 160;

/// Everything in a message but its payload, borrowed from the block (or from what will be encoded).
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, BorrowDecode)]
pub struct Head<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Its id: 1 to 128 bytes without control characters.
    pub id: &'a str,
    /// The ordering key.
    pub key: Option<&'a str>,
    /// Where a reply goes.
    pub reply_to: Option<&'a str>,
    /// The id of the request that this answers.
    pub correlation_id: Option<&'a str>,
    /// Unique names and their values, in the client's order.
    pub headers: Vec<(&'a str, &'a str)>,
    /// 0..=9, higher first; 4 is the default.
    pub priority: u8,
    /// Time to live in milliseconds.
    pub ttl_ms: Option<u64>,
    /// Not before: milliseconds since 1970.
    pub deliver_at_ms: Option<u64>,
    /// When the client made it: milliseconds since 1970.
    pub timestamp_ms: u64,
}

/// Why a head is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not decodable.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A field breaks a rule.
    #[error("{detail}")]
    Field {
        /// The code that names the rule.
        code: Code,
        /// Which field, what is wrong, what to do.
        detail: String,
    },
}

impl HeadError {
    /// The error code that a peer is told.
    pub fn code(&self) -> Code {
        match self {
            HeadError::Decode(error) => error.code(),
            HeadError::Field { code, .. } => *code,
        }
    }

    fn field(code: Code, detail: impl Into<String>) -> HeadError {
        HeadError::Field { code, detail: detail.into() }
    }
}

impl<'a> Head<'a> {
    /// Decodes the head of a block; answers it and where the payload begins.
    pub fn decode(block: &'a [u8]) -> Result<(Head<'a>, usize), HeadError> {
        Ok(codec::decode(block)?)
    }

    /// Appends the block: head, then payload.
    pub fn encode(&self, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(USUAL_HEAD + self.topic.len() + payload.len());
        codec::encode(self, out);
        out.extend_from_slice(payload);
    }

    /// Checks what a client publishes: every rule of DESIGN section 1.
    pub fn check(&self, max_headers: u32) -> Result<(), HeadError> {
        check_publish_topic(self.topic).map_err(|error| HeadError::field(error.code, error.detail))?;
        self.check_but_topic(max_headers)
    }

    /// The same for a head whose topic was found good before: most messages of a stream have the topic of the one before.
    pub fn check_but_topic(&self, max_headers: u32) -> Result<(), HeadError> {
        check_message_id(self.id).map_err(|detail| HeadError::field(Code::BadMessage, detail))?;
        if let Some(key) = self.key.filter(|key| key.is_empty() || key.len() > MAX_KEY) {
            let detail = format!("a key has 1 to {MAX_KEY} bytes, this one {}", key.len());
            return Err(HeadError::field(Code::BadMessage, detail));
        }
        if let Some(reply_to) = self.reply_to {
            check_topic(reply_to)
                .map_err(|error| HeadError::field(error.code, format!("reply_to: {}", error.detail)))?;
            if reply_to.starts_with('$') && !reply_to.starts_with("$inbox.") {
                let detail = format!("reply_to `{reply_to}` is reserved: use a topic of yours or an inbox");
                return Err(HeadError::field(Code::Reserved, detail));
            }
        }
        if let Some(correlation_id) = self.correlation_id {
            check_message_id(correlation_id)
                .map_err(|detail| HeadError::field(Code::BadMessage, format!("correlation_id: {detail}")))?;
        }
        if self.priority > MAX_PRIORITY {
            let detail = format!("a priority is 0 to {MAX_PRIORITY}, this one {}", self.priority);
            return Err(HeadError::field(Code::BadMessage, detail));
        }
        if self.ttl_ms.is_some_and(|ttl| ttl == 0 || ttl > MAX_DURATION_MS) {
            return Err(HeadError::field(Code::BadMessage, "a ttl is between 1 ms and ten years"));
        }
        if self.deliver_at_ms.is_some_and(|at| at > u64::MAX / 4) {
            return Err(HeadError::field(Code::BadMessage, "deliver_at is too far away"));
        }
        self.check_headers(max_headers)
    }

    fn check_headers(&self, max_headers: u32) -> Result<(), HeadError> {
        let mut bytes = 0;
        for (index, (name, value)) in self.headers.iter().enumerate() {
            bytes += name.len() + value.len() + 2;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                let detail = format!("header name `{}` is not visible ASCII", shown(name));
                return Err(HeadError::field(Code::BadHeader, detail));
            }
            if name.len() >= 7 && name.as_bytes()[..7].eq_ignore_ascii_case(b"chaski-") {
                let detail = format!(
                    "header `{}` is reserved: names that begin with `chaski-` are the router's",
                    shown(name)
                );
                return Err(HeadError::field(Code::Reserved, detail));
            }
            // Messages have few headers, so a pairwise look is cheaper than a set; many are compared by a set.
            let twice = if self.headers.len() <= 32 {
                self.headers[..index].iter().any(|(earlier, _)| earlier == name)
            } else {
                index == 0 && has_duplicates(&self.headers)
            };
            if twice {
                return Err(HeadError::field(
                    Code::BadHeader,
                    format!("header `{}` is given twice", shown(name)),
                ));
            }
        }
        if bytes > max_headers as usize {
            let detail = format!("headers of {bytes} bytes, where max_headers allows {max_headers}");
            return Err(HeadError::field(Code::HeadersTooLarge, detail));
        }
        Ok(())
    }
}

fn has_duplicates(headers: &[(&str, &str)]) -> bool {
    let mut names = std::collections::BTreeSet::new();
    !headers.iter().all(|(name, _)| names.insert(*name))
}

/// Checks a message id; the error is a sentence.
pub fn check_message_id(id: &str) -> Result<(), String> {
    if id.is_empty() || id.len() > MAX_ID {
        return Err(format!("an id has 1 to {MAX_ID} bytes, this one {}", id.len()));
    }
    // The quick look covers ASCII; `char::is_control` adds U+0080..U+009F.
    if id.bytes().any(|byte| !(0x20..0x7f).contains(&byte)) && id.chars().any(char::is_control) {
        return Err("an id has no control characters".to_owned());
    }
    Ok(())
}
