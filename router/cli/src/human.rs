//! Numbers, times and payloads as people read them. Pure: `now` is an argument.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// `1.5 KiB`, `200 B`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // 1023.95 would be rounded to 1024.0.
    while value >= 1023.95 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// The two greatest units: `3d 4h`, `2m 5s`, `0s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 && !duration.is_zero() {
        return format!("{}ms", duration.as_millis());
    }
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let said = parts.iter().skip(first).take(2).filter(|(count, _)| *count > 0);
    let said: Vec<String> = said.map(|(count, unit)| format!("{count}{unit}")).collect();
    if said.is_empty() { "0s".to_owned() } else { said.join(" ") }
}

/// How long ago a time in RFC 3339 was; the text itself when it is none.
pub(crate) fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => {
            duration(Duration::from_secs(u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)))
        }
        Err(_) => time.to_owned(),
    }
}

/// RFC 3339 with milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.3}"))
}

/// Text without what would move a terminal's cursor.
pub(crate) fn harmless(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let keep = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    text.chars().map(keep).collect()
}

/// One line of at most `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(limit) {
        line.truncate(cut);
        line.push('…');
    }
    harmless(&line)
}

/// `1 message`, `2 messages`.
pub(crate) fn count(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        for (ms, text) in
            [(0, "0s"), (250, "250ms"), (125_000, "2m 5s"), (120_000, "2m"), (86_400_000 + 61_000, "1d")]
        {
            assert_eq!(duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn ages_are_never_negative() {
        let now: Timestamp = "2026-01-01T00:02:05Z".parse().expect("a time");
        assert_eq!(age("2026-01-01T00:00:00Z", now), "2m 5s");
        assert_eq!(age("2027-01-01T00:00:00Z", now), "0s");
        assert_eq!(age("yesterday", now), "yesterday");
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(1500)), "1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn a_payload_cannot_move_the_cursor() {
        assert_eq!(harmless("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\n");
        assert_eq!(one_line("a\n  b c", 4), "a b …");
    }
}
