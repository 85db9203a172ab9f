//! SIGKILL in mid-load, 50 times: every confirmed message is exactly where it belongs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chaski_client::{Client, Message, TransactionError};
use chaski_it::{Router, within};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::watch;

const KILLS: u64 = 50;

/// Confirms that each life of the router lasts for, at least.
const CONFIRMS: u64 = 60;

const KEYS: u64 = 5;

/// `archive` keeps everything; `work` is moved to `done`, each message in one transaction.
const RULES: &str = r#"
[queue.archive]
bind = ["load.>"]
ordering = "key"

[queue.work]
bind = ["load.>"]
ordering = "key"
max_deliver = "unlimited"
backoff = ["1ms"]

[queue.done]
"#;

/// What the publisher knows: ids by number, and which of them were confirmed.
#[derive(Default)]
struct Ledger {
    confirmed: Mutex<BTreeMap<u64, u64>>,
    duplicates: AtomicU64,
    count: watch::Sender<u64>,
}

/// Publishes numbered messages until told to stop; answers how many it has sent.
async fn publish(client: Client, ledger: Arc<Ledger>, stop: watch::Receiver<bool>) -> u64 {
    let mut confirms = futures::stream::FuturesUnordered::new();
    let mut number = 0;
    while !*stop.borrow() {
        let message = Message::new("load.x", number.to_string())
            .id(format!("m-{number}"))
            .key(format!("k{}", number % KEYS));
        let confirm = client.publish_pipelined(message).await.expect("the client waits for the router");
        confirms.push(async move { (number, confirm.await) });
        number += 1;
        // So many are under way when the router dies.
        while confirms.len() > 32 {
            note(&ledger, confirms.next().await.expect("there are some"));
        }
    }
    while let Some(confirm) = confirms.next().await {
        note(&ledger, confirm);
    }
    number
}

fn note(
    ledger: &Ledger,
    (number, outcome): (u64, Result<chaski_client::Published, chaski_client::PublishError>),
) {
    let published = outcome.expect("every publish is confirmed in the end");
    if published.duplicate {
        ledger.duplicates.fetch_add(1, Ordering::Relaxed);
    }
    let sequence = published.sequence.expect("it is stored");
    ledger.confirmed.lock().expect("nobody panicked").insert(number, sequence);
    ledger.count.send_modify(|count| *count += 1);
}

/// Moves `work` to `done` until the stop, exactly once each.
async fn work(client: Client, mut stop: watch::Receiver<bool>) {
    let mut deliveries = client.consume("work").credit(16).await.expect("the queue is there");
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.try_next() => delivery.expect("the consumer resumes").expect("the queue is there"),
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let copy =
            Message::new("done", delivery.payload().clone()).key(delivery.key().expect("it has a key"));
        let mut both = client.transaction();
        both.ack(delivery).publish(copy);
        match both.commit().await {
            Ok(_) | Err(TransactionError::LeaseLost(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything in a queue, as (key, number, sequence), by sequence.
async fn contents(client: &Client, queue: &str) -> Vec<(String, u64, u64)> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let page = client.admin().peek(queue, after, 1000).await.expect("the queue is there");
        let Some(last) = page.last() else { return all };
        after = last.sequence;
        for message in &page {
            let number = message.payload.parse().expect("a number");
            all.push((message.key.clone().expect("it has a key"), number, message.sequence));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_in_mid_load_lose_nothing_and_invent_nothing() {
    let mut router = Router::with_rules(RULES);
    let client = router.client().await;
    let ledger = Arc::new(Ledger::default());
    let (stop, stopped) = watch::channel(false);
    let publisher = tokio::spawn(publish(client.clone(), ledger.clone(), stopped.clone()));
    let worker = tokio::spawn(work(router.client().await, stopped.clone()));

    let mut count = ledger.count.subscribe();
    for _ in 0..KILLS {
        let goal = *count.borrow() + CONFIRMS;
        within("confirms", count.wait_for(|count| *count >= goal)).await.expect("the ledger lives");
        router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    }
    stop.send(true).expect("somebody listens");
    let sent = within("the last confirms", publisher).await.expect("the publisher ends");
    within("the worker's end", worker).await.expect("the worker ends");

    let confirmed = ledger.confirmed.lock().expect("nobody panicked").clone();
    assert_eq!(confirmed.len() as u64, sent, "every publish was confirmed in the end");
    assert!(sent >= KILLS * CONFIRMS);

    // The archive: each message once, under the sequence that was confirmed, each key in its order.
    let archive = contents(&client, "archive").await;
    assert_eq!(archive.len() as u64, sent, "none lost, none invented, none twice");
    let mut last = HashMap::new();
    for (key, number, sequence) in &archive {
        assert_eq!(confirmed.get(number), Some(sequence), "message {number} has the sequence of its confirm");
        assert_eq!(*key, format!("k{}", number % KEYS));
        if let Some(before) = last.insert(key.clone(), *number) {
            assert_eq!(before + KEYS, *number, "{key} in its order");
        }
    }

    // What was moved, and what was not yet: together everything, exactly once.
    let (mut moved, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    let mut last = HashMap::new();
    for (key, number, _) in contents(&client, "done").await {
        assert!(moved.insert(number), "{number} is in `done` twice");
        if let Some(before) = last.insert(key.clone(), number) {
            assert_eq!(before + KEYS, number, "{key} was worked in its order");
        }
    }
    for (_, number, _) in contents(&client, "work").await {
        assert!(waiting.insert(number), "{number} is in `work` twice");
        assert!(!moved.contains(&number), "{number} is in `work` and in `done`");
    }
    assert_eq!((moved.len() + waiting.len()) as u64, sent);
    let dead = client.admin().queue_show("work").await.expect("the queue is there").dead;
    assert_eq!(dead, 0);
    let router = tokio::task::spawn_blocking(|| router.restart()).await.expect("it starts again");
    assert_eq!(router.count("archive", "messages"), sent);
}
