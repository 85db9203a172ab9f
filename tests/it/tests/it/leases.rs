//! Leases: they end, they are extended, and a stale one changes nothing.

use std::time::Duration;

use chaski_client::{Client, Consumer, Delivery, Message};
use chaski_it::{Router, eventually, within};
use futures::TryStreamExt as _;

pub(crate) async fn next(consumer: &mut Consumer) -> Delivery {
    within("a delivery", consumer.try_next()).await.expect("the consumer lives").expect("the queue is there")
}

async fn router_with(settings: &str, messages: &[&str]) -> (Router, Client) {
    let router = Router::with_rules(&format!("[queue.q]\n{settings}\n"));
    let client = router.client().await;
    for message in messages {
        client.publish(Message::new("q", (*message).to_owned())).await.expect("it is taken");
    }
    (router, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_lease_is_redelivered_and_its_ack_is_lease_lost() {
    let (router, client) = router_with("ack_wait = \"300ms\"\nbackoff = [\"1ms\"]", &["x"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert_eq!((first.attempt(), second.attempt(), second.redelivered()), (1, 2, true));
    assert_eq!(first.sequence(), second.sequence(), "a message has one sequence");
    let error = first.ack().await.expect_err("the lease is lost");
    assert_eq!(error.code().name(), "lease_lost");
    assert_eq!(router.count("q", "leased"), 1, "it changed nothing");
    second.ack().await.expect("this lease is held");
    assert_eq!(router.count("q", "messages"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_outlives_its_ack_wait() {
    let (router, client) = router_with("ack_wait = \"400ms\"\nbackoff = [\"1ms\"]", &["x"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    let held = next(&mut consumer).await;
    // The clock is a message that comes due after four times the ack_wait; an application extends well within it.
    client.publish(Message::new("q", "due").delay(Duration::from_millis(1600))).await.expect("it is taken");
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    let due = loop {
        tokio::select! {
            due = next(&mut consumer) => break due,
            _ = beat.tick() => held.extend().await.expect("the lease is held"),
        }
    };
    assert_eq!(due.payload().as_ref(), b"due", "not the held one again");
    held.ack().await.expect("the lease is held");
    due.ack().await.expect("the lease is held");
    assert_eq!(router.count("q", "messages"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_clients_buffer_is_extended_for_it() {
    let (_router, client) = router_with("ack_wait = \"400ms\"\nbackoff = [\"1ms\"]", &["1", "2", "3"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    // Another queue's delayed message is the clock; nobody reads `consumer` meanwhile.
    client.admin().queue_create("tick", vec![], vec![]).await.expect("a queue can be made");
    client.publish(Message::new("tick", "x").delay(Duration::from_millis(1600))).await.expect("it is taken");
    let mut tick = client.consume("tick").await.expect("the queue is there");
    next(&mut tick).await.ack().await.expect("the lease is held");
    for expected in ["1", "2", "3"] {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.payload().as_ref(), delivery.attempt()), (expected.as_bytes(), 1));
        delivery.ack().await.expect("the lease was extended while it lay in the buffer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_delivery_is_a_nack() {
    let (router, client) = router_with("backoff = [\"1ms\"]", &["x"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    drop(next(&mut consumer).await);
    let again = next(&mut consumer).await;
    assert_eq!(again.attempt(), 2);
    again.ack_nowait();
    consumer.close().await.expect("it closes");
    eventually("the ack is done", || (router.count("q", "messages") == 0).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_consumer_releases_what_its_application_never_saw() {
    let (router, client) = router_with("", &["1", "2", "3"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    next(&mut consumer).await.ack().await.expect("the lease is held");
    eventually("the others are in its buffer", || (router.count("q", "leased") == 2).then_some(()));
    consumer.close().await.expect("it closes");
    eventually("they are released", || (router.count("q", "ready") == 2).then_some(()));
    let mut consumer = client.consume("q").await.expect("the queue is there");
    assert_eq!(next(&mut consumer).await.attempt(), 1, "a release is no attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_credit_is_in_flight() {
    let (router, client) = router_with("", &["1", "2", "3", "4", "5"]).await;
    let mut consumer = client.consume("q").credit(2).await.expect("the queue is there");
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!((router.count("q", "leased"), router.count("q", "ready")), (2, 3));
    first.ack().await.expect("the lease is held");
    let third = next(&mut consumer).await;
    assert_eq!((router.count("q", "leased"), router.count("q", "ready")), (2, 2));
    for delivery in [second, third] {
        delivery.ack().await.expect("the lease is held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_consumer_gets_what_a_busy_one_has_no_credit_for() {
    let (_router, client) = router_with("", &["1", "2"]).await;
    let mut busy = client.consume("q").credit(1).await.expect("the queue is there");
    let held = next(&mut busy).await;
    let mut idle = client.consume("q").credit(1).await.expect("the queue is there");
    let other = next(&mut idle).await;
    assert_eq!((held.payload().as_ref(), other.payload().as_ref()), (&b"1"[..], &b"2"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_active_serves_one_consumer_and_fails_over() {
    let (router, client) = router_with("single_active = true", &["1", "2", "3"]).await;
    let mut active = client.consume("q").credit(1).await.expect("the queue is there");
    let first = next(&mut active).await;
    let mut standby = client.consume("q").credit(8).await.expect("the queue is there");
    assert_eq!(
        (router.count("q", "consumers"), router.count("q", "leased")),
        (2, 1),
        "the second gets nothing"
    );
    first.ack().await.expect("the lease is held");
    let second = next(&mut active).await;
    assert_eq!(second.payload().as_ref(), b"2");
    second.ack().await.expect("the lease is held");
    active.close().await.expect("it closes");
    let third = next(&mut standby).await;
    assert_eq!(third.payload().as_ref(), b"3");
    third.ack().await.expect("the lease is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_stays_through_a_crash_of_the_router() {
    let (router, client) = router_with("", &["1"]).await;
    let mut consumer = client.consume("q").await.expect("the queue is there");
    next(&mut consumer).await.ack().await.expect("the lease is held");
    let _router = router.crash();
    client.publish(Message::new("q", "2")).await.expect("the client reconnects");
    let second = next(&mut consumer).await;
    assert_eq!(second.payload().as_ref(), b"2");
    second.ack().await.expect("the lease is held");
}
