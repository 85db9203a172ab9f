//! Filters: their results and letters, what waits for them, and what they remember.

use super::publish::Judged;
use super::*;
use crate::harness::{World, death};

/// What filters made of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judgement {
    /// With whether a filter routed it there.
    pub(crate) results: Vec<(Draft, bool)>,
    pub(crate) dropped: u32,
    /// Letters: on whose binding (`None`: a route), and why.
    pub(crate) dead: Vec<(Option<String>, DeadInfo)>,
    pub(crate) stateful: bool,
}

/// A publish that waits, and those of its id that came after it.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) origin: Draft,
    mandatory: bool,
    number: u64,
    repeats: Vec<(u64, Draft)>,
}

/// What a call said of a publish.
pub(crate) fn confirmed(call: &Call, number: u64) -> Option<(Wait, Result<Confirmation, PublishError>)> {
    call.seen.iter().find_map(|seen| match seen {
        Seen::Confirm(wait, confirmed, outcome) if *confirmed == number => Some((*wait, outcome.clone())),
        _ => None,
    })
}

/// The built-in dead-letter queue.
pub(super) fn chaski() -> Queue {
    let settings = super::operate::dead_settings(&crate::harness::queue("chaski").settings);
    Queue::new(settings, Some("chaski".into()))
}

impl Model {
    /// Whether this id is under way: then it waits for the first one's outcome.
    #[track_caller]
    pub(crate) fn awaits_first(&mut self, draft: &Draft, number: u64, call: &Call) -> bool {
        let same = |it: &Pending| (&it.origin.topic, &it.origin.id) == (&draft.topic, &draft.id);
        let Some(first) = self.pending.values_mut().find(|it| same(it)) else { return false };
        assert!(confirmed(call, number).is_none(), "{draft:?} waits for the first of its id");
        first.repeats.push((number, draft.clone()));
        true
    }

    /// A publish that filters with state are to judge.
    #[track_caller]
    pub(crate) fn pend(&mut self, job: JobId, draft: &Draft, mandatory: bool, number: u64, call: &Call) {
        if self.awaits_first(draft, number, call) {
            return;
        }
        let Some(known) = self.known(draft) else {
            assert!(confirmed(call, number).is_none(), "{draft:?} is to be judged");
            let pending = Pending { origin: draft.clone(), mandatory, number, repeats: Vec::new() };
            self.pending.insert(job, pending);
            return;
        };
        let (wait, outcome) = confirmed(call, number).expect("a duplicate is answered at once");
        let confirmation = outcome.expect("a duplicate is never an error");
        self.perform(draft, Judged::Duplicate(known), confirmation, Some(wait), call);
    }

    /// Whether what filters made of it was not stored: its filters came to something, and the broker refused it.
    pub(crate) fn is_refused(&self, job: JobId, call: &Call) -> bool {
        let (_, outcome) = confirmed(call, self.pending[&job].number).expect("what was judged is answered");
        matches!(outcome, Err(error) if !matches!(error, PublishError::Judge(_)))
    }

    /// Filters judged it (`None`: they failed).
    #[track_caller]
    pub(crate) fn judged(&mut self, job: JobId, judgement: Option<&Judgement>, call: &Call) {
        let Pending { origin, mandatory, number, repeats } = self.pending.remove(&job).expect("it waits");
        let (wait, outcome) = confirmed(call, number).expect("what was judged is answered");
        match judgement {
            Some(judgement) => self.publish_filtered(&origin, mandatory, judgement, wait, &outcome, call),
            None => assert!(matches!(outcome, Err(PublishError::Judge(_))), "{outcome:?}"),
        }
        for (number, draft) in repeats {
            let (_, told) = confirmed(call, number).expect("what waited for it is answered");
            let Ok(first) = &outcome else {
                assert_eq!(told, outcome, "the same error");
                continue;
            };
            let duplicate =
                Confirmation { sequence: first.sequence, duplicate: true, ..Confirmation::default() };
            assert_eq!(told, Ok(duplicate));
            let known = self.known(&origin);
            if let (Some(known), true) = (known, draft.reply_to.is_some()) {
                self.repeat(&draft, &known);
            }
        }
    }

    /// A publish of which filters made this; `outcome` is what the broker said.
    #[track_caller]
    pub(crate) fn publish_filtered(
        &mut self,
        origin: &Draft,
        mandatory: bool,
        judgement: &Judgement,
        wait: Wait,
        outcome: &Result<Confirmation, PublishError>,
        call: &Call,
    ) {
        if let Some(known) = self.known(origin) {
            let confirmation = *outcome.as_ref().expect("a duplicate is never an error");
            self.perform(origin, Judged::Duplicate(known), confirmation, Some(wait), call);
            return;
        }
        let mut letters = judgement.dead.clone();
        let mut results = Vec::new();
        for (draft, routed) in &judgement.results {
            let (targets, subscriptions) = self.resolve(&draft.topic);
            if !targets.is_empty() || !subscriptions.is_empty() {
                results.push((draft, targets, subscriptions));
            } else if *routed {
                letters.push((None, death(DeadReason::Unroutable, "")));
            }
        }
        // An unroutable one is the result itself, whose form is not the origin's.
        let unroutable = judgement.results.iter().filter(|(draft, routed)| {
            let (targets, subscriptions) = self.resolve(&draft.topic);
            *routed && targets.is_empty() && subscriptions.is_empty()
        });
        let forms: Vec<Draft> = std::iter::repeat_n(origin, judgement.dead.len())
            .chain(unroutable.map(|(draft, _)| draft))
            .cloned()
            .collect();
        if let Err(error) = self.check_filtered(origin, mandatory, &results, !letters.is_empty()) {
            assert_eq!(outcome.as_ref(), Err(&error), "{origin:?} as {judgement:?}");
            return;
        }
        let routed: usize = results.iter().map(|(_, targets, them)| targets.len() + them.len()).sum();
        let said = *outcome.as_ref().unwrap_or_else(|error| panic!("{error:?} for {judgement:?}"));
        let counts = (said.routed, said.dropped, said.rejected, said.duplicate);
        assert_eq!(counts, (routed as u32, judgement.dropped, letters.len() as u32, false), "{judgement:?}");
        if routed == 0 && letters.is_empty() && !judgement.stateful {
            assert_eq!(said.sequence, None);
            return;
        }
        let targets: Vec<String> =
            results.iter().flat_map(|(_, targets, _)| targets.iter().cloned()).collect();
        let names = letters.iter().map(|(queue, _)| letters_of(queue.as_deref()));
        let reached: Vec<String> = targets.iter().cloned().chain(names).collect();
        let state = if judgement.stateful { Durability::Fsync } else { Durability::Memory };
        let durability = self.strongest(&reached).max(state);
        assert!(wait.durability >= durability, "{wait:?} for {judgement:?}");
        let expires = self.now.after(self.window_ms(&targets));
        let name = (origin.topic.clone(), origin.id.clone());
        if let Some(reply_to) = origin.reply_to.clone() {
            let request = Request { reply_to, moved_to: None, reply: None, until: expires };
            self.requests.insert(name.clone(), request);
        }
        let mut first = None;
        for (draft, targets, subscriptions) in results {
            if !targets.is_empty() {
                let (sequence, stored) = self.stored.pop_front().expect("a result is stored");
                assert_eq!(&stored, draft);
                assert!(call.positions.get(&sequence).is_none_or(|position| wait.position >= *position));
                first.get_or_insert(sequence);
                self.store(draft, sequence, &targets);
            }
            self.pass(&subscriptions, draft);
        }
        assert_eq!(said.sequence, first, "the first stored result's");
        for ((queue, info), form) in letters.into_iter().zip(forms) {
            self.lay(queue.as_deref(), info, &form, origin);
        }
        self.known.insert(name, Known { sequence: first, expires, durability });
    }

    fn check_filtered(
        &self,
        origin: &Draft,
        mandatory: bool,
        results: &[(&Draft, Vec<String>, Vec<SubscriptionId>)],
        letters: bool,
    ) -> Result<(), PublishError> {
        if results.is_empty() {
            if origin.reply_to.is_some() && !letters {
                return Err(PublishError::NoResponders);
            }
            if mandatory {
                return Err(PublishError::Unroutable { topic: origin.topic.clone() });
            }
        }
        let mut taken: BTreeMap<&String, i64> = BTreeMap::new();
        for name in results.iter().flat_map(|(_, targets, _)| targets) {
            let more = taken.entry(name).or_default();
            *more += 1;
            let queue = self.queue(name);
            if queue.settings.overflow == Overflow::Reject && queue.full(*more) {
                return Err(PublishError::QueueFull { queue: name.clone() });
            }
        }
        Ok(())
    }

    /// A letter of a message that no queue had.
    #[track_caller]
    fn lay(&mut self, queue: Option<&str>, info: DeadInfo, draft: &Draft, origin: &Draft) {
        let (now, moved) = (self.now, self.next_position());
        if origin.reply_to.is_some() {
            self.owed.push((origin.clone(), "Rejected"));
        }
        let name = letters_of(queue);
        let fits = self.make_room(&name);
        let (sequence, laid) = self.laid.pop_front().expect("a letter is laid");
        assert_eq!(&laid, draft);
        if let Some(queue) = queue {
            let queue = self.queue_mut(queue);
            queue.died += 1;
            if queue.settings.ordering == Ordering::Key
                && queue.settings.on_poison == OnPoison::ParkKey
                && let Some(key) = draft.key.clone()
            {
                queue.parked.entry(key).or_default().insert(sequence);
            }
        }
        let letter = Entry {
            draft: draft.clone(),
            published_at: now,
            lives_from: now,
            state: State::Ready,
            scheduled: false,
            attempts: 0,
            first_at: None,
            redelivered: false,
            journaled: true,
            dead: Some(DeadInfo { detail: String::new(), first_at: now, last_at: now, ..info }),
            moved,
        };
        self.queue_mut(&name).entries.insert(sequence, letter);
        if !fits {
            self.evict(&name, sequence);
        }
    }

    /// What a batch wrote; lost where the rules don't know the module.
    pub(crate) fn write(&mut self, writes: &[StateWrite]) {
        if self.rules.modules.is_empty() {
            return;
        }
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).expect("a test's state is text").to_owned();
        for StateWrite { key, entry } in writes {
            match entry {
                None => self.state.remove(&text(key)),
                Some(entry) => {
                    self.state.insert(text(key), (text(&entry.value), entry.expires_ms.map(Millis)))
                }
            };
        }
    }

    /// What is not over is there; what is over may still be.
    #[track_caller]
    pub(super) fn compare_state(&self, world: &World) {
        let over = |ends: Option<Millis>| ends.is_some_and(|at| at <= self.now);
        let state = world.broker.module_state("m").cloned().unwrap_or_default();
        let there = state.iter().filter(|(_, entry)| !over(entry.expires_ms.map(Millis)));
        let there: Vec<(&[u8], &[u8])> = there.map(|(key, entry)| (key, &entry.value[..])).collect();
        let wanted = self.state.iter().filter(|(_, (_, ends))| !over(*ends));
        let wanted: Vec<(&[u8], &[u8])> =
            wanted.map(|(key, (value, _))| (key.as_bytes(), value.as_bytes())).collect();
        assert_eq!(there, wanted, "what the module remembers");
        let bytes: u64 = state.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum();
        assert_eq!(state.bytes(), bytes);
    }
}

/// The name of the dead-letter queue of this queue, or of no queue.
fn letters_of(queue: Option<&str>) -> String {
    format!("{}.dlq", queue.unwrap_or("chaski"))
}
