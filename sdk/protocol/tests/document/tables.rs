//! The tables of PROTOCOL.md: error codes, limits and the encoding of integers.

use chaski_protocol::*;

use crate::{PROTOCOL, rows};

#[test]
fn the_error_codes_are_those_of_the_code() {
    let expected: Vec<Vec<String>> = Code::ALL
        .iter()
        .map(|code| {
            let retryable = if code.is_retryable() { "yes" } else { "no" };
            let number = code.number().to_string();
            [&number, code.name(), retryable, code.sentence()].map(str::to_owned).to_vec()
        })
        .collect();
    assert_eq!(rows("\n## 13. Error codes"), expected);
}

#[test]
fn every_code_that_the_text_names_exists() {
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    // Words in code style that look like codes: what the closing section of each row of refusals names.
    let admin = rows("\n## 10. Administrative calls");
    for row in admin.iter().filter(|row| row.len() == 4) {
        let text = row[3]
            .replace("of an edit also ", "")
            .replace("and those of rules_apply", "")
            .replace("those of a publish", "");
        let words = text.split([',', ';']).map(|word| word.split(" (").next().unwrap_or(word).trim());
        for code in words.filter(|word| !word.is_empty()) {
            assert!(names.contains(&code), "{}: `{code}` is no code", row[0]);
        }
    }
    for row in rows("\n## 11. Closing a connection").iter().filter(|row| row[0] != "0") {
        assert!(names.contains(&row[0].as_str()), "`{}` is no code", row[0]);
    }
}

macro_rules! limits {
    ($($name:ident)*) => { vec![$((stringify!($name), u64::from_limit($name)),)*] };
}

/// Limits have the type that their use needs; here they are numbers.
trait FromLimit<T> {
    fn from_limit(limit: T) -> u64;
}

macro_rules! from_limit {
    ($($type:ty)*) => { $(impl FromLimit<$type> for u64 {
        fn from_limit(limit: $type) -> u64 {
            limit as u64
        }
    })* };
}

from_limit!(u8 u32 u64 usize);

#[test]
fn the_limits_are_those_of_the_code() {
    let limits: Vec<(&str, u64)> = limits! {
        DEFAULT_MAX_PAYLOAD DEFAULT_MAX_HEADERS MAX_PAYLOAD_CEILING MAX_HEADERS_CEILING MAX_TOPIC MAX_ID MAX_KEY
        MAX_QUEUE_NAME MAX_REASON MAX_TOKEN MAX_PRIORITY DEFAULT_PRIORITY MAX_DURATION_MS MAX_TRANSACTION_PARTS MAX_EXTEND
        MAX_CREDIT DEFAULT_CREDIT FRAME_OVERHEAD MAX_COMMAND_FRAME MAX_MESSAGE_FRAME MAX_ADMIN_FRAME
        MAX_ANSWER_FRAME MAX_HEADER MAX_IN_FLIGHT MAX_PAGE MAX_MODULE MAX_FILTERS MIN_DEDUP_WINDOW_MS MAX_DEDUP_WINDOW_MS
    };
    let expected: Vec<(String, u64)> =
        limits.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let documented: Vec<(String, u64)> = rows("\n## 12. Limits")
        .into_iter()
        .map(|row| (row[0].clone(), row[1].parse().expect("a limit is a number")))
        .collect();
    assert_eq!(documented, expected);
    // A limit that is added to the crate must be added above.
    let source = include_str!("../../src/limits.rs");
    let declared = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let mut declared: Vec<&str> = declared.collect();
    let mut named: Vec<&str> = limits.iter().map(|(name, _)| *name).collect();
    declared.sort_unstable();
    named.sort_unstable();
    assert_eq!(declared, named);
}

#[test]
fn integers_are_encoded_as_the_document_says() {
    let rows = rows("\n## 2. Frames and their encoding");
    let integers = rows.iter().filter_map(|row| Some((row[0].parse::<u64>().ok()?, hex(&row[1])?)));
    let integers: Vec<(u64, Vec<u8>)> = integers.filter(|(_, bytes)| !bytes.is_empty()).collect();
    let documented: Vec<u64> = integers.iter().map(|(value, _)| *value).collect();
    let boundaries = [0, 250, 251, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX];
    assert_eq!(documented, boundaries);
    for (dropped, mut bytes) in integers {
        bytes.insert(0, 0);
        let frame = frames::Passed::Message { dropped };
        let mut encoded = Vec::new();
        encode_frame(&frame, &[], &mut encoded);
        assert_eq!(encoded[4..], bytes, "{dropped}");
        assert_eq!(decode::<frames::Passed>(&bytes), Ok((frame, bytes.len())));
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    text.split(' ').map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

#[test]
fn version_and_alpn_are_those_of_the_code() {
    let alpn = std::str::from_utf8(ALPN).expect("ASCII");
    let bytes: Vec<_> = ALPN.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(PROTOCOL.contains(&format!("**ALPN** `{alpn}` (bytes `{}`)", bytes.join(" "))));
    assert!(PROTOCOL.contains(&format!("- `version`: {VERSION}.")));
    for name in [frames::STATUS_HEADER, frames::REASON_HEADER, frames::INBOX_PREFIX] {
        assert!(PROTOCOL.contains(&format!("`{name}")), "{name}");
    }
}

/// The codes of INTERFACES that concern no module, and which of them are retryable: other people's documents and scripts
/// rely on these names.
#[test]
fn the_codes_that_others_rely_on_are_there() {
    let promised = "bad_frame unknown_frame bad_topic bad_pattern bad_header reserved payload_too_large headers_too_large \
        unknown_queue unknown_module unknown_id queue_full queue_not_empty unroutable no_responders rejected failed timeout \
        reply_lost lease_lost not_allowed filter_failed* module_failed module_missing* busy* disk_low* disk_full* \
        rules_invalid aggregation_failed shutting_down* outcome_unknown unreachable* data_locked data_read_only \
        journal_corrupt format_newer";
    for promise in promised.split_whitespace() {
        let name = promise.trim_end_matches('*');
        let code = Code::ALL.iter().find(|code| code.name() == name);
        let code = code.unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(code.is_retryable(), promise.ends_with('*'), "{name}");
    }
}
