//! Durations and sizes as people write them: a whole number and a unit. A bare number is refused.

/// Why a text is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Milliseconds of a text like `30s`, `5m` or `250ms`.
pub fn parse_duration(text: &str) -> Result<u64, UnitError> {
    let ms = parse(text, DURATIONS, "a duration", "`30s`, `250ms`, `5m`, `2h` or `7d`")?;
    if ms > crate::MAX_DURATION_MS {
        return Err(UnitError(format!("`{text}` is longer than ten years")));
    }
    Ok(ms)
}

/// Bytes of a text like `16MiB` or `4096B`.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZES, "a size", "`16MiB`, `64KiB` or `4096B`")
}

fn parse(text: &str, units: &[(&str, u64)], what: &str, example: &str) -> Result<u64, UnitError> {
    let wrong =
        || UnitError(format!("`{text}` is not {what}: write a whole number with its unit, as {example}"));
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = text[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*factor).ok_or_else(wrong)
}

/// The shortest whole spelling: 90000 → `90s`, 120000 → `2m`.
pub fn format_duration(ms: u64) -> String {
    format(ms, &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)], "ms")
}

/// The shortest whole spelling: 1048576 → `1MiB`.
pub fn format_size(bytes: u64) -> String {
    format(bytes, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "B")
}

fn format(value: u64, units: &[(&str, u64)], least: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => format!("{value}{least}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_required_and_go_both_ways() {
        for (text, ms) in
            [("30s", 30_000), ("250ms", 250), ("5 m", 300_000), ("2min", 120_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(ms));
            assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
        }
        for text in ["30", "", "s", "-1s", "1.5s", "1 fortnight", "99999999999999999999s", "9999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        assert_eq!(format_size(16 << 20), "16MiB");
        assert!(parse_size("16").unwrap_err().to_string().contains("with its unit"));
    }
}
