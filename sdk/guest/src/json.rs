//! Payloads as JSON, whatever they are: for answers that are made of others' answers.

use serde::de::IgnoredAny;

use crate::{Response, StateBytes};

/// A payload as JSON text: as it is where it is JSON, else `{"$base64": "…"}`.
///
/// ```
/// assert_eq!(chaski_guest::json_text(b"{\"n\": 1.50}"), "{\"n\": 1.50}");
/// assert_eq!(chaski_guest::json_text(b"plain"), "{\"$base64\":\"cGxhaW4=\"}");
/// ```
pub fn json_text(payload: &[u8]) -> String {
    if let (Ok(_), Ok(text)) = (serde_json::from_slice::<IgnoredAny>(payload), std::str::from_utf8(payload)) {
        return text.trim().to_owned();
    }
    let mut text = String::from("{\"$base64\":\"");
    base64(payload, &mut text);
    text + "\"}"
}

/// A JSON array that grows by payloads, and can be the state of an aggregator. Its entries stay as they were written: no
/// number loses a digit.
///
/// ```
/// # use chaski_guest::{JsonArray, prelude::*};
/// let mut array = JsonArray::new();
/// array.push(b"{\"price\": 9.90}");
/// array.push(b"\xff");
/// assert_eq!(array.len(), 2);
/// assert_eq!(Response::from(array), Response::new("[{\"price\": 9.90},{\"$base64\":\"/w==\"}]"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JsonArray {
    len: u32,
    /// The entries with commas between them.
    entries: String,
}

impl JsonArray {
    /// One without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a payload, as [`json_text`] has it.
    pub fn push(&mut self, payload: &[u8]) {
        if self.len > 0 {
            self.entries.push(',');
        }
        self.entries += &json_text(payload);
        self.len += 1;
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl From<JsonArray> for Response {
    fn from(array: JsonArray) -> Response {
        Response::new(["[", &array.entries, "]"].concat())
    }
}

impl StateBytes for JsonArray {
    fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.entries.into_bytes();
        bytes.extend_from_slice(&self.len.to_le_bytes());
        bytes
    }

    fn from_bytes(mut bytes: Vec<u8>) -> Self {
        let kept = "the router keeps the state as it was";
        let len = u32::from_le_bytes(*bytes.last_chunk().expect(kept));
        bytes.truncate(bytes.len() - 4);
        Self { len, entries: String::from_utf8(bytes).expect(kept) }
    }
}

/// The standard alphabet, padded (RFC 4648, section 4).
fn base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { digit.into() } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, wanted) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            let mut text = String::new();
            base64(bytes.as_bytes(), &mut text);
            assert_eq!(text, wanted);
        }
    }

    #[test]
    fn an_array_survives_as_bytes() {
        let mut array = JsonArray::from_bytes(JsonArray::new().into_bytes());
        assert!(array.is_empty());
        for payload in [&b" [1, 2.50] "[..], b"", b"{\"a\":", b"null x"] {
            array.push(payload);
            array = JsonArray::from_bytes(array.into_bytes());
        }
        assert_eq!(array.len(), 4);
        let text = r#"[[1, 2.50],{"$base64":""},{"$base64":"eyJhIjo="},{"$base64":"bnVsbCB4"}]"#;
        assert_eq!(Response::from(array), Response::new(text));
    }
}
