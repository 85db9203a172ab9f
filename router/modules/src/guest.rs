//! What the host keeps of one instance beside the engine's own: its limits, its clock, its log lines and its view of the
//! state. Imports are answered here. It must not know which messages are being judged.

use wasmtime::ResourceLimiter;

use crate::bindings::chaski::module::{columns, log, state, types};
use crate::clock::{CallClock, Overtime};
use crate::failure::Cause;
use crate::limits::{LOG_LINE_BYTES, LOG_LINES, Limits, WALL_FACTOR};
use crate::state::{Overlay, PutError};
use crate::ticker::Hold;

/// One line that a module logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// The line, cut to 1 KiB.
    pub text: String,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are every logger's")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    /// The text of a panic.
    Panic,
}

/// What a module is doing, which decides what it may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Describe,
    Configure,
    /// Answering calls.
    Work,
}

/// The lines of one call.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) kept: Vec<Line>,
    pub(crate) left_out: u64,
    panic: Option<String>,
}

/// The host's part of an instance.
pub(crate) struct Guest {
    pub(crate) phase: Phase,
    pub(crate) keeps_state: bool,
    pub(crate) clock: CallClock,
    /// Keeps the ticker awake, from the first tick of a call to its end.
    pub(crate) hold: Option<Hold>,
    pub(crate) lines: Lines,
    pub(crate) overlay: Option<Box<Overlay>>,
    pub(crate) memory_bytes: usize,
    /// Whether the instance was denied something. Then it is not used again, however well it took it.
    pub(crate) denied: Option<Denied>,
    limits: Limits,
}

/// What an instance was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Time(Overtime),
    Memory,
    Table,
    State(&'static str),
}

/// The error by which the host ends a call. What it was denied is in [`Guest::denied`].
#[derive(Debug, thiserror::Error)]
#[error("the host ended the call")]
pub(crate) struct Ended;

impl Guest {
    pub(crate) fn new(limits: Limits, keeps_state: bool) -> Guest {
        Guest {
            phase: Phase::Describe,
            keeps_state,
            clock: CallClock::start(limits.cpu_time, true),
            hold: None,
            lines: Lines::default(),
            overlay: None,
            memory_bytes: 0,
            denied: None,
            limits,
        }
    }

    /// Called at each tick.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<wasmtime::UpdateDeadline> {
        match self.clock.tick() {
            None => Ok(wasmtime::UpdateDeadline::Continue(1)),
            Some(over) => self.deny(Denied::Time(over)),
        }
    }

    fn deny<T>(&mut self, denied: Denied) -> wasmtime::Result<T> {
        self.denied = Some(denied);
        Err(wasmtime::Error::new(Ended))
    }

    /// The cause behind an error of the engine.
    pub(crate) fn cause(&mut self, error: &wasmtime::Error) -> Cause {
        let limits = &self.limits;
        match self.denied {
            Some(Denied::Time(Overtime::Cpu)) => return Cause::CpuTime { limit: limits.cpu_time },
            Some(Denied::Time(Overtime::Wall)) => {
                return Cause::WallTime { limit: limits.cpu_time * WALL_FACTOR };
            }
            Some(Denied::Memory) => return Cause::Memory { limit: limits.memory_bytes },
            Some(Denied::Table) => return Cause::Table { limit: limits.table_elements },
            Some(Denied::State(place)) => return Cause::State { place },
            None => {}
        }
        if let Some(text) = self.lines.panic.take() {
            return Cause::Panic { text };
        }
        if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
            let text = trap.to_string();
            return Cause::Trap { text: text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned() };
        }
        let text = format!("{error:#}");
        if text.contains(FUEL_EXHAUSTED) {
            return Cause::Crossing { limit: limits.crossing_bytes };
        }
        Cause::Trap { text }
    }

    fn state(&mut self) -> wasmtime::Result<&mut Overlay> {
        let place = match (self.phase, self.keeps_state, self.overlay.is_some()) {
            (Phase::Describe, ..) => "inside `describe`, where there is none",
            (Phase::Configure, ..) => "inside `configure`, where there is none",
            (Phase::Work, false, _) => "although its description says that it keeps none",
            (Phase::Work, true, false) => "in a call that was given none",
            (Phase::Work, true, true) => {
                return Ok(self.overlay.as_mut().expect("it was looked at just now"));
            }
        };
        self.deny(Denied::State(place))
    }
}

/// What the engine says when too much was handed over; its error has no public type.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.limits.memory_bytes {
            self.denied = Some(Denied::Memory);
            return Ok(false);
        }
        self.memory_bytes += desired - current;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.limits.table_elements {
            self.denied = Some(Denied::Table);
            return Ok(false);
        }
        Ok(true)
    }

    fn memories(&self) -> usize {
        1
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, line: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
            log::Level::Panic => Level::Panic,
        };
        let text = cut(line);
        if level == Level::Panic {
            self.lines.panic = Some(text.clone());
        }
        // Only one panic line is kept beyond the others, or a module could log without end at that level.
        let full = self.lines.kept.len() >= LOG_LINES;
        let panicked = self.lines.kept.iter().any(|line| line.level == Level::Panic);
        if full && (level != Level::Panic || panicked) {
            self.lines.left_out += 1;
        } else {
            self.lines.kept.push(Line { level, text });
        }
        Ok(())
    }
}

/// The text's first 1 KiB, cut between two characters.
pub(crate) fn cut(mut line: String) -> String {
    if line.len() > LOG_LINE_BYTES {
        line.truncate(line.floor_char_boundary(LOG_LINE_BYTES));
        line.shrink_to_fit();
    }
    line
}

impl state::Host for Guest {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.state()?.get(&key))
    }

    fn put(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        ttl: Option<u64>,
    ) -> wasmtime::Result<Result<(), state::Refusal>> {
        Ok(self.state()?.put(key, value, ttl).map_err(|error| match error {
            PutError::BadKey => state::Refusal::BadKey,
            PutError::ValueTooLarge => state::Refusal::ValueTooLarge,
            PutError::Full => state::Refusal::Full,
        }))
    }

    fn delete(&mut self, key: Vec<u8>) -> wasmtime::Result<()> {
        self.state()?.delete(key);
        Ok(())
    }
}

impl types::Host for Guest {}
impl columns::Host for Guest {}

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Store, StoreLimits};

    use super::*;
    use crate::engine;

    /// Two core modules of one component, each within a module's memory, and together beyond it. The pool refuses it by its own
    /// count; this engine has none.
    #[test]
    fn a_component_has_one_memory_among_all_its_core_modules() {
        let text = r#"(component
            (core module $one (memory 1)) (core instance (instantiate $one)) (core instance (instantiate $one)))"#;
        let engine = engine::compiling().unwrap();
        let component = Component::new(&engine, wat::parse_str(text).unwrap()).unwrap();
        let mut unlimited = Store::new(&engine, StoreLimits::default());
        let mut limited = Store::new(&engine, Guest::new(Limits::default(), false));
        limited.limiter(|guest| guest);
        unlimited.set_epoch_deadline(1);
        limited.set_epoch_deadline(1);
        assert!(Linker::new(&engine).instantiate(&mut unlimited, &component).is_ok());
        let Err(error) = Linker::new(&engine).instantiate(&mut limited, &component) else {
            panic!("it has two memories")
        };
        assert!(format!("{error:#}").contains("memory count"), "{error:#}");
    }
}
