//! Subscriptions: ephemeral, in memory, with a visible count of what was dropped.

use chaski_client::Message;
use chaski_it::{Raw, Router, eventually, within};
use chaski_protocol::decode;
use chaski_protocol::frames::{Open, Opening, Passed};
use futures::StreamExt as _;

#[test]
fn the_command_prints_what_is_published_meanwhile() {
    let router = Router::start();
    let mut subscriber = router.spawn(&["subscribe", "news.>", "--count", "2", "--json"]);
    let heard = |topic: &str| router.one(&["publish", topic, "x", "-H", "a=b"])["routed"] == 1;
    eventually("the subscription is there", || heard("news.first").then_some(()));
    let first = subscriber.json();
    assert_eq!((&first["topic"], &first["payload"]), (&"news.first".into(), &"x".into()));
    assert_eq!(first["headers"]["a"], "b");
    assert!(heard("news.eu.second"));
    assert_eq!(subscriber.json()["topic"], "news.eu.second");
    subscriber.finish().ok();
    eventually("the subscription is gone", || (!heard("news.third")).then_some(()));
}

#[test]
fn a_subscriptions_timeout_ends_it_in_good_order() {
    let router = Router::start();
    let output = router.cli(&["subscribe", "news.>", "--timeout", "100ms"]).ok();
    assert_eq!(output.stdout, "");
}

#[test]
fn bad_and_reserved_patterns_are_refused() {
    let router = Router::start();
    router.cli(&["subscribe", "a.>.b", "--count", "1"]).refused("bad_pattern");
    router.cli(&["subscribe", "$inbox.>", "--count", "1"]).refused("reserved");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_takes_everything_beside_durable_queues() {
    let router = Router::with_rules("[queue.q]\nbind = [\"a.>\"]\n");
    let client = router.client().await;
    let mut news = client.subscribe("a.*").await.expect("it is a pattern");
    let sent = client.publish(Message::new("a.b", "x")).await.expect("it is taken");
    assert_eq!(sent.routed, 2);
    let message = within("the message", news.next()).await.expect("the subscription lives");
    assert_eq!(message.topic(), "a.b");
    assert_eq!(news.dropped(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscription_loses_messages_and_is_told_how_many() {
    let router = Router::with_rules("[limits]\nsubscription_max_messages = 16\n");
    let raw = Raw::hello(&router).await;
    let mut slow = raw.open(&Open::Subscribe { pattern: "news.>", filters: Vec::new() }).await;
    slow.opening(|opening| assert_eq!(opening, Opening::Opened)).await;

    // Nobody reads: the stream's window fills, then the buffer of 16, then messages are dropped.
    let client = router.client().await;
    let payload = bytes::Bytes::from(vec![7; 100_000]);
    const COUNT: u64 = 300;
    for _ in 0..COUNT {
        client.publish(Message::new("news.x", payload.clone())).await.expect("a subscription never refuses");
    }
    let lost = eventually("drops are counted", || {
        let (_, metrics) = router.http("/metrics");
        let line = metrics.lines().find(|line| line.starts_with("chaski_subscription_dropped_total"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok().filter(|count| *count > 0)
    });

    // Now it reads what was kept; the last drops are told with the next message.
    let mut dropped = 0;
    for number in 0..=COUNT - lost {
        if number == COUNT - lost {
            client.publish(Message::new("news.x", "more")).await.expect("a subscription never refuses");
        }
        let frame = slow.frame().await.expect("the router sends frames");
        let (Passed::Message { dropped: before }, _) = decode(&frame).expect("it is a message");
        dropped += before;
    }
    assert_eq!(dropped, lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datagram_is_published() {
    let router = Router::start();
    let client = router.client().await;
    let mut news = client.subscribe("quick.>").await.expect("it is a pattern");
    // At most once: on loopback the first arrives nearly always, and the test needs one.
    let message = eventually_some(|| client.publish_datagram(Message::new("quick.x", "hi")), &mut news).await;
    assert_eq!(message.payload().as_ref(), b"hi");
}

async fn eventually_some<E: std::fmt::Debug>(
    send: impl Fn() -> Result<(), E>,
    news: &mut chaski_client::Subscription,
) -> Message {
    within("a datagram", async {
        loop {
            send().expect("datagrams are possible");
            let patience = std::time::Duration::from_millis(500);
            if let Ok(Some(message)) = tokio::time::timeout(patience, news.next()).await {
                return message;
            }
        }
    })
    .await
}
