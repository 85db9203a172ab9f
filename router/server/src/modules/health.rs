//! How a module's version behaves: its errors among its last messages, the CPU time that it burned, and whether it is suspended. It
//! knows no module; time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages before an error rate says anything.
const JUDGED_FROM: usize = 20;

/// CPU time that calls which ran out of time may burn in `BURN_WITHIN`.
const MAY_BURN: Duration = Duration::from_secs(1);
const BURN_WITHIN: Duration = Duration::from_secs(10);

/// The first wait of a suspended version, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// When a version is rolled back: `rollback = { errors = "5%", of = 200 }`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tolerance {
    /// Errors in percent beyond which it goes.
    pub(crate) errors_percent: u32,
    /// Of so many messages.
    pub(crate) of: u32,
}

impl Tolerance {
    /// It may fail on everything.
    pub(crate) const ALL: Tolerance = Tolerance { errors_percent: 100, of: 1 };
}

/// What is wrong with a version.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// So many of its last messages failed.
    Errors {
        /// Messages that failed.
        errors: u32,
        /// Of so many.
        of: u32,
    },
    /// It burned too much CPU time in calls that ran out of it.
    Burning,
}

/// Whether a batch may be judged now.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Yes.
    Call,
    /// Yes, to see whether the suspension can end.
    Probe,
    /// No: it takes `on_error` uncalled.
    Suspended,
}

/// The behaviour of one version.
#[derive(Debug)]
pub(crate) struct Health {
    tolerance: Tolerance,
    /// The last messages: whether each failed.
    last: VecDeque<bool>,
    errors: u32,
    burned: VecDeque<(Instant, Duration)>,
    suspended: Option<Suspended>,
}

#[derive(Debug)]
struct Suspended {
    until: Instant,
    wait: Duration,
}

impl Health {
    pub(crate) fn new(tolerance: Tolerance) -> Health {
        Health { tolerance, last: VecDeque::new(), errors: 0, burned: VecDeque::new(), suspended: None }
    }

    /// Other rules: what it may do is this now.
    pub(crate) fn bear(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
        while self.last.len() > tolerance.of.max(1) as usize {
            self.errors -= u32::from(self.last.pop_front() == Some(true));
        }
    }

    /// Whether a batch may be called. A suspended version gets one probe when its wait is over, and the next when nobody has heard of
    /// that one for as long.
    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        match &mut self.suspended {
            None => Admission::Call,
            Some(suspended) if now >= suspended.until => {
                suspended.until = now + suspended.wait;
                Admission::Probe
            }
            Some(_) => Admission::Suspended,
        }
    }

    /// A batch was judged. Says what is wrong, as long as it is.
    pub(crate) fn judged(
        &mut self,
        failed: impl Iterator<Item = bool>,
        timed_out: Duration,
        now: Instant,
    ) -> Option<Trouble> {
        for failed in failed {
            if self.last.len() == self.tolerance.of.max(1) as usize {
                self.errors -= u32::from(self.last.pop_front() == Some(true));
            }
            self.errors += u32::from(failed);
            self.last.push_back(failed);
        }
        if timed_out > Duration::ZERO {
            self.burned.push_back((now, timed_out));
        }
        while self.burned.front().is_some_and(|(at, _)| now.duration_since(*at) > BURN_WITHIN) {
            self.burned.pop_front();
        }
        if self.burned.iter().map(|(_, burned)| *burned).sum::<Duration>() > MAY_BURN {
            return Some(Trouble::Burning);
        }
        let of = self.last.len() as u32;
        let beyond = u64::from(self.errors) * 100 > u64::from(self.tolerance.errors_percent) * u64::from(of);
        (of as usize >= JUDGED_FROM && beyond).then_some(Trouble::Errors { errors: self.errors, of })
    }

    /// A probe ended. True when the version is called again from now on.
    pub(crate) fn probed(&mut self, well: bool, now: Instant) -> bool {
        if well {
            self.suspended = None;
            self.burned.clear();
            return true;
        }
        if let Some(suspended) = &mut self.suspended {
            suspended.wait = (suspended.wait * 2).min(LONGEST_WAIT);
            suspended.until = now + suspended.wait;
        }
        false
    }

    /// It is called no more but for a probe now and then. True when it was not suspended before.
    pub(crate) fn suspend(&mut self, now: Instant) -> bool {
        if self.suspended.is_some() {
            return false;
        }
        self.suspended = Some(Suspended { until: now + FIRST_WAIT, wait: FIRST_WAIT });
        true
    }

    /// Whether it is suspended.
    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Tolerance = Tolerance { errors_percent: 5, of: 200 };

    fn judge(health: &mut Health, good: usize, bad: usize) -> Option<Trouble> {
        let failed = std::iter::repeat_n(false, good).chain(std::iter::repeat_n(true, bad));
        health.judged(failed, Duration::ZERO, Instant::now())
    }

    #[test]
    fn an_error_rate_says_nothing_before_twenty_messages() {
        let mut health = Health::new(DEFAULT);
        assert_eq!(judge(&mut health, 0, 19), None);
        assert_eq!(judge(&mut health, 0, 1), Some(Trouble::Errors { errors: 20, of: 20 }));
    }

    #[test]
    fn five_percent_of_the_last_two_hundred_are_borne_and_more_are_not() {
        let mut health = Health::new(DEFAULT);
        assert_eq!(judge(&mut health, 1000, 0), None);
        assert_eq!(judge(&mut health, 0, 10), None);
        assert_eq!(judge(&mut health, 0, 1), Some(Trouble::Errors { errors: 11, of: 200 }));
        assert_eq!(judge(&mut health, 200, 0), None, "they are forgotten");
    }

    #[test]
    fn more_than_a_second_burned_within_ten_is_trouble() {
        let (mut health, start) = (Health::new(DEFAULT), Instant::now());
        let burn = |health: &mut Health, ms, at| {
            health.judged([false].into_iter(), Duration::from_millis(ms), start + Duration::from_secs(at))
        };
        assert_eq!(burn(&mut health, 1000, 0), None);
        assert_eq!(burn(&mut health, 1000, 11), None);
        assert_eq!(burn(&mut health, 1, 20), Some(Trouble::Burning));
    }

    #[test]
    fn a_suspended_version_gets_one_probe_after_a_second_then_after_two_to_a_minute() {
        let (mut health, start) = (Health::new(DEFAULT), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(health.suspend(at(0)) && !health.suspend(at(0)));
        assert_eq!(health.admit(at(999)), Admission::Suspended);
        assert_eq!(health.admit(at(1000)), Admission::Probe);
        assert_eq!(health.admit(at(1000)), Admission::Suspended, "one at a time");
        assert!(!health.probed(false, at(1000)));
        assert_eq!(health.admit(at(2999)), Admission::Suspended);
        assert_eq!(health.admit(at(3000)), Admission::Probe);
        assert_eq!(health.admit(at(4999)), Admission::Suspended);
        assert_eq!(health.admit(at(5000)), Admission::Probe, "nobody has heard of the one before");
        assert!(health.probed(true, at(5000)));
        assert_eq!(health.admit(at(5000)), Admission::Call);
        for _ in 0..10 {
            health.suspend(at(5000));
            health.probed(false, at(5000));
        }
        assert_eq!(health.admit(at(64_999)), Admission::Suspended);
        assert_eq!(health.admit(at(65_000)), Admission::Probe);
    }
}
