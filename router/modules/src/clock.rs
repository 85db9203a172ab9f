//! The time that a call has taken: CPU time of the calling thread, with wall time as the backstop. It reads clocks, and
//! knows nothing of modules.
//!
//! Reading a thread's CPU time is a system call and costs as much as a short call of a module, so it is read only where it
//! can matter: from a call's first tick on, and at both ends of the calls of a version whose last call took long.

use std::time::Duration;

use quanta::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::limits::WALL_FACTOR;

/// A call that took longer than this in wall time has the next one measured in CPU time at both ends.
pub(crate) const EXACT_FROM: Duration = Duration::from_micros(100);

/// The CPU time that this thread has used.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// The clock of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallClock {
    began: Instant,
    /// The thread's CPU time at the call's beginning, or at its first tick.
    cpu_began: Option<Duration>,
    /// Whether `cpu_began` was read at the very beginning.
    exact: bool,
    limit: Duration,
}

/// Which time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overtime {
    Cpu,
    Wall,
}

/// What a call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Wall time.
    pub wall: Duration,
    /// CPU time: measured, or where `measured` is false the wall time, which it cannot exceed.
    pub cpu: Duration,
    /// Whether the CPU time was measured.
    pub measured: bool,
}

impl CallClock {
    pub(crate) fn start(limit: Duration, exact: bool) -> CallClock {
        CallClock { began: Instant::now(), cpu_began: exact.then(thread_cpu), exact, limit }
    }

    /// Called at each tick, on the calling thread: whether the call's time is over.
    pub(crate) fn tick(&mut self) -> Option<Overtime> {
        let cpu = thread_cpu();
        let began = *self.cpu_began.get_or_insert(cpu);
        if cpu.saturating_sub(began) >= self.limit {
            return Some(Overtime::Cpu);
        }
        (self.began.elapsed() >= self.limit * WALL_FACTOR).then_some(Overtime::Wall)
    }

    /// What the call took, and when it ended: now.
    pub(crate) fn stop(&self) -> (Spent, Instant) {
        let ended = Instant::now();
        let wall = ended.duration_since(self.began);
        let spent = match self.cpu_began {
            None => Spent { wall, cpu: wall, measured: false },
            Some(began) => {
                let cpu = thread_cpu().saturating_sub(began).min(wall);
                Spent { wall, cpu, measured: self.exact }
            }
        };
        (spent, ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that waits spends wall time and no CPU time, so it is not stopped for CPU time.
    #[test]
    fn waiting_is_not_counted_as_cpu_time() {
        let mut clock = CallClock::start(Duration::from_millis(10), true);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(clock.tick(), None);
        assert!(clock.stop().0.cpu < Duration::from_millis(10));
    }

    #[test]
    fn computing_is_stopped_at_the_limit() {
        let mut clock = CallClock::start(Duration::from_millis(2), false);
        let over = loop {
            if let Some(over) = clock.tick() {
                break over;
            }
        };
        assert_eq!(over, Overtime::Cpu);
    }

    #[test]
    fn wall_time_is_the_backstop() {
        let mut clock = CallClock::start(Duration::from_micros(100), true);
        clock.cpu_began = Some(Duration::MAX);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(clock.tick(), Some(Overtime::Wall));
    }
}
