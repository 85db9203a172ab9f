//! One gather: what it holds, and the table of what each event does to it. It knows no queue's inside and no module; who
//! carries out what the table says is `gathering.rs`.
//!
//! ```text
//!            replied, failed (others still open)
//!              ┌──┐
//!              │  ▼
//!   begun ──► Open ──── quorum, done, settled, time is over ────► Finishing ──── answer ────► Ended
//!              │                                                     │
//!              ├── too few replies at the end: `timeout` ────────────┼──────────────────────► Ended
//!              └── the aggregator fails: `aggregation_failed` ───────┴──────────────────────► Ended
//! ```

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::codec::Kept;
use crate::effect::GatherEnd;
use crate::ids::{Millis, QueueId, Sequence, SubscriptionId};
use crate::message::Message;
use crate::scatter_settings::{OnTimeout, ScatterSettings};

/// One scatter-gather.
#[derive(Clone, Debug)]
pub(crate) struct Gather {
    pub(crate) scatter: Box<str>,
    pub(crate) settings: Arc<ScatterSettings>,
    /// The message that began it. Once it has ended, only its head's fields matter.
    pub(crate) request: Message,
    /// Where the answer goes: the latest that asked.
    pub(crate) reply_to: Option<Box<str>>,
    /// The request as it lies in the recipients' queues; 0: in none.
    pub(crate) asked: Sequence,
    pub(crate) began_at: Millis,
    pub(crate) recipients: Vec<Recipient>,
    /// Those that answered or failed, in that order: as the aggregator was told.
    pub(crate) events: Vec<u16>,
    pub(crate) phase: Phase,
    /// Ended: what a repeated request gets, and for how long it is remembered.
    pub(crate) ended: Option<Ended>,
    /// Volatile: the number of the next call of the aggregator.
    pub(crate) call: u32,
}

/// How a gather ended.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) until: Millis,
}

/// What the requester got.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Outcome {
    /// The aggregator's answer.
    Answered(Kept),
    /// Too few replies in time; a sentence.
    TimedOut(String),
    /// The aggregator failed; a sentence.
    AggregationFailed(String),
}

/// One of those that were asked.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Recipient {
    /// The queue; `None`: a subscription.
    pub(crate) queue: Option<QueueId>,
    /// The queue's name, or the subscription's pattern.
    pub(crate) name: Arc<str>,
    pub(crate) stand: Stand,
}

/// Where a recipient stands.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Stand {
    Asked,
    /// Its reply, until the gather has ended.
    Answered {
        at: Millis,
        reply: Option<Box<Kept>>,
    },
    Failed {
        at: Millis,
        reason: String,
    },
    Silent,
}

/// Where a gather stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Phase {
    /// Replies are awaited.
    Open,
    /// The aggregator makes the answer.
    Finishing(GatherEnd),
    /// It is over.
    Ended,
}

/// What happens to a gather.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A recipient that had not answered did; the tally counts it already.
    Replied,
    /// A recipient failed; the tally counts it already.
    Failed,
    /// Its time is over.
    TimedOut,
    /// The aggregator has seen enough.
    Done,
    /// The aggregator made the answer.
    Answered,
    /// The aggregator failed.
    Broken,
}

/// What the table weighs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Recipients that answered.
    pub(crate) answered: u32,
    /// Recipients whose answer is awaited.
    pub(crate) open: u32,
    /// Replies that are enough.
    pub(crate) quorum: u32,
    pub(crate) on_timeout: OnTimeout,
}

/// What follows from an event.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing more.
    Stay,
    /// Open requests are withdrawn, and the aggregator makes the answer.
    Finish(GatherEnd),
    /// The requester gets the answer.
    Answer,
    /// Open requests are withdrawn; the requester gets `timeout`.
    TimeOut,
    /// Open requests are withdrawn; the requester gets `aggregation_failed`, and the replies are kept.
    Break,
    /// It is over, or on its way there: nothing changes.
    Ignore,
}

/// Every transition of a gather.
pub(crate) fn next(phase: Phase, event: Event, tally: Tally) -> Next {
    let enough = tally.answered >= tally.quorum;
    let poor = tally.answered == 0 || (!enough && tally.on_timeout == OnTimeout::Fail);
    match (phase, event) {
        (Phase::Open, Event::Replied) if enough => Next::Finish(GatherEnd::Quorum),
        (Phase::Open, Event::Replied | Event::Failed) if tally.open > 0 => Next::Stay,
        (Phase::Open, Event::Replied | Event::Failed) if poor => Next::TimeOut,
        (Phase::Open, Event::Replied | Event::Failed) => Next::Finish(GatherEnd::Settled),
        (Phase::Open, Event::TimedOut) if poor => Next::TimeOut,
        (Phase::Open, Event::TimedOut) => Next::Finish(GatherEnd::Timeout),
        (Phase::Open, Event::Done) => Next::Finish(GatherEnd::Done),
        (Phase::Open | Phase::Finishing(_), Event::Broken) => Next::Break,
        (Phase::Finishing(_), Event::Answered) => Next::Answer,
        (Phase::Open, Event::Answered) | (Phase::Finishing(_) | Phase::Ended, _) => Next::Ignore,
    }
}

/// A fact about a gather, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum GatherFact {
    /// It began, under the rules in force.
    Begun {
        /// Its scatter.
        scatter: String,
        /// The message that began it.
        request: Kept,
        /// The request as it lies in the recipients' queues; 0: in none.
        asked: Sequence,
        /// The queues that were asked (`None`: a subscription), and their names.
        recipients: Vec<(Option<QueueId>, String)>,
    },
    /// A recipient answered.
    Replied {
        /// Its place.
        recipient: u16,
        /// The reply.
        reply: Kept,
    },
    /// A recipient failed.
    Failed {
        /// Its place.
        recipient: u16,
        /// Why.
        reason: String,
    },
    /// The request came again, and wants its answer elsewhere.
    Moved {
        /// Where.
        reply_to: String,
    },
    /// Nobody is waited for any more: the aggregator makes the answer.
    Finishing {
        /// Why.
        why: GatherEnd,
    },
    /// It is over.
    Ended {
        /// What the requester got.
        outcome: Outcome,
        /// Until when that is remembered.
        until: Millis,
    },
}

impl Gather {
    /// The numbers that the table weighs.
    pub(crate) fn tally(&self) -> Tally {
        let count = |which: fn(&Stand) -> bool| {
            self.recipients.iter().filter(|recipient| which(&recipient.stand)).count() as u32
        };
        let asked = self.recipients.len() as u32;
        Tally {
            answered: count(|stand| matches!(stand, Stand::Answered { .. })),
            open: count(|stand| *stand == Stand::Asked),
            quorum: self.settings.quorum.unwrap_or(asked).clamp(1, asked.max(1)),
            on_timeout: self.settings.on_timeout,
        }
    }

    /// Recipients that failed or said nothing.
    pub(crate) fn failed(&self) -> u32 {
        let failed = |recipient: &&Recipient| matches!(recipient.stand, Stand::Failed { .. });
        self.recipients.iter().filter(failed).count() as u32
    }

    pub(crate) fn deadline(&self) -> Millis {
        let due = self.request.fields.deliver_at.unwrap_or_default();
        self.began_at.max(due).after(self.settings.timeout_ms)
    }

    /// The recipient of this queue.
    pub(crate) fn recipient(&self, queue: QueueId) -> Option<u16> {
        let at = self.recipients.iter().position(|recipient| recipient.queue == Some(queue))?;
        Some(at as u16)
    }

    /// Whether this recipient's answer is awaited.
    pub(crate) fn awaits(&self, recipient: u16) -> bool {
        let stand = self.recipients.get(recipient as usize).map(|recipient| &recipient.stand);
        self.phase == Phase::Open && stand == Some(&Stand::Asked)
    }

    /// Whether a reply of this id is in.
    pub(crate) fn has_reply(&self, id: &[u8]) -> bool {
        self.recipients.iter().any(|recipient| match &recipient.stand {
            Stand::Answered { reply: Some(reply), .. } => reply.0.id() == id,
            _ => false,
        })
    }

    /// Bytes that it holds, about.
    pub(crate) fn bytes(&self) -> u64 {
        let replies = self.recipients.iter().map(|recipient| match &recipient.stand {
            Stand::Answered { reply: Some(reply), .. } => 192 + reply.0.body.len(),
            _ => 0,
        });
        let answer = match &self.ended {
            Some(Ended { outcome: Outcome::Answered(answer), .. }) => answer.0.body.len(),
            _ => 0,
        };
        (512 + 96 * self.recipients.len() + self.request.body.len() + replies.sum::<usize>() + answer) as u64
    }
}

/// A subscription that was asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listener {
    pub(crate) subscription: SubscriptionId,
    pub(crate) gather: Sequence,
    pub(crate) recipient: u16,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::expect_file;

    use super::*;

    /// The whole table: what follows from each event in each phase, in every case that the table tells apart.
    #[test]
    fn every_transition() {
        let mut table = String::new();
        let phases = [Phase::Open, Phase::Finishing(GatherEnd::Quorum), Phase::Ended];
        let events =
            [Event::Replied, Event::Failed, Event::TimedOut, Event::Done, Event::Answered, Event::Broken];
        let cases = [
            ("nobody answered, some open", 0, 1),
            ("nobody answered, none open", 0, 0),
            ("too few answered, some open", 1, 1),
            ("too few answered, none open", 1, 0),
            ("enough answered", 2, 1),
        ];
        for (phase, event) in phases.into_iter().flat_map(|phase| events.map(|event| (phase, event))) {
            let mut lines: Vec<(Next, Vec<String>)> = Vec::new();
            for on_timeout in [OnTimeout::Partial, OnTimeout::Fail] {
                for (case, answered, open) in cases {
                    let next = next(phase, event, Tally { answered, open, quorum: 2, on_timeout });
                    let case = format!("{case} ({on_timeout:?})");
                    match lines.iter_mut().find(|(found, _)| *found == next) {
                        Some((_, cases)) => cases.push(case),
                        None => lines.push((next, vec![case])),
                    }
                }
            }
            writeln!(table, "{phase:?} + {event:?}").unwrap();
            let always = lines.len() == 1;
            for (next, cases) in lines {
                let cases = if always { "always".to_owned() } else { cases.join("; ") };
                writeln!(table, "    {next:?}: {cases}").unwrap();
            }
        }
        expect_file!["gather_table.txt"].assert_eq(&table);
    }
}
