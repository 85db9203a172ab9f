//! Order by key: one message of a key at a time, in publish order, keys in parallel.

use chaski_client::{Client, Message};
use chaski_it::Router;

use crate::leases::next;

async fn router_with(settings: &str, messages: &[(&str, &str)]) -> (Router, Client) {
    let router = Router::with_rules(&format!("[queue.q]\nordering = \"key\"\n{settings}\n"));
    let client = router.client().await;
    for (key, payload) in messages {
        let message = Message::new("q", (*payload).to_owned()).key(*key).id(*payload);
        client.publish(message).await.expect("it is taken");
    }
    (router, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_next_message_waits_for_the_one_before() {
    let (router, client) = router_with("", &[("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3")]).await;
    let mut consumer = client.consume("q").credit(16).await.expect("the queue is there");
    let (a1, b1) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!((a1.payload().as_ref(), b1.payload().as_ref()), (&b"a1"[..], &b"b1"[..]));
    assert_eq!(
        (router.count("q", "leased"), router.count("q", "ready")),
        (2, 2),
        "behind a leased head is ready"
    );
    a1.ack().await.expect("the lease is held");
    let a2 = next(&mut consumer).await;
    assert_eq!(a2.payload().as_ref(), b"a2");
    a2.ack().await.expect("the lease is held");
    let a3 = next(&mut consumer).await;
    assert_eq!(a3.payload().as_ref(), b"a3");
    a3.ack().await.expect("the lease is held");
    b1.ack().await.expect("the lease is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_backs_off_parks_its_key_and_every_other_key_flows() {
    let (router, client) =
        router_with("backoff = [\"1h\"]", &[("a", "a1"), ("a", "a2"), ("b", "b1"), ("b", "b2")]).await;
    let mut consumer = client.consume("q").credit(1).await.expect("the queue is there");
    next(&mut consumer).await.nack().await.expect("the lease is held");
    for expected in ["b1", "b2"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.payload().as_ref(), expected.as_bytes());
        delivery.ack().await.expect("the lease is held");
    }
    assert_eq!((router.count("q", "delayed"), router.count("q", "parked")), (1, 1));
    let router = router.crash();
    assert_eq!((router.count("q", "delayed"), router.count("q", "parked")), (1, 1));
    // The head goes: the key's next one follows.
    router.cli(&["queue", "cancel", "q", "a1"]).ok();
    assert_eq!(router.one(&["consume", "q", "--count", "1"])["payload"], "a2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_key_goes_on_by_default() {
    let (router, client) = router_with("", &[("a", "a1"), ("a", "a2")]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    next(&mut consumer).await.reject("poison").await.expect("the lease is held");
    let a2 = next(&mut consumer).await;
    assert_eq!(a2.payload().as_ref(), b"a2");
    a2.ack().await.expect("the lease is held");
    assert_eq!(router.count("q", "dead"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn park_key_waits_until_an_operator_unparks() {
    let (router, client) =
        router_with("on_poison = \"park-key\"", &[("a", "a1"), ("a", "a2"), ("b", "b1")]).await;
    let mut consumer = client.consume("q").credit(1).await.expect("the queue is there");
    next(&mut consumer).await.reject("poison").await.expect("the lease is held");
    let b1 = next(&mut consumer).await;
    assert_eq!(b1.payload().as_ref(), b"b1");
    b1.ack().await.expect("the lease is held");
    let view = router.one(&["queue", "show", "q"]);
    assert_eq!((&view["parked"], &view["ready"]), (&1.into(), &0.into()));
    assert_eq!(view["parked_keys"], serde_json::json!(["a"]));
    let router = router.crash();
    assert_eq!(router.count("q", "parked"), 1, "a crash frees no key");
    router.cli(&["queue", "unpark", "q", "a"]).ok();
    let a2 = next(&mut consumer).await;
    assert_eq!(a2.payload().as_ref(), b"a2");
    a2.ack().await.expect("the lease is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_poison_takes_its_old_place_and_frees_its_key() {
    let (router, client) = router_with("on_poison = \"park-key\"", &[("a", "a1"), ("a", "a2")]).await;
    let mut consumer = client.consume("q").credit(1).await.expect("the queue is there");
    next(&mut consumer).await.reject("poison").await.expect("the lease is held");
    router.cli(&["dlq", "redrive", "q"]).ok();
    for expected in ["a1", "a2"] {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.payload().as_ref(), delivery.attempt()), (expected.as_bytes(), 1));
        delivery.ack().await.expect("the lease is held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_keeps_its_place_in_its_key() {
    let (_router, client) = router_with("backoff = [\"1ms\"]", &[("a", "a1"), ("a", "a2")]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    next(&mut consumer).await.nack().await.expect("the lease is held");
    for expected in ["a1", "a2"] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.payload().as_ref(), expected.as_bytes());
        delivery.ack().await.expect("the lease is held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_holds_over_competing_consumers_and_crashes() {
    let (router, client) = router_with("backoff = [\"1ms\"]", &[]).await;
    for n in 0..60 {
        client
            .publish_pipelined(Message::new("q", format!("{n}")).key(format!("k{}", n % 3)))
            .await
            .expect("there is room");
    }
    client.flush().await.expect("all are taken");
    let mut consumers = Vec::new();
    for _ in 0..2 {
        consumers.push(client.consume("q").credit(4).await.expect("the queue is there"));
    }
    let mut router = Some(router);
    let mut last = std::collections::HashMap::<String, u32>::new();
    let mut done = 0;
    while done < 60 {
        let [left, right] = &mut consumers[..] else { unreachable!("there are two") };
        let delivery = tokio::select! {
            delivery = next(left) => delivery,
            delivery = next(right) => delivery,
        };
        let number: u32 = std::str::from_utf8(delivery.payload()).expect("text").parse().expect("a number");
        let key = delivery.key().expect("it has a key").to_owned();
        if delivery.ack().await.is_ok() {
            let before = last.insert(key.clone(), number);
            assert!(before.is_none_or(|before| before < number), "{key}: {number} after {before:?}");
            done += 1;
            if done == 30 {
                router = router.map(Router::crash);
            }
        }
    }
    for (key, number) in last {
        assert_eq!(format!("k{}", number % 3), key);
        assert!(number >= 57, "{key} ended with {number}");
    }
}
