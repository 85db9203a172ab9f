//! Messages that gathers and sagas sent into queues: to whom each belongs, and what is told when one leaves its queue. However it
//! leaves, its owner learns of it within the same command, so that both are in one batch.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;

use crate::broker::Broker;
use crate::command::{Command, DiskState};
use crate::config::Durability;
use crate::dead::shorten;
use crate::effect::Output;
use crate::hash::Plain;
use crate::ids::{Millis, QueueId, Sequence};
use crate::queue::{DELIVERED, Entry};
use crate::record::{Record, Removal};

/// To whom a message belongs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Gather(Sequence),
    Saga(Sequence),
}

/// How an owned message left its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Acked, with a result if it came with one.
    Acked(Bytes),
    /// Its consumer failed on it.
    Failed { reason: String, retryable: bool },
    /// In any other way; the reason.
    Gone(Cow<'static, str>),
}

impl Left {
    pub(crate) fn failed(reason: &str, retryable: bool) -> Left {
        Left::Failed { reason: shorten(reason).to_owned(), retryable }
    }
}

/// An owned message that left its queue.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) queue: QueueId,
    pub(crate) sequence: Sequence,
    /// Whether somebody had it.
    pub(crate) delivered: bool,
    pub(crate) how: Left,
}

/// Every owned message, and those that left and were not told of yet.
#[derive(Default)]
pub(crate) struct Owners {
    owned: HashMap<u64, Owner, Plain>,
    departed: Vec<Departed>,
}

impl Owners {
    pub(crate) fn of(&self, sequence: Sequence) -> Option<Owner> {
        if self.owned.is_empty() { None } else { self.owned.get(&sequence.0).copied() }
    }

    pub(crate) fn own(&mut self, sequence: Sequence, owner: Owner) {
        if sequence.0 > 0 {
            self.owned.insert(sequence.0, owner);
        }
    }

    pub(crate) fn disown(&mut self, sequence: Sequence) {
        self.owned.remove(&sequence.0);
    }

    /// A message left a queue; how, whoever took it out may say better.
    pub(crate) fn note(&mut self, queue: QueueId, sequence: Sequence, delivered: bool) {
        if self.of(sequence).is_some() {
            let how = Left::Gone(Cow::Borrowed("it left its queue"));
            self.departed.push(Departed { queue, sequence, delivered, how });
        }
    }

    /// Says how the message that just left did.
    pub(crate) fn explain(&mut self, sequence: Sequence, how: impl FnOnce() -> Left) {
        if let Some(last) = self.departed.last_mut().filter(|last| last.sequence == sequence) {
            last.how = how();
        }
    }

    pub(crate) fn any_departed(&self) -> bool {
        !self.departed.is_empty()
    }
}

/// Whether somebody had this message, or may have had it. Of those that are older than this start (up to number `start`) nobody
/// knows: a power cut forgets the last deliveries, since nothing waits for their records.
pub(crate) fn may_be_delivered(sequence: Sequence, entry: &Entry, start: u64) -> bool {
    entry.attempts > 0 || entry.has(DELIVERED) || sequence.0 <= start
}

impl Broker {
    /// Tells owners what became of their messages; how durable what follows from it is.
    pub(crate) fn tell_owners(&mut self, now: Millis, output: &mut Output) -> Durability {
        let mut strongest = Durability::Memory;
        // Only what `memory` queues hold leaves its queue while the disk is full: its owner learns of it later.
        while self.disk != DiskState::Full && self.owners.any_departed() {
            let mut departed = std::mem::take(&mut self.owners.departed);
            for departed in departed.drain(..) {
                let durability = match self.owners.of(departed.sequence) {
                    Some(Owner::Gather(gather)) => self.gather_lost(now, gather, departed, output),
                    Some(Owner::Saga(saga)) => self.attempt_left(now, saga, departed, output),
                    None => Durability::Memory,
                };
                strongest = strongest.max(durability);
            }
            if !self.owners.any_departed() {
                // Its room is used again.
                self.owners.departed = departed;
            }
        }
        strongest
    }

    /// The disk takes records again: gathers and sagas are told what happened meanwhile.
    pub(crate) fn catch_up(&mut self, now: Millis, output: &mut Output) {
        self.fail_deaf(now, output);
        for answer in std::mem::take(&mut self.postponed) {
            match answer {
                Command::Aggregated { gather, outcome, .. } => self.aggregated(now, gather, outcome, output),
                Command::Advised { saga, call, outcome } => self.advised(now, saga, call, outcome, output),
                _ => unreachable!("only answers of modules are postponed"),
            }
        }
    }

    /// Somebody answered without a lease; `certainly`: what only steps are answered with.
    pub(crate) fn ignore_answer(&mut self, sequence: Sequence, certainly: bool) {
        let owned = matches!(self.owners.of(sequence), Some(Owner::Saga(_)));
        if certainly || owned || self.sagas.knows(sequence) {
            self.sagas.ignore(sequence, owned);
        }
    }

    /// Takes an owner's message out of a queue, its lease included. Whether somebody had it; `None`: it isn't there.
    pub(crate) fn withdraw(&mut self, id: QueueId, sequence: Sequence, output: &mut Output) -> Option<bool> {
        let queue = self.queues.get(id)?;
        let entry = *queue.entries.get(sequence.0)?;
        let journaled = queue.journaled();
        if let Some(lease) = entry.lease() {
            for slot in queue.consumers.clone() {
                if self.consumers.consumer_mut(slot).drop_lease(lease, sequence) {
                    self.enlist(slot);
                    break;
                }
            }
        }
        let record = Record::Removed { queue: id, cause: Removal::Withdrawn, sequences: vec![sequence] };
        self.commit(record, journaled, output);
        self.touch(id);
        Some(may_be_delivered(sequence, &entry, self.start))
    }
}
