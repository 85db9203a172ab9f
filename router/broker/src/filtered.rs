//! A publish that filters concern: what they made of it, judged and stored whole under one confirm. It knows results, not
//! modules: which filter said what is the server's business.

use crate::command::Targets;
use crate::ids::QueueId;
use crate::message::{DeadInfo, Message};

/// Where a message goes.
#[derive(Clone, Debug)]
pub enum Way {
    /// To these queues and to the subscriptions of its topic: no filter concerns it.
    Direct(Targets),
    /// Where filters sent it.
    Filtered(Box<Filtered>),
    /// Not known before the dedup check: a filter that keeps state is to judge it. Its `job` names the work.
    Pending,
}

/// What filters made of a message.
#[derive(Clone, Debug, Default)]
pub struct Filtered {
    /// In order; may be empty.
    pub results: Vec<Outgoing>,
    /// Results or copies that filters dropped.
    pub dropped: u32,
    /// Rejected by a filter, failed on by one, or routed in a loop.
    pub dead: Vec<Stillborn>,
    /// Judged by a filter that keeps state: the id enters the window whatever became of it.
    pub stateful: bool,
}

/// One result.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The message.
    pub message: Message,
    /// Queues, resolved under the publish's `rules`.
    pub targets: Targets,
    /// Whether the subscriptions of its topic get it; not those of a copy that one queue's binding changed.
    pub subscriptions: bool,
    /// A filter routed it here, and no queue's binding took it out: the letter in `chaski.dlq` that it becomes if it reaches
    /// nobody.
    pub unroutable: Option<DeadInfo>,
}

/// A message that dies before a queue has it.
#[derive(Clone, Debug)]
pub struct Stillborn {
    /// The message.
    pub message: Message,
    /// A binding's filter: into this queue's dead-letter queue. `None`, a route's: into `chaski.dlq`.
    pub queue: Option<QueueId>,
    /// Its headers; the broker sets both times.
    pub info: DeadInfo,
}
