//! Idempotent consumers: a delivery that was processed before is acked and not processed again.

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::sync::Mutex;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::error::ConsumeError;

/// What remembers which deliveries were processed, by [`Delivery::idempotency_key`]. Where it lives in the database that the
/// processing changes, in the same transaction, an effect happens exactly once.
pub trait Seen {
    /// Why it can't tell.
    type Error: Display;

    /// Whether the key was recorded.
    fn check(&self, key: &str) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Records the key: its delivery was processed.
    fn record(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>>;
}

/// The latest keys, in memory: it forgets with the process.
#[derive(Debug)]
pub struct MemorySeen {
    capacity: usize,
    keys: Mutex<(HashSet<String>, VecDeque<String>)>,
}

impl MemorySeen {
    /// Remembers at most `capacity` keys, the latest.
    pub fn new(capacity: usize) -> MemorySeen {
        MemorySeen { capacity: capacity.max(1), keys: Mutex::default() }
    }
}

impl Seen for MemorySeen {
    type Error = Infallible;

    async fn check(&self, key: &str) -> Result<bool, Infallible> {
        Ok(self.keys.lock().expect("nobody panics with it").0.contains(key))
    }

    async fn record(&self, key: &str) -> Result<(), Infallible> {
        let mut keys = self.keys.lock().expect("nobody panics with it");
        let (known, order) = &mut *keys;
        if known.insert(key.to_owned()) {
            order.push_back(key.to_owned());
        }
        if order.len() > self.capacity {
            let oldest = order.pop_front().expect("it is longer than 1");
            known.remove(&oldest);
        }
        Ok(())
    }
}

impl Consumer {
    /// Processes deliveries, at most `concurrency` at once, each key once as far as `seen` knows: known ones are acked, others
    /// go to the handler; `Ok` is recorded, then acked, `Err` is a nack. Ends as the consumer does.
    pub async fn once<S, E>(
        mut self,
        seen: S,
        concurrency: usize,
        handler: impl AsyncFn(&Delivery) -> Result<(), E>,
    ) -> Result<(), ConsumeError>
    where
        S: Seen,
        E: Display,
    {
        let concurrency = concurrency.max(1);
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                next = self.next(), if running.len() < concurrency => match next {
                    Some(delivery) => running.push(process(&seen, &handler, delivery?)),
                    None => break,
                },
            }
        }
        while running.next().await.is_some() {}
        Ok(())
    }
}

async fn process<S, E>(seen: &S, handler: &impl AsyncFn(&Delivery) -> Result<(), E>, delivery: Delivery)
where
    S: Seen,
    E: Display,
{
    let key = delivery.idempotency_key();
    let sequence = delivery.sequence();
    let processed = async {
        if seen.check(&key).await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        handler(&delivery).await.map_err(|error| error.to_string())?;
        seen.record(&key).await.map_err(|error| error.to_string())
    };
    let settled = match processed.await {
        Ok(()) => delivery.ack().await,
        Err(error) => {
            tracing::debug!(sequence, %error, "a delivery was not processed");
            delivery.nack().await
        }
    };
    if let Err(error) = settled {
        tracing::debug!(sequence, %error, "a delivery comes again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_the_latest_keys() {
        let seen = MemorySeen::new(2);
        for key in ["a", "b", "b", "c"] {
            let Ok(()) = seen.record(key).await;
        }
        let Ok(known) = seen.check("a").await;
        assert!(!known);
        let Ok(known) = seen.check("b").await;
        assert!(known);
    }
}
