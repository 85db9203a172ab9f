//! Idempotent consumers: a delivery that was processed before is acked and not processed again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex};

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

impl<S: Seen> Seen for &S {
    type Error = S::Error;

    fn check(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::check(self, key)
    }

    fn record(&self, key: &str) -> impl Future<Output = Result<(), S::Error>> {
        S::record(self, key)
    }
}

impl<S: Seen> Seen for Arc<S> {
    type Error = S::Error;

    fn check(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::check(self, key)
    }

    fn record(&self, key: &str) -> impl Future<Output = Result<(), S::Error>> {
        S::record(self, key)
    }
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
        self,
        seen: S,
        concurrency: usize,
        handler: impl AsyncFn(&Delivery) -> Result<(), E>,
    ) -> Result<(), ConsumeError>
    where
        S: Seen,
        E: Display,
    {
        let under_way = UnderWay::default();
        self.each(concurrency, |delivery| process(&seen, &under_way, &handler, delivery)).await
    }

    /// Gives each delivery to `work`, at most `concurrency` at once. When the consumer ends, what is under way goes on to its end.
    pub(crate) async fn each<W: Future<Output = ()>>(
        mut self,
        concurrency: usize,
        work: impl Fn(Delivery) -> W,
    ) -> Result<(), ConsumeError> {
        let mut running = FuturesUnordered::new();
        let ended = loop {
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                next = self.next(), if running.len() < concurrency.max(1) => match next {
                    Some(Ok(delivery)) => running.push(work(delivery)),
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                },
            }
        };
        while running.next().await.is_some() {}
        ended
    }
}

/// The keys that are being processed: a second delivery of one, after its first one's lease ended, waits for its outcome.
#[derive(Default)]
struct UnderWay(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl UnderWay {
    /// Does the work when no other with the same key is under way.
    async fn alone<T>(&self, key: &str, work: impl Future<Output = T>) -> T {
        let turn = {
            let mut keys = self.0.lock().expect("nobody panics with it");
            Arc::clone(keys.entry(key.to_owned()).or_default())
        };
        let done = {
            let _turn = turn.lock().await;
            work.await
        };
        drop(turn);
        let mut keys = self.0.lock().expect("nobody panics with it");
        if keys.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            keys.remove(key);
        }
        done
    }
}

async fn process<S, E>(
    seen: &S,
    under_way: &UnderWay,
    handler: &impl AsyncFn(&Delivery) -> Result<(), E>,
    delivery: Delivery,
) where
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
    let settled = match under_way.alone(&key, processed).await {
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
        let Ok(known) = Arc::new(&seen).check("b").await;
        assert!(known);
    }

    #[tokio::test]
    async fn one_key_is_processed_by_one_at_a_time() {
        use futures::FutureExt as _;

        let under_way = UnderWay::default();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let mut first = std::pin::pin!(under_way.alone("a", finished));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = std::pin::pin!(under_way.alone("a", async {}));
        assert!(second.as_mut().now_or_never().is_none(), "the first is under way");
        assert!(under_way.alone("b", async {}).now_or_never().is_some(), "another key goes on");
        finish.send(()).expect("the first waits for it");
        first.await.expect("it was sent");
        second.await;
        assert!(under_way.0.lock().expect("nobody panics with it").is_empty());
    }
}
