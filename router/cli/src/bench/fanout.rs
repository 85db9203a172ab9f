//! `chaski bench fanout`: one publish to many queues. Its body should be in the journal once.

use std::time::Instant;

use super::load::{self, Load};
use super::report::Measurement;
use super::rules;
use super::target::Target;

/// Bytes of a payload when nobody says how many: large, so that the journal's growth tells how often a body was written.
const SIZE: usize = 16 << 10;

/// Publishes to a topic that `queues` queues bind to; with the router's process known, counts what it wrote.
pub(crate) async fn run(target: &Target, load: &Load, queues: u32) -> anyhow::Result<Measurement> {
    let load = Load {
        size: Some(load.size.unwrap_or(SIZE)),
        in_flight: load.in_flight.or(Some(64)),
        ..load.clone()
    };
    let clients = load::connect_all(target, load.producers()).await?;
    let topic = load::own_name("fanout");
    let names: Vec<String> = (0..queues).map(|number| format!("{topic}.{number}")).collect();
    let bindings = names.iter().map(|name| (name.clone(), vec![topic.clone()])).collect::<Vec<_>>();
    let added = rules::Added::apply(&clients[0], &bindings, load.durability()).await?;
    let count = load.count(2_000);
    let before = target.written()?;
    let begun = Instant::now();
    let latencies = load::produce(&clients, &topic, &load, count).await?;
    let elapsed = begun.elapsed();
    let listed = clients[0].admin().queue_list().await?;
    let copies: u64 =
        listed.iter().filter(|queue| names.contains(&queue.name)).map(|queue| queue.messages).sum();
    let expected = count * u64::from(queues);
    anyhow::ensure!(copies == expected, "{copies} copies are stored, where {expected} were published");
    let mut found = Measurement::new("fanout", count, elapsed, &latencies)
        .with("queues", queues)
        .with("size", load.size())
        .with("copies_per_second", (copies as f64 / elapsed.as_secs_f64()).round());
    if let (Some(before), Some(after)) = (before, target.written()?) {
        let written = after.saturating_sub(before) as f64;
        found = found.with("written_per_body", written / (count as f64 * load.size() as f64));
    }
    added.remove(&clients[0]).await?;
    for client in clients {
        client.close().await;
    }
    Ok(found)
}
