//! `chaski bench publish`: durable publishes, pipelined or (`--in-flight 1`) one at a time. A latency is that of the confirm.

use std::time::Instant;

use super::load::{self, Load};
use super::report::Measurement;
use super::target::Target;

/// Publishes to a queue of its own and waits for every confirm.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let clients = load::connect_all(target, load.producers()).await?;
    let queue = load::create_queue(&clients[0], "publish", load.durability()).await?;
    let count = load.count(500_000);
    // Streams are opened and code paths warm before the clock runs.
    load::produce(&clients, &queue, load, (count / 20).min(20_000)).await?;
    let before = target.written()?;
    let begun = Instant::now();
    let latencies = load::produce(&clients, &queue, load, count).await?;
    let elapsed = begun.elapsed();
    let after = target.written()?;
    clients[0].admin().queue_delete(&queue, true).await?;
    for client in clients {
        client.close().await;
    }
    let name = if load.in_flight() == 1 { "publish-one" } else { "publish" };
    let found = Measurement::new(name, count, elapsed, &latencies)
        .with("size", load.size())
        .with("durability", load.durability().name())
        .with("in_flight", load.in_flight())
        .with("producers", load.producers());
    Ok(found.journaled(before, after, count))
}
