//! What stands in for the router under the author's own `cargo test`: the log's lines. (State: [`State::fake`].)
//!
//! [`State::fake`]: crate::State::fake

use std::cell::RefCell;

use crate::Level;

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Takes the lines that `log!` has written on this thread since the last call.
pub fn take_log() -> Vec<(Level, String)> {
    LINES.with(|lines| lines.take())
}

#[cfg(not(target_family = "wasm"))]
pub(crate) fn record(level: Level, line: &str) {
    LINES.with(|lines| lines.borrow_mut().push((level, line.to_owned())));
}
