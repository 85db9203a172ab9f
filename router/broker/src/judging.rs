//! Publishes and transactions that wait for filters which keep state: volatile, bounded. Nothing of them is journaled or
//! confirmed before the judgement is here, so a crash loses nothing.

/// Why filters came to no result; nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JudgeError {
    /// A filter failed, and its `on_error` is "retry".
    FilterFailed {
        /// Which, and how.
        detail: String,
    },
    /// Too much waits.
    Busy {
        /// For what.
        detail: String,
    },
    /// A filter's module is not deployed.
    ModuleMissing {
        /// Which.
        detail: String,
    },
}
