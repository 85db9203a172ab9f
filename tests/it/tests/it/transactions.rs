//! Settle and publish: all or nothing, exactly once.

use chaski_client::{Message, TransactionError};
use chaski_it::Router;

use crate::leases::next;

const RULES: &str =
    "[queue.in]\nbackoff = [\"1ms\"]\nack_wait = \"2s\"\n[queue.out]\n[queue.full]\nmax_messages = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_acks_and_publishes_at_once_and_survives_a_crash() {
    let router = Router::with_rules(RULES);
    let client = router.client().await;
    client.publish(Message::new("in", "x")).await.expect("it is taken");
    let mut input = client.consume("in").await.expect("the queue is there");
    let delivery = next(&mut input).await;
    let mut both = client.transaction();
    both.ack(delivery).publish(Message::new("out", "1")).publish(Message::new("out", "2"));
    both.commit().await.expect("the lease is held");
    let router = router.crash();
    assert_eq!((router.count("in", "messages"), router.count("out", "ready")), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_refuses_the_whole() {
    let router = Router::with_rules("[queue.in]\nbackoff = [\"1ms\"]\nack_wait = \"300ms\"\n[queue.out]\n");
    let client = router.client().await;
    client.publish(Message::new("in", "x")).await.expect("it is taken");
    let mut input = client.consume("in").await.expect("the queue is there");
    let stale = next(&mut input).await;
    let fresh = next(&mut input).await;
    let mut both = client.transaction();
    both.ack(stale).publish(Message::new("out", "1"));
    let error = both.commit().await.expect_err("the lease is lost");
    assert!(matches!(&error, TransactionError::LeaseLost(lost) if lost.len() == 1), "{error:?}");
    assert_eq!(router.count("out", "messages"), 0, "nothing was published");
    fresh.ack().await.expect("this lease is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_or_a_mandatory_publish_to_nobody_refuses_the_whole() {
    let router = Router::with_rules(RULES);
    let client = router.client().await;
    for topic in ["in", "full"] {
        client.publish(Message::new(topic, "x")).await.expect("it is taken");
    }
    let mut input = client.consume("in").await.expect("the queue is there");
    for (bad, code) in [
        (Message::new("full", "y"), "queue_full"),
        (Message::new("nobody", "y").mandatory(true), "unroutable"),
    ] {
        let delivery = next(&mut input).await;
        let mut both = client.transaction();
        both.ack(delivery).publish(Message::new("out", "1")).publish(bad);
        let error = both.commit().await.expect_err("it is refused");
        assert_eq!(error.code().name(), code);
        assert_eq!(router.count("out", "messages"), 0, "nothing was published");
        // The lease was not settled: it ends with its ack_wait, and the message comes again.
    }
    next(&mut input).await.ack().await.expect("the lease is held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_publish_in_a_transaction_counts_as_done() {
    let router = Router::with_rules(RULES);
    let client = router.client().await;
    client.publish(Message::new("out", "x").id("o1")).await.expect("it is taken");
    client.publish(Message::new("in", "x")).await.expect("it is taken");
    let mut input = client.consume("in").await.expect("the queue is there");
    let delivery = next(&mut input).await;
    let mut both = client.transaction();
    both.ack(delivery).publish(Message::new("out", "x").id("o1"));
    both.commit().await.expect("a duplicate is no error");
    assert_eq!((router.count("in", "messages"), router.count("out", "messages")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn consume_transform_produce_is_exactly_once_across_crashes() {
    let mut router = Router::with_rules(RULES);
    let client = router.client().await;
    const COUNT: usize = 60;
    for n in 0..COUNT {
        client.publish_pipelined(Message::new("in", format!("{n}"))).await.expect("there is room");
    }
    client.flush().await.expect("all are taken");
    let mut input = client.consume("in").credit(8).await.expect("the queue is there");
    let mut done = 0;
    let mut crashed = 0;
    while done < COUNT {
        let delivery = next(&mut input).await;
        let copy = Message::new("out", delivery.payload().clone());
        let mut both = client.transaction();
        both.ack(delivery).publish(copy);
        let mut commit = Box::pin(both.commit());
        if done / 15 > crashed {
            // The commit is under way when the router dies; the client repeats it under the same id.
            crashed += 1;
            assert!(futures::poll!(&mut commit).is_pending());
            router = router.crash();
        }
        match chaski_it::within("an outcome", commit).await {
            Ok(_) => done += 1,
            Err(TransactionError::LeaseLost(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let mut copies: Vec<usize> = router
        .all(&["consume", "out", "--peek"])
        .iter()
        .map(|copy| copy["payload"].as_str().expect("text").parse().expect("a number"))
        .collect();
    copies.sort_unstable();
    assert_eq!(copies, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(router.count("in", "messages"), 0);
    assert_eq!(crashed, 3);
}
