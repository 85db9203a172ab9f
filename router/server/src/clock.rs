//! `now`, as SEMANTICS "Time" defines it: milliseconds since 1970 that never decrease. It reads the two clocks of the machine and
//! knows nothing of what its readers do with the time.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chaski_broker::Millis;

/// A wall clock that is further away than this raises an alarm, and is not followed until the next start.
const MAX_DIFFERENCE: Duration = Duration::from_secs(5);

/// `now` runs at most this much faster or slower than the monotonic clock: one part in a hundred.
const SLEW_DIVISOR: i128 = 100;

const NANOS_A_MILLI: i128 = 1_000_000;

/// The two clocks of a machine.
pub(crate) trait Times {
    /// Time since 1970 by the wall clock, which may jump.
    fn wall(&self) -> Duration;

    /// Time since some fixed moment, which never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Copy, Clone, Debug)]
pub(crate) struct MachineTimes {
    origin: Instant,
}

impl Default for MachineTimes {
    fn default() -> Self {
        MachineTimes { origin: Instant::now() }
    }
}

impl Times for MachineTimes {
    fn wall(&self) -> Duration {
        // A machine whose clock stands before 1970 has no idea of the time: the journal's, or 1970, is the better guess.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that is advanced by the monotonic clock and slewed towards the wall clock by at most 1 %.
#[derive(Debug)]
pub(crate) struct Clock<T = MachineTimes> {
    times: T,
    state: Cell<State>,
}

/// In nanoseconds; signed, so that differences need no care.
#[derive(Copy, Clone, Debug)]
struct State {
    now: i128,
    monotonic: i128,
    /// Wall clock minus `now`.
    difference: i128,
}

impl Clock {
    /// A clock of this machine that starts at the later of the wall clock and the last journaled time.
    pub(crate) fn new(last_journaled_ms: u64) -> Clock {
        Clock::with_times(MachineTimes::default(), Millis(last_journaled_ms))
    }
}

impl<T: Times> Clock<T> {
    /// The same over other clocks.
    pub(crate) fn with_times(times: T, last_journaled: Millis) -> Clock<T> {
        let wall = nanos(times.wall());
        let now = wall.max(i128::from(last_journaled.0) * NANOS_A_MILLI);
        let state = State { now, monotonic: nanos(times.monotonic()), difference: wall - now };
        Clock { times, state: Cell::new(state) }
    }

    /// The time; never less than the last answer.
    pub(crate) fn now(&self) -> Millis {
        let State { now, monotonic: before, .. } = self.state.get();
        let monotonic = nanos(self.times.monotonic());
        let elapsed = (monotonic - before).max(0);
        let mut now = now + elapsed;
        let mut difference = nanos(self.times.wall()) - now;
        if difference.abs() <= nanos(MAX_DIFFERENCE) {
            let most = elapsed / SLEW_DIVISOR;
            let slew = difference.clamp(-most, most);
            now += slew;
            difference -= slew;
        }
        self.state.set(State { now, monotonic, difference });
        Millis(u64::try_from(now / NANOS_A_MILLI).unwrap_or_default())
    }

    /// A sentence when the wall clock was more than 5 s away at the last look.
    pub(crate) fn alarm(&self) -> Option<String> {
        let difference = self.state.get().difference;
        if difference.abs() <= nanos(MAX_DIFFERENCE) {
            return None;
        }
        let seconds = difference.abs() / 1_000_000_000;
        let way = if difference > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the machine's clock is {seconds} s {way} the router's time, which is corrected at the next start only; set the clock \
             right, or restart the router"
        ))
    }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Hands(Rc<Cell<(Duration, Duration)>>);

    impl Hands {
        fn set(&self, wall_ms: u64, monotonic_ms: u64) {
            self.0.set((Duration::from_millis(wall_ms), Duration::from_millis(monotonic_ms)));
        }
    }

    impl Times for Hands {
        fn wall(&self) -> Duration {
            self.0.get().0
        }

        fn monotonic(&self) -> Duration {
            self.0.get().1
        }
    }

    fn clock(wall_ms: u64, journaled: u64) -> (Hands, Clock<Hands>) {
        let hands = Hands::default();
        hands.set(wall_ms, 0);
        let clock = Clock::with_times(hands.clone(), Millis(journaled));
        (hands, clock)
    }

    #[test]
    fn starts_at_the_later_of_wall_clock_and_journal() {
        assert_eq!(clock(5_000, 1_000).1.now(), Millis(5_000));
        assert_eq!(clock(5_000, 9_000).1.now(), Millis(9_000));
    }

    #[test]
    fn never_goes_back_when_the_wall_clock_does() {
        let (hands, clock) = clock(100_000, 0);
        hands.set(97_000, 1_000);
        // One second went by, slewed back by 1 %.
        assert_eq!(clock.now(), Millis(100_990));
        hands.set(97_000, 1_000);
        assert_eq!(clock.now(), Millis(100_990));
    }

    #[test]
    fn slews_towards_the_wall_clock_by_one_percent_until_it_is_there() {
        let (hands, clock) = clock(100_000, 0);
        hands.set(111_000, 10_000);
        assert_eq!(clock.now(), Millis(110_100));
        assert_eq!(clock.alarm(), None);
        hands.set(201_000, 100_000);
        assert_eq!(clock.now(), Millis(201_000));
        hands.set(202_000, 101_000);
        assert_eq!(clock.now(), Millis(202_000));
    }

    #[test]
    fn a_wall_clock_far_away_raises_an_alarm_and_is_not_followed() {
        let (hands, clock) = clock(100_000, 0);
        hands.set(161_000, 1_000);
        assert_eq!(clock.now(), Millis(101_000));
        assert!(clock.alarm().unwrap().contains("60 s ahead of"));
        hands.set(102_000, 2_000);
        clock.now();
        assert_eq!(clock.alarm(), None);
    }

    #[test]
    fn a_journal_from_the_future_raises_an_alarm() {
        let (_, clock) = clock(100_000, 200_000);
        assert_eq!(clock.now(), Millis(200_000));
        assert!(clock.alarm().unwrap().contains("100 s behind"));
    }
}
