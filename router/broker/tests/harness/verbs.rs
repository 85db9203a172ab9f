//! What a test says: one method for each thing that a client or an operator does, answering what came of it.

use super::*;

impl World {
    /// A publish as a session sends it, resolved under the current rules.
    pub fn command(&mut self, draft: &Draft, mandatory: bool) -> (u64, Command) {
        let number = self.draw();
        let bindings = self.broker.bindings();
        let message = draft.build();
        let publish = Publish {
            publisher: Some(PublisherId(1)),
            connection: Some(ConnectionId(1)),
            number,
            rules: bindings.version(),
            mandatory,
            hash: Some(bindings.message_hash(message.topic(), message.id())),
            message,
            way: Way::Direct(bindings.resolve(&draft.topic)),
            job: None,
        };
        (number, Command::Publish(publish))
    }

    #[track_caller]
    pub fn try_publish(&mut self, draft: Draft) -> Result<Confirmation, PublishError> {
        let (number, command) = self.command(&draft, false);
        self.call(command);
        self.confirms.remove(&number).expect("a publish is answered")
    }

    /// A publish that isn't refused.
    #[track_caller]
    pub fn publish(&mut self, draft: Draft) -> Confirmation {
        self.try_publish(draft).expect("a publish that isn't refused")
    }

    /// A publish that a queue stores: its number.
    #[track_caller]
    pub fn store(&mut self, draft: Draft) -> Sequence {
        let confirmation = self.publish(draft);
        assert!(!confirmation.duplicate, "it is no duplicate");
        confirmation.sequence.expect("a queue takes it")
    }

    #[track_caller]
    pub fn publish_mandatory(&mut self, draft: Draft) -> Result<Confirmation, PublishError> {
        let (number, command) = self.command(&draft, true);
        self.call(command);
        self.confirms.remove(&number).expect("a publish is answered")
    }

    #[track_caller]
    pub fn try_attach(
        &mut self,
        connection: u64,
        queue: &str,
        credit: u32,
    ) -> Result<ConsumerId, UnknownQueue> {
        let consumer = ConsumerId(self.draw());
        let attach = Attach { consumer, connection: ConnectionId(connection), queue: queue.into(), credit };
        self.call(Command::Attach(attach));
        self.attached[&consumer].map(|_| consumer)
    }

    /// A consumer on connection 1.
    #[track_caller]
    pub fn attach(&mut self, queue: &str, credit: u32) -> ConsumerId {
        self.try_attach(1, queue, credit).expect("the queue is there")
    }

    /// The next delivery, if there is one.
    pub fn poll(&mut self, consumer: ConsumerId) -> Option<Delivery> {
        self.deliveries.get_mut(&consumer)?.pop_front()
    }

    /// The next delivery.
    #[track_caller]
    pub fn next(&mut self, consumer: ConsumerId) -> Delivery {
        self.poll(consumer).expect("there is a delivery")
    }

    /// The ids of everything that was delivered and not looked at yet.
    pub fn ids(&mut self, consumer: ConsumerId) -> Vec<String> {
        let mut ids = Vec::new();
        while let Some(delivery) = self.poll(consumer) {
            ids.push(part(&self.body(&delivery.body), 1));
        }
        ids
    }

    #[track_caller]
    pub fn settle(
        &mut self,
        consumer: ConsumerId,
        delivery: &Delivery,
        verdict: Verdict,
    ) -> Result<(), SettleError> {
        let number = self.draw();
        let Delivery { sequence, lease, .. } = *delivery;
        self.call(Command::Settle(Settle { consumer, number, sequence, lease, verdict }));
        self.settled.remove(&number).expect("a settlement is answered")
    }

    #[track_caller]
    pub fn ack(&mut self, consumer: ConsumerId, delivery: &Delivery) {
        self.settle(consumer, delivery, Verdict::Ack).expect("the lease is current");
    }

    /// With the queue's own backoff.
    #[track_caller]
    pub fn nack(&mut self, consumer: ConsumerId, delivery: &Delivery) {
        self.settle(consumer, delivery, Verdict::Nack { delay_ms: None }).expect("the lease is current");
    }

    #[track_caller]
    pub fn nack_after(&mut self, consumer: ConsumerId, delivery: &Delivery, ms: u64) {
        self.settle(consumer, delivery, Verdict::Nack { delay_ms: Some(ms) }).expect("the lease is current");
    }

    #[track_caller]
    pub fn reject(&mut self, consumer: ConsumerId, delivery: &Delivery, reason: &str) {
        self.settle(consumer, delivery, Verdict::Reject { reason: reason.into() })
            .expect("the lease is current");
    }

    #[track_caller]
    pub fn fail(&mut self, consumer: ConsumerId, delivery: &Delivery, reason: &str, retryable: bool) {
        let verdict = Verdict::Fail { reason: reason.into(), retryable };
        self.settle(consumer, delivery, verdict).expect("the lease is current");
    }

    #[track_caller]
    pub fn extend(&mut self, consumer: ConsumerId, delivery: &Delivery) {
        self.call(Command::Extend { consumer, leases: vec![(delivery.sequence, delivery.lease)] });
    }

    #[track_caller]
    pub fn detach(&mut self, consumer: ConsumerId, release: bool) {
        self.call(Command::Detach { consumer, release });
        self.deliveries.remove(&consumer);
    }

    #[track_caller]
    pub fn disconnect(&mut self, connection: u64) {
        self.call(Command::Disconnect { connection: ConnectionId(connection) });
    }

    #[track_caller]
    pub fn subscribe(&mut self, connection: u64, pattern: &str) -> SubscriptionId {
        let subscription = SubscriptionId(self.draw());
        let connection = ConnectionId(connection);
        self.call(Command::Subscribe { subscription, connection, pattern: pattern.into() });
        subscription
    }

    /// What was passed to a subscription and not looked at yet, as ids and drop counts.
    pub fn passed(&mut self, subscription: SubscriptionId) -> Vec<(String, u64)> {
        let passes = self.passes.remove(&subscription).unwrap_or_default();
        passes.into_iter().map(|(body, dropped)| (part(&body, 1), dropped)).collect()
    }

    /// The payloads of what was passed to a subscription and not looked at yet.
    pub fn heard(&mut self, subscription: SubscriptionId) -> Vec<String> {
        let passes = self.passes.remove(&subscription).unwrap_or_default();
        passes.into_iter().map(|(body, _)| part(&body, 5)).collect()
    }

    /// Acks of deliveries of one queue, and publishes, all or nothing, on connection 1.
    #[track_caller]
    pub fn transact(
        &mut self,
        id: &str,
        acks: &[(&str, &Delivery)],
        publishes: &[(Draft, bool)],
    ) -> Result<Vec<Confirmation>, TransactionError> {
        let number = self.send_transaction(id, acks, publishes);
        self.transacted.remove(&number).expect("a transaction is answered")
    }

    /// See [`World::transact`]; whether it is answered, the caller looks.
    #[track_caller]
    pub fn send_transaction(
        &mut self,
        id: &str,
        acks: &[(&str, &Delivery)],
        publishes: &[(Draft, bool)],
    ) -> u64 {
        let number = self.draw();
        let bindings = self.broker.bindings();
        let acks = acks
            .iter()
            .map(|(queue, delivery)| (bindings.queue_id(queue), delivery.sequence, delivery.lease));
        let publishes = publishes.iter().map(|(draft, mandatory)| {
            (draft.build(), Way::Direct(bindings.resolve(&draft.topic)), *mandatory)
        });
        let transaction = Transaction {
            publisher: PublisherId(1),
            number,
            connection: ConnectionId(1),
            id: Bytes::copy_from_slice(id.as_bytes()),
            rules: bindings.version(),
            acks: acks.collect(),
            publishes: publishes.collect(),
            job: None,
        };
        self.call(Command::Transaction(transaction));
        number
    }

    #[track_caller]
    pub fn apply_dropping(
        &mut self,
        rules: &Rules,
        drop_queues: &[&str],
    ) -> Result<RulesVersion, RulesRefused> {
        let ticket = Ticket(self.draw());
        let drop_queues = drop_queues.iter().map(|name| (*name).to_owned()).collect();
        self.call(Command::ApplyRules { ticket, rules: rules.clone(), drop_queues, drop_states: Vec::new() });
        self.applied.remove(&ticket).expect("a rules change is answered")
    }

    #[track_caller]
    pub fn apply(&mut self, rules: &Rules) -> Result<RulesVersion, RulesRefused> {
        self.apply_dropping(rules, &[])
    }

    /// The next version of the rules, with these queues.
    #[track_caller]
    pub fn reload(&mut self, queues: &[Queue]) -> Result<RulesVersion, RulesRefused> {
        let version = self.broker.rules().version.0 + 1;
        self.apply(&rules(version, queues))
    }

    /// See [`World::reload`]; these queues may vanish with messages in them.
    #[track_caller]
    pub fn reload_dropping(&mut self, queues: &[Queue], drop: &[&str]) -> Result<RulesVersion, RulesRefused> {
        let version = self.broker.rules().version.0 + 1;
        self.apply_dropping(&rules(version, queues), drop)
    }

    #[track_caller]
    pub fn operate(&mut self, queue: &str, operation: Operation) -> Result<Progress, OperateError> {
        let ticket = Ticket(self.draw());
        let queue = self.broker.queue_id(queue).expect("the queue is there");
        self.call(Command::Operate { ticket, queue, operation });
        self.done.remove(&ticket).expect("an operation is answered")
    }

    /// Every dead letter goes back.
    #[track_caller]
    pub fn redrive(&mut self, queue: &str) -> Progress {
        let operation = Operation::Redrive { select: Select::default(), limit: u64::MAX };
        self.operate(queue, operation).expect("it may be redriven")
    }

    /// A queue's counters.
    #[track_caller]
    pub fn stats(&self, name: &str) -> QueueStats {
        let all = self.broker.queues();
        all.into_iter().find(|stats| *stats.name == *name).expect("the queue is there")
    }

    /// Ready, delayed, parked, leased.
    #[track_caller]
    pub fn counts(&self, name: &str) -> [u64; 4] {
        let stats = self.stats(name);
        [stats.ready, stats.delayed, stats.parked, stats.leased]
    }

    /// Everything in a queue.
    #[track_caller]
    pub fn browse(&self, name: &str) -> Vec<Browsed> {
        let id = self.broker.queue_id(name).expect("the queue is there");
        let (mut all, mut after) = (Vec::new(), Sequence(0));
        loop {
            let page = self.broker.browse(id, after, 100);
            let Some(last) = page.last() else { return all };
            after = last.sequence;
            all.extend(page);
        }
    }

    /// What the headers of a queue's dead letters say, by id.
    #[track_caller]
    pub fn letters(&self, queue: &str) -> BTreeMap<String, DeadInfo> {
        let browsed = self.browse(&format!("{queue}.dlq"));
        let letters = browsed.into_iter().map(|browsed| {
            let id = part(&self.body(&browsed.body), 1);
            (id, DeadInfo::clone(browsed.dead.as_ref().expect("a dead letter has its headers")))
        });
        letters.collect()
    }
}
