//! What a bench found, as a line of JSON or a row of a table. It knows nothing of routers.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

/// The longest latency that is told apart: a minute, in nanoseconds.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// One work's result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    /// What was measured.
    pub(crate) work: String,
    /// How many a second.
    pub(crate) per_second: f64,
    /// Half are at most this, in microseconds.
    pub(crate) p50_us: f64,
    /// 99 % are at most this.
    pub(crate) p99_us: f64,
    /// 99.9 % are at most this.
    pub(crate) p999_us: f64,
    /// What else was found, by name.
    #[serde(flatten)]
    pub(crate) more: BTreeMap<String, Value>,
}

impl Measurement {
    /// A result of `count` items in `elapsed`.
    pub(crate) fn new(work: impl Into<String>, count: u64, elapsed: Duration, latencies: &Latencies) -> Self {
        Measurement {
            work: work.into(),
            per_second: count as f64 / elapsed.as_secs_f64().max(1e-9),
            p50_us: latencies.at(0.50),
            p99_us: latencies.at(0.99),
            p999_us: latencies.at(0.999),
            more: BTreeMap::new(),
        }
    }

    /// Adds something else that was found.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Adds the bytes that the router wrote for each of `count` messages, where they are known.
    pub(crate) fn journaled(self, before: Option<u64>, after: Option<u64>, count: u64) -> Self {
        match (before, after) {
            (Some(before), Some(after)) => {
                let bytes = after.saturating_sub(before) as f64 / count.max(1) as f64;
                self.with("journaled_per_message", bytes.round())
            }
            _ => self,
        }
    }

    /// A number found beside the usual ones; 0 when it is not there.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.more.get(name).and_then(Value::as_f64).unwrap_or_default()
    }
}

/// Latencies of single items.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY_NS, 3);
        Latencies(histogram.expect("the bounds are constants that hdrhistogram takes"))
    }

    /// One more; above a minute counts as a minute.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds.clamp(1, MAX_LATENCY_NS));
    }

    /// Those of another, too.
    pub(crate) fn merge(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// The latency at a quantile, in microseconds; 0 when there is none.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        if self.0.is_empty() {
            return 0.0;
        }
        (self.0.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0
    }
}

/// Prints results as they come: a line of JSON each, or rows under one heading.
pub(crate) struct Report {
    json: bool,
    headed: bool,
}

impl Report {
    /// A report in JSON or as a table.
    pub(crate) fn new(json: bool) -> Report {
        Report { json, headed: false }
    }

    /// Prints one result.
    pub(crate) fn print(&mut self, found: &Measurement) -> anyhow::Result<()> {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(found)?)?;
            return Ok(());
        }
        if !self.headed {
            self.headed = true;
            writeln!(out, "{:<26} {:>13} {:>11} {:>11} {:>11}", "work", "per second", "p50", "p99", "p99.9")?;
        }
        let notes: Vec<String> = found.more.iter().map(|(name, value)| note(name, value)).collect();
        writeln!(
            out,
            "{:<26} {:>13} {:>11} {:>11} {:>11}  {}",
            found.work,
            grouped(found.per_second),
            microseconds(found.p50_us),
            microseconds(found.p99_us),
            microseconds(found.p999_us),
            notes.join(", ")
        )?;
        Ok(())
    }

    /// Says on stderr what happens now.
    pub(crate) fn say(&self, line: &str) {
        crate::out::note(line);
    }
}

fn note(name: &str, value: &Value) -> String {
    let words = name.replace('_', " ");
    match value.as_f64() {
        Some(number) if name.ends_with("per_second") => format!("{words} {}", grouped(number)),
        Some(number) if number.fract() != 0.0 => format!("{words} {number:.2}"),
        Some(number) => format!("{words} {}", grouped(number)),
        None => format!("{words} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
    }
}

/// A rate as people read it: `1 234 567`, with decimals below 100.
pub(crate) fn grouped(number: f64) -> String {
    if number.abs() < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    if number < 0.0 { format!("-{text}") } else { text }
}

/// A latency with the unit that suits it.
pub(crate) fn microseconds(us: f64) -> String {
    match us {
        us if us <= 0.0 => "-".to_owned(),
        us if us < 10.0 => format!("{us:.1} µs"),
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1_000.0),
        us => format!("{:.2} s", us / 1_000_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(1_234_567.4), "1 234 567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(0.25), "0.2");
        assert_eq!(microseconds(110.0), "110 µs");
        assert_eq!(microseconds(8_210.0), "8.21 ms");
        assert_eq!(microseconds(0.0), "-");
    }

    #[test]
    fn json_has_the_documented_fields_and_what_else_was_found() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let found = Measurement::new("publish", 1000, Duration::from_secs(2), &latencies).with("size", 256);
        let json = serde_json::to_value(&found).expect("plain data");
        assert_eq!(json["work"], "publish");
        assert_eq!(json["per_second"], 500.0);
        assert_eq!(json["size"], 256);
        for (name, expected) in [("p50_us", 500.0), ("p99_us", 990.0), ("p999_us", 999.0)] {
            let value = json[name].as_f64().expect("a number");
            assert!((value - expected).abs() <= expected * 0.01, "{name} is {value}");
        }
    }

    #[test]
    fn latencies_merge_and_none_is_zero() {
        let mut all = Latencies::new();
        assert_eq!(all.at(0.5), 0.0);
        let mut one = Latencies::new();
        one.record(Duration::from_secs(3600));
        all.merge(&one);
        assert!(all.at(0.5) >= 59_000_000.0, "an hour counts as the longest latency");
    }
}
