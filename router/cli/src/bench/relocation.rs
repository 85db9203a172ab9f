//! `chaski bench relocation`: one message in ten stays, the others go, so old segments of the journal hold little that lives.
//! The router writes it again at the log's end and lets the segments go; this measures whether publishes notice.

use std::time::{Duration, Instant};

use chaski_client::Client;

use super::load::{self, Load};
use super::report::{Latencies, Measurement};
use super::target::Target;

/// Messages of one stretch to each queue, far less than a segment holds.
const GO: u64 = 9_000;
const STAY: u64 = 1_000;

/// What one queue takes and the other keeps.
struct Queues {
    go: String,
    stay: String,
}

/// Fills, purges, and goes on publishing while what stayed is moved.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let clients = load::connect_all(target, load.producers()).await?;
    // Three snapshots' worth at the default sizes, so that the first segments are old enough to be emptied.
    let count = load.count(2_000_000);
    let load = Load { in_flight: Some(load.in_flight.unwrap_or(1_024)), ..load.clone() };
    let queues = Queues {
        go: load::create_queue(&clients[0], "go", load.durability()).await?,
        stay: load::create_queue(&clients[0], "stay", load.durability()).await?,
    };
    let (without, _) = publish(&clients, &queues, &load, count).await?;
    let full = clients[0].admin().status().await?.journal_bytes;
    clients[0].admin().queue_purge(&queues.go).await?;
    let (with, elapsed) = publish(&clients, &queues, &load, count).await?;
    clients[0].admin().queue_purge(&queues.go).await?;
    let kept = clients[0].admin().queue_show(&queues.stay).await?.messages;
    let after = clients[0].admin().status().await?.journal_bytes;
    let mib = |bytes: u64| (bytes as f64 / f64::from(1 << 20)).round();
    let growth = if without.at(0.99) > 0.0 { with.at(0.99) / without.at(0.99) } else { 0.0 };
    for queue in [&queues.go, &queues.stay] {
        clients[0].admin().queue_delete(queue, true).await?;
    }
    for client in clients {
        client.close().await;
    }
    Ok(Measurement::new("relocation", count, elapsed, &with)
        .with("p99_growth", growth)
        .with("kept", kept)
        .with("journal_mib_before", mib(full))
        .with("journal_mib_after", mib(after)))
}

/// So many messages, nine of ten to the queue that is purged.
async fn publish(
    clients: &[Client],
    queues: &Queues,
    load: &Load,
    count: u64,
) -> anyhow::Result<(Latencies, Duration)> {
    let begun = Instant::now();
    let mut latencies = Latencies::new();
    for _ in 0..count.div_ceil(GO + STAY) {
        latencies.merge(&load::produce(clients, &queues.go, load, GO).await?);
        latencies.merge(&load::produce(clients, &queues.stay, load, STAY).await?);
    }
    Ok((latencies, begun.elapsed()))
}
