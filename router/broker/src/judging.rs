//! Publishes and transactions that wait for filters which keep state: volatile, bounded. Nothing of them is journaled or
//! confirmed before the judgement is here, so a crash loses nothing. It knows no filter: the server has the work, by its number.
//!
//! Another publish of an id that is under way waits here for the first one's outcome. Only so many wait in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::Broker;
use crate::command::{DiskState, Publish, Transaction};
use crate::effect::{
    Confirmation, Effect, Held, JudgedOutcome, Output, PublishError, TransactionError, Wait,
};
use crate::filtered::{Filtered, Way};
use crate::ids::{JobId, Millis, PublisherId, Ticket};
use crate::message::Message;
use crate::publish::{Judged, Offer, confirm};
use crate::replies::Sender;
use crate::room::Room;
use crate::states::StateWrite;

/// Publishes and transactions that wait at most, those that wait for another's outcome among them.
const MOST_WAITING: usize = 65_536;

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

/// Everything that waits.
#[derive(Default)]
pub(crate) struct Judging {
    work: BTreeMap<JobId, Work>,
    /// By the hash under which the outcome will be remembered.
    under_way: BTreeMap<u128, JobId>,
    waiting: usize,
}

/// One publish or transaction, and those that came again meanwhile.
struct Work {
    hash: u128,
    what: What,
    repeats: Vec<Repeat>,
}

#[derive(Clone)]
enum What {
    Publish(Publish),
    Transaction(Transaction),
}

struct Repeat {
    publisher: Option<PublisherId>,
    number: u64,
    /// Of a publish that is a request: where it wants its reply.
    request: Option<Message>,
}

impl Judging {
    pub(crate) fn is_under_way(&self, hash: u128) -> bool {
        !self.under_way.is_empty() && self.under_way.contains_key(&hash)
    }

    fn begin(&mut self, job: JobId, hash: u128, what: What) {
        let before = self.work.insert(job, Work { hash, what, repeats: Vec::new() });
        assert!(before.is_none(), "{job:?} is used twice");
        self.under_way.insert(hash, job);
        self.waiting += 1;
    }

    fn repeat(&mut self, hash: u128, repeat: Repeat) {
        let work = self.work.get_mut(&self.under_way[&hash]);
        work.expect("what is under way has its work").repeats.push(repeat);
        self.waiting += 1;
    }

    fn end(&mut self, job: JobId) -> Option<Work> {
        let work = self.work.remove(&job)?;
        self.under_way.remove(&work.hash);
        self.waiting -= 1 + work.repeats.len();
        Some(work)
    }

    fn what(&self, job: JobId) -> Option<&What> {
        self.work.get(&job).map(|work| &work.what)
    }

    fn check(&self) -> Result<(), PublishError> {
        if self.waiting < MOST_WAITING {
            return Ok(());
        }
        let detail = format!("{MOST_WAITING} publishes wait for filters that keep state");
        Err(PublishError::Judge(JudgeError::Busy { detail }))
    }
}

impl Broker {
    /// Publishes and transactions that wait for filters which keep state.
    pub fn being_judged(&self) -> u64 {
        self.judging.waiting as u64
    }

    /// A publish that filters with state are to judge: unless its id is known, or it is refused before.
    pub(crate) fn begin_publish(&mut self, now: Millis, hash: u128, publish: Publish, output: &mut Output) {
        let job = publish.job.expect("a pending publish names the work under way for it");
        let early = if let Some(known) = self.dedup.check(hash, now) {
            Some(Ok(Judged::Duplicate(known)))
        } else if self.asked(now, &publish.message).is_some_and(|request| request.answered) {
            Some(Ok(Judged::Late))
        } else {
            self.check_pending().err().map(Err)
        };
        let Some(early) = early else {
            self.judging.begin(job, hash, What::Publish(publish));
            invoke(job, output);
            return;
        };
        spare(Some(job), output);
        let Publish { publisher, number, message, .. } = publish;
        let (outcome, wait) = match early {
            Ok(judged) => {
                let (confirmation, wait) = self.perform(now, message, judged, output);
                (Ok(confirmation), wait)
            }
            Err(error) => (Err(error), Wait::NOTHING),
        };
        confirm(publisher, number, outcome, wait, output);
    }

    /// A publish whose id is under way waits for that one's outcome.
    pub(crate) fn await_first(&mut self, hash: u128, publish: Publish, output: &mut Output) {
        let Publish { publisher, number, message, job, .. } = publish;
        spare(job, output);
        match self.judging.check() {
            Ok(()) => {
                let request = message.fields.reply_to.is_some().then_some(message);
                self.judging.repeat(hash, Repeat { publisher, number, request });
            }
            Err(error) => confirm(publisher, number, Err(error), Wait::NOTHING, output),
        }
    }

    /// A transaction whose id is under way waits for that one's outcome. Gives back one that needn't.
    pub(crate) fn await_first_transaction(
        &mut self,
        hash: u128,
        transaction: Transaction,
        output: &mut Output,
    ) -> Option<Transaction> {
        if !self.judging.is_under_way(hash) {
            return Some(transaction);
        }
        spare(transaction.job, output);
        let (publisher, number) = (transaction.publisher, transaction.number);
        match self.judging.check() {
            Ok(()) => {
                self.judging.repeat(hash, Repeat { publisher: Some(publisher), number, request: None });
            }
            Err(error) => {
                let outcome = Err(at_first_pending(&transaction, error));
                answer(publisher, number, outcome, Wait::NOTHING, output);
            }
        }
        None
    }

    /// A transaction with parts that filters with state are to judge. Gives back one whose parts are all known: there is
    /// nothing to judge.
    pub(crate) fn begin_transaction(
        &mut self,
        now: Millis,
        hash: u128,
        transaction: Transaction,
        output: &mut Output,
    ) -> Option<Transaction> {
        let Some(job) = transaction.job else { return Some(transaction) };
        let known = |broker: &Broker, message: &Message| {
            let hash = broker.hash_key.message(message.topic(), message.id());
            broker.dedup.check(hash, now).is_some()
        };
        let pending = transaction.publishes.iter().filter(|(_, way, _)| matches!(way, Way::Pending));
        if pending.clone().all(|(message, ..)| known(self, message)) {
            spare(Some(job), output);
            return Some(transaction);
        }
        let refused = match self.check_transaction(&transaction, self.disk) {
            Ok(_) => self.judging.check().err().map(|error| at_first_pending(&transaction, error)),
            Err(error) => Some(error),
        };
        if let Some(error) = refused {
            spare(Some(job), output);
            answer(transaction.publisher, transaction.number, Err(error), Wait::NOTHING, output);
            return None;
        }
        self.judging.begin(job, hash, What::Transaction(transaction));
        invoke(job, output);
        None
    }

    /// Filters have judged: what they wrote, and what became of those that waited for them.
    pub(crate) fn judged(
        &mut self,
        now: Millis,
        ticket: Ticket,
        writes: Vec<(String, Vec<StateWrite>)>,
        jobs: Vec<(JobId, Result<Vec<Filtered>, JudgeError>)>,
        output: &mut Output,
    ) {
        let taken = self.disk != DiskState::Full;
        let wrote = writes.iter().any(|(_, writes)| !writes.is_empty());
        let refused = if taken && wrote { self.refused(now, &jobs) } else { Vec::new() };
        let outcome = match (taken, &refused[..]) {
            (false, _) => JudgedOutcome::DiskFull,
            (true, []) => JudgedOutcome::Taken,
            (true, refused) => JudgedOutcome::Refused(refused.iter().map(|(job, _)| *job).collect()),
        };
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Judged { ticket, outcome } });
        if !refused.is_empty() {
            for (job, why) in refused {
                self.end_job(now, job, Err(why), output);
            }
            return;
        }
        if taken {
            for (module, writes) in writes {
                self.write_state(now, module, writes, output);
            }
        }
        for (job, outcome) in jobs {
            let outcome = match outcome {
                Ok(filtered) if taken => Ok(filtered),
                Err(error) if taken => Err(Why::Judge(PublishError::Judge(error))),
                _ => Err(Why::Judge(PublishError::DiskFull)),
            };
            self.end_job(now, job, outcome, output);
        }
    }

    /// A job's work is over: its publisher is answered, and those that waited for the same outcome.
    fn end_job(&mut self, now: Millis, job: JobId, outcome: Result<Vec<Filtered>, Why>, output: &mut Output) {
        let Some(Work { hash, what, repeats }) = self.judging.end(job) else { return };
        match what {
            What::Publish(publish) => self.end_publish(now, hash, publish, repeats, outcome, output),
            What::Transaction(transaction) => {
                self.end_transaction(now, transaction, repeats, outcome, output);
            }
        }
    }

    /// Those of the jobs that would be refused, were all done in their order.
    fn refused(
        &mut self,
        now: Millis,
        jobs: &[(JobId, Result<Vec<Filtered>, JudgeError>)],
    ) -> Vec<(JobId, Why)> {
        let mut room = Room::admitted();
        let mut refused = Vec::new();
        for (job, outcome) in jobs {
            let (Ok(filtered), Some(what)) = (outcome, self.judging.what(*job).cloned()) else { continue };
            // What a refused one would have taken is there for the others.
            let before = room.clone();
            let why = match what {
                What::Publish(publish) => {
                    let publish = judged_publish(publish, filtered.clone());
                    let Publish { rules, mandatory, message, way, connection, .. } = publish;
                    let (hash, sender) = (
                        self.hash_key.message(message.topic(), message.id()),
                        Sender::Connection(connection),
                    );
                    let offer = Offer { hash, rules, message: &message, mandatory, sender };
                    self.judge(now, offer, way, &mut room).err().map(Why::Judge)
                }
                What::Transaction(transaction) => {
                    let transaction = judged_transaction(transaction, filtered.clone());
                    self.judge_transaction(now, transaction, &mut room).err().map(Why::Transaction)
                }
            };
            if let Some(why) = why {
                room = before;
                refused.push((*job, why));
            }
        }
        refused
    }

    fn check_pending(&self) -> Result<(), PublishError> {
        match self.disk {
            DiskState::Plenty => self.judging.check(),
            DiskState::Low => Err(PublishError::DiskLow),
            DiskState::Full => Err(PublishError::DiskFull),
        }
    }

    fn end_publish(
        &mut self,
        now: Millis,
        hash: u128,
        publish: Publish,
        repeats: Vec<Repeat>,
        outcome: Result<Vec<Filtered>, Why>,
        output: &mut Output,
    ) {
        let (publisher, number) = (publish.publisher, publish.number);
        let (outcome, wait) = match outcome {
            Ok(filtered) => {
                let publish = judged_publish(publish, filtered);
                self.do_publish(now, hash, publish, Room::admitted(), output)
            }
            Err(Why::Judge(error)) => (Err(error), Wait::NOTHING),
            Err(Why::Transaction(_)) => unreachable!("a publish is no transaction"),
        };
        confirm(publisher, number, outcome.clone(), wait, output);
        for Repeat { publisher, number, request } in repeats {
            if let (Some(message), Ok(_), Some(known)) = (request, &outcome, self.dedup.check(hash, now)) {
                self.repeat_request(now, &message, known, output);
            }
            let outcome = outcome.clone().map(|Confirmation { sequence, .. }| Confirmation {
                sequence,
                duplicate: true,
                ..Confirmation::default()
            });
            confirm(publisher, number, outcome, wait, output);
        }
    }

    fn end_transaction(
        &mut self,
        now: Millis,
        transaction: Transaction,
        repeats: Vec<Repeat>,
        outcome: Result<Vec<Filtered>, Why>,
        output: &mut Output,
    ) {
        let (publisher, number) = (transaction.publisher, transaction.number);
        let done = match outcome {
            Ok(filtered) => {
                let transaction = judged_transaction(transaction, filtered);
                self.try_transact(now, transaction, Room::admitted(), output)
            }
            Err(Why::Transaction(error)) => Err(error),
            Err(Why::Judge(PublishError::DiskFull)) => Err(TransactionError::Disk(PublishError::DiskFull)),
            Err(Why::Judge(error)) => Err(at_first_pending(&transaction, error)),
        };
        let (wait, outcome) = match done {
            Ok((confirmations, wait)) => (wait, Ok(confirmations)),
            Err(error) => (Wait::NOTHING, Err(error)),
        };
        answer(publisher, number, outcome.clone(), wait, output);
        for Repeat { publisher, number, .. } in repeats {
            let publisher = publisher.expect("a transaction has somebody who waits for it");
            answer(publisher, number, outcome.clone(), wait, output);
        }
    }
}

/// Why a job comes to nothing.
#[derive(Debug)]
enum Why {
    /// Its filters came to no result, or what they made of a publish is refused.
    Judge(PublishError),
    /// What they made of a transaction is refused.
    Transaction(TransactionError),
}

/// A publish with what filters made of it.
fn judged_publish(mut publish: Publish, filtered: Vec<Filtered>) -> Publish {
    let [filtered] = <[Filtered; 1]>::try_from(filtered).expect("a publish has one judgement");
    publish.way = Way::Filtered(Box::new(filtered));
    publish
}

/// A transaction with what filters made of its pending parts.
fn judged_transaction(mut transaction: Transaction, filtered: Vec<Filtered>) -> Transaction {
    let pending = transaction.publishes.iter_mut().map(|(_, way, _)| way);
    let mut pending = pending.filter(|way| matches!(way, Way::Pending));
    for filtered in filtered {
        let way = pending.next().expect("there is one judgement for each pending part");
        *way = Way::Filtered(Box::new(filtered));
    }
    assert!(pending.next().is_none(), "there is a judgement for each pending part");
    transaction
}

/// What stands against all pending parts is told of the first.
fn at_first_pending(transaction: &Transaction, error: PublishError) -> TransactionError {
    let first = transaction.publishes.iter().position(|(_, way, _)| matches!(way, Way::Pending));
    TransactionError::Publish { index: first.unwrap_or_default() as u32, error }
}

/// Answers a transaction.
pub(crate) fn answer(
    publisher: PublisherId,
    number: u64,
    outcome: Result<Arc<[Confirmation]>, TransactionError>,
    wait: Wait,
    output: &mut Output,
) {
    output.effects.push(Held { wait, effect: Effect::Transacted { publisher, number, outcome } });
}

fn invoke(job: JobId, output: &mut Output) {
    output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Invoke { job } });
}

/// The server may forget this work.
pub(crate) fn spare(job: Option<JobId>, output: &mut Output) {
    if let Some(job) = job {
        output.effects.push(Held { wait: Wait::NOTHING, effect: Effect::Spare { job } });
    }
}
