//! `chaski bench routing`: what a publish costs among 1,000 queues and 10,000 bindings, beside what it costs with one.

use std::time::{Duration, Instant};

use super::load::{self, Durability, Load};
use super::report::{Latencies, Measurement};
use super::rules;
use super::target::Target;

/// Publishes to the same topic with one queue, then with `queues` queues of `patterns` patterns each; one of them takes it.
pub(crate) async fn run(
    target: &Target,
    load: &Load,
    queues: u32,
    patterns: u32,
) -> anyhow::Result<Vec<Measurement>> {
    // Small and never journaled, so that routing is a large part of what remains.
    let load = Load {
        size: Some(load.size.unwrap_or(16)),
        durability: Some(load.durability.unwrap_or(Durability::Memory)),
        ..load.clone()
    };
    let clients = load::connect_all(target, load.producers()).await?;
    let count = load.count(200_000);
    let prefix = load::own_name("routing");
    let middle = queues / 2;
    let topic = format!("{prefix}.{middle}.0.event");

    let alone = [(format!("{prefix}.q{middle}"), vec![topic.clone()])];
    let added = rules::Added::apply(&clients[0], &alone, load.durability()).await?;
    let (one_elapsed, one_latencies) = measure(&clients, &topic, &load, count).await?;
    added.remove(&clients[0]).await?;

    let all: Vec<_> = (0..queues).map(|queue| bindings(&prefix, queue, patterns)).collect();
    let applying = Instant::now();
    let added = rules::Added::apply(&clients[0], &all, load.durability()).await?;
    let applied = applying.elapsed();
    let (elapsed, latencies) = measure(&clients, &topic, &load, count).await?;
    added.remove(&clients[0]).await?;
    for client in clients {
        client.close().await;
    }
    let cost = elapsed.as_secs_f64() / one_elapsed.as_secs_f64();
    Ok(vec![
        Measurement::new("routing-1-queue", count, one_elapsed, &one_latencies),
        Measurement::new(format!("routing-{queues}-queues"), count, elapsed, &latencies)
            .with("bindings", queues * patterns)
            .with("cost_ratio", cost)
            .with("rules_applied_ms", applied.as_millis() as u64),
    ])
}

async fn measure(
    clients: &[chaski_client::Client],
    topic: &str,
    load: &Load,
    count: u64,
) -> anyhow::Result<(Duration, Latencies)> {
    load::produce(clients, topic, load, (count / 10).max(1)).await?;
    let begun = Instant::now();
    let latencies = load::produce(clients, topic, load, count).await?;
    Ok((begun.elapsed(), latencies))
}

/// A queue's name and patterns: plain topics, single wildcards and open ends, as a third each.
fn bindings(prefix: &str, queue: u32, patterns: u32) -> (String, Vec<String>) {
    let patterns = (0..patterns).map(|number| match number % 3 {
        0 => format!("{prefix}.{queue}.{number}.event"),
        1 => format!("{prefix}.{queue}.*.kind-{number}"),
        _ => format!("{prefix}.{queue}.{number}.>"),
    });
    (format!("{prefix}.q{queue}"), patterns.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_reaches_one_queue_among_all() {
        let takers = (0..1000).filter(|queue| {
            let (_, patterns) = bindings("p", *queue, 10);
            patterns.iter().any(|pattern| chaski_protocol::pattern_matches(pattern, "p.500.0.event"))
        });
        assert_eq!(takers.collect::<Vec<_>>(), [500]);
    }
}
