//! Consumers that take a number of deliveries between them and acknowledge each. They know not what is measured: the caller
//! looks at each delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use chaski_client::{Client, Consumer, Delivery};
use futures::TryStreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::report::Latencies;

/// Of so many acks one is timed, by asking for its answer.
const TIMED_EVERY: u64 = 64;

/// Deliveries that a consumer may have open: enough that the way back and forth never starves it.
const CREDIT: u32 = 4_096;

/// What all consumers of a drain share.
struct Shared<Look> {
    /// Deliveries that are still to be taken.
    left: AtomicU64,
    /// Whether none is.
    finished: watch::Sender<bool>,
    look: Look,
}

/// Consumers at work, until `count` deliveries are acknowledged.
pub(crate) struct Drain(JoinSet<anyhow::Result<Latencies>>);

impl Drain {
    /// Starts one consumer on each connection; `look` sees each delivery before it is acknowledged, and answers a latency
    /// where it has one.
    pub(crate) async fn start<Look>(
        clients: &[Client],
        queue: &str,
        credit: Option<u32>,
        count: u64,
        look: Look,
    ) -> anyhow::Result<Drain>
    where
        Look: Fn(&Delivery) -> Option<std::time::Duration> + Send + Sync + 'static,
    {
        let shared =
            Arc::new(Shared { left: AtomicU64::new(count), finished: watch::Sender::new(count == 0), look });
        let mut tasks = JoinSet::new();
        for client in clients {
            let consumer = client.consume(queue).credit(credit.unwrap_or(CREDIT)).await?;
            tasks.spawn(take(consumer, shared.clone()));
        }
        Ok(Drain(tasks))
    }

    /// Waits for the last acknowledgement; answers the latencies that were seen, those of acks when `look` had none.
    pub(crate) async fn finish(mut self) -> anyhow::Result<Latencies> {
        let mut all = Latencies::new();
        while let Some(latencies) = self.0.join_next().await {
            all.merge(&latencies??);
        }
        Ok(all)
    }
}

async fn take<Look>(mut consumer: Consumer, shared: Arc<Shared<Look>>) -> anyhow::Result<Latencies>
where
    Look: Fn(&Delivery) -> Option<std::time::Duration>,
{
    let mut latencies = Latencies::new();
    let mut finished = shared.finished.subscribe();
    let mut timed: JoinSet<anyhow::Result<std::time::Duration>> = JoinSet::new();
    let mut taken = 0u64;
    loop {
        let delivery = tokio::select! {
            biased;
            delivery = consumer.try_next() => delivery?.context("the bench's queue is gone")?,
            _ = finished.wait_for(|finished| *finished) => break,
        };
        taken += 1;
        let seen = (shared.look)(&delivery);
        seen.into_iter().for_each(|latency| latencies.record(latency));
        let last = shared.left.fetch_sub(1, Ordering::Relaxed) == 1;
        if last {
            // Answered after all acks of this stream before it.
            delivery.ack().await?;
            shared.finished.send_replace(true);
        } else if seen.is_none() && taken.is_multiple_of(TIMED_EVERY) {
            let begun = Instant::now();
            timed.spawn(async move {
                delivery.ack().await?;
                Ok(begun.elapsed())
            });
        } else {
            delivery.ack_nowait();
        }
    }
    while let Some(latency) = timed.join_next().await {
        latencies.record(latency??);
    }
    consumer.close().await?;
    Ok(latencies)
}
