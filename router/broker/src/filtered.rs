//! A publish that filters concern: what they made of it, judged and stored whole under one confirm. It knows results, not
//! modules: which filter said what is the server's business.

use smallvec::SmallVec;

use crate::begins::{Begin, Scatter};
use crate::broker::Broker;
use crate::config::Durability;
use crate::effect::{Confirmation, Output, PublishError, Wait};
use crate::ids::{Millis, QueueId, RulesVersion, Sequence, SubscriptionId};
use crate::message::{DeadInfo, Message};
use crate::messages::RequestName;
use crate::publish::Offer;
use crate::record::Record;
use crate::requests::Asked;
use crate::room::Room;
use crate::stillborn::Letter;
use crate::targets::Targets;

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
    pub unroutable: Option<Box<Stillborn>>,
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

/// What filters made of a message, sorted by what becomes of it: may be stored.
pub(crate) struct Sorted {
    /// Names the message that the client published in the dedup window; `None` bypasses.
    hash: Option<u128>,
    /// The request that this is the first reply to.
    pub(crate) answers: Option<u128>,
    results: Vec<Routed>,
    letters: Vec<Letter>,
    /// Sagas under way, or remembered, that a result would have begun.
    joins: SmallVec<[Sequence; 1]>,
    dropped: u32,
    stateful: bool,
}

/// A result that reaches somebody.
struct Routed {
    message: Message,
    targets: Targets,
    subscriptions: SmallVec<[SubscriptionId; 4]>,
    /// Gathers and sagas that it begins.
    begins: SmallVec<[Begin; 1]>,
}

impl Routed {
    fn takers(&self) -> usize {
        self.targets.len() + self.subscriptions.len() + self.begins.len()
    }
}

impl Sorted {
    /// The scatters of the gathers that it begins.
    pub(crate) fn scatters(&self) -> impl Iterator<Item = &Scatter> {
        self.results.iter().flat_map(|result| &result.begins).filter_map(|begin| match begin {
            Begin::Gather(scatter) => Some(&**scatter),
            Begin::Saga(..) => None,
        })
    }

    /// Copies that queues, subscriptions, scatters and sagas take.
    pub(crate) fn routed(&self) -> u32 {
        self.results.iter().map(Routed::takers).sum::<usize>() as u32
    }

    /// Whether nobody gets anything, and nothing of it is kept or was dropped.
    pub(crate) fn is_lost(&self) -> bool {
        self.results.is_empty() && self.letters.is_empty() && self.joins.is_empty() && self.dropped == 0
    }

    /// Queues that take results.
    pub(crate) fn targets(&self) -> impl Iterator<Item = QueueId> {
        self.results.iter().flat_map(|result| result.targets.iter().copied())
    }
}

impl Broker {
    /// Decides whether what filters made of a publish may be stored; takes of the room what it needs.
    pub(crate) fn judge_filtered(
        &self,
        offer: Offer<'_>,
        filtered: Filtered,
        asked: Option<Asked>,
        room: &mut Room,
    ) -> Result<Sorted, PublishError> {
        let Offer { hash, rules, message, mandatory, .. } = offer;
        let moved_to = asked.as_ref().and_then(|request| request.moved_to.as_deref());
        let mut sorted =
            self.sort(Some(rules), filtered, moved_to.map(|reply_to| (message.topic(), reply_to)));
        sorted.hash = Some(hash);
        sorted.answers = asked.map(|request| request.hash);
        if sorted.routed() == 0 && sorted.joins.is_empty() {
            let asks = message.fields.reply_to.is_some();
            if asks && sorted.letters.is_empty() {
                return Err(PublishError::NoResponders);
            }
            if mandatory {
                let topic = String::from_utf8_lossy(message.topic()).into_owned();
                return Err(PublishError::Unroutable { topic });
            }
        }
        self.check_sorted(&sorted, room)?;
        Ok(sorted)
    }

    /// Whether there is room for all of it. Letters need only a disk.
    pub(crate) fn check_sorted(&self, sorted: &Sorted, room: &mut Room) -> Result<(), PublishError> {
        let begins = sorted.results.iter().any(|result| !result.begins.is_empty());
        let numbered = begins || !sorted.letters.is_empty() || sorted.targets().next().is_some();
        self.check_disk(self.strongest_of(sorted), numbered, room)?;
        for result in &sorted.results {
            for begin in &result.begins {
                match begin {
                    Begin::Gather(scatter) => self.check_gather(scatter, &result.message, room)?,
                    Begin::Saga(_, settings) => self.check_saga(settings, &result.message, room)?,
                }
            }
            self.check_room(&result.targets, result.message.body.len() as u64, room)?;
        }
        Ok(())
    }

    /// Without targets that are gone; results that reach nobody become letters where they say so. A reply whose requester wants
    /// it elsewhere goes there instead of to its topic: given are both.
    pub(crate) fn sort(
        &self,
        rules: Option<RulesVersion>,
        filtered: Filtered,
        moved: Option<(&[u8], &str)>,
    ) -> Sorted {
        let Filtered { results, dropped, dead, stateful } = filtered;
        let mut sorted = Sorted {
            hash: None,
            answers: None,
            results: Vec::with_capacity(results.len()),
            letters: dead.into_iter().filter_map(|stillborn| self.letter(stillborn)).collect(),
            joins: SmallVec::new(),
            dropped,
            stateful,
        };
        for Outgoing { message, targets, subscriptions, unroutable } in results {
            let whole = subscriptions;
            let moved_to = moved.filter(|(topic, _)| *topic == message.topic()).map(|(_, to)| to);
            let (targets, subscriptions) = match moved_to {
                Some(to) if subscriptions => {
                    let plan = self.resolve(to);
                    (plan.targets, plan.subscriptions)
                }
                // The queue of that copy is not the one that the requester waits at.
                Some(_) => continue,
                None => {
                    let who = if subscriptions { self.subscribers(&message) } else { SmallVec::new() };
                    (self.still_there(rules, targets), who)
                }
            };
            let begins = if whole { self.begins_of(&message, &mut sorted.joins) } else { SmallVec::new() };
            let routed = Routed { message, targets, subscriptions, begins };
            if routed.takers() > 0 {
                sorted.results.push(routed);
            } else if let Some(unroutable) = unroutable {
                let Stillborn { message, info, .. } = *unroutable;
                sorted.letters.push(Letter::of_no_queue(message, info));
            }
        }
        sorted
    }

    /// The strongest durability among all queues that take something of it, and the state that it led to.
    pub(crate) fn strongest_of(&self, sorted: &Sorted) -> Durability {
        let mut queues: SmallVec<[QueueId; 8]> = sorted.targets().collect();
        queues.extend(sorted.letters.iter().map(|letter| letter.letters));
        let state = if sorted.stateful { Durability::Fsync } else { Durability::Memory };
        let begins = sorted.results.iter().flat_map(|result| &result.begins).map(|begin| match begin {
            Begin::Gather(scatter) => scatter.settings.durability,
            Begin::Saga(..) => Durability::Fsync,
        });
        let joined = sorted.joins.iter().map(|_| Durability::Fsync);
        begins.chain(joined).fold(self.strongest(&queues).max(state), Durability::max)
    }

    /// What a message begins; sagas that it began before are joined.
    fn begins_of(&self, message: &Message, joins: &mut SmallVec<[Sequence; 1]>) -> SmallVec<[Begin; 1]> {
        let mut begins = SmallVec::new();
        for begin in self.begins.of(message.topic()) {
            match begin {
                Begin::Gather(scatter) => {
                    if self.somebody_to_ask(scatter) {
                        begins.push(begin.clone());
                    }
                }
                Begin::Saga(name, _) => {
                    let id = String::from_utf8_lossy(message.id());
                    match self.sagas.find(self.hash_key, name, &id) {
                        Some(saga) => joins.push(saga),
                        None => begins.push(begin.clone()),
                    }
                }
            }
        }
        begins
    }

    /// Does it: results, letters, and the id of the message that was published (`None`: a dead letter that comes back).
    pub(crate) fn store_sorted(
        &mut self,
        now: Millis,
        published: Option<&Message>,
        sorted: Sorted,
        output: &mut Output,
    ) -> (Confirmation, Wait) {
        let routed = sorted.routed();
        let (dropped, rejected) = (sorted.dropped, sorted.letters.len() as u32);
        for saga in &sorted.joins {
            if let Some(message) = published {
                self.repeat_saga(now, *saga, message, output);
            }
        }
        if routed == 0 && rejected == 0 && !sorted.stateful {
            if let Some(saga) = sorted.joins.first() {
                let wait = self.numbered(self.position, Durability::Fsync);
                return (
                    Confirmation { sequence: Some(*saga), duplicate: true, ..Confirmation::default() },
                    wait,
                );
            }
            return (Confirmation { dropped, ..Confirmation::default() }, Wait::NOTHING);
        }
        let durability = self.strongest_of(&sorted);
        let targets: SmallVec<[QueueId; 8]> = sorted.targets().collect();
        let window_ms = self.window_ms(&targets).max(self.gathers_window_ms(&sorted));
        if let (Some(request), Some(reply)) = (sorted.answers, sorted.results.first()) {
            self.requests.answered(request, &reply.message, &self.rules.limits);
        }
        // Before anything that may answer it.
        if let (Some(hash), Some(message)) = (sorted.hash, published) {
            self.track_request(now, hash, message, window_ms);
        }
        let mut first = Sequence(0);
        for Routed { message, targets, subscriptions, begins } in sorted.results {
            let (sequence, own) = self.put(now, message.clone(), targets, None, output);
            if first.0 == 0 {
                first = sequence;
            }
            let wait = if sequence.0 > 0 { self.numbered(own.position, own.durability) } else { own };
            for subscription in subscriptions {
                self.subscriptions.pass(now, subscription, &message.body, wait, &self.rules.limits, output);
            }
            for begin in begins {
                let number = match begin {
                    Begin::Gather(scatter) => self.begin_gather(now, &scatter, &message, output),
                    Begin::Saga(name, _) => {
                        // Another result, or another part of the same transaction, may have begun it just now.
                        let id = String::from_utf8_lossy(message.id());
                        match self.sagas.find(self.hash_key, &name, &id) {
                            Some(begun) => {
                                self.repeat_saga(now, begun, &message, output);
                                begun
                            }
                            None => self.begin_saga(now, &name, &message, output),
                        }
                    }
                };
                if first.0 == 0 {
                    first = number;
                }
            }
        }
        let request = published.and_then(RequestName::of);
        for letter in sorted.letters {
            let own = if published.is_none() { RequestName::of(&letter.message) } else { None };
            self.lay(now, letter, request.as_ref().or(own.as_ref()), output);
        }
        let mut position = self.position;
        if let Some(hash) = sorted.hash {
            let record = Record::Remembered { hash, sequence: first, at: now, window_ms, durability };
            position = self.commit(record, durability != Durability::Memory, output);
        }
        let sequence = (first.0 > 0).then_some(first);
        let wait = match sequence {
            Some(_) => self.numbered(position, durability),
            None => Wait { position, durability },
        };
        (Confirmation { sequence, routed, dropped, rejected, ..Confirmation::default() }, wait)
    }
}
