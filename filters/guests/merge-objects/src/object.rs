//! JSON objects whose values stay as they were written, so that no number loses a digit.

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Deserializer;

/// The keys of a JSON object with the text of their values; none where it is something else. Of a key that is there twice the
/// last value counts.
pub(crate) fn read(payload: &[u8]) -> Option<BTreeMap<String, &str>> {
    // It is valid as a whole, so below only the places of the values are looked for.
    serde_json::from_slice::<IgnoredAny>(payload).ok()?;
    let mut rest = std::str::from_utf8(payload).ok()?.trim_start().strip_prefix('{')?;
    let mut entries = BTreeMap::new();
    while !rest.trim_start().starts_with('}') {
        let (key, behind) = value::<String>(rest.trim_start())?;
        let text = behind.trim_start().strip_prefix(':')?.trim_start();
        let (_, behind) = value::<IgnoredAny>(text)?;
        entries.insert(key, &text[..text.len() - behind.len()]);
        rest = behind.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(entries)
}

/// The object as JSON.
pub(crate) fn write(entries: &BTreeMap<String, &str>) -> String {
    let entry = |(key, text): (&String, &&str)| {
        let key = serde_json::to_string(key).expect("text can be written as JSON");
        [&key, ":", text].concat()
    };
    let entries: Vec<String> = entries.iter().map(entry).collect();
    ["{", &entries.join(","), "}"].concat()
}

/// The value that a text begins with, and what lies behind it.
fn value<T: DeserializeOwned>(text: &str) -> Option<(T, &str)> {
    let mut values = Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, wanted: &[(&str, &str)]) {
        let read = read(text.as_bytes()).expect("an object");
        let read: Vec<(&str, &str)> = read.iter().map(|(key, text)| (key.as_str(), *text)).collect();
        assert_eq!(read, wanted);
    }

    #[test]
    fn values_keep_their_text() {
        check("{}", &[]);
        check(" { } ", &[]);
        check(r#"{"b":1.50,"a":true}"#, &[("a", "true"), ("b", "1.50")]);
        check(
            "{ \"a\" : [ 1 , {\"x\": \"}\"} ] ,\n\"b\": \"\\\",:\" }",
            &[("a", "[ 1 , {\"x\": \"}\"} ]"), ("b", "\"\\\",:\"")],
        );
        check(r#"{"\u0061": null, "a": 2}"#, &[("a", "2")]);
    }

    #[test]
    fn what_is_read_is_written_again() {
        let text = r#"{"a":1e400,"q\"":"x","z":[1, 2]}"#;
        assert_eq!(write(&read(text.as_bytes()).expect("an object")), text);
    }

    #[test]
    fn anything_else_is_no_object() {
        for text in ["", "[]", "{", "{\"a\":1,}", "{\"a\":1}x", "1", "{'a':1}", "{\"a\" 1}"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }
}
