//! How fast the state machine alone is, and how much memory a backlog takes: `cargo run --release -p chaski-broker --example
//! rate [MESSAGES [flow | backlog | keys | wide]]`. Records are thrown away; journaling them is somebody else's work.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and /proc"
)]

use std::time::{Duration, Instant};

use bytes::BytesMut;
use chaski_broker::*;

/// Messages made outside the measured time, then handed in: as many as one consumer may have unsent.
const BATCH: usize = 1024;
/// A message's block.
const LEN: usize = 256;
const TOPIC: &[u8] = b"orders.eu.created";

fn main() {
    let messages: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(5_000_000);
    let which = std::env::args().nth(2);
    let wanted = |name| which.as_deref().is_none_or(|which| which == name);
    if wanted("flow") {
        flow(messages / 5);
    }
    if wanted("backlog") {
        backlog(messages);
    }
    if wanted("keys") {
        keys(messages / 5);
    }
    if wanted("wide") {
        wide();
    }
}

/// Publishes into a queue ordered by key, each message with a key of its own, and a snapshot of as many parked keys.
fn keys(messages: usize) {
    let by_key = QueueSettings {
        ordering: Ordering::Key,
        on_poison: OnPoison::ParkKey,
        ttl_ms: Some(3_600_000),
        ..settings()
    };
    let mut shard = Shard::with(vec![("orders".into(), by_key)]);
    let start = Instant::now();
    let (mut busy, mut worst) = (Duration::ZERO, Duration::ZERO);
    for first in (0..messages).step_by(BATCH) {
        let mut batch = shard.messages(first);
        for command in &mut batch {
            if let Command::Publish(publish) = command {
                publish.message.fields.key = Some(publish.message.fields.id);
            }
        }
        let begun = ran(start);
        batch.into_iter().for_each(|publish| shard.broker.handle(shard.now, publish, &mut shard.output));
        let took = ran(start) - begun;
        (busy, worst) = (busy + took, worst.max(took));
        shard.clear();
    }
    report("publish by key", messages, busy);
    println!("{:>28}  {worst:?}", format!("slowest {BATCH}"));
    shard.now = shard.now.after(3_600_000);
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    while shard.broker.next_timeout().is_some_and(|at| at <= shard.now) {
        let one = ran(start);
        shard.broker.handle_timeout(shard.now, &mut shard.output);
        worst = worst.max(ran(start) - one);
        shard.output.records.clear();
        shard.output.effects.clear();
    }
    println!("{:>28}  {:?}, slowest call {worst:?}", "all expired in", begun.elapsed());
    let begun = Instant::now();
    let snapshot = shard.broker.snapshot();
    println!("{:>28}  {:?}", "snapshot of parked keys in", begun.elapsed());
    println!("{:>28}  {} MiB", "", snapshot.map(|chunk| chunk.len()).sum::<usize>() >> 20);
}

/// 10,000 queues: what their rules cost, a topic's way to its queue, a publish to 100 of them, a snapshot.
fn wide() {
    let bound = |number: usize| QueueSettings {
        bind: vec![format!("one.{number}.*"), format!("hundred.{}", number / 100)],
        ..settings()
    };
    let begun = Instant::now();
    let queues = (0..10_000).map(|number| (format!("queue-{number}"), bound(number))).collect();
    let mut shard = Shard::with(queues);
    println!("{:>28}  {:?}", "rules of 10,000 queues in", begun.elapsed());
    let bindings = shard.broker.bindings();
    let topics: Vec<String> = (0..10_000).map(|number| format!("one.{number}.created")).collect();
    let begun = Instant::now();
    assert!((0..100).all(|_| topics.iter().all(|topic| bindings.resolve(topic).len() == 1)));
    report("resolve one of 20,000", 1_000_000, begun.elapsed());
    shard.targets = bindings.resolve("hundred.7");
    assert_eq!(shard.targets.len(), 100);
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    for first in (0..100 * BATCH).step_by(BATCH) {
        let batch = shard.messages(first);
        let begun = ran(start);
        batch.into_iter().for_each(|publish| shard.broker.handle(shard.now, publish, &mut shard.output));
        busy += ran(start) - begun;
        shard.clear();
    }
    report("publish to 100 queues", 100 * BATCH, busy);
    let begun = Instant::now();
    let snapshot = shard.broker.snapshot();
    println!("{:>28}  {:?}", "snapshot of 10,000 queues in", begun.elapsed());
    drop(snapshot);
}

/// Publish, deliver, ack, one consumer.
fn flow(messages: usize) {
    let mut shard = Shard::new();
    let consumer = ConsumerId(1);
    shard.call(Command::Attach(Attach {
        consumer,
        connection: ConnectionId(1),
        queue: "orders".into(),
        credit: 16_384,
    }));
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    let mut acks = Vec::new();
    for first in (0..messages).step_by(BATCH) {
        let batch = shard.messages(first);
        let begun = ran(start);
        batch.into_iter().for_each(|publish| shard.broker.handle(shard.now, publish, &mut shard.output));
        shard.output.records.clear();
        let mut count = 0;
        for held in shard.output.effects.drain(..) {
            if let Effect::Deliver { delivery, .. } = held.effect {
                acks.push((delivery.sequence, delivery.lease));
                count += 1;
            }
        }
        shard.broker.handle(shard.now, Command::Sent { consumer, count }, &mut shard.output);
        for (sequence, lease) in acks.drain(..) {
            let settle = Settle { consumer, number: 0, sequence, lease, verdict: Verdict::Ack };
            shard.broker.handle(shard.now, Command::Settle(settle), &mut shard.output);
        }
        busy += ran(start) - begun;
        shard.clear();
    }
    assert_eq!(shard.broker.messages(), 0, "everything was acked");
    report("publish, deliver, ack", messages, busy);
}

/// Publishes without a consumer, then a snapshot, then publishes beside it, then a start from it.
fn backlog(messages: usize) {
    let before = resident();
    let start = Instant::now();
    let mut shard = Shard::new();
    let mut busy = Duration::ZERO;
    let mut worst = Duration::ZERO;
    for first in (0..messages).step_by(BATCH) {
        let batch = shard.messages(first);
        let begun = ran(start);
        for publish in batch {
            shard.broker.handle(shard.now, publish, &mut shard.output);
        }
        let took = ran(start) - begun;
        busy += took;
        worst = worst.max(took);
        shard.clear();
    }
    report("publish into a backlog", messages, busy);
    let bytes = resident().saturating_sub(before);
    println!("{:>28}  {} MiB, {} bytes a message", "resident", bytes >> 20, bytes / messages as u64);
    println!("{:>28}  {worst:?}", format!("slowest {BATCH}"));

    let begun = Instant::now();
    let snapshot = shard.broker.snapshot();
    println!("{:>28}  {:?}", "snapshot taken in", begun.elapsed());
    let mut worst = Duration::ZERO;
    let mut busy = Duration::ZERO;
    let messages = messages.next_multiple_of(BATCH);
    for first in (messages..messages + 1024 * BATCH).step_by(BATCH) {
        let batch = shard.messages(first);
        let begun = ran(start);
        batch.into_iter().for_each(|publish| shard.broker.handle(shard.now, publish, &mut shard.output));
        let took = ran(start) - begun;
        worst = worst.max(took);
        busy += took;
        shard.clear();
    }
    report("publish beside the snapshot", 1024 * BATCH, busy);
    println!("{:>28}  {worst:?}", format!("slowest {BATCH}"));

    let begun = Instant::now();
    let chunks: Vec<Vec<u8>> = snapshot.collect();
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    println!("{:>28}  {:?}, {} MiB", "snapshot encoded in", begun.elapsed(), bytes >> 20);
    drop(shard);
    let begun = Instant::now();
    let mut restore = Broker::restore(1, render);
    chunks.iter().for_each(|chunk| restore.push(chunk).expect("its own chunk"));
    let mut broker = restore.finish().expect("its own chunks");
    println!("{:>28}  {:?}", "restored in", begun.elapsed());
    let begun = Instant::now();
    broker.resume(Millis(3_000_000), &mut Output::default());
    println!("{:>28}  {:?}", "resumed in", begun.elapsed());
    assert_eq!(broker.messages(), messages.next_multiple_of(BATCH) as u64, "everything is there again");
}

struct Shard {
    broker: Broker,
    output: Output,
    now: Millis,
    targets: Targets,
}

impl Shard {
    fn new() -> Shard {
        Shard::with(vec![("orders".into(), settings())])
    }

    fn with(queues: Vec<(String, QueueSettings)>) -> Shard {
        let broker = Broker::new(1, render);
        let mut shard =
            Shard { broker, output: Output::default(), now: Millis(1_000_000), targets: Targets::from([]) };
        shard.broker.resume(shard.now, &mut shard.output);
        let rules = Rules {
            version: RulesVersion(1),
            author: "rate".into(),
            document: String::new(),
            queues,
            limits: ShardLimits::default(),
            modules: Vec::new(),
            failed: Vec::new(),
            scatters: Vec::new(),
            sagas: Vec::new(),
        };
        shard.call(Command::ApplyRules {
            ticket: Ticket(1),
            rules,
            drop_queues: Vec::new(),
            drop_states: Vec::new(),
        });
        shard.targets = shard.broker.bindings().resolve("orders.eu.created");
        shard
    }

    fn call(&mut self, command: Command) {
        self.broker.handle(self.now, command, &mut self.output);
        self.clear();
    }

    /// What a server does at once: numbers that are reserved are told, the rest is thrown away.
    fn clear(&mut self) {
        self.output.records.clear();
        let mut effects = std::mem::take(&mut self.output.effects);
        for held in effects.drain(..) {
            if let Effect::Reserved { through } = held.effect {
                self.broker.handle(self.now, Command::Reserved { through }, &mut self.output);
            }
        }
        // Its room is used again.
        effects.append(&mut self.output.effects);
        self.output.effects = effects;
        self.now = self.now.after(1);
        if self.broker.next_timeout().is_some_and(|at| at <= self.now) {
            self.broker.handle_timeout(self.now, &mut self.output);
        }
    }

    fn messages(&self, first: usize) -> Vec<Command> {
        let bindings = self.broker.bindings();
        let message = |number: usize| {
            let mut body = BytesMut::with_capacity(LEN);
            body.extend_from_slice(TOPIC);
            body.extend_from_slice(format!("0197a4b0-7c1e-7d3a-9f00-{number:012x}").as_bytes());
            let id = Span { start: TOPIC.len() as u32, len: (body.len() - TOPIC.len()) as u32 };
            body.resize(LEN, b'x');
            let fields = Fields {
                topic: Span { start: 0, len: TOPIC.len() as u32 },
                id,
                key: None,
                reply_to: None,
                correlation_id: None,
                priority: 4,
                ttl_ms: None,
                deliver_at: None,
            };
            let message = Message { body: body.freeze(), fields };
            Command::Publish(Publish {
                connection: None,
                publisher: Some(PublisherId(1)),
                number: number as u64,
                rules: RulesVersion(1),
                mandatory: false,
                hash: Some(bindings.message_hash(message.topic(), message.id())),
                message,
                way: Way::Direct(self.targets.clone()),
                job: None,
            })
        };
        (first..first + BATCH).map(message).collect()
    }
}

fn settings() -> QueueSettings {
    QueueSettings {
        bind: vec!["orders.>".into()],
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

fn render(_: Own<'_>) -> Message {
    unreachable!("nobody asks")
}

fn report(what: &str, count: usize, took: Duration) {
    let ns = took.as_nanos() as f64 / count as f64;
    println!("{what:>28}  {ns:.0} ns each, {:.2} M/s", 1e3 / ns);
}

/// Time that this process ran: what others do on the machine doesn't count. Linux only; elsewhere the clock's time.
fn ran(since: Instant) -> Duration {
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.map_or(since.elapsed(), Duration::from_nanos)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
