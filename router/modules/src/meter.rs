//! A version's figures as plain numbers. It counts, and knows no metrics system.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock::Spent;
use crate::failure::{Cause, NAMES};

/// A version's figures since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Calls, failed ones included.
    pub calls: u64,
    /// Messages that were decided, failed ones included.
    pub messages: u64,
    /// Failed calls by cause, the causes without any left out.
    pub errors: Vec<(&'static str, u64)>,
    /// The median of a call's wall time.
    pub call_p50: Duration,
    /// Its 99th percentile.
    pub call_p99: Duration,
    /// Bytes of linear memory in live instances.
    pub memory_bytes: u64,
    /// Live instances.
    pub instances: u64,
    /// Instances made since the beginning.
    pub instances_made: u64,
    /// What the compilation took, or the loading of compiled code.
    pub compile_time: Duration,
    /// The mean CPU time of a message, as the size of batches is chosen by it.
    pub mean_message: Duration,
}

/// The counters behind the figures. One lock guards them, together with the idle instances.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) calls: u64,
    pub(crate) messages: u64,
    pub(crate) made: u64,
    errors: [u64; NAMES.len()],
    call_ns: Histogram<u32>,
}

/// The longest call that the histogram tells apart, in nanoseconds. Longer ones count as this.
const LONGEST_NS: u64 = 100_000_000_000;

impl Meter {
    pub(crate) fn new() -> Meter {
        let call_ns = Histogram::new_with_bounds(16, LONGEST_NS, 2).expect("the bounds are fixed and good");
        Meter { calls: 0, messages: 0, made: 0, errors: [0; NAMES.len()], call_ns }
    }

    pub(crate) fn count_call(&mut self, spent: Spent) {
        self.calls += 1;
        self.call_ns.saturating_record(spent.wall.as_nanos().min(u128::from(LONGEST_NS)) as u64);
    }

    pub(crate) fn count_error(&mut self, cause: &Cause) {
        self.errors[cause.number()] += 1;
    }

    pub(crate) fn errors(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.errors).filter(|(_, count)| *count > 0).collect()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.call_ns.value_at_quantile(quantile))
    }
}
