//! What the rules say of a saga, as the broker needs it: parsed, checked, without TOML. A saga keeps the settings that it began
//! under until it ends.

use bincode::{Decode, Encode};

use crate::scatter_settings::ModuleUse;

/// `[saga.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SagaSettings {
    /// A message on this very topic begins a saga.
    pub topic: String,
    /// From its beginning until it compensates.
    pub timeout_ms: u64,
    /// Decides how it is compensated; `None`: completed and unknown steps, last first.
    pub compensator: Option<ModuleUse>,
    /// Whether the compensator chooses the next step as well.
    pub advances: bool,
    /// At least one, at most 64, in order. The steps of a group follow one another.
    pub steps: Vec<StepSettings>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepSettings {
    /// Its name, unique in its saga.
    pub name: String,
    /// The queue that does it.
    pub queue: String,
    /// The queue that undoes it; `None`: there is nothing to undo.
    pub compensate: Option<String>,
    /// From an attempt's sending to its answer.
    pub timeout_ms: u64,
    /// Attempts beyond the first. Default 0.
    pub retries: u32,
    /// Waits before the second, third … attempt; the last repeats. Never empty.
    pub backoff_ms: Vec<u64>,
    /// Once this step has completed or ended unknown, nothing is compensated by itself.
    pub pivot: bool,
    /// Consecutive steps of one group run side by side.
    pub group: Option<String>,
    /// What its message carries. Default all.
    pub payload: StepPayload,
}

impl StepSettings {
    /// The queue that does the step, or that undoes it; `None`: there is nothing to undo.
    pub(crate) fn queue_for(&self, undo: bool) -> Option<&str> {
        if undo { self.compensate.as_deref() } else { Some(&self.queue) }
    }
}

/// What a step's message carries.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum StepPayload {
    /// `{"input": …, "results": {"STEP": …}}`.
    All,
    /// The payload of the message that began the saga, byte for byte.
    Input,
    /// The last result before it, byte for byte; of the first step the input.
    Previous,
}
