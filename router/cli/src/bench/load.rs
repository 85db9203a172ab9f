//! What the works have in common: how much is sent and how, queues of their own, and producers. It measures nothing by itself.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use chaski_client::{Client, Message};
use clap::{Args, ValueEnum};
use tokio::task::JoinSet;

use super::report::Latencies;
use super::target::Target;

/// How often a producer looks whether confirms have come, in messages.
const LOOK_EVERY: u64 = 128;

/// Of so many pipelined messages one is timed: reading the clock for each would be a part of what is measured.
const TIMED_EVERY: u64 = 16;

/// How much is sent, and how.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Load {
    /// Bytes of a payload [default: 256]
    #[arg(long)]
    pub(crate) size: Option<usize>,
    /// Messages in all
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Unconfirmed messages of one producer; 1 is one at a time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: Option<u32>,
    /// Producers, each with a connection of its own [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) producers: Option<u32>,
    /// Consumers, each with a connection of its own [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub(crate) consumers: Option<u32>,
    /// When a publish is confirmed: on disk, written, or in memory [default: fsync]
    #[arg(long)]
    pub(crate) durability: Option<Durability>,
    /// Headers of each message.
    #[arg(skip)]
    pub(crate) headers: &'static [(&'static str, &'static str)],
}

/// A queue's durability.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// After fdatasync
    #[default]
    Fsync,
    /// After write
    Os,
    /// Never journaled
    Memory,
}

impl Durability {
    /// As the rules spell it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
            Durability::Memory => "memory",
        }
    }
}

impl Load {
    /// Bytes of a payload.
    pub(crate) fn size(&self) -> usize {
        self.size.unwrap_or(256)
    }

    /// Unconfirmed messages of one producer.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.unwrap_or(16_384)
    }

    /// Messages in all: as asked, else `pipelined`, or a number that ends soon when they go one at a time.
    pub(crate) fn count(&self, pipelined: u64) -> u64 {
        self.count.unwrap_or(if self.in_flight() == 1 { 5_000.min(pipelined) } else { pipelined }).max(1)
    }

    /// Producers.
    pub(crate) fn producers(&self) -> u32 {
        self.producers.unwrap_or(1)
    }

    /// Consumers.
    pub(crate) fn consumers(&self) -> u32 {
        self.consumers.unwrap_or(1)
    }

    /// When a publish is confirmed.
    pub(crate) fn durability(&self) -> Durability {
        self.durability.unwrap_or_default()
    }
}

/// A name for a queue of this process's, below [`own_prefix`]; each call answers another.
pub(crate) fn own_name(work: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{}{work}-{}", own_prefix(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What the names of all queues of this process begin with, and of no other bench's at the same router.
pub(crate) fn own_prefix() -> String {
    static RUN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_millis() as u64) << 16 | u64::from(std::process::id() & 0xffff)
    });
    format!("bench.{run:x}.")
}

/// Makes a queue that takes the topic of its own name.
pub(crate) async fn create_queue(
    client: &Client,
    work: &str,
    durability: Durability,
) -> anyhow::Result<String> {
    let name = own_name(work);
    client.admin().queue_create(&name, Vec::new(), settings(durability)).await?;
    Ok(name)
}

/// The settings of a bench's queue.
pub(crate) fn settings(durability: Durability) -> Vec<(String, String)> {
    let mut settings = vec![("durability".to_owned(), format!("\"{}\"", durability.name()))];
    if durability == Durability::Memory {
        // The default limit would refuse a large `--count` half-way.
        settings.push(("max_bytes".to_owned(), "\"64GiB\"".to_owned()));
    }
    settings
}

/// Deletes all queues of this process's, however the bench ended.
pub(crate) async fn delete_queues(target: &Target) -> anyhow::Result<()> {
    let client = target.connect().await?;
    let admin = client.admin();
    for queue in admin.queue_list().await? {
        if queue.name.starts_with(&own_prefix()) {
            admin.queue_delete(&queue.name, true).await?;
        }
    }
    client.close().await;
    Ok(())
}

/// Connections to the router, one for each producer or consumer.
pub(crate) async fn connect_all(target: &Target, number: u32) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..number {
        clients.push(target.connect().await?);
    }
    Ok(clients)
}

/// The messages of one of `parts` that share `count`.
pub(crate) fn share(count: u64, parts: usize, index: usize) -> u64 {
    let parts = parts as u64;
    count / parts + u64::from((index as u64) < count % parts)
}

/// Publishes `count` messages over all connections at once; answers how long a confirm took.
pub(crate) async fn produce(
    clients: &[Client],
    topic: &str,
    load: &Load,
    count: u64,
) -> anyhow::Result<Latencies> {
    let mut producers = JoinSet::new();
    for (index, client) in clients.iter().enumerate() {
        let own = share(count, clients.len(), index);
        producers.spawn(produce_one(client.clone(), topic.to_owned(), load.clone(), own));
    }
    let mut all = Latencies::new();
    while let Some(latencies) = producers.join_next().await {
        all.merge(&latencies??);
    }
    Ok(all)
}

async fn produce_one(client: Client, topic: String, load: Load, count: u64) -> anyhow::Result<Latencies> {
    let payload = Bytes::from(vec![b'm'; load.size()]);
    let message = || {
        let message = Message::new(topic.as_str(), payload.clone());
        load.headers.iter().fold(message, |message, (name, value)| message.header(*name, *value))
    };
    let mut latencies = Latencies::new();
    if load.in_flight() == 1 {
        for _ in 0..count {
            let message = message();
            let begun = Instant::now();
            client.publish(message).await?;
            latencies.record(begun.elapsed());
        }
        return Ok(latencies);
    }
    // Confirms come in order, so the oldest is the one to wait for.
    let window = load.in_flight() as usize;
    let mut open = VecDeque::with_capacity(window);
    for number in 0..count {
        let begun = number.is_multiple_of(TIMED_EVERY).then(Instant::now);
        let confirm = client.publish_pipelined(message()).await?;
        open.push_back((begun, confirm));
        if number.is_multiple_of(LOOK_EVERY) {
            while let Some((begun, confirm)) = open.front_mut() {
                let std::task::Poll::Ready(published) = futures::poll!(confirm) else { break };
                published?;
                begun.iter().for_each(|begun| latencies.record(begun.elapsed()));
                open.pop_front();
            }
        }
        if open.len() >= window
            && let Some((begun, confirm)) = open.pop_front()
        {
            confirm.await?;
            begun.iter().for_each(|begun| latencies.record(begun.elapsed()));
        }
    }
    for (begun, confirm) in open {
        confirm.await?;
        begun.iter().for_each(|begun| latencies.record(begun.elapsed()));
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        for (count, parts) in [(10, 3), (3, 5), (1_000_000, 7), (0, 1)] {
            let shares: Vec<u64> = (0..parts).map(|index| share(count, parts, index)).collect();
            assert_eq!(shares.iter().sum::<u64>(), count);
            assert!(shares.iter().max().expect("parts") - shares.iter().min().expect("parts") <= 1);
        }
    }

    #[test]
    fn every_queue_has_a_name_of_its_own_below_the_prefix() {
        let (one, other) = (own_name("publish"), own_name("publish"));
        assert_ne!(one, other);
        assert!(one.starts_with(&own_prefix()) && other.starts_with(&own_prefix()));
    }
}
