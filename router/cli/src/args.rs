//! Parsers of option values that several commands share. They know no command.

use std::time::Duration;

use chaski_protocol::parse_duration;

/// `30s`, `250ms`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map(Duration::from_millis).map_err(|error| error.to_string())
}

/// `NAME=VALUE`; the value may hold further `=`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}

/// `KEY=VALUE` of a queue's settings: the value in the rules' TOML spelling, where a word needs no quotes here.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    Ok((key, toml_value(value.trim())))
}

fn toml_value(value: &str) -> String {
    let is_toml = value.starts_with(['"', '\'', '[', '{'])
        || value == "true"
        || value == "false"
        || value.parse::<i64>().is_ok()
        || value.parse::<f64>().is_ok();
    // JSON's escapes are TOML's.
    if is_toml { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("30").unwrap_err().contains("with its unit"));
    }

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err());
        assert!(pair("=a").is_err());
    }

    #[test]
    fn settings_are_quoted_only_where_toml_asks_for_it() {
        for (text, value) in [
            ("ordering=key", "\"key\""),
            ("ack_wait = 10s", "\"10s\""),
            ("ordering=\"key\"", "\"key\""),
            ("max_deliver=3", "3"),
            ("single_active=true", "true"),
            ("backoff=[\"1s\", \"5s\"]", "[\"1s\", \"5s\"]"),
            ("ttl=a\"b", "\"a\\\"b\""),
        ] {
            assert_eq!(setting(text).expect("a pair").1, value, "{text}");
        }
    }
}
