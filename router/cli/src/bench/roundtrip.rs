//! `chaski bench roundtrip`: publish, consume and ack as one flow. A latency is the time from publish to delivery; with
//! `--in-flight 1` the next message is published when the last one was delivered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaski_client::{Client, Message};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::drain::Drain;
use super::load::{self, Load};
use super::report::Measurement;
use super::target::Target;

/// The least payload: the time of the publish.
const STAMP: usize = 8;

/// Runs the flow through a queue of its own.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let producers = load::connect_all(target, load.producers()).await?;
    let consumers = load::connect_all(target, load.consumers()).await?;
    let queue = load::create_queue(&producers[0], "roundtrip", load.durability()).await?;
    let count = load.count(300_000);
    flow(&producers, &consumers, &queue, load, (count / 20).clamp(1, 10_000)).await?;
    let before = target.written()?;
    let begun = Instant::now();
    let latencies = flow(&producers, &consumers, &queue, load, count).await?;
    let elapsed = begun.elapsed();
    let after = target.written()?;
    producers[0].admin().queue_delete(&queue, true).await?;
    for client in producers.into_iter().chain(consumers) {
        client.close().await;
    }
    let name = if load.in_flight() == 1 { "roundtrip-one" } else { "roundtrip" };
    let found = Measurement::new(name, count, elapsed, &latencies)
        .with("size", load.size().max(STAMP))
        .with("durability", load.durability().name())
        .with("in_flight", load.in_flight())
        .with("producers", load.producers())
        .with("consumers", load.consumers());
    Ok(found.journaled(before, after, count))
}

/// `count` messages from the producers through the queue to the consumers.
async fn flow(
    producers: &[Client],
    consumers: &[Client],
    queue: &str,
    load: &Load,
    count: u64,
) -> anyhow::Result<super::report::Latencies> {
    let epoch = Instant::now();
    let window = load.in_flight();
    let room = Arc::new(Semaphore::new(window as usize));
    let credit = window.clamp(64, 4_096);
    let give_back = room.clone();
    // Room is given back by the handful: one by one, the semaphore would be a part of what is measured.
    let handful = (window / 64).max(1);
    let taken = std::sync::atomic::AtomicU32::new(0);
    let look = move |delivery: &chaski_client::Delivery| {
        if (taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1).is_multiple_of(handful) {
            give_back.add_permits(handful as usize);
        }
        let stamp = delivery.payload().get(..STAMP)?;
        let sent = Duration::from_nanos(u64::from_le_bytes(stamp.try_into().ok()?));
        Some(epoch.elapsed().saturating_sub(sent))
    };
    let drain = Drain::start(consumers, queue, Some(credit), count, look).await?;
    let mut sending = JoinSet::new();
    for (index, client) in producers.iter().enumerate() {
        let own = load::share(count, producers.len(), index);
        sending.spawn(send(client.clone(), queue.to_owned(), load.size(), own, room.clone(), epoch));
    }
    let drained = drain.finish();
    tokio::pin!(drained);
    loop {
        tokio::select! {
            latencies = &mut drained => return latencies,
            // A producer that fails leaves the consumers waiting for ever.
            Some(sent) = sending.join_next() => sent??,
        }
    }
}

async fn send(
    client: Client,
    topic: String,
    size: usize,
    count: u64,
    room: Arc<Semaphore>,
    epoch: Instant,
) -> anyhow::Result<()> {
    for _ in 0..count {
        room.acquire().await?.forget();
        let mut payload = vec![b'm'; size.max(STAMP)];
        let sent = epoch.elapsed().as_nanos() as u64;
        payload[..STAMP].copy_from_slice(&sent.to_le_bytes());
        // The confirm's future may be dropped; a refusal comes out of `flush`.
        drop(client.publish_pipelined(Message::new(topic.as_str(), Bytes::from(payload))).await?);
    }
    client.flush().await?;
    Ok(())
}
