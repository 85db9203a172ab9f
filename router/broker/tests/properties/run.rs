//! Plays operations to a broker and to the model, and compares the two after each.

use chaski_broker::*;

use crate::harness::{Call, Cause, Draft, Queue, Seen, World, draft, queue, rules, with_modules};
use crate::model::{Model, confirmed};
use crate::operation::{End, Operation as Step, Publish as Drawn, Tool};

pub(crate) const TOPICS: [&str; 9] =
    ["work", "keys", "park", "fast", "tight", "last", "all.x", "news.a", "nobody"];
const PATTERNS: [&str; 3] = ["news.*", "all.>", ">"];
const WAITS_MS: [u64; 8] = [0, 1, 50, 200, 600, 1_500, 6_000, 130_000];

/// The queues of one version of the rules: every kind, and what changes between versions.
fn queues(variant: u8) -> Vec<Queue> {
    let both = |name: &'static str| queue(name).bind(&[name, "all.>"]);
    let short = |queue: Queue| {
        queue.with(|settings| (settings.backoff_ms, settings.ack_wait_ms) = (vec![100, 1_000], 500))
    };
    let mut queues = vec![
        short(both("work").max_deliver(2)),
        short(both("keys").by_key().max_deliver(3)),
        short(both("park").park_key().max_deliver(2)).ttl(5_000),
        short(both("fast").durability(Durability::Memory).max_messages(4, Overflow::DropOldest)),
        short(both("tight").durability(Durability::Os).max_messages(6, Overflow::Reject)),
        short(both("last").max_messages(3, Overflow::DeadLetterOldest))
            .with(|settings| (settings.single_active, settings.dedup_window_ms) = (true, 300_000))
            .with(|settings| settings.dead_max_messages = Some(2)),
        queue("answers").bind(&["answers.>"]),
    ];
    match variant {
        1 => queues[0] = short(both("work").max_deliver(4).ttl(2_000)),
        2 => {
            queues.remove(3);
            queues[2].settings.on_poison = OnPoison::Continue;
        }
        3 => {
            queues[1].settings.ordering = Ordering::None;
            queues[4].settings.max_messages = Some(1);
            queues.remove(0);
        }
        _ => {}
    }
    queues
}

/// A broker beside its model.
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) model: Model,
    /// The model after each call since the last sync, and how long the journal was.
    history: Vec<(usize, Model)>,
    tokens: Vec<(Sequence, Lease)>,
    connections: u64,
}

impl Run {
    pub(crate) fn new() -> Run {
        let mut world = World::empty();
        world.calls.clear();
        world.send_at_once = false;
        world.sync_at_once = false;
        let model = Model::new(world.now);
        let mut run = Run { world, model, history: Vec::new(), tokens: Vec::new(), connections: 0 };
        run.history.push((run.world.journal.len(), run.model.clone()));
        run.step(&Step::Rules { variant: 0, drop: false });
        run
    }

    /// One operation, in both, and then the comparison.
    #[track_caller]
    pub(crate) fn step(&mut self, step: &Step) {
        self.play(step);
        self.model.compare(&self.world);
        if let Some((_, last)) = self.history.last_mut() {
            *last = self.model.clone();
        }
    }

    /// The calls that this command caused: its own is the model's, given by `told`; the rest is time's.
    #[track_caller]
    pub(crate) fn command(&mut self, command: Command, told: impl FnOnce(&mut Model, &Call)) {
        self.world.call(command);
        self.catch_up(Some(told));
    }

    #[track_caller]
    fn catch_up(&mut self, mut told: Option<impl FnOnce(&mut Model, &Call)>) {
        for call in std::mem::take(&mut self.world.calls) {
            self.world.seen.clear();
            self.model.begin(&call);
            match call.cause {
                Cause::Timeout => self.model.timeouts(),
                Cause::Command | Cause::Resume => {
                    if let Some(told) = told.take() {
                        told(&mut self.model, &call);
                    }
                }
            }
            self.model.end(&call);
            for seen in &call.seen {
                if let Seen::Deliver(_, _, delivery) = seen {
                    self.tokens.push((delivery.sequence, delivery.lease));
                }
            }
            self.history.push((call.journal, self.model.clone()));
        }
        self.model.learn_delays(&self.world);
    }

    #[track_caller]
    fn quiet(&mut self) {
        self.catch_up(None::<fn(&mut Model, &Call)>);
    }

    #[track_caller]
    fn play(&mut self, step: &Step) {
        match step {
            Step::Publish(drawn) => self.publish(&self.message(drawn), drawn.mandatory),
            Step::Filtered { publish, judgement } => self.publish_filtered(publish, judgement),
            Step::Pend(drawn) => self.pend(drawn),
            Step::Judge { job, fails, judgement, writes } => self.judge(*job, *fails, judgement, writes),
            Step::Reply { request, id } => {
                let requests: Vec<_> = self.model.requests.iter().collect();
                let Some(((_, asked), request)) = pick(&requests, *request).copied() else { return };
                let reply = draft(&request.reply_to.clone(), &format!("r{id}")).correlation(asked);
                self.publish(&reply, false);
            }
            Step::Advance(ms) => {
                let end = self.world.now.after(WAITS_MS[usize::from(*ms)]);
                while self.world.step(end) {
                    self.quiet();
                }
                self.model.now = end;
            }
            Step::Sync => {
                self.world.sync();
                self.quiet();
                self.history = vec![(self.world.journal.len(), self.model.clone())];
            }
            Step::Snapshot => self.world.snapshot(),
            Step::Crash { keep } => self.crash(*keep),
            Step::Restart => {
                self.command(Command::Shutdown, |model, _| model.shutdown());
                self.crash(u8::MAX);
            }
            Step::Transaction { id, connection, acks, stale, publishes } => {
                self.transact(*id, *connection, acks, *stale, publishes);
            }
            Step::Rules { variant, drop } => self.rules(*variant, *drop),
            Step::Operate { queue, tool } => self.operate(*queue, *tool),
            Step::Relocate { from } => {
                let last = self.world.broker.position();
                let first = Position(1 + last.0 * u64::from(*from) / 256);
                let positions = self.world.broker.live_positions(first..=last, 8);
                let bodies = positions.into_iter().map(|at| (at, self.world.body(&Body::At(at)))).collect();
                self.command(Command::Relocate { bodies }, |_, _| ());
            }
            other => self.client(other),
        }
    }

    /// What consumers and subscriptions do.
    #[track_caller]
    fn client(&mut self, step: &Step) {
        let consumers: Vec<ConsumerId> = self.model.consumers.keys().copied().collect();
        let subscriptions: Vec<SubscriptionId> = self.model.subscriptions.keys().copied().collect();
        match *step {
            Step::Attach { queue, connection, credit } => {
                let names: Vec<String> = self.model.queues.keys().cloned().chain(["gone".into()]).collect();
                let name = pick(&names, queue).expect("there are some").clone();
                let consumer = ConsumerId(self.world.draw());
                let attach = Attach {
                    consumer,
                    connection: ConnectionId(u64::from(connection)),
                    queue: name.clone(),
                    credit: u32::from(credit),
                };
                self.command(Command::Attach(attach), |model, call| {
                    let attached = model.attach(consumer, u64::from(connection), &name, u32::from(credit));
                    let told = call
                        .seen
                        .iter()
                        .any(|seen| matches!(seen, Seen::Attached(told) if *told == attached));
                    assert!(told, "{name} is there: {attached}");
                });
            }
            Step::Credit { consumer, credit } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                let credit = u32::from(credit);
                let command = Command::SetCredit { consumer, credit };
                self.command(command, |model, _| model.set_credit(consumer, credit));
            }
            Step::Sent { consumer, count } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                let count = u32::from(count);
                self.command(Command::Sent { consumer, count }, |model, _| model.sent(consumer, count));
            }
            Step::Settle { consumer, lease, end } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                let held = self.model.held(consumer);
                let Some((_, sequence, lease)) = pick(&held, lease).cloned() else { return };
                self.settle(consumer, sequence, lease, end);
            }
            Step::SettleStale { consumer, token, end } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                let Some((sequence, lease)) = pick(&self.tokens, token).copied() else { return };
                self.settle(consumer, sequence, lease, end);
            }
            Step::Extend { consumer, stale } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                let held = self.model.held(consumer);
                let mut leases: Vec<_> =
                    held.into_iter().map(|(_, sequence, lease)| (sequence, lease)).collect();
                leases.extend(pick(&self.tokens, stale));
                self.command(Command::Extend { consumer, leases: leases.clone() }, |model, call| {
                    let lost = model.extend(consumer, &leases);
                    let told = call.seen.iter().find_map(|seen| match seen {
                        Seen::Lost(told) => Some(told.clone()),
                        _ => None,
                    });
                    assert_eq!(told.unwrap_or_default(), lost);
                });
            }
            Step::Detach { consumer, release } => {
                let Some(consumer) = pick(&consumers, consumer).copied() else { return };
                self.command(Command::Detach { consumer, release }, |model, _| {
                    model.detach(consumer, release)
                });
            }
            Step::Disconnect { connection } => {
                let connection = u64::from(connection);
                let command = Command::Disconnect { connection: ConnectionId(connection) };
                self.command(command, |model, _| model.disconnect(connection));
            }
            Step::Subscribe { connection, pattern } => {
                let subscription = SubscriptionId(self.world.draw());
                let (connection, pattern) =
                    (u64::from(connection), PATTERNS[usize::from(pattern)].to_owned());
                let command = Command::Subscribe {
                    subscription,
                    connection: ConnectionId(connection),
                    pattern: pattern.clone(),
                };
                self.command(command, |model, _| {
                    let new = crate::model::Subscription { connection, pattern, buffered: 0, dropped: 0 };
                    model.subscriptions.insert(subscription, new);
                });
            }
            Step::Unsubscribe { subscription } => {
                let Some(subscription) = pick(&subscriptions, subscription).copied() else { return };
                self.command(Command::Unsubscribe { subscription }, |model, _| {
                    model.subscriptions.remove(&subscription);
                });
            }
            Step::Taken { subscription, count } => {
                let Some(subscription) = pick(&subscriptions, subscription).copied() else { return };
                self.command(Command::Taken { subscription, count: u32::from(count) }, |model, _| {
                    let found = model.subscriptions.get_mut(&subscription).expect("it was just picked");
                    found.buffered = found.buffered.saturating_sub(u64::from(count));
                });
            }
            _ => unreachable!("it was played before"),
        }
    }

    pub(crate) fn message(&self, drawn: &Drawn) -> Draft {
        let topic = TOPICS[usize::from(drawn.topic)];
        let mut message = draft(topic, &format!("m{}", drawn.id)).priority(drawn.priority);
        if drawn.key > 0 {
            message = message.key(&format!("k{}", drawn.key - 1));
        }
        match drawn.request {
            0 => {}
            1 => message = message.reply_to(&format!("answers.{topic}")),
            _ => message = message.reply_to(&format!("answers.{topic}.{}", drawn.id)),
        }
        message.ttl_ms = [None, Some(300), Some(3_000)][usize::from(drawn.ttl)];
        message.deliver_at =
            [None, Some(200), Some(2_000)][usize::from(drawn.delay)].map(|ms| self.world.now.after(ms));
        message
    }

    #[track_caller]
    fn publish(&mut self, message: &Draft, mandatory: bool) {
        let (number, command) = self.world.command(message, mandatory);
        self.command(command, |model, call| {
            if model.awaits_first(message, number, call) {
                return;
            }
            let (wait, outcome) = confirmed(call, number).expect("a publish is answered");
            model.publish(message, mandatory, wait, &outcome, call);
        });
    }

    #[track_caller]
    fn settle(&mut self, consumer: ConsumerId, sequence: Sequence, lease: Lease, end: End) {
        let number = self.world.draw();
        let reason = || "no".to_owned();
        let verdict = match end {
            End::Ack => Verdict::Ack,
            End::Nack => Verdict::Nack { delay_ms: None },
            End::NackAfter(ms) => Verdict::Nack { delay_ms: Some([0, 70, 900][usize::from(ms)]) },
            End::Reject => Verdict::Reject { reason: reason() },
            End::Fail(retryable) => Verdict::Fail { reason: reason(), retryable },
            End::Release => Verdict::Release,
        };
        let settle = Settle { consumer, number, sequence, lease, verdict: verdict.clone() };
        self.command(Command::Settle(settle), |model, call| {
            let outcome = model.settle(consumer, sequence, lease, &verdict);
            let told = call.seen.iter().find_map(|seen| match seen {
                Seen::Settled(settled, told) if *settled == number => Some(*told),
                _ => None,
            });
            assert_eq!(told, Some(outcome), "{verdict:?} of {sequence}");
        });
    }

    #[track_caller]
    fn transact(&mut self, id: u8, connection: u8, acks: &[u8], stale: bool, publishes: &[Drawn]) {
        let connection = u64::from(connection);
        let theirs = self.model.consumers.iter().filter(|(_, consumer)| consumer.connection == connection);
        let mut held: Vec<_> = theirs.flat_map(|(id, _)| self.model.held(*id)).collect();
        let mut leases = Vec::new();
        for number in acks {
            if !held.is_empty() {
                leases.push(held.remove(usize::from(*number) % held.len()));
            }
        }
        if stale {
            let token = pick(&self.tokens, id).copied();
            leases.extend(token.map(|(sequence, lease)| ("work".to_owned(), sequence, lease)));
        }
        let publishes: Vec<(Draft, bool)> =
            publishes.iter().map(|drawn| (self.message(drawn), drawn.mandatory)).collect();
        let (id, number) = (format!("t{id}"), self.world.draw());
        let bindings = self.world.broker.bindings();
        let transaction = Transaction {
            publisher: PublisherId(1),
            number,
            connection: ConnectionId(connection),
            id: id.clone().into(),
            rules: bindings.version(),
            acks: leases
                .iter()
                .map(|(name, sequence, lease)| (bindings.queue_id(name), *sequence, *lease))
                .collect(),
            publishes: publishes
                .iter()
                .map(|(draft, mandatory)| {
                    (draft.build(), Way::Direct(bindings.resolve(&draft.topic)), *mandatory)
                })
                .collect(),
            job: None,
        };
        self.command(Command::Transaction(transaction), |model, call| {
            let outcome = call.seen.iter().find_map(|seen| match seen {
                Seen::Transacted(_, transacted, outcome) if *transacted == number => Some(outcome.clone()),
                _ => None,
            });
            let outcome = outcome.expect("a transaction is answered");
            model.transact(&id, connection, &leases, &publishes, &outcome, call);
        });
    }

    #[track_caller]
    fn rules(&mut self, variant: u8, drop: bool) {
        let mut document = with_modules(rules(self.model.rules.version.0 + 1, &queues(variant)), &["m"]);
        document.limits.subscription_max_messages = 3;
        let drop_queues: Vec<String> = if drop { vec!["work".into(), "fast".into()] } else { Vec::new() };
        let drop_states: Vec<String> = if drop { vec!["m".into()] } else { Vec::new() };
        let ticket = Ticket(self.world.draw());
        let command = Command::ApplyRules {
            ticket,
            rules: document.clone(),
            drop_queues: drop_queues.clone(),
            drop_states,
        };
        self.command(command, |model, call| {
            // What is in use is looked at by a test of its own; here the broker's word is taken.
            let told = call.seen.iter().find_map(|seen| match seen {
                Seen::Applied(outcome) => Some(outcome.clone()),
                _ => None,
            });
            let told = told.expect("a rules change is answered");
            if let Err(RulesRefused::InUse { queue, .. }) = &told {
                assert!(!model.queue(queue).entries.is_empty(), "{queue} is empty");
                return;
            }
            assert_eq!(told, model.apply(&document, &drop_queues));
            if told.is_ok() && drop {
                model.state.clear();
            }
        });
    }

    #[track_caller]
    fn operate(&mut self, queue: u8, tool: Tool) {
        let ordinary = self.model.queues.iter().filter(|(_, queue)| queue.source.is_none());
        let names: Vec<String> = ordinary.map(|(name, _)| name.clone()).collect();
        let Some(name) = pick(&names, queue).cloned() else { return };
        let operation = match tool {
            Tool::Purge(limit) => Operation::Purge { limit: u64::from(limit) },
            Tool::PurgeDead(limit) => Operation::PurgeDead { limit: u64::from(limit) },
            Tool::Pause => Operation::Pause,
            Tool::Resume => Operation::Resume,
            Tool::Cancel(id) => Operation::Cancel { id: format!("m{id}").into() },
            Tool::Unpark(key) => Operation::Unpark { key: format!("k{key}").into() },
            Tool::Redrive { reason, id, limit } => {
                let reason = [DeadReason::Rejected, DeadReason::Expired, DeadReason::MaxDeliver]
                    .get(usize::from(reason))
                    .copied();
                let id = (id < 12).then(|| format!("m{id}").into());
                Operation::Redrive { select: Select { reason, id, through: None }, limit: u64::from(limit) }
            }
        };
        let ticket = Ticket(self.world.draw());
        let queue = self.world.broker.queue_id(&name).expect("the model has it");
        self.command(Command::Operate { ticket, queue, operation: operation.clone() }, |model, call| {
            let outcome = model.operate(&name, &operation);
            let told = call.seen.iter().find_map(|seen| match seen {
                Seen::Done(told) => Some(*told),
                _ => None,
            });
            assert_eq!(told, Some(outcome), "{operation:?} of {name}");
        });
    }

    /// The process dies; of the calls since the last sync the first few are kept.
    #[track_caller]
    fn crash(&mut self, keep: u8) {
        let batches: Vec<usize> = self.world.batches.range(self.world.synced..).copied().collect();
        let keep = batches[usize::from(keep).min(batches.len() - 1)];
        let kept = self.history.iter().rfind(|(journal, _)| *journal <= keep);
        self.model = kept.expect("the synced ones are always there").1.clone();
        self.history = vec![(keep, self.model.clone())];
        self.tokens.clear();
        self.model.journal = keep;
        self.connections += 1;
        self.world.crash(keep);
        let now = self.world.now;
        self.catch_up(Some(move |model: &mut Model, _: &Call| model.crash(now)));
    }
}

pub(crate) fn pick<T>(all: &[T], number: u8) -> Option<&T> {
    all.get(usize::from(number).checked_rem(all.len())?)
}
