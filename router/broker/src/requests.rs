//! Requests and their first replies: volatile, bounded in bytes. A request is known by (topic, id), its reply by (the topic that
//! it was told to go to, the request's id).

use std::collections::{BTreeMap, HashMap};

use crate::broker::Broker;
use crate::config::ShardLimits;
use crate::dedup::Entry as Remembered;
use crate::effect::{Output, Wait};
use crate::hash::{HashKey, Plain};
use crate::ids::{Millis, Sequence};
use crate::message::{Message, Own, Status, StatusReply};
use crate::messages::RequestName;
use crate::publish::Plan;

/// Bytes that a tracked request costs beside its texts and its reply.
const OVERHEAD: u64 = 256;

/// An answer that the broker itself owes.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(crate) request: RequestName,
    pub(crate) status: Status,
    pub(crate) reason: String,
    /// What it waits for, beside its own record.
    pub(crate) after: Wait,
}

/// A request in the window.
struct Tracked {
    /// Where the message says that its reply goes.
    reply_hash: u128,
    /// Where the latest repeat wants it, if elsewhere.
    moved_to: Option<String>,
    answered: bool,
    reply: Option<Message>,
    until: Millis,
    /// Which of those that arrived.
    arrival: u64,
    bytes: u64,
}

/// What a reply finds.
pub(crate) struct Asked {
    pub(crate) hash: u128,
    pub(crate) answered: bool,
    pub(crate) moved_to: Option<String>,
}

/// Every request in the window.
#[derive(Default)]
pub(crate) struct Requests {
    tracked: HashMap<u128, Tracked, Plain>,
    replies: HashMap<u128, u128, Plain>,
    /// In the order in which they leave the window, then of arrival.
    order: BTreeMap<(Millis, u64), u128>,
    arrivals: u64,
    bytes: u64,
    /// Replies that came when the request was answered already.
    pub(crate) late: u64,
}

impl Requests {
    /// The request that this message replies to.
    pub(crate) fn asked(
        &self,
        now: Millis,
        key: HashKey,
        message: &Message,
        request_id: &[u8],
    ) -> Option<Asked> {
        if self.tracked.is_empty() {
            return None;
        }
        let hash = *self.replies.get(&key.reply(message.topic(), request_id))?;
        let tracked = self.get(now, hash)?;
        Some(Asked { hash, answered: tracked.answered, moved_to: tracked.moved_to.clone() })
    }

    /// The request, if it is still in the window: expired ones are let go some time later.
    fn get(&self, now: Millis, hash: u128) -> Option<&Tracked> {
        self.tracked.get(&hash).filter(|tracked| tracked.until > now)
    }

    /// Whether somebody answered that request.
    pub(crate) fn is_answered(&self, hash: u128) -> bool {
        self.tracked.get(&hash).is_some_and(|tracked| tracked.answered)
    }

    /// A request was handed to somebody.
    pub(crate) fn track(
        &mut self,
        key: HashKey,
        hash: u128,
        message: &Message,
        until: Millis,
        limits: &ShardLimits,
    ) {
        let reply_to = message.reply_to().expect("a request has a reply_to");
        let reply_hash = key.reply(reply_to, message.id());
        self.track_as(hash, reply_hash, None, until, limits);
    }

    fn track_as(
        &mut self,
        hash: u128,
        reply_hash: u128,
        moved_to: Option<String>,
        until: Millis,
        limits: &ShardLimits,
    ) {
        self.forget(hash);
        let bytes = OVERHEAD + moved_to.as_ref().map_or(0, |reply_to| reply_to.len() as u64);
        self.arrivals += 1;
        let arrival = self.arrivals;
        let tracked = Tracked { reply_hash, moved_to, answered: false, reply: None, until, arrival, bytes };
        self.tracked.insert(hash, tracked);
        self.replies.insert(reply_hash, hash);
        self.order.insert((until, arrival), hash);
        self.bytes += bytes;
        self.shrink(limits);
    }

    /// The first reply came.
    pub(crate) fn answered(&mut self, hash: u128, reply: &Message, limits: &ShardLimits) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        tracked.answered = true;
        if reply.body.len() as u64 <= limits.reply_max_bytes {
            // A copy: the bytes may be a small part of a large network buffer.
            let body = bytes::Bytes::copy_from_slice(&reply.body);
            tracked.reply = Some(Message { body, fields: reply.fields });
            tracked.bytes += reply.body.len() as u64;
            self.bytes += reply.body.len() as u64;
            self.shrink(limits);
        }
    }

    /// A gather or saga answered, which keeps its answer itself.
    pub(crate) fn answered_elsewhere(&mut self, hash: u128) {
        if let Some(tracked) = self.tracked.get_mut(&hash) {
            tracked.answered = true;
        }
    }

    /// A repeat wants the reply elsewhere.
    fn move_to(&mut self, hash: u128, reply_to: String, limits: &ShardLimits) {
        let Some(tracked) = self.tracked.get_mut(&hash) else { return };
        let len = reply_to.len() as u64;
        let replaced = tracked.moved_to.replace(reply_to).map_or(0, |reply_to| reply_to.len() as u64);
        tracked.bytes = tracked.bytes + len - replaced;
        self.bytes = self.bytes + len - replaced;
        self.shrink(limits);
    }

    /// Lets go what left the window, some of it.
    pub(crate) fn expire(&mut self, now: Millis, budget: usize) -> usize {
        for count in 0..budget {
            match self.order.first_key_value() {
                Some(((until, _), hash)) if *until <= now => self.forget(*hash),
                _ => return count,
            }
        }
        budget
    }

    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        self.order.first_key_value().map(|((until, _), _)| *until)
    }

    /// The oldest go when all take too much.
    fn shrink(&mut self, limits: &ShardLimits) {
        while self.bytes > limits.replies_max_bytes
            && let Some((_, hash)) = self.order.first_key_value()
        {
            self.forget(*hash);
        }
    }

    fn forget(&mut self, hash: u128) {
        if let Some(tracked) = self.tracked.remove(&hash) {
            self.order.remove(&(tracked.until, tracked.arrival));
            self.bytes -= tracked.bytes;
            if self.replies.get(&tracked.reply_hash) == Some(&hash) {
                self.replies.remove(&tracked.reply_hash);
            }
        }
    }
}

impl Broker {
    /// A request that is known came again: it gets the first reply, or its reply_to takes over.
    pub(crate) fn repeat_request(
        &mut self,
        now: Millis,
        message: &Message,
        known: Remembered,
        output: &mut Output,
    ) {
        let hash = self.hash_key.message(message.topic(), message.id());
        if self.repeat_gather(now, message, hash, known.sequence, output) {
            return;
        }
        if self.repeated_saga(now, message, known.sequence, output) {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let reply_to = text(message.reply_to().expect("a request has a reply_to"));
        if let Some(tracked) = self.requests.get(now, hash) {
            if !tracked.answered {
                self.requests.move_to(hash, reply_to, &self.rules.limits);
                return;
            }
            if let Some(reply) = tracked.reply.clone() {
                let plan = self.resolve(&reply_to);
                self.store_own(now, reply, plan, output);
                return;
            }
        } else if let Some(asked) = self.open_request(known.sequence) {
            // Not answered as far as the queues know: since a start, or since it was let go for room.
            // By the id that the client named: filters may have stored it under others.
            let reply_hash = self.hash_key.reply(asked.reply_to.as_bytes(), message.id());
            let limits = &self.rules.limits;
            self.requests.track_as(hash, reply_hash, Some(reply_to), known.expires, limits);
            return;
        }
        let request =
            RequestName { topic: text(message.topic()), id: text(message.id()), reply_to: reply_to.clone() };
        let reason = "the reply is no longer kept".to_owned();
        let owed = Owed { request, status: Status::ReplyLost, reason, after: Wait::NOTHING };
        self.say(now, &owed, &reply_to, output);
    }

    /// Answers a requester, unless somebody did before. What the answer waits for.
    pub(crate) fn answer(&mut self, now: Millis, owed: Owed, output: &mut Output) -> Wait {
        let request = &owed.request;
        let hash = self.hash_key.message(request.topic.as_bytes(), request.id.as_bytes());
        let tracked = self.requests.get(now, hash);
        if tracked.is_some_and(|tracked| tracked.answered) {
            self.requests.late += 1;
            return Wait::NOTHING;
        }
        let reply_to =
            tracked.and_then(|tracked| tracked.moved_to.clone()).unwrap_or_else(|| request.reply_to.clone());
        let Some((answer, wait)) = self.say(now, &owed, &reply_to, output) else {
            return Wait::NOTHING;
        };
        self.requests.answered(hash, &answer, &self.rules.limits);
        wait
    }

    pub(crate) fn say(
        &mut self,
        now: Millis,
        owed: &Owed,
        reply_to: &str,
        output: &mut Output,
    ) -> Option<(Message, Wait)> {
        if self.out_of_numbers() {
            return None;
        }
        let sequence = Sequence(self.draw(output));
        let Owed { request: RequestName { id: request_id, .. }, status, reason, after } = owed;
        let status = *status;
        let answer =
            (self.render)(Own::Status(StatusReply { reply_to, request_id, status, reason, sequence, now }));
        let plan = Plan { after: *after, ..self.resolve(reply_to) };
        let wait = self.store_own(now, answer.clone(), plan, output);
        Some((answer, wait))
    }

    /// The request, if an ordinary queue still holds it.
    fn open_request(&self, sequence: Sequence) -> Option<RequestName> {
        let request = self.messages.get(sequence)?.request()?;
        let held = self.queues.iter().any(|queue| !queue.is_dead() && queue.entries.contains(sequence.0));
        held.then(|| request.clone())
    }

    /// Replies that came too late since the start.
    pub fn replies_late(&self) -> u64 {
        self.requests.late
    }
}
