//! All bounds of the host in one place, each with its unit and its reason. It knows numbers and nothing else.

use std::time::Duration;

/// Messages in one call, at most. Beyond it a batch gains nothing and one poison message costs more calls.
pub const BATCH_MESSAGES: usize = 128;

/// Declared bytes in one call, at most; a larger message goes alone.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// The most fields that a filter may declare: what it reads is found and copied on no clock of its own.
pub const FIELDS: usize = 256;

/// Calls that one batch may cost, the search for its poison messages included.
pub const BATCH_CALLS: u32 = 20;

/// A batch is sized to this part of the time limit, at the version's mean cost of a message.
pub const BATCH_TIME_PART: u32 = 4;

/// Lines of the log that are kept of one call.
pub const LOG_LINES: usize = 16;

/// Bytes that are kept of one line.
pub const LOG_LINE_BYTES: usize = 1024;

/// Results that one message may have: children of a split, or topics that it is routed to.
pub const RESULTS: usize = 256;

/// Bytes of a key of the state.
pub const STATE_KEY_BYTES: usize = 256;

/// Bytes of a value of the state.
pub const STATE_VALUE_BYTES: usize = 64 * 1024;

/// Bytes of an aggregator's state. It goes in and out of every call, and is rebuilt from the replies when it is lost.
pub const GATHER_STATE_BYTES: usize = 1024 * 1024;

/// How many times the CPU limit a call may take in wall time: the backstop where CPU time does not advance.
pub const WALL_FACTOR: u32 = 100;

/// The limits of one module's calls, as its entry in the rules sets them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of the calling thread in one call. The ticker looks each millisecond, so a call can run one tick longer.
    pub cpu_time: Duration,
    /// Bytes of linear memory of one instance.
    pub memory_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
    /// Bytes that the module may hand to the host in one crossing: an answer, or the arguments of an import.
    pub crossing_bytes: usize,
    /// Edits in one answer.
    pub edits: usize,
    /// Bytes of keys and values in the module's state.
    pub state_bytes: u64,
    /// Bytes of a payload that an aggregator or a compensator gives: as much as the router takes from a client.
    pub payload_bytes: usize,
    /// Bytes of the names and values of all headers that an aggregator gives: as much as the router takes from a client.
    pub headers_bytes: usize,
}

impl Limits {
    /// These limits with a crossing that has room for a state, a payload and headers at their limits, twice over for what is
    /// counted beside bytes.
    pub(crate) fn for_whole_messages(mut self) -> Limits {
        let most = GATHER_STATE_BYTES.saturating_add(self.payload_bytes).saturating_add(self.headers_bytes);
        self.crossing_bytes = self.crossing_bytes.max(most.saturating_mul(2));
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            cpu_time: Duration::from_millis(10),
            memory_bytes: 16 * 1024 * 1024,
            table_elements: 20_000,
            crossing_bytes: 4 * 1024 * 1024,
            edits: 4_096,
            state_bytes: 64 * 1024 * 1024,
            payload_bytes: 1024 * 1024,
            headers_bytes: 64 * 1024,
        }
    }
}

/// The limits of the host as a whole.
#[derive(Debug, Clone)]
pub struct HostLimits {
    /// Bytes of a binary that is taken. The rules may raise it to 64 MiB.
    pub binary_bytes: usize,
    /// Live instances of all modules together. Each reserves 4 GiB of addresses, and no memory until it is used.
    pub instances: u32,
    /// What one compilation may take.
    pub compile: CompileLimits,
}

impl Default for HostLimits {
    fn default() -> Self {
        HostLimits { binary_bytes: 8 * 1024 * 1024, instances: 256, compile: CompileLimits::default() }
    }
}

/// What one compilation may take, in a process of its own.
#[derive(Debug, Clone)]
pub struct CompileLimits {
    /// Address space of the child process, in bytes. A module of 8 MiB needs a few hundred MiB.
    pub address_space: u64,
    /// CPU time of the child process, in whole seconds.
    pub cpu_seconds: u64,
    /// Wall time after which the child is killed: at nice 10 on a busy machine it gets little of a core.
    pub wall: Duration,
    /// Bytes of compiled code.
    pub code_bytes: u64,
    /// The child's niceness.
    pub nice: i32,
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits {
            address_space: 2 * 1024 * 1024 * 1024,
            cpu_seconds: 30,
            wall: Duration::from_secs(300),
            code_bytes: 256 * 1024 * 1024,
            nice: 10,
        }
    }
}
