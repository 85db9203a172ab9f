//! How a module's call failed: a typed value that names the module, the digest and the cause. It knows no engine.

use std::time::Duration;

use crate::answer::Lie;
use crate::digest::Digest;

/// A failed call, or a failed message of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("module {module} ({}…) failed: {cause}", &digest.to_string()[..19])]
pub struct Failure {
    /// The module's name in the rules.
    pub module: String,
    /// The digest of its binary.
    pub digest: Digest,
    /// What happened.
    pub cause: Cause,
}

/// What happened in a failed call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// It panicked; the text and place, as it logged them before it trapped.
    #[error("it panicked: {text}")]
    Panic {
        /// The panic's text.
        text: String,
    },
    /// It trapped.
    #[error("it trapped: {text}")]
    Trap {
        /// What the engine says.
        text: String,
    },
    /// It used up its CPU time.
    #[error("it used more than {limit:?} of CPU time in one call: make it cheaper, or raise `time_limit`")]
    CpuTime {
        /// The limit.
        limit: Duration,
    },
    /// It took far too long by the wall's clock.
    #[error("it took more than {limit:?} in one call, without using its CPU time")]
    WallTime {
        /// The limit.
        limit: Duration,
    },
    /// It asked for more memory than it may have.
    #[error("it asked for more than {limit} bytes of memory: make it leaner, or raise `memory_limit`")]
    Memory {
        /// The limit in bytes.
        limit: usize,
    },
    /// It asked for a table larger than it may have.
    #[error("it asked for a table of more than {limit} elements")]
    Table {
        /// The limit in elements.
        limit: usize,
    },
    /// It handed over more than it may in one crossing.
    #[error("it handed over more than {limit} bytes at once")]
    Crossing {
        /// The limit in bytes.
        limit: usize,
    },
    /// Its answer breaks the contract.
    #[error("its answer breaks the contract: {0}")]
    Lie(#[from] Lie),
    /// It called `state` where it may not.
    #[error("it called `state` {place}")]
    State {
        /// Where.
        place: &'static str,
    },
    /// It answered other fields than in an earlier instance.
    #[error(
        "`configure` answered the fields {got}, and {wanted} before with the same params: it must always answer the same"
    )]
    Fields {
        /// What it answers now.
        got: String,
        /// What it answered first.
        wanted: String,
    },
    /// It refused params that it had taken before.
    #[error("`configure` refused the params that it had taken before: {text}")]
    Refused {
        /// Its sentence.
        text: String,
    },
    /// No instance could be made of it.
    #[error("no instance could be made of it: {text}")]
    Instance {
        /// What the engine says.
        text: String,
    },
}

impl Cause {
    /// The cause in one word, for metrics.
    pub fn name(&self) -> &'static str {
        NAMES[self.number()]
    }

    /// Whether the call's time ran out.
    pub fn is_overtime(&self) -> bool {
        matches!(self, Cause::CpuTime { .. } | Cause::WallTime { .. })
    }

    pub(crate) fn number(&self) -> usize {
        match self {
            Cause::Panic { .. } => 0,
            Cause::Trap { .. } => 1,
            Cause::CpuTime { .. } => 2,
            Cause::WallTime { .. } => 3,
            Cause::Memory { .. } => 4,
            Cause::Table { .. } => 5,
            Cause::Crossing { .. } => 6,
            Cause::Lie(_) => 7,
            Cause::State { .. } => 8,
            Cause::Fields { .. } | Cause::Refused { .. } => 9,
            Cause::Instance { .. } => 10,
        }
    }
}

/// The causes' names, in the order of their numbers.
pub(crate) const NAMES: [&str; 11] = [
    "panic",
    "trap",
    "cpu_time",
    "wall_time",
    "memory",
    "table",
    "crossing",
    "contract",
    "state",
    "configure",
    "instance",
];
