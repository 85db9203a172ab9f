//! Dead letters: how a message dies, who is told, and the alarms that make somebody look.

use crate::broker::Broker;
use crate::effect::{Effect, Event, Held, Output, Wait};
use crate::ids::{Millis, QueueId, Sequence};
use crate::message::{DeadInfo, DeadReason, Status};
use crate::messages::RequestName;
use crate::owners::Left;
use crate::queue::Kind;
use crate::record::{Record, Removal};
use crate::requests::Owed;
use crate::timers::DROP_EVENT;
use crate::views::SagaState;

/// A consumer's reason is kept to this many bytes.
const MAX_DETAIL: usize = 1024;
/// Events about dropped messages, a queue: at most one in this time.
const DROP_EVENT_MS: u64 = 1000;

/// Something that stays wrong until somebody looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// `dead_letters`, or `saga_parked`.
    pub alarm: &'static str,
    /// The queue, or the saga's definition.
    pub queue: String,
    /// Dead letters there, or parked sagas.
    pub count: u64,
}

/// How a message dies.
pub(crate) struct Death<'a> {
    pub(crate) reason: DeadReason,
    pub(crate) detail: &'a str,
    /// The module and its digest, if a filter is to blame.
    pub(crate) blame: Option<(String, String)>,
}

impl Broker {
    /// Moves a message of an ordinary queue to its dead-letter queue, whatever its state; its lease is the caller's business.
    pub(crate) fn bury(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        reason: DeadReason,
        detail: &str,
        output: &mut Output,
    ) {
        self.bury_blaming(now, id, sequence, Death { reason, detail, blame: None }, output);
    }

    /// See [`Broker::bury`].
    pub(crate) fn bury_blaming(
        &mut self,
        now: Millis,
        id: QueueId,
        sequence: Sequence,
        death: Death<'_>,
        output: &mut Output,
    ) {
        let Death { reason, detail, blame } = death;
        let queue = self.queues.queue(id);
        let Kind::Ordinary { dead } = queue.kind else {
            unreachable!("what is dead in queue {id} doesn't die again");
        };
        let entry = queue.entries.get(sequence.0).expect("the caller found it there");
        let (module, digest) = blame.unzip();
        let info = DeadInfo {
            reason,
            detail: shorten(detail).to_owned(),
            queue: Some(queue.name.to_string()),
            route: None,
            scatter: None,
            saga: None,
            module,
            digest,
            attempts: entry.attempts,
            first_at: if entry.first_at.0 > 0 { entry.first_at } else { now },
            last_at: now,
        };
        let journaled = queue.journaled();
        let bytes = u64::from(self.messages.row(sequence).len);
        self.owe_rejection(sequence, told(reason, detail));
        let fits = self.make_room(now, dead, bytes, output);
        self.commit(Record::Dead { queue: id, sequence, info }, journaled, output);
        self.owners
            .explain(sequence, || Left::Gone(format!("{}: {}", reason.name(), shorten(detail)).into()));
        if !fits {
            let record = Record::Removed { queue: dead, cause: Removal::Dropped, sequences: vec![sequence] };
            self.commit(record, journaled, output);
            self.note_dropped(now, dead, 1);
        }
        self.touch(id);
        self.touch(dead);
        self.raise(id, dead, reason, output);
    }

    /// If the message is a request, its requester gets `rejected` at the end of this command.
    pub(crate) fn owe_rejection(&mut self, sequence: Sequence, reason: &str) {
        // A gather or saga learns of it as the message's owner.
        if self.owners.of(sequence).is_some() {
            return;
        }
        if let Some(request) = self.messages.row(sequence).request() {
            self.owe_rejection_of(request.clone(), reason);
        }
    }

    /// See [`Broker::owe_rejection`].
    pub(crate) fn owe_rejection_of(&mut self, request: RequestName, reason: &str) {
        let reason = shorten(reason).to_owned();
        self.owed.push_back(Owed { request, status: Status::Rejected, reason, after: Wait::NOTHING });
    }

    /// Tells of dead letters at `dead_alarm`, and at each tenfold of it.
    pub(crate) fn raise(&mut self, id: QueueId, dead: QueueId, reason: DeadReason, output: &mut Output) {
        let count = self.queues.queue(dead).len();
        let queue = self.queues.queue_mut(id);
        let Some(threshold) = queue.settings.dead_alarm else { return };
        let next = if queue.alarm == 0 { threshold.max(1) } else { queue.alarm.saturating_mul(10) };
        if count < next {
            return;
        }
        let first = queue.alarm == 0;
        queue.alarm = reached(threshold, count);
        let name = queue.name.to_string();
        if first {
            tell(output, Event::AlarmRaised { alarm: "dead_letters", queue: name.clone() });
        }
        tell(output, Event::DeadLetter { queue: name, count, reason });
    }

    /// Clears the alarm of a dead-letter queue that shrank.
    pub(crate) fn calm(&mut self, letters: QueueId, output: &mut Output) {
        let queue = self.queues.queue(letters);
        let (Kind::Dead { source: Some(source) }, count) = (queue.kind, queue.len()) else { return };
        let Some(queue) = self.queues.get_mut(source) else { return };
        let threshold = queue.settings.dead_alarm.unwrap_or(u64::MAX).max(1);
        if queue.alarm > 0 && count < threshold {
            queue.alarm = 0;
            tell(output, Event::AlarmCleared { alarm: "dead_letters", queue: queue.name.to_string() });
        }
    }

    /// Alarms after a start or a change of the rules: they stand, and no event tells of them again.
    pub(crate) fn recount_alarms(&mut self) {
        let standing: Vec<(QueueId, u64)> = self
            .queues
            .iter()
            .filter_map(|queue| match queue.kind {
                Kind::Ordinary { dead } => {
                    let count = self.queues.queue(dead).len();
                    let threshold = queue.settings.dead_alarm.unwrap_or(u64::MAX).max(1);
                    Some((queue.id, if count < threshold { 0 } else { reached(threshold, count) }))
                }
                Kind::Dead { .. } => None,
            })
            .collect();
        for (id, alarm) in standing {
            self.queues.queue_mut(id).alarm = alarm;
        }
    }

    /// The alarms that stand, by queue.
    pub fn alarms(&self) -> Vec<Alarm> {
        let standing = self.queues.by_name().filter(|queue| queue.alarm > 0);
        let parked = self.sagas.counts().filter(|(_, state, _)| *state == SagaState::Parked);
        let parked =
            parked.map(|(name, _, count)| Alarm { alarm: "saga_parked", queue: name.to_owned(), count });
        let dead = standing.filter_map(|queue| match queue.kind {
            Kind::Ordinary { dead } => Some(Alarm {
                alarm: "dead_letters",
                queue: queue.name.to_string(),
                count: self.queues.queue(dead).len(),
            }),
            Kind::Dead { .. } => None,
        });
        dead.chain(parked).collect()
    }

    /// Messages that nobody processed are gone: an event tells so, at most once a second.
    pub(crate) fn note_dropped(&mut self, now: Millis, id: QueueId, count: u64) {
        let queue = self.queues.queue_mut(id);
        if queue.dropped_untold == 0 {
            let at = queue.drop_event_at.max(now);
            self.timers.set(at, id, DROP_EVENT);
        }
        queue.dropped_untold += count;
    }

    /// The time for that event.
    pub(crate) fn tell_dropped(&mut self, now: Millis, id: QueueId, output: &mut Output) {
        let Some(queue) = self.queues.get_mut(id) else { return };
        let count = std::mem::take(&mut queue.dropped_untold);
        queue.drop_event_at = now.after(DROP_EVENT_MS);
        if count > 0 {
            tell(output, Event::QueueDropped { queue: queue.name.to_string(), count });
        }
    }
}

/// What a requester reads of a death.
pub(crate) fn told(reason: DeadReason, detail: &str) -> &str {
    if reason == DeadReason::Rejected { detail } else { reason.name() }
}

/// The highest of the threshold and its tenfolds that `count` has reached.
fn reached(threshold: u64, count: u64) -> u64 {
    let mut level = threshold.max(1);
    while level.saturating_mul(10) <= count {
        level *= 10;
    }
    level
}

pub(crate) fn tell(output: &mut Output, event: Event) {
    output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Event(event) });
}

/// At most `MAX_DETAIL` bytes, cut between characters.
pub(crate) fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_DETAIL)]
}

/// `sha256:HEX`.
pub(crate) fn digest_text(digest: &[u8; 32]) -> String {
    use std::fmt::Write;
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
