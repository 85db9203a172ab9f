//! The world around gathers and sagas: requesters that ask until they have their answer, workers that remember idempotency keys
//! as `once` in the client SDK does, modules, an operator. It outlives every crash of the router, and judges what became of all
//! of it: `Outside::check` as it goes, `Outside::finish` once everything is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

/// What a worker does with one message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Has its effect, and says so.
    Complete,
    /// Has its effect, and says nothing: it died.
    Die,
    /// Has its effect, and gives the message back.
    ApplyAndNack,
    /// Says nothing, and does nothing.
    Sleep,
    /// Gives the message back.
    Nack,
    /// Fails for now.
    Fail,
    /// Fails for good.
    Refuse,
}

/// What a compensator says, once.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Counsel {
    Sensible,
    Retry,
    Park,
    Trap,
}

/// When the router dies: at which of the batch boundaries to come, and whether it starts again from a snapshot.
#[derive(Copy, Clone, Debug)]
pub struct Kill {
    pub after: usize,
    pub snapshot: bool,
}

/// What is outside.
pub struct Outside {
    pub world: World,
    queues: Vec<String>,
    steps: Vec<StepSettings>,
    /// Starts and requests: topic and id; whether they were confirmed.
    asked: Vec<(String, String, bool)>,
    /// Publishes under way, by frame.
    frames: BTreeMap<u64, usize>,
    inbox: Option<SubscriptionId>,
    /// What requesters got, by id: all that ever came.
    pub answers: BTreeMap<String, BTreeSet<String>>,
    /// Effects by idempotency key.
    applied: BTreeMap<String, u32>,
    undone: BTreeMap<String, u32>,
    refused: BTreeSet<String>,
    pub behaviours: VecDeque<Behaviour>,
    pub counsels: VecDeque<Counsel>,
    /// What aggregators hold.
    folded: BTreeMap<Sequence, Vec<String>>,
    /// Sagas that ended, as the disk surely knows.
    ended: BTreeMap<String, SagaState>,
    kills: VecDeque<Kill>,
    /// Boundaries since the last kill, and in all.
    seen: usize,
    pub boundaries: usize,
    looked_at: usize,
    /// Every so many boundaries fdatasync returns.
    sync_every: usize,
    unsynced: usize,
    operator: u32,
}

impl Outside {
    /// Around this world. All queues of its rules have a worker; the sagas' steps are these.
    pub fn new(mut world: World, steps: &[StepSettings], sync_every: usize, kills: &[Kill]) -> Outside {
        world.sync_at_once = false;
        world.sync();
        let queues = world.broker.rules().queues.iter().map(|(name, _)| name.clone()).collect();
        let looked_at = world.journal.len();
        Outside {
            world,
            queues,
            steps: steps.to_vec(),
            asked: Vec::new(),
            frames: BTreeMap::new(),
            inbox: None,
            answers: BTreeMap::new(),
            applied: BTreeMap::new(),
            undone: BTreeMap::new(),
            refused: BTreeSet::new(),
            behaviours: VecDeque::new(),
            counsels: VecDeque::new(),
            folded: BTreeMap::new(),
            ended: BTreeMap::new(),
            kills: kills.iter().copied().collect(),
            seen: 0,
            boundaries: 0,
            looked_at,
            sync_every,
            unsynced: 0,
            operator: 0,
        }
    }

    /// Somebody asks, and goes on asking under this id until there is an answer.
    pub fn ask(&mut self, topic: &str, id: &str) {
        self.asked.push((topic.to_owned(), id.to_owned(), false));
    }

    /// Drives everything to its end.
    #[track_caller]
    pub fn finish(&mut self) {
        for round in 0..20_000 {
            if self.act() {
                continue;
            }
            if self.is_over() {
                self.check_end();
                return;
            }
            // Somebody must wait, or the operator must help.
            if round % 8 == 7 && self.operate() {
                continue;
            }
            let Some(next) = self.world.broker.next_timeout() else {
                assert!(self.operate(), "something is still to come");
                continue;
            };
            let wait = next.0.saturating_sub(self.world.now.0).max(1);
            self.world.advance(wait);
            self.look();
            if round % 64 == 63 {
                // Requesters lose patience, and ask again under the same ids.
                self.inbox = None;
            }
        }
        let standing: Vec<String> = self
            .world
            .broker
            .sagas(None, Sequence(0), 99)
            .sagas
            .iter()
            .map(|saga| format!("{saga:?}"))
            .collect();
        panic!("it never ends: {standing:#?} {:?}", self.asked);
    }

    /// One thing that somebody can do now; false: nobody can do anything.
    fn act(&mut self) -> bool {
        if self.inbox.is_none() {
            let (subscription, connection) = (SubscriptionId(self.world.draw()), ConnectionId(9));
            let pattern = "$inbox.outside".to_owned();
            self.world.call(Command::Subscribe { subscription, connection, pattern });
            self.inbox = Some(subscription);
            self.frames.clear();
            for place in 0..self.asked.len() {
                let (topic, id, _) = &self.asked[place];
                if self.answers.contains_key(id) {
                    continue;
                }
                let message = draft(topic, id).reply_to("$inbox.outside").payload("in");
                let (number, command) = self.world.command(&message, false);
                self.frames.insert(number, place);
                self.world.call(command);
                if self.look() {
                    return true;
                }
            }
            self.sync();
            return true;
        }
        self.receive();
        if let Some(call) = self.world.aggregates.pop_front() {
            self.aggregate(call);
            return true;
        }
        if let Some(call) = self.world.advice_wanted.pop_front() {
            self.advise(call);
            return true;
        }
        for place in 0..self.queues.len() {
            let queue = self.queues[place].clone();
            if !self.world.workers.contains_key(&queue) && self.world.journal.len() > self.world.synced {
                self.sync();
                return true;
            }
            let worker = self.world.worker(&queue);
            if self.look() {
                return true;
            }
            if let Some(delivery) = self.world.poll(worker) {
                self.work(&queue, worker, &delivery);
                return true;
            }
        }
        if self.world.journal.len() > self.world.synced {
            self.sync();
            return true;
        }
        false
    }

    fn receive(&mut self) {
        let confirms = std::mem::take(&mut self.world.confirms);
        for (number, outcome) in confirms {
            if let Some(place) = self.frames.remove(&number) {
                outcome.expect("nothing refuses here");
                self.asked[place].2 = true;
            }
        }
        let Some(inbox) = self.inbox else { return };
        for (body, _) in self.world.passes.remove(&inbox).unwrap_or_default() {
            self.answers.entry(part(&body, 4)).or_default().insert(part(&body, 5));
        }
    }

    /// A worker does its work. An effect that it had, it remembers by its key: the id without the attempt.
    fn work(&mut self, queue: &str, worker: ConsumerId, delivery: &Delivery) {
        let body = self.world.body(&delivery.body);
        let (id, reply_to) = (part(&body, 1), part(&body, 3));
        let behaviour = self.behaviours.pop_front().unwrap_or(Behaviour::Complete);
        let had_effect = matches!(behaviour, Behaviour::Complete | Behaviour::Die | Behaviour::ApplyAndNack);
        let mut verdict = match behaviour {
            Behaviour::Complete => Some(Verdict::Complete { payload: "done".into() }),
            Behaviour::Die | Behaviour::Sleep => None,
            Behaviour::Nack | Behaviour::ApplyAndNack => Some(Verdict::Nack { delay_ms: None }),
            Behaviour::Fail => Some(Verdict::Fail { reason: "busy".into(), retryable: true }),
            Behaviour::Refuse => Some(Verdict::Reject { reason: "no".into() }),
        };
        let done = || Some(Verdict::Complete { payload: "done".into() });
        if !reply_to.is_empty() {
            if verdict == done() {
                self.reply(queue, delivery, &body);
                return;
            }
        } else {
            let (key, _) = id.rsplit_once('/').expect("a step's id ends with its attempt");
            if let Some(step) = key.strip_suffix("/undo") {
                if had_effect {
                    self.refused.insert(step.to_owned());
                    let undone = self.undone.entry(step.to_owned()).or_default();
                    *undone = (*undone).max(1);
                }
                if self.refused.contains(step) && matches!(behaviour, Behaviour::Fail | Behaviour::Refuse) {
                    verdict = done();
                }
            } else if self.refused.contains(key) {
                verdict = Some(Verdict::Reject { reason: "it was undone".into() });
            } else if self.applied.contains_key(key) {
                // What was done before is answered as it was then, if at all.
                if matches!(behaviour, Behaviour::Fail | Behaviour::Refuse) {
                    verdict = done();
                }
            } else if had_effect {
                self.applied.insert(key.to_owned(), 1);
            }
        }
        if let Some(verdict) = verdict {
            let Delivery { sequence, lease, .. } = *delivery;
            let number = self.world.draw();
            let consumer = worker;
            self.world.call(Command::Settle(Settle { consumer, number, sequence, lease, verdict }));
        }
        self.look();
    }

    fn reply(&mut self, queue: &str, delivery: &Delivery, request: &[u8]) {
        let reply = draft(&part(request, 3), &format!("reply-{queue}-{}", part(request, 1)))
            .correlation(&part(request, 1))
            .payload(queue);
        let number = self.world.draw();
        let bindings = self.world.broker.bindings();
        let transaction = Transaction {
            publisher: PublisherId(1),
            number,
            connection: ConnectionId(1),
            id: Bytes::from(format!("tx-{number}")),
            rules: bindings.version(),
            acks: vec![(bindings.queue_id(queue), delivery.sequence, delivery.lease)],
            publishes: vec![(reply.build(), Way::Direct(bindings.resolve(&reply.topic)), false)],
            job: None,
        };
        self.world.call(Command::Transaction(transaction));
        self.look();
    }

    /// An aggregator whose answer is all that it was told.
    fn aggregate(&mut self, call: Aggregate) {
        let told = self.folded.entry(call.gather).or_default();
        let mut outcome = Ok(Aggregated::Folded { done: false });
        match &call.what {
            AggregateCall::Begin { .. } => told.clear(),
            AggregateCall::Reply { recipient, .. } => told.push(format!("{recipient}+")),
            AggregateCall::Failed { recipient, .. } => told.push(format!("{recipient}-")),
            AggregateCall::Silent { recipient } => told.push(format!("{recipient}?")),
            AggregateCall::Finish { .. } => {
                let payload = Bytes::from(told.join(" "));
                outcome = Ok(Aggregated::Answer { headers: Vec::new(), payload });
            }
        }
        if self.counsels.pop_front() == Some(Counsel::Trap) {
            outcome = Err(ModuleFailure { detail: "it trapped".into() });
        }
        self.world.call(Command::Aggregated { gather: call.gather, call: call.call, outcome });
        self.look();
    }

    /// A compensator that goes on as defined, and undoes the first step first.
    fn advise(&mut self, call: Advise) {
        let counsel = self.counsels.pop_front().unwrap_or(Counsel::Sensible);
        let outcome = match (counsel, &call.cause) {
            (Counsel::Trap, _) => Err(ModuleFailure { detail: "it trapped".into() }),
            (Counsel::Park, _) => Ok(Advice::Park { reason: "ask Ann".into() }),
            (Counsel::Retry, Some(_)) => Ok(Advice::Retry),
            (_, None) => Ok(Advice::Next),
            (_, Some(_)) => {
                let may_be_done = |view: &&StepView| {
                    matches!(view.outcome, StepOutcome::Completed | StepOutcome::Unknown) && !view.undone
                };
                let undone = call.steps.iter().zip(&call.definition.steps);
                let steps = undone
                    .filter(|(view, step)| may_be_done(view) && step.compensate.is_some())
                    .map(|(view, _)| (view.name.clone(), None));
                Ok(Advice::Undo { steps: steps.collect() })
            }
        };
        self.world.call(Command::Advised { saga: call.saga, call: call.call, outcome });
        self.look();
    }

    /// An operator looks at the first parked saga: tries it again twice, then has it compensated.
    fn operate(&mut self) -> bool {
        let parked = self.world.broker.sagas(Some(SagaState::Parked), Sequence(0), 1).sagas;
        let Some(saga) = parked.into_iter().next() else { return false };
        self.operator += 1;
        let verb = match self.operator % 3 {
            0 => SagaVerb::Abort { compensate: true },
            _ => SagaVerb::Retry,
        };
        let ticket = Ticket(self.world.draw());
        self.world.call(Command::Steer { ticket, name: saga.name, id: saga.id, verb });
        self.look();
        true
    }

    fn sync(&mut self) {
        self.world.sync();
        self.unsynced = 0;
        self.look();
    }

    /// Looks at the batches that came: each is a boundary at which the router may die. True: it died.
    fn look(&mut self) -> bool {
        self.check();
        let new: Vec<usize> = self.world.batches.range(self.looked_at + 1..).copied().collect();
        for boundary in new {
            self.looked_at = boundary;
            self.boundaries += 1;
            self.seen += 1;
            self.unsynced += 1;
            if let Some(kill) = self.kills.front().copied().filter(|kill| kill.after <= self.seen) {
                self.kills.pop_front();
                self.die(boundary.max(self.world.synced), kill.snapshot);
                return true;
            }
        }
        if self.unsynced >= self.sync_every {
            self.world.sync();
            self.unsynced = 0;
            self.looked_at = self.looked_at.max(self.world.journal.len());
        }
        false
    }

    fn die(&mut self, keep: usize, snapshot: bool) {
        self.world.crash(keep);
        if snapshot {
            self.world.sync();
            self.world.snapshot();
            self.world.restart();
        }
        self.folded.clear();
        self.inbox = None;
        self.seen = 0;
        self.looked_at = self.world.journal.len();
        self.check();
    }

    /// What holds at every moment.
    fn check(&mut self) {
        let sagas = self.world.broker.sagas(None, Sequence(0), 999).sagas;
        let over = [SagaState::Completed, SagaState::Compensated, SagaState::Aborted];
        for saga in &sagas {
            match self.ended.get(&saga.id) {
                Some(ended) => assert_eq!(saga.state, *ended, "{} ended twice", saga.id),
                None if over.contains(&saga.state) && self.world.synced == self.world.journal.len() => {
                    self.ended.insert(saga.id.clone(), saga.state);
                }
                None => {}
            }
        }
        let parked = sagas.iter().filter(|saga| saga.state == SagaState::Parked).count() as u64;
        let alarms = self.world.broker.alarms();
        let alarm = alarms.iter().find(|alarm| alarm.alarm == "saga_parked");
        assert_eq!(alarm.map_or(0, |alarm| alarm.count), parked, "the alarm counts what is parked");
        for (key, effects) in self.applied.iter().chain(&self.undone) {
            assert_eq!(*effects, 1, "{key}");
        }
    }

    fn is_over(&self) -> bool {
        let sagas = self.world.broker.sagas(None, Sequence(0), 999).sagas;
        let over = [SagaState::Completed, SagaState::Compensated, SagaState::Aborted];
        self.asked.iter().all(|(_, id, _)| self.answers.contains_key(id))
            && sagas.iter().all(|saga| over.contains(&saga.state))
    }

    /// What holds once everything is over.
    #[track_caller]
    fn check_end(&mut self) {
        for (id, answers) in &self.answers {
            assert_eq!(answers.len(), 1, "{id} got several answers: {answers:?}");
        }
        for (topic, id, _) in &self.asked {
            let Some(view) = self.world.broker.saga(topic, id) else { continue };
            let told = self.answers[id].first().unwrap();
            assert!(told.starts_with(view.summary.state.name()), "{id} is {:?}: {told}", view.summary.state);
            for step in &self.steps {
                let key = format!("{topic}/{id}/{}", step.name);
                let applied = self.applied.contains_key(&key);
                let undone = self.undone.contains_key(&key);
                match view.summary.state {
                    SagaState::Completed => {
                        assert!(applied && !undone, "{key}: {applied} {undone} {view:#?}")
                    }
                    SagaState::Compensated => {
                        let open = applied && !undone && step.compensate.is_some();
                        assert!(!open, "{key} had its effect and was not undone: {view:#?}");
                    }
                    _ => {}
                }
            }
        }
        for queue in &self.queues {
            assert_eq!(self.world.counts(queue), [0; 4], "something is left in {queue}");
        }
    }
}
