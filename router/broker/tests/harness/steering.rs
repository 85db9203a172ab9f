//! Gathers and sagas as the tests write them: their rules, what their modules answer, what workers do.

use super::*;

/// A scatter on the topic of its own name, that asks these queues; the aggregator is `collect`.
pub fn scatter(name: &str, recipients: &[&str]) -> (String, ScatterSettings) {
    let settings = ScatterSettings {
        topic: name.to_owned(),
        recipients: Recipients::Queues(recipients.iter().map(|name| (*name).to_owned()).collect()),
        aggregator: module("collect"),
        timeout_ms: 30_000,
        quorum: None,
        on_timeout: OnTimeout::Partial,
        late: Late::Drop,
        max_replies: 1_000,
        durability: Durability::Fsync,
        priority: None,
        ttl_ms: None,
    };
    (name.to_owned(), settings)
}

/// The same, changed.
pub fn scatter_with(
    name: &str,
    recipients: &[&str],
    change: impl FnOnce(&mut ScatterSettings),
) -> (String, ScatterSettings) {
    let (name, mut settings) = scatter(name, recipients);
    change(&mut settings);
    (name, settings)
}

/// A module that is deployed.
pub fn module(name: &str) -> ModuleUse {
    ModuleUse {
        name: name.to_owned(),
        binary: Some([7; 32]),
        params: "{}".to_owned(),
        time_limit_ms: 10,
        memory_limit_bytes: 16 << 20,
    }
}

/// A step in the queue of its own name, undone in `undo.NAME`.
pub fn saga_step(name: &str) -> StepSettings {
    StepSettings {
        name: name.to_owned(),
        queue: name.to_owned(),
        compensate: Some(format!("undo.{name}")),
        timeout_ms: 5_000,
        retries: 0,
        backoff_ms: vec![1_000, 5_000],
        pivot: false,
        group: None,
        payload: StepPayload::All,
    }
}

/// A saga on the topic of its own name, without a compensator.
pub fn saga(name: &str, steps: Vec<StepSettings>) -> (String, SagaSettings) {
    let settings = SagaSettings {
        topic: name.to_owned(),
        timeout_ms: 60_000,
        compensator: None,
        advances: false,
        steps,
    };
    (name.to_owned(), settings)
}

/// The same step, changed.
pub fn step_with(name: &str, change: impl FnOnce(&mut StepSettings)) -> StepSettings {
    let mut step = saga_step(name);
    change(&mut step);
    step
}

/// The same saga, changed.
pub fn saga_with(
    name: &str,
    steps: Vec<StepSettings>,
    change: impl FnOnce(&mut SagaSettings),
) -> (String, SagaSettings) {
    let (name, mut settings) = saga(name, steps);
    change(&mut settings);
    (name, settings)
}

/// Rules with these scatters and sagas, and every queue that they name.
pub fn steering_rules(
    version: u64,
    queues: &[Queue],
    scatters: &[(String, ScatterSettings)],
    sagas: &[(String, SagaSettings)],
) -> Rules {
    let mut all = queues.to_vec();
    let mut add = |name: &str| {
        if !all.iter().any(|queue| queue.name == name) {
            all.push(queue(name));
        }
    };
    for (_, settings) in scatters {
        if let Recipients::Queues(names) = &settings.recipients {
            names.iter().for_each(|name| add(name));
        }
    }
    for step in sagas.iter().flat_map(|(_, settings)| &settings.steps) {
        add(&step.queue);
        step.compensate.iter().for_each(|name| add(name));
    }
    Rules {
        scatters: scatters.iter().map(|(name, settings)| (name.clone(), settings.clone().into())).collect(),
        sagas: sagas.iter().map(|(name, settings)| (name.clone(), settings.clone().into())).collect(),
        ..rules(version, &all)
    }
}

impl World {
    /// A new shard with these scatters and sagas, and the queues that they name.
    pub fn steering(
        queues: &[Queue],
        scatters: &[(String, ScatterSettings)],
        sagas: &[(String, SagaSettings)],
    ) -> World {
        let mut world = World::empty();
        world.apply(&steering_rules(1, queues, scatters, sagas)).expect("the first rules meet nothing");
        world
    }

    /// Acks a request and replies to it, in one transaction, as `Delivery::reply` does.
    #[track_caller]
    pub fn reply(
        &mut self,
        connection: u64,
        queue: &str,
        delivery: &Delivery,
        payload: &str,
    ) -> Confirmation {
        let request = self.body(&delivery.body);
        let id = format!("reply-{}", self.draw());
        let reply = draft(&part(&request, 3), &id).correlation(&part(&request, 1)).payload(payload);
        let number = self.draw();
        let bindings = self.broker.bindings();
        let transaction = Transaction {
            publisher: PublisherId(1),
            number,
            connection: ConnectionId(connection),
            id: Bytes::from(format!("tx-{number}")),
            rules: bindings.version(),
            acks: vec![(self.broker.queue_id(queue), delivery.sequence, delivery.lease)],
            publishes: vec![(reply.build(), Way::Direct(bindings.resolve(&reply.topic)), false)],
            job: None,
        };
        self.call(Command::Transaction(transaction));
        self.transacted.remove(&number).expect("it is answered").expect("its lease is current")[0]
    }

    /// Answers every call of an aggregator that waits, as `collect` does: never done early, the payloads end to end. Tells what
    /// was called.
    #[track_caller]
    pub fn aggregate(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(call) = self.aggregates.pop_front() {
            let line = match &call.what {
                AggregateCall::Begin { recipients, .. } => format!("begin {}", recipients.join(" ")),
                AggregateCall::Reply { recipient, reply, .. } => format!("{recipient}: {}", part(reply, 5)),
                AggregateCall::Failed { recipient, reason, .. } => format!("{recipient} failed: {reason}"),
                AggregateCall::Silent { recipient } => format!("{recipient} silent"),
                AggregateCall::Finish { why } => format!("finish {why:?}"),
            };
            let outcome = match call.what {
                AggregateCall::Finish { .. } => {
                    Aggregated::Answer { headers: Vec::new(), payload: Bytes::from(told.join(", ")) }
                }
                _ => Aggregated::Folded { done: false },
            };
            told.push(line);
            self.call(Command::Aggregated { gather: call.gather, call: call.call, outcome: Ok(outcome) });
        }
        told
    }

    /// A publish on this connection.
    #[track_caller]
    pub fn publish_from(&mut self, connection: u64, draft: &Draft) -> Confirmation {
        let (number, command) = self.command(draft, false);
        let Command::Publish(publish) = command else { unreachable!("it makes publishes") };
        let publish = Publish { connection: Some(ConnectionId(connection)), ..publish };
        self.call(Command::Publish(publish));
        self.confirms.remove(&number).expect("a publish is answered").expect("it isn't refused")
    }

    /// The reply to a delivered request, to be published by itself.
    pub fn reply_to(&self, delivery: &Delivery, id: &str, payload: &str) -> Draft {
        let request = self.body(&delivery.body);
        draft(&part(&request, 3), id).correlation(&part(&request, 1)).payload(payload)
    }

    /// The next call of an aggregator gets this answer.
    #[track_caller]
    pub fn aggregate_as(&mut self, outcome: Result<Aggregated, &str>) {
        let call = self.aggregates.pop_front().expect("an aggregator is called");
        let outcome = outcome.map_err(|detail| ModuleFailure { detail: detail.to_owned() });
        self.call(Command::Aggregated { gather: call.gather, call: call.call, outcome });
    }

    /// Rules with these scatters and sagas follow the current ones.
    #[track_caller]
    pub fn resteer(
        &mut self,
        queues: &[Queue],
        scatters: &[(String, ScatterSettings)],
        sagas: &[(String, SagaSettings)],
    ) -> Result<RulesVersion, RulesRefused> {
        let version = self.broker.rules().version.0 + 1;
        self.apply(&steering_rules(version, queues, scatters, sagas))
    }

    /// A new shard with these scatters and sagas, and these limits.
    pub fn steering_within(
        limits: ShardLimits,
        queues: &[Queue],
        scatters: &[(String, ScatterSettings)],
        sagas: &[(String, SagaSettings)],
    ) -> World {
        let mut world = World::empty();
        let rules = Rules { limits, ..steering_rules(1, queues, scatters, sagas) };
        world.apply(&rules).expect("the first rules meet nothing");
        world
    }

    /// An operator's command on a saga.
    #[track_caller]
    pub fn steer(&mut self, name: &str, id: &str, verb: SagaVerb) -> Result<SagaState, SteerError> {
        let ticket = Ticket(self.draw());
        self.call(Command::Steer { ticket, name: name.to_owned(), id: id.to_owned(), verb });
        self.steered.remove(&ticket).expect("it is answered")
    }

    /// What the compensator that was asked says.
    #[track_caller]
    pub fn advise(&mut self, advice: Advice) -> Advise {
        let asked = self.advice_wanted.pop_front().expect("a compensator was asked");
        self.call(Command::Advised { saga: asked.saga, call: asked.call, outcome: Ok(advice) });
        asked
    }

    /// The state of a saga.
    #[track_caller]
    pub fn saga_state(&self, name: &str, id: &str) -> SagaState {
        self.broker.saga(name, id).expect("it is known").summary.state
    }

    /// A saga's timeline, a line each: step, attempt, what.
    pub fn timeline(&self, name: &str, id: &str) -> Vec<String> {
        let lines = self.broker.saga(name, id).expect("it is known").timeline;
        let line = |line: TimelineView| {
            let undo = if line.undo { "undo " } else { "" };
            let step = line.step.unwrap_or_default();
            let attempt = if line.attempt > 0 { format!(" {}", line.attempt) } else { String::new() };
            let detail = if line.detail.is_empty() { String::new() } else { format!(" ({})", line.detail) };
            format!("{undo}{step}{attempt} {}{detail}", line.what).trim().to_owned()
        };
        lines.into_iter().map(line).collect()
    }

    /// The worker of this queue.
    #[track_caller]
    pub fn worker(&mut self, queue: &str) -> ConsumerId {
        if !self.workers.contains_key(queue) {
            let consumer = self.attach(queue, 64);
            self.workers.insert(queue.to_owned(), consumer);
        }
        self.workers[queue]
    }

    /// A queue's worker completes its next message: that message's id.
    #[track_caller]
    pub fn does(&mut self, queue: &str, result: &str) -> String {
        let worker = self.worker(queue);
        self.complete(worker, result)
    }

    /// A queue's worker fails on its next message.
    #[track_caller]
    pub fn fails(&mut self, queue: &str, reason: &str, retryable: bool) -> String {
        let worker = self.worker(queue);
        self.fail_next(worker, reason, retryable)
    }

    /// A queue's worker takes its next message.
    #[track_caller]
    pub fn takes(&mut self, queue: &str) -> Delivery {
        let worker = self.worker(queue);
        self.next(worker)
    }

    /// A queue's worker ends the lease of what it took.
    #[track_caller]
    pub fn ends(&mut self, queue: &str, delivery: &Delivery, verdict: Verdict) -> Result<(), SettleError> {
        let worker = self.worker(queue);
        self.settle(worker, delivery, verdict)
    }

    /// What a queue's worker would get next: id and payload.
    #[track_caller]
    pub fn shown(&mut self, queue: &str) -> Option<(String, String)> {
        let worker = self.worker(queue);
        let delivery = self.deliveries.get(&worker)?.front()?.clone();
        let body = self.body(&delivery.body);
        Some((part(&body, 1), part(&body, 5)))
    }

    /// A step of a saga, as it stands.
    #[track_caller]
    pub fn step_of(&self, name: &str, id: &str, step: &str) -> StepView {
        let steps = self.broker.saga(name, id).expect("it is known").steps;
        steps.into_iter().find(|view| view.name == step).expect("it has that step")
    }

    /// The next message of a queue, for a consumer made for it.
    #[track_caller]
    pub fn complete(&mut self, consumer: ConsumerId, result: &str) -> String {
        let delivery = self.next(consumer);
        let id = part(&self.body(&delivery.body), 1);
        let payload = Bytes::from(result.to_owned());
        self.settle(consumer, &delivery, Verdict::Complete { payload }).expect("the lease is current");
        id
    }

    /// The next message fails.
    #[track_caller]
    pub fn fail_next(&mut self, consumer: ConsumerId, reason: &str, retryable: bool) -> String {
        let delivery = self.next(consumer);
        let id = part(&self.body(&delivery.body), 1);
        let verdict = Verdict::Fail { reason: reason.to_owned(), retryable };
        self.settle(consumer, &delivery, verdict).expect("the lease is current");
        id
    }
}
