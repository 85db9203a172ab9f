//! The demo's consumers: each works on its own task, lives through the router's crash, and counts an event once however often
//! it was delivered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use chaski_client::{Client, Message, TransactionError};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::counts::Network;
use super::events::Event;

/// What the consumers have seen so far, shared between their tasks.
pub(super) struct Seen {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

/// The counts behind the lock.
#[derive(Default)]
pub(super) struct Inner {
    /// By network.
    pub(super) networks: BTreeMap<String, Network>,
    /// Events by kind.
    pub(super) kinds: BTreeMap<String, u64>,
    /// Ids of the events that went through their network's queue.
    pub(super) events: HashSet<String>,
    /// Messages that came out of `bulletins`.
    pub(super) bulletins: Vec<Bulletin>,
}

/// What came out of `bulletins`.
#[derive(Clone, Debug)]
pub(super) struct Bulletin {
    /// The event that it is about.
    pub(super) event: String,
    /// Its magnitude.
    pub(super) magnitude: f64,
    /// Where.
    pub(super) place: String,
}

impl Seen {
    /// Nothing yet; the networks and how many events each will have are known from the file.
    pub(super) fn new(events: &[Event]) -> Arc<Seen> {
        let mut inner = Inner::default();
        for event in events {
            inner.networks.entry(event.key.clone()).or_default().published += 1;
        }
        Arc::new(Seen { inner: Mutex::new(inner), changed: watch::Sender::new(0) })
    }

    /// Looks at the counts.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counts stay usable after a panic elsewhere, which ends the demo anyway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.lock());
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Waits until the counts are as wished.
    pub(super) async fn until(&self, mut wish: impl FnMut(&Inner) -> bool) {
        let mut changed = self.changed.subscribe();
        while !wish(&self.lock()) {
            // The sender lives in `self`, so this ends by a change only.
            let _ = changed.changed().await;
        }
    }
}

/// Starts one consumer for each network, the one that makes bulletins of alerts, and the one that turns blasts away.
pub(super) async fn start(
    client: &Client,
    events: &[Event],
    seen: &Arc<Seen>,
) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut tasks = JoinSet::new();
    let mut order: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in events {
        order.entry(event.key.clone()).or_default().push(event.id.clone());
    }
    for (name, expected) in order {
        let consumer = client.consume(format!("network-{name}")).credit(16).await?;
        tasks.spawn(network(consumer, name, expected, seen.clone()));
    }
    let consumer = client.consume("alerts").await?;
    tasks.spawn(announce(client.clone(), consumer));
    let consumer = client.consume("blasts").await?;
    tasks.spawn(reject(consumer));
    Ok(tasks)
}

/// One network's events, which must come in the order of the file.
async fn network(
    mut consumer: chaski_client::Consumer,
    name: String,
    expected: Vec<String>,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let place: HashMap<String, usize> = expected.into_iter().zip(0..).collect();
    let mut done: HashSet<String> = HashSet::new();
    while let Some(delivery) = consumer.try_next().await? {
        let index = *place
            .get(delivery.message_id())
            .with_context(|| format!("{} is no event", delivery.message_id()))?;
        let first = done.insert(delivery.message_id().to_owned());
        let kind = delivery.topic().rsplit('.').next().unwrap_or_default().to_owned();
        let in_order = index + 1 == done.len();
        seen.note(|seen| {
            let network = seen.networks.entry(name.clone()).or_default();
            if first {
                seen.events.insert(delivery.message_id().to_owned());
                network.processed += 1;
                network.out_of_order += u64::from(!in_order);
                *seen.kinds.entry(kind).or_default() += 1;
            } else {
                network.again += 1;
            }
        });
        // A lease that was lost in the crash comes back as a delivery: that is what the settlement's error would say.
        let _ = delivery.ack().await;
    }
    Ok(())
}

/// Makes a bulletin of every alert, in one transaction with its settlement.
async fn announce(client: Client, consumer: chaski_client::Consumer) -> anyhow::Result<()> {
    consumer
        .map(|delivery| delivery.map_err(anyhow::Error::from))
        .try_for_each_concurrent(32, async |alert| {
            let bulletin = Message::new("bulletins", alert.payload().clone())
                .key(alert.ordering_key().unwrap_or_default())
                .header("event", alert.message_id());
            let mut both = client.transaction();
            both.ack(alert).publish(bulletin);
            match both.commit().await {
                // When the lease is lost, neither happened: the alert comes again.
                Ok(_) | Err(TransactionError::LeaseLost(_)) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await
}

/// Turns every blast away, into the dead-letter queue.
async fn reject(mut consumer: chaski_client::Consumer) -> anyhow::Result<()> {
    while let Some(delivery) = consumer.try_next().await? {
        let kind = delivery.topic().rsplit('.').next().unwrap_or_default().replace('-', " ");
        // As with an ack: whose answer is lost comes again, or lies among the dead letters already.
        let _ = delivery.reject(format!("no earthquake: {kind}")).await;
    }
    Ok(())
}

/// Empties `bulletins`, which holds `count` messages.
pub(super) async fn take_bulletins(client: &Client, count: u64, seen: &Seen) -> anyhow::Result<()> {
    let mut consumer = client.consume("bulletins").await?;
    for _ in 0..count {
        let delivery = consumer.try_next().await?.context("the queue `bulletins` is gone")?;
        let event: serde_json::Value = serde_json::from_slice(delivery.payload())?;
        let bulletin = Bulletin {
            event: delivery.header_value("event").unwrap_or_default().to_owned(),
            magnitude: event["mag"].as_f64().unwrap_or_default(),
            place: event["place"].as_str().unwrap_or_default().to_owned(),
        };
        seen.note(|seen| seen.bulletins.push(bulletin));
        delivery.ack().await?;
    }
    consumer.close().await?;
    Ok(())
}

/// Takes `count` blasts after all; answers how many came.
pub(super) async fn take_blasts(client: &Client, count: u64) -> anyhow::Result<u64> {
    let mut consumer = client.consume("blasts").await?;
    for _ in 0..count {
        consumer.try_next().await?.context("the queue `blasts` is gone")?.ack().await?;
    }
    consumer.close().await?;
    Ok(count)
}
