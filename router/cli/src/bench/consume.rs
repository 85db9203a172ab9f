//! `chaski bench consume`: a backlog fetched and acknowledged. A latency is that of an ack's answer.

use std::time::Instant;

use super::drain::Drain;
use super::load::{self, Load};
use super::report::Measurement;
use super::target::Target;

/// Fills a queue of its own, then empties it.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let clients = load::connect_all(target, load.consumers()).await?;
    let queue = load::create_queue(&clients[0], "consume", load.durability()).await?;
    let count = load.count(500_000);
    let fill = Load { in_flight: None, ..load.clone() };
    load::produce(&clients, &queue, &fill, count).await?;
    let credit = load.in_flight.map(|in_flight| in_flight.min(chaski_protocol::MAX_CREDIT));
    let begun = Instant::now();
    let latencies = Drain::start(&clients, &queue, credit, count, |_| None).await?.finish().await?;
    let elapsed = begun.elapsed();
    let admin = clients[0].admin();
    let left = admin.queue_show(&queue).await?.messages;
    anyhow::ensure!(left == 0, "{left} messages were left after {count} acks");
    admin.queue_delete(&queue, true).await?;
    for client in clients {
        client.close().await;
    }
    Ok(Measurement::new("consume", count, elapsed, &latencies)
        .with("size", load.size())
        .with("durability", load.durability().name())
        .with("consumers", load.consumers()))
}
