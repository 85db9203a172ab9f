//! One line of `--ndjson`: fields and payload. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chaski_protocol::Code;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Fields;
use crate::args;
use crate::failure::fail;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Line<'a> {
    topic: Option<String>,
    id: Option<String>,
    key: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    reply_to: Option<String>,
    correlation_id: Option<String>,
    priority: Option<u8>,
    ttl: Option<String>,
    delay: Option<String>,
    // `null` is a payload; no payload is another thing.
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a RawValue>,
    payload_encoding: Option<Encoding>,
    // What `consume --json` says about a delivery says nothing about a new message.
    #[serde(rename = "queue")]
    _queue: Option<IgnoredAny>,
    #[serde(rename = "sequence")]
    _sequence: Option<IgnoredAny>,
    #[serde(rename = "attempt")]
    _attempt: Option<IgnoredAny>,
    #[serde(rename = "redelivered")]
    _redelivered: Option<IgnoredAny>,
    #[serde(rename = "published_at")]
    _published_at: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    Utf8,
    Base64,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Takes a line apart.
pub(crate) fn parse(line: &[u8]) -> anyhow::Result<(Fields, Bytes)> {
    let bad = |sentence: String| fail(Code::BadRequest, sentence);
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| bad(in_one_line(&error)))?;
    let time = |name: &str, text: Option<String>| {
        text.map(|text| args::duration(&text)).transpose().map_err(|error| bad(format!("{name}: {error}")))
    };
    let fields = Fields {
        topic: line.topic,
        id: line.id,
        key: line.key,
        headers: line.headers.into_iter().collect(),
        reply_to: line.reply_to,
        correlation_id: line.correlation_id,
        priority: line.priority,
        ttl: time("ttl", line.ttl)?,
        delay: time("delay", line.delay)?,
        mandatory: false,
    };
    let Some(raw) = line.payload else { return Ok((fields, Bytes::new())) };
    let is_text = raw.get().starts_with('"');
    let payload = match (line.payload_encoding, is_text) {
        (Some(Encoding::Base64), true) => {
            let text: String = serde_json::from_str(raw.get()).map_err(|error| bad(error.to_string()))?;
            BASE64.decode(text).map_err(|error| bad(format!("payload is no base64: {error}")))?
        }
        (Some(Encoding::Base64), false) => return Err(bad("a payload in base64 is a string".to_owned())),
        (_, true) => {
            serde_json::from_str::<String>(raw.get()).map_err(|error| bad(error.to_string()))?.into_bytes()
        }
        (_, false) => compact(raw.get()),
    };
    Ok((fields, payload.into()))
}

/// The caller counts the lines: of its place in the text, only the column says something.
fn in_one_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Valid JSON without white space between its parts; order and numbers stay as they were written.
fn compact(json: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut inside, mut escaped) = (false, false);
    for byte in json.bytes() {
        if inside {
            inside = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            inside = byte == b'"';
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Expect) {
        let shown = match parse(line.as_bytes()) {
            Ok((_, payload)) => format!("{payload:?}"),
            Err(error) => format!("{}: {error}", crate::failure::code(&error)),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn payloads_are_text_or_compact_json() {
        check(r#"{"payload": "two\nllamas ß"}"#, expect![[r#"b"two\nllamas \xc3\x9f""#]]);
        check(
            r#"{"payload": {"b": 1.50, "a": [ 1e5, "x \" y" ], "n": 123456789012345678901234567890}}"#,
            expect![[r#"b"{\"b\":1.50,\"a\":[1e5,\"x \\\" y\"],\"n\":123456789012345678901234567890}""#]],
        );
        check(r#"{"payload": null}"#, expect![[r#"b"null""#]]);
        check("{}", expect![[r#"b"""#]]);
        check(r#"{"payload": "/wA=", "payload_encoding": "base64"}"#, expect![[r#"b"\xff\0""#]]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        check("nonsense", expect!["bad_request: expected ident at column 2"]);
        check(
            r#"{"payload": "?", "payload_encoding": "base64"}"#,
            expect!["bad_request: payload is no base64: Invalid symbol 63, offset 0."],
        );
        check(
            r#"{"ttl": "30"}"#,
            expect![
                "bad_request: ttl: `30` is not a duration: write a whole number with its unit, as `30s`, `250ms`, `5m`, `2h` or `7d`"
            ],
        );
        let error = parse(br#"{"heders": {}}"#).unwrap_err().to_string();
        assert!(error.starts_with("unknown field `heders`, expected one of `topic`"), "{error}");
        assert!(error.ends_with(" at column 9"), "{error}");
        check(
            r#" "topic""#,
            expect![[r#"bad_request: invalid type: string "topic", expected an object at column 8"#]],
        );
    }

    #[test]
    fn a_line_wins_over_the_options() {
        let line = br#"{"topic":"a","id":"1","key":"k","headers":{"x":"line"},"ttl":"1s","priority":9,"sequence":4}"#;
        let (fields, _) = parse(line).expect("a line");
        let options = Fields {
            topic: Some("b".to_owned()),
            headers: vec![("x".to_owned(), "option".to_owned()), ("y".to_owned(), "option".to_owned())],
            delay: Some(Duration::from_secs(2)),
            mandatory: true,
            ..Fields::default()
        };
        let message = fields.or(&options).message(Bytes::new()).expect("a topic");
        let head = message.head();
        assert_eq!((head.topic, head.id, head.key), ("a", "1", Some("k")));
        assert_eq!(head.headers, [("x", "line"), ("y", "option")]);
        assert_eq!((head.ttl_ms, head.priority), (Some(1000), 9));
        assert!(head.deliver_at_ms.is_some());
        assert!(Fields::default().message(Bytes::new()).is_err(), "no topic");
    }
}
