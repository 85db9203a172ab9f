//! Publishing: dedup, targets, room, requests and replies, transactions.

use super::*;

/// What became of a publish, before it is done.
pub(super) enum Judged {
    Duplicate(Known),
    Late,
    New { targets: Vec<String>, subscriptions: Vec<SubscriptionId>, answers: Option<(String, String)> },
}

impl Model {
    /// A client's publish; `outcome` is what the broker said.
    #[track_caller]
    pub(crate) fn publish(
        &mut self,
        draft: &Draft,
        mandatory: bool,
        wait: Wait,
        outcome: &Result<Confirmation, PublishError>,
        call: &Call,
    ) {
        let judged = self.judge(draft, mandatory, &mut BTreeMap::new());
        match judged {
            Err(error) => assert_eq!(outcome.as_ref(), Err(&error), "{draft:?}"),
            Ok(judged) => {
                let confirmation =
                    *outcome.as_ref().unwrap_or_else(|error| panic!("{error:?} for {draft:?}"));
                self.perform(draft, judged, confirmation, Some(wait), call);
            }
        }
    }

    /// Settle and publish; `outcome` is what the broker said.
    #[track_caller]
    pub(crate) fn transact(
        &mut self,
        id: &str,
        connection: u64,
        acks: &[(String, Sequence, Lease)],
        publishes: &[(Draft, bool)],
        outcome: &Result<Vec<Confirmation>, TransactionError>,
        call: &Call,
    ) {
        if let Some(known) = self.transactions.get(id).filter(|known| known.expires > self.now) {
            assert_eq!(outcome.as_ref(), Ok(&known.confirmations), "a repeat gets the first outcome");
            return;
        }
        let mut named = BTreeSet::new();
        let is_lost = |(queue, sequence, lease): &(String, Sequence, Lease)| {
            let held =
                self.queues.get(queue).and_then(|queue| queue.entries.get(sequence)).is_some_and(|entry| {
                    matches!(entry.state, State::Leased { consumer, lease: held, .. }
                    if held == *lease && self.consumers[&consumer].connection == connection)
                });
            !held || !named.insert(*lease)
        };
        let lost: Vec<bool> = acks.iter().map(is_lost).collect();
        let lost: Vec<u32> = (0..).zip(lost).filter(|(_, lost)| *lost).map(|(index, _)| index).collect();
        if !lost.is_empty() {
            assert_eq!(outcome, &Err(TransactionError::LeaseLost(lost)));
            return;
        }
        let mut taken = BTreeMap::new();
        for (queue, ..) in acks {
            *taken.entry(queue.clone()).or_insert(0) -= 1;
        }
        let mut queues: Vec<String> = acks.iter().map(|(queue, ..)| queue.clone()).collect();
        let mut judged = Vec::new();
        let mut strongest_first = Durability::Memory;
        let mut seen = BTreeSet::new();
        for (index, (draft, mandatory)) in (0..).zip(publishes) {
            if !seen.insert((draft.topic.clone(), draft.id.clone())) {
                judged.push(None);
                continue;
            }
            match self.judge(draft, *mandatory, &mut taken) {
                Ok(one) => {
                    match &one {
                        Judged::New { targets, .. } => queues.extend(targets.iter().cloned()),
                        Judged::Duplicate(known) => strongest_first = strongest_first.max(known.durability),
                        Judged::Late => {}
                    }
                    judged.push(Some(one));
                }
                Err(error) => {
                    assert_eq!(outcome, &Err(TransactionError::Publish { index, error }));
                    return;
                }
            }
        }
        let confirmations = outcome.as_ref().expect("nothing stands against it");
        assert_eq!(confirmations.len(), publishes.len());
        let durability = self.strongest(&queues).max(strongest_first);
        let window_ms = self.window_ms(&queues);
        for (queue, sequence, _) in acks {
            self.ack(queue, *sequence);
        }
        for ((one, (draft, _)), confirmation) in judged.into_iter().zip(publishes).zip(confirmations) {
            let one = one.or_else(|| self.known(draft).map(Judged::Duplicate));
            match one {
                Some(one) => self.perform(draft, one, *confirmation, None, call),
                None => assert_eq!(*confirmation, Confirmation::default()),
            }
        }
        let expires = self.now.after(window_ms);
        let transacted = Transacted { confirmations: confirmations.clone(), expires, durability };
        self.transactions.insert(id.to_owned(), transacted);
    }

    pub(super) fn known(&self, draft: &Draft) -> Option<Known> {
        let name = (draft.topic.clone(), draft.id.clone());
        self.known.get(&name).filter(|known| known.expires > self.now).cloned()
    }

    fn judge(
        &self,
        draft: &Draft,
        mandatory: bool,
        taken: &mut BTreeMap<String, i64>,
    ) -> Result<Judged, PublishError> {
        if let Some(known) = self.known(draft) {
            return Ok(Judged::Duplicate(known));
        }
        let mut topic = draft.topic.clone();
        let mut answers = None;
        let asked = self.requests.iter().find(|((_, id), request)| {
            Some(id) == draft.correlation.as_ref()
                && request.reply_to == draft.topic
                && request.until > self.now
        });
        if let Some((name, request)) = asked {
            if request.reply.is_some() {
                return Ok(Judged::Late);
            }
            topic = request.moved_to.clone().unwrap_or(topic);
            answers = Some(name.clone());
        }
        let (targets, subscriptions) = self.resolve(&topic);
        if targets.is_empty() && subscriptions.is_empty() {
            if draft.reply_to.is_some() {
                return Err(PublishError::NoResponders);
            }
            if mandatory {
                return Err(PublishError::Unroutable { topic: draft.topic.clone() });
            }
        }
        for name in &targets {
            let queue = self.queue(name);
            let more = taken.entry(name.clone()).or_default();
            if queue.settings.overflow == Overflow::Reject && queue.full(*more + 1) {
                return Err(PublishError::QueueFull { queue: name.clone() });
            }
            *more += 1;
        }
        Ok(Judged::New { targets, subscriptions, answers })
    }

    #[track_caller]
    pub(super) fn perform(
        &mut self,
        draft: &Draft,
        judged: Judged,
        said: Confirmation,
        wait: Option<Wait>,
        call: &Call,
    ) {
        match judged {
            Judged::Duplicate(known) => {
                let duplicate =
                    Confirmation { sequence: known.sequence, duplicate: true, ..Confirmation::default() };
                assert_eq!(said, duplicate, "{draft:?} is known as {known:?}");
                if draft.reply_to.is_some() {
                    self.repeat(draft, &known);
                }
            }
            Judged::Late => {
                assert_eq!(said, Confirmation::default(), "{draft:?} is a late reply");
                self.late += 1;
            }
            Judged::New { targets, subscriptions, answers } => {
                let routed = (targets.len() + subscriptions.len()) as u32;
                assert_eq!((said.routed, said.duplicate), (routed, false), "{draft:?} to {targets:?}");
                assert_eq!(said.sequence.is_some(), !targets.is_empty(), "{draft:?}");
                if let Some(request) = answers.and_then(|name| self.requests.get_mut(&name)) {
                    request.reply = Some(draft.clone());
                }
                if routed == 0 {
                    return;
                }
                let (durability, window_ms) = (self.strongest(&targets), self.window_ms(&targets));
                if let Some(wait) = wait.filter(|_| !targets.is_empty()) {
                    // More only while the block of its number isn't surely reserved.
                    assert!(wait.durability >= durability, "{wait:?} for {draft:?} to {targets:?}");
                    let position = said.sequence.and_then(|sequence| call.positions.get(&sequence));
                    assert!(position.is_none_or(|position| wait.position >= *position), "{draft:?}");
                }
                if let Some(sequence) = said.sequence {
                    if durability != Durability::Memory {
                        let stored = self.stored.pop_front();
                        assert_eq!(stored, Some((sequence, draft.clone())), "what the journal got");
                    }
                    self.store(draft, sequence, &targets);
                }
                let expires = self.now.after(window_ms);
                let name = (draft.topic.clone(), draft.id.clone());
                self.known.insert(name.clone(), Known { sequence: said.sequence, expires, durability });
                if let Some(reply_to) = draft.reply_to.clone() {
                    let request = Request { reply_to, moved_to: None, reply: None, until: expires };
                    self.requests.insert(name, request);
                }
                self.pass(&subscriptions, draft);
            }
        }
    }

    /// A known request came again.
    pub(super) fn repeat(&mut self, draft: &Draft, known: &Known) {
        let name = (draft.topic.clone(), draft.id.clone());
        let reply_to = draft.reply_to.clone().expect("a request has a reply_to");
        let now = self.now;
        if let Some(request) = self.requests.get_mut(&name).filter(|request| request.until > now) {
            match request.reply.clone() {
                None => request.moved_to = Some(reply_to),
                Some(reply) => self.store_own(&reply, &reply_to),
            }
            return;
        }
        let open = known.sequence.and_then(|sequence| {
            let ordinary = self.queues.values().filter(|queue| queue.source.is_none());
            ordinary.filter_map(|queue| queue.entries.get(&sequence)).next()
        });
        if let Some(first) = open.and_then(|entry| entry.draft.reply_to.clone()) {
            let request =
                Request { reply_to: first, moved_to: Some(reply_to), reply: None, until: known.expires };
            self.requests.insert(name, request);
            return;
        }
        let answer = Answer { reply_to, request_id: draft.id.clone(), status: "ReplyLost" };
        self.say(&answer);
    }

    /// Requests that died are answered at the call's end.
    pub(crate) fn answer_owed(&mut self) {
        // Several that die at once are answered in an order of the broker's own.
        let mut owed = std::mem::take(&mut self.owed);
        owed.sort_by_key(|(draft, status)| {
            let request = self.requests.get(&(draft.topic.clone(), draft.id.clone()));
            let moved_to = request.filter(|request| request.until > self.now);
            let reply_to = moved_to.and_then(|request| request.moved_to.as_ref()).or(draft.reply_to.as_ref());
            let place = self.stored.iter().position(|(_, stored)| {
                Some(&stored.topic) == reply_to
                    && stored.correlation.as_ref() == Some(&draft.id)
                    && stored.payload.starts_with(status)
            });
            place.unwrap_or(usize::MAX)
        });
        for (draft, status) in owed {
            let name = (draft.topic.clone(), draft.id.clone());
            let request = self.requests.get(&name).filter(|request| request.until > self.now);
            if request.is_some_and(|request| request.reply.is_some()) {
                self.late += 1;
                continue;
            }
            let moved_to = request.and_then(|request| request.moved_to.clone());
            let reply_to = moved_to.or(draft.reply_to).expect("a request has a reply_to");
            let said = self.say(&Answer { reply_to, request_id: draft.id, status });
            if let Some(request) = self.requests.get_mut(&name) {
                request.reply = Some(said);
            }
        }
    }

    /// The router says something; which number it has, and how it reads, the broker tells.
    fn say(&mut self, answer: &Answer) -> Draft {
        let (targets, subscriptions) = self.resolve(&answer.reply_to);
        let draft = Draft {
            topic: answer.reply_to.clone(),
            id: String::new(),
            correlation: Some(answer.request_id.clone()),
            priority: 4,
            payload: answer.status.to_owned(),
            ..Draft::default()
        };
        assert!(!targets.is_empty(), "requests of this test are answered into a queue that is always there");
        let place = self.stored.iter().position(|(_, stored)| {
            stored.topic == draft.topic
                && stored.correlation == draft.correlation
                && stored.payload.starts_with(answer.status)
        });
        let place = place.unwrap_or_else(|| panic!("{answer:?} is not among {:?}", self.stored));
        let (sequence, stored) = self.stored.remove(place).expect("it was just found");
        self.store(&stored, sequence, &targets);
        self.pass(&subscriptions, &stored);
        stored
    }

    /// A message past dedup, to whom this topic reaches.
    fn store_own(&mut self, draft: &Draft, topic: &str) {
        let (targets, subscriptions) = self.resolve(topic);
        if !targets.is_empty() {
            let (sequence, stored) = self.stored.pop_front().expect("the reply is stored again");
            assert_eq!(&stored, draft);
            self.store(&stored, sequence, &targets);
        }
        self.pass(&subscriptions, draft);
    }

    pub(super) fn pass(&mut self, subscriptions: &[SubscriptionId], draft: &Draft) {
        let limit = self.rules.limits.subscription_max_messages;
        for id in subscriptions {
            let subscription = self.subscriptions.get_mut(id).expect("it was just resolved");
            if subscription.buffered >= limit {
                subscription.dropped += 1;
                continue;
            }
            subscription.buffered += 1;
            let dropped = std::mem::take(&mut subscription.dropped);
            self.passes.push((*id, draft.build().body.to_vec(), dropped));
        }
    }

    /// Puts a message into its queues.
    pub(super) fn store(&mut self, draft: &Draft, sequence: Sequence, targets: &[String]) {
        let mut newcomers_go = Vec::new();
        for name in targets {
            if !self.make_room(name) {
                newcomers_go.push(name.clone());
            }
        }
        let now = self.now;
        let due = draft.deliver_at.filter(|due| *due > now);
        let journaled = self.strongest(targets) != Durability::Memory;
        for name in targets {
            let entry = Entry {
                draft: draft.clone(),
                published_at: now,
                lives_from: now.max(draft.deliver_at.unwrap_or_default()),
                state: due.map_or(State::Ready, |due| State::Delayed(due, due)),
                scheduled: due.is_some(),
                attempts: 0,
                first_at: None,
                redelivered: false,
                journaled,
                dead: None,
                moved: 0,
            };
            let before = self.queue_mut(name).entries.insert(sequence, entry);
            assert!(before.is_none(), "sequence {sequence} is in {name} already");
        }
        for name in newcomers_go {
            self.evict(&name, sequence);
        }
    }

    /// False when the newcomer itself must go.
    pub(crate) fn make_room(&mut self, name: &str) -> bool {
        while self.queue(name).full(1) {
            let Some(oldest) = self.queue(name).oldest_unleased() else { return false };
            self.evict(name, oldest);
        }
        true
    }

    pub(crate) fn evict(&mut self, name: &str, sequence: Sequence) {
        let queue = self.queue_mut(name);
        if queue.settings.overflow == Overflow::DeadLetterOldest {
            self.bury(name, sequence, DeadReason::Overflow);
            return;
        }
        queue.dropped += 1;
        let entry = queue.entries.remove(&sequence).expect("it is there");
        self.settled(name, &entry);
        self.free_key(name, sequence, &entry);
        if entry.draft.reply_to.is_some() && self.queue(name).source.is_none() {
            self.owed.push((entry.draft, "Rejected"));
        }
    }

    pub(crate) fn resolve(&self, topic: &str) -> (Vec<String>, Vec<SubscriptionId>) {
        let bound = self.rules.queues.iter();
        let bound = bound.filter(|(_, settings)| settings.bind.iter().any(|pattern| matches(pattern, topic)));
        let subscribed = self.subscriptions.iter().filter(|(_, it)| matches(&it.pattern, topic));
        (bound.map(|(name, _)| name.clone()).collect(), subscribed.map(|(id, _)| *id).collect())
    }

    pub(super) fn strongest(&self, queues: &[String]) -> Durability {
        queues.iter().map(|name| self.queue(name).settings.durability).max().unwrap_or(Durability::Memory)
    }

    pub(super) fn window_ms(&self, queues: &[String]) -> u64 {
        queues.iter().map(|name| self.queue(name).settings.dedup_window_ms).fold(120_000, u64::max)
    }
}

/// DESIGN, Vocabulary: `*` is one token, a final `>` one or more, and neither as the first matches a reserved topic.
fn matches(pattern: &str, topic: &str) -> bool {
    let (mut topic_tokens, mut first) = (topic.split('.'), true);
    for token in pattern.split('.') {
        let Some(other) = topic_tokens.next() else { return false };
        let wild = token == "*" || token == ">";
        if (wild && first && topic.starts_with('$')) || (!wild && token != other) {
            return false;
        }
        if token == ">" {
            return true;
        }
        first = false;
    }
    topic_tokens.next().is_none()
}
