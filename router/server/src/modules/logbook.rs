//! What modules log, in the router's log: so many lines a second of each version, since that log is everybody's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chaski_modules::{Level, Line};

/// Lines of one version's log that are written in one second at most.
const LINES_A_SECOND: u32 = 64;

/// One version's room in the log.
pub(crate) struct Logbook(Mutex<Room>);

/// Lines that may still be written in this second.
struct Room {
    since: Instant,
    lines: u32,
}

impl Logbook {
    pub(crate) fn new() -> Logbook {
        Logbook(Mutex::new(Room { since: Instant::now(), lines: LINES_A_SECOND }))
    }

    /// As many of the lines as there is room for.
    pub(crate) fn write(&self, module: &str, lines: &[Line], left_out: u64) {
        if lines.is_empty() && left_out == 0 {
            return;
        }
        let fits = {
            let mut room = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if room.since.elapsed() >= Duration::from_secs(1) {
                *room = Room { since: Instant::now(), lines: LINES_A_SECOND };
            }
            let fits = room.lines.min(lines.len() as u32);
            if fits == 0 && room.lines == 0 {
                return;
            }
            room.lines -= fits;
            fits as usize
        };
        let left_out = left_out + (lines.len() - fits) as u64;
        log(module, &lines[..fits], left_out);
    }
}

fn log(module: &str, lines: &[Line], left_out: u64) {
    for Line { level, text } in lines {
        match level {
            Level::Trace => tracing::trace!(target: "chaski::module", module, "{text}"),
            Level::Debug => tracing::debug!(target: "chaski::module", module, "{text}"),
            Level::Info => tracing::info!(target: "chaski::module", module, "{text}"),
            Level::Warn => tracing::warn!(target: "chaski::module", module, "{text}"),
            Level::Error | Level::Panic => tracing::error!(target: "chaski::module", module, "{text}"),
        }
    }
    if left_out > 0 {
        tracing::warn!(target: "chaski::module", module, left_out, "a module logged more lines than it may");
    }
}
