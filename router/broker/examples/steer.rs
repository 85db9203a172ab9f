//! How fast gathers and sagas are in the state machine alone, and how much memory waiting sagas take: `cargo run --release -p
//! chaski-broker --example steer [COUNT [sagas | waiting | gathers]]`. Records are thrown away; journaling them is somebody
//! else's work.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and /proc"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaski_broker::*;

/// Starts and requests, whole.
const LEN: usize = 256;
const STEPS: [&str; 3] = ["stock", "card", "ship"];
const RECIPIENTS: [&str; 2] = ["one", "two"];

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let which = std::env::args().nth(2);
    let wanted = |name| which.as_deref().is_none_or(|which| which == name);
    if wanted("waiting") {
        waiting(count);
    }
    if wanted("sagas") {
        sagas(count / 5);
    }
    if wanted("gathers") {
        gathers(count / 5);
    }
}

/// Sagas of three steps that wait for the first, a snapshot of them, and a start from it.
fn waiting(count: usize) {
    let before = resident();
    let mut shard = Shard::new();
    // All begin within one dedup window: every start is remembered, and its requester's wait is.
    shard.tick_ms = 0;
    let begun = Ran::now();
    for number in 0..count {
        shard.publish("order", number);
        shard.clear();
    }
    report("sagas begun", count, begun.elapsed());
    let bytes = resident().saturating_sub(before);
    println!("{:>28}  {} MiB, {} bytes a saga", "resident", bytes >> 20, bytes / count as u64);
    let begun = Ran::now();
    let snapshot = shard.broker.snapshot();
    println!("{:>28}  {:?}", "snapshot taken in", begun.elapsed());
    let begun = Ran::now();
    let chunks: Vec<Vec<u8>> = snapshot.collect();
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    println!("{:>28}  {:?}, {} MiB", "snapshot encoded in", begun.elapsed(), bytes >> 20);
    drop(shard);
    let begun = Ran::now();
    let mut restore = Broker::restore(1, render);
    chunks.iter().for_each(|chunk| restore.push(chunk).expect("its own chunk"));
    let mut broker = restore.finish().expect("its own chunks");
    println!("{:>28}  {:?}", "restored in", begun.elapsed());
    let begun = Ran::now();
    broker.resume(Millis(3_000_000), &mut Output::default());
    println!("{:>28}  {:?}", "resumed in", begun.elapsed());
    let begun = Ran::now();
    assert_eq!(broker.saga_counts(), [("order".to_owned(), SagaState::Running, count as u64)]);
    println!("{:>28}  {:?}", "counted in", begun.elapsed());
}

/// Begin, three steps completed, one consumer each.
fn sagas(count: usize) {
    let mut shard = Shard::new();
    for (place, step) in STEPS.iter().enumerate() {
        shard.attach(place, step);
    }
    let begun = Ran::now();
    for number in 0..count {
        shard.publish("order", number);
        while let Some((consumer, delivery)) = shard.take() {
            let Delivery { sequence, lease, .. } = delivery;
            let verdict = Verdict::Complete { payload: Bytes::from_static(b"done") };
            shard.call(Command::Settle(Settle { consumer, number: 0, sequence, lease, verdict }));
        }
    }
    report("sagas of three steps", count, begun.elapsed());
    let completed = shard.broker.saga_counts();
    assert!(matches!(&completed[..], [(_, SagaState::Completed, _)]), "{completed:?}");
}

/// Ask, two replies in transactions, an answer.
fn gathers(count: usize) {
    let mut shard = Shard::new();
    for (place, queue) in RECIPIENTS.iter().enumerate() {
        shard.attach(place, queue);
    }
    let begun = Ran::now();
    for number in 0..count {
        shard.publish("quote", number);
        while let Some((consumer, delivery)) = shard.take() {
            let reply = message(&format!("$inbox.gather.{}", shard.gather), number, None);
            let queue = shard.broker.queue_id(RECIPIENTS[consumer.0 as usize]);
            shard.call(Command::Transaction(Transaction {
                publisher: PublisherId(1),
                number: 0,
                connection: ConnectionId(1),
                id: Bytes::from(format!("{number}-{consumer}")),
                rules: RulesVersion(1),
                acks: vec![(queue, delivery.sequence, delivery.lease)],
                publishes: vec![(reply, Way::Direct(Targets::from([])), false)],
                job: None,
            }));
        }
    }
    report("gathers of two replies", count, begun.elapsed());
    let answered = shard.broker.gather_counts();
    assert!(matches!(&answered[..], [(_, GatherState::Answered, _)]), "{answered:?}");
}

struct Shard {
    broker: Broker,
    output: Output,
    now: Millis,
    deliveries: Vec<(ConsumerId, Delivery)>,
    /// The one that began last.
    gather: Sequence,
    /// How far the clock goes on with each call.
    tick_ms: u64,
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard {
            broker: Broker::new(1, render),
            output: Output::default(),
            now: Millis(1_000_000),
            deliveries: Vec::new(),
            gather: Sequence(0),
            tick_ms: 1,
        };
        shard.broker.resume(shard.now, &mut shard.output);
        let mut names: Vec<String> = [&STEPS[..], &RECIPIENTS].concat().into_iter().map(Into::into).collect();
        names.extend(STEPS.map(|step| format!("undo.{step}")));
        let module = ModuleUse {
            name: "collect".into(),
            binary: Some([7; 32]),
            params: "{}".into(),
            time_limit_ms: 10,
            memory_limit_bytes: 16 << 20,
        };
        let rules = Rules {
            version: RulesVersion(1),
            author: "steer".into(),
            document: String::new(),
            queues: names.iter().map(|name| (name.clone(), settings(name))).collect(),
            limits: ShardLimits::default(),
            modules: Vec::new(),
            failed: Vec::new(),
            scatters: vec![("quote".into(), Arc::new(quote(module)))],
            sagas: vec![("order".into(), Arc::new(order()))],
        };
        let (drop_queues, drop_states) = (Vec::new(), Vec::new());
        shard.call(Command::ApplyRules { ticket: Ticket(1), rules, drop_queues, drop_states });
        shard
    }

    fn attach(&mut self, place: usize, queue: &str) {
        let (consumer, connection) = (ConsumerId(place as u64), ConnectionId(1));
        self.call(Command::Attach(Attach { consumer, connection, queue: queue.into(), credit: 1024 }));
    }

    fn publish(&mut self, topic: &str, number: usize) {
        self.call(Command::Publish(Publish {
            publisher: Some(PublisherId(1)),
            connection: Some(ConnectionId(1)),
            number: number as u64,
            rules: RulesVersion(1),
            mandatory: false,
            message: message(topic, number, Some("$inbox.1.1")),
            hash: None,
            way: Way::Direct(Targets::from([])),
            job: None,
        }));
    }

    fn take(&mut self) -> Option<(ConsumerId, Delivery)> {
        let (consumer, delivery) = self.deliveries.pop()?;
        self.call(Command::Sent { consumer, count: 1 });
        Some((consumer, delivery))
    }

    fn call(&mut self, command: Command) {
        self.broker.handle(self.now, command, &mut self.output);
        self.clear();
    }

    /// What a server does at once; an aggregator answers at once, too.
    fn clear(&mut self) {
        self.output.records.clear();
        while !self.output.effects.is_empty() {
            for held in std::mem::take(&mut self.output.effects) {
                match held.effect {
                    Effect::Reserved { through } => {
                        self.broker.handle(self.now, Command::Reserved { through }, &mut self.output);
                    }
                    Effect::Deliver { consumer, delivery } => self.deliveries.push((consumer, delivery)),
                    Effect::Aggregate(call) => {
                        self.gather = call.gather;
                        let outcome = match call.what {
                            AggregateCall::Finish { .. } => Aggregated::Answer {
                                headers: Vec::new(),
                                payload: Bytes::from_static(b"[1,2]"),
                            },
                            _ => Aggregated::Folded { done: false },
                        };
                        let (gather, call) = (call.gather, call.call);
                        let command = Command::Aggregated { gather, call, outcome: Ok(outcome) };
                        self.broker.handle(self.now, command, &mut self.output);
                    }
                    _ => {}
                }
            }
            self.output.records.clear();
        }
        self.now = self.now.after(self.tick_ms);
        if self.broker.next_timeout().is_some_and(|at| at <= self.now) {
            self.broker.handle_timeout(self.now, &mut self.output);
        }
    }
}

fn order() -> SagaSettings {
    let step = |name: &&str| StepSettings {
        name: (*name).to_owned(),
        queue: (*name).to_owned(),
        compensate: Some(format!("undo.{name}")),
        timeout_ms: 86_400_000,
        retries: 3,
        backoff_ms: vec![1_000],
        pivot: false,
        group: None,
        payload: StepPayload::All,
    };
    let steps = STEPS.iter().map(step).collect();
    SagaSettings { topic: "order".into(), timeout_ms: 86_400_000, compensator: None, advances: false, steps }
}

fn quote(aggregator: ModuleUse) -> ScatterSettings {
    ScatterSettings {
        topic: "quote".into(),
        recipients: Recipients::Queues(RECIPIENTS.iter().map(|name| (*name).to_owned()).collect()),
        aggregator,
        timeout_ms: 30_000,
        quorum: None,
        on_timeout: OnTimeout::Partial,
        late: Late::Drop,
        max_replies: 1_000,
        durability: Durability::Fsync,
        priority: None,
        ttl_ms: None,
    }
}

fn settings(name: &str) -> QueueSettings {
    QueueSettings {
        bind: vec![name.to_owned()],
        durability: Durability::Fsync,
        ordering: Ordering::None,
        on_poison: OnPoison::Continue,
        single_active: false,
        max_deliver: Some(5),
        ack_wait_ms: 30_000,
        backoff_ms: vec![1000],
        dedup_window_ms: 120_000,
        ttl_ms: None,
        max_messages: None,
        max_bytes: None,
        overflow: Overflow::Reject,
        dead_alarm: None,
        dead_max_messages: None,
        dead_max_bytes: None,
    }
}

/// A block of `LEN` bytes: topic, id, reply topic, payload.
fn message(topic: &str, number: usize, reply_to: Option<&str>) -> Message {
    let id = format!("0197a4b0-7c1e-7d3a-9f00-{number:012x}");
    let mut body = Vec::with_capacity(LEN);
    let mut put = |text: &str| {
        let start = body.len() as u32;
        body.extend_from_slice(text.as_bytes());
        Span { start, len: text.len() as u32 }
    };
    let fields = Fields {
        topic: put(topic),
        id: put(&id),
        key: None,
        reply_to: reply_to.map(put),
        correlation_id: None,
        priority: 4,
        ttl_ms: None,
        deliver_at: None,
    };
    body.resize(LEN, b'x');
    Message { body: Bytes::from(body), fields }
}

fn render(own: Own<'_>) -> Message {
    match own {
        Own::Status(reply) => message(reply.reply_to, reply.sequence.0 as usize, None),
        Own::Asked(asked) => {
            let topic = String::from_utf8_lossy(asked.request.topic()).into_owned();
            message(&topic, asked.request.body.len(), Some(asked.reply_to))
        }
        Own::Answer(answer) => message(answer.reply_to, answer.sequence.0 as usize, None),
        Own::Step(step) => message(step.queue, step.attempt as usize, None),
        Own::Outcome(outcome) => message(outcome.reply_to, outcome.sequence.0 as usize, None),
        Own::Progress(progress) => message(progress.topic, progress.sequence.0 as usize, None),
    }
}

fn report(what: &str, count: usize, took: Duration) {
    let ns = took.as_nanos() as f64 / count as f64;
    println!("{what:>28}  {ns:.0} ns each, {:.0} k/s", 1e6 / ns);
}

/// Time that this process ran: what others do on the machine doesn't count. Linux only; elsewhere the clock's time.
struct Ran(Instant, Duration);

impl Ran {
    fn now() -> Ran {
        let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        Ran(Instant::now(), nanos.map_or(Duration::ZERO, Duration::from_nanos))
    }

    fn elapsed(&self) -> Duration {
        let Ran(_, now) = Ran::now();
        if now.is_zero() { self.0.elapsed() } else { now - self.1 }
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
