//! Replies to the requests of gathers: whose reply a message is, and what becomes of one that comes late. What follows from one that
//! counts is `gathering.rs`.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::broker::Broker;
use crate::codec::Kept;
use crate::command::DiskState;
use crate::config::Durability;
use crate::effect::{AggregateCall, Output, Wait};
use crate::gather::{Event, GatherFact, Phase};
use crate::ids::{ConnectionId, Millis, QueueId, Sequence};
use crate::message::{DeadInfo, DeadReason, Message};
use crate::publish::LEAST_WINDOW_MS;
use crate::record::Record;
use crate::scatter_settings::Late;
use crate::stillborn::Letter;
use crate::transactions::Ack;

/// How the topics begin that replies to gathers go to; the gather's number follows, and for a subscription its place.
pub(crate) const GATHER_QUEUE: &str = "$inbox.gather.";

/// What a reply to a gather finds.
#[derive(Clone, Debug)]
pub(crate) struct Replied {
    pub(crate) gather: Sequence,
    /// Those that were asked of whom it may be: a worker may hold the requests of several queues.
    pub(crate) recipients: SmallVec<[u16; 2]>,
}

/// Who sends a publish: what a reply to a gather is known by.
#[derive(Copy, Clone)]
pub(crate) enum Sender<'a> {
    Connection(Option<ConnectionId>),
    /// A transaction that acks these.
    Transaction(&'a [Ack]),
}

/// Whether a message goes to a gather queue.
pub(crate) fn is_gather_reply(message: &Message) -> bool {
    message.topic().starts_with(GATHER_QUEUE.as_bytes())
}

impl Broker {
    /// The gather that this message replies to.
    pub(crate) fn replied(&mut self, message: &Message, sender: Sender<'_>) -> Option<Replied> {
        let rest = message.topic().strip_prefix(GATHER_QUEUE.as_bytes())?;
        let rest = std::str::from_utf8(rest).ok()?;
        let (number, place) = match rest.split_once('.') {
            Some((number, place)) => (number, Some(place)),
            None => (rest, None),
        };
        let gather = Sequence(number.parse().ok()?);
        let Some(found) = self.gathers.get(gather) else {
            return Some(Replied { gather, recipients: SmallVec::new() });
        };
        let asked = found.asked;
        if let Some(place) = place {
            let is_subscription =
                |place: &u16| found.recipients.get(*place as usize).is_some_and(|one| one.queue.is_none());
            let recipients = place.parse().ok().filter(is_subscription).into_iter().collect();
            return Some(Replied { gather, recipients });
        }
        let queues = found.recipients.iter().map(|recipient| recipient.queue).enumerate();
        let queues: SmallVec<[(u16, QueueId); 8]> =
            queues.filter_map(|(place, queue)| Some((place as u16, queue?))).collect();
        let mut holds = |queue: QueueId| match sender {
            Sender::Transaction(acks) => acks.iter().any(|ack| ack.queue == queue && ack.sequence == asked),
            Sender::Connection(connection) => connection.is_some_and(|connection| {
                self.lease_of(queue, asked)
                    .is_some_and(|lease| self.holder(queue, asked, lease, connection).is_some())
            }),
        };
        let recipients =
            queues.into_iter().filter(|(_, queue)| holds(*queue)).map(|(place, _)| place).collect();
        Some(Replied { gather, recipients })
    }

    /// How durable a reply to this gather is.
    pub(crate) fn reply_durability(&self, replied: &Replied) -> Durability {
        let Some(gather) = self.gathers.get(replied.gather) else { return Durability::Memory };
        let awaited = replied.recipients.iter().any(|place| gather.awaits(*place));
        // What comes late may become a letter.
        if awaited || gather.settings.late == Late::Drop {
            gather.settings.durability
        } else {
            Durability::Fsync
        }
    }

    /// A reply came. Whether somebody waited for it, and what its confirmation waits for.
    pub(crate) fn take_reply(
        &mut self,
        now: Millis,
        replied: Replied,
        reply: Message,
        output: &mut Output,
    ) -> (bool, Wait) {
        let Replied { gather: number, recipients } = replied;
        let awaits = |place: &u16| {
            // The same reply once more is not the reply of the other recipient that this worker holds a request of.
            let gather = self.gathers.get(number);
            gather.is_some_and(|gather| gather.awaits(*place) && !gather.has_reply(reply.id()))
        };
        let Some(recipient) = recipients.into_iter().find(awaits) else {
            return (false, self.late_reply(now, number, reply, output));
        };
        let (bytes, most) = (reply.body.len() as u64, self.rules.limits.gathers_max_bytes);
        if self.gathers.open_bytes() + bytes > most {
            let reason = format!(
                "its reply of {bytes} bytes has no room: gathers under way hold {most} (limits.gathers_max_bytes)"
            );
            let durability = self.gather_failed(now, number, recipient, reason, output);
            return (false, Wait { position: self.position, durability });
        }
        let reply = Message { body: Bytes::copy_from_slice(&reply.body), fields: reply.fields };
        let fact = GatherFact::Replied { recipient, reply: Kept(reply.clone()) };
        let wait = self.note_gather(now, number, fact, output);
        let name = self.gather_row(number).recipients[recipient as usize].name.clone();
        let call = AggregateCall::Reply { recipient: name, at: now, reply: reply.body };
        self.call_aggregator(number, call, output);
        self.gather_event(now, number, Event::Replied, output);
        (true, wait)
    }

    /// Nobody waits for this reply, or it comes from nobody that was asked and has the request.
    fn late_reply(&mut self, now: Millis, number: Sequence, reply: Message, output: &mut Output) -> Wait {
        self.gathers.late += 1;
        self.requests.late += 1;
        let Some(gather) = self.gathers.get(number) else { return Wait::NOTHING };
        if gather.settings.late == Late::DeadLetter
            && !self.disk_full_for(crate::queues::CHASKI)
            && !self.out_of_numbers()
        {
            let late = match gather.phase {
                Phase::Open => "this reply was not its recipient's first, or came without a lease",
                Phase::Finishing(_) | Phase::Ended => "this reply came after its gather had ended",
            };
            let info = DeadInfo {
                reason: DeadReason::Expired,
                detail: late.to_owned(),
                scatter: Some(gather.scatter.to_string()),
                ..DeadInfo::at(now)
            };
            self.lay(now, Letter::of_no_queue(reply, info), None, output);
            return Wait { position: self.position, durability: Durability::Fsync };
        }
        Wait::NOTHING
    }

    /// Replies of a transaction that is refused, since a lease of it is lost. Those whose gather has withdrawn its requests come late, and are
    /// kept once, however often the transaction comes again.
    pub(crate) fn come_late(
        &mut self,
        now: Millis,
        replies: impl Iterator<Item = Message>,
        output: &mut Output,
    ) {
        for reply in replies {
            let Some(Replied { gather, .. }) = self.replied(&reply, Sender::Connection(None)) else {
                continue;
            };
            let Some(found) = self.gathers.get(gather).filter(|gather| gather.phase != Phase::Open) else {
                continue;
            };
            let kept = found.settings.late == Late::DeadLetter && self.disk != DiskState::Full;
            let hash = self.hash_key.message(reply.topic(), reply.id());
            if kept && self.dedup.check(hash, now).is_some() {
                continue;
            }
            self.late_reply(now, gather, reply, output);
            if !kept {
                continue;
            }
            let (sequence, window_ms, durability) = (Sequence(0), LEAST_WINDOW_MS, Durability::Fsync);
            self.commit(Record::Remembered { hash, sequence, at: now, window_ms, durability }, true, output);
        }
    }

    /// Replies that came when no gather waited for them, since the start.
    pub fn gather_replies_late(&self) -> u64 {
        self.gathers.late
    }
}
