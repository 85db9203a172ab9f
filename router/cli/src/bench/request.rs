//! `chaski bench request`: requests and their replies, through a queue. A latency is that of the whole exchange.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use chaski_client::{Client, Delivery, Message};
use tokio::task::JoinSet;

use super::load::{self, Load};
use super::report::{Latencies, Measurement};
use super::target::Target;

/// Requests at once when nobody says how many.
const IN_FLIGHT: u32 = 64;

/// Asks and answers through a queue of its own.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let askers = load::connect_all(target, load.producers()).await?;
    let responders = load::connect_all(target, load.consumers()).await?;
    let queue = load::create_queue(&askers[0], "request", load.durability()).await?;
    let in_flight = load.in_flight.unwrap_or(IN_FLIGHT).min(4_096);
    let count = load.count.unwrap_or(if in_flight == 1 { 5_000 } else { 50_000 }).max(1);
    let answer = Bytes::from(vec![b'r'; load.size()]);
    // On the runtime's own threads, as in a service: the thread that waits for the end would be one more to wake.
    let mut answering = JoinSet::new();
    for client in &responders {
        let (client, queue, answer) = (client.clone(), queue.clone(), answer.clone());
        answering.spawn(async move {
            let respond = async move |_: &Delivery| Ok::<_, std::convert::Infallible>(answer.clone());
            client.respond(&queue, in_flight as usize, respond).await
        });
    }
    let asking = async {
        ask_all(&askers, &queue, load.size(), in_flight, (count / 20).clamp(1, 2_000), None).await?;
        let begun = Instant::now();
        let latencies = ask_all(&askers, &queue, load.size(), in_flight, count, None).await?;
        Ok::<_, anyhow::Error>((latencies, begun.elapsed()))
    };
    let (latencies, elapsed) = tokio::select! {
        asked = asking => asked?,
        Some(ended) = answering.join_next() => {
            ended??;
            anyhow::bail!("the responders ended before the requests did")
        }
    };
    answering.shutdown().await;
    askers[0].admin().queue_delete(&queue, true).await?;
    for client in askers.into_iter().chain(responders) {
        client.close().await;
    }
    let name = if in_flight == 1 { "request-one" } else { "request" };
    Ok(Measurement::new(name, count, elapsed, &latencies)
        .with("size", load.size())
        .with("durability", load.durability().name())
        .with("in_flight", in_flight))
}

/// Asks `count` times, `in_flight` at once of each asker; each reply must have this header, if one is named.
pub(crate) async fn ask_all(
    askers: &[Client],
    topic: &str,
    size: usize,
    in_flight: u32,
    count: u64,
    wanted: Option<(&'static str, &'static str)>,
) -> anyhow::Result<Latencies> {
    let left = Arc::new(AtomicU64::new(count));
    // JSON, as what a saga carries mostly is.
    let payload = Bytes::from(serde_json::to_vec(&"q".repeat(size.saturating_sub(2)))?);
    let mut asking = JoinSet::new();
    for client in askers {
        for _ in 0..in_flight {
            asking.spawn(ask(client.clone(), topic.to_owned(), payload.clone(), left.clone(), wanted));
        }
    }
    let mut all = Latencies::new();
    while let Some(latencies) = asking.join_next().await {
        all.merge(&latencies??);
    }
    Ok(all)
}

async fn ask(
    client: Client,
    topic: String,
    payload: Bytes,
    left: Arc<AtomicU64>,
    wanted: Option<(&'static str, &'static str)>,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let message = Message::new(topic.as_str(), payload.clone());
        let begun = Instant::now();
        let reply = client.request(message).await?;
        latencies.record(begun.elapsed());
        let as_wanted = wanted.is_none_or(|(name, value)| reply.header_value(name) == Some(value));
        anyhow::ensure!(as_wanted && !reply.payload().is_empty(), "another reply came back: {reply:?}");
    }
    Ok(latencies)
}
