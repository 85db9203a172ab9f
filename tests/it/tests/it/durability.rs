//! What a confirm promises, by the queue's durability, across SIGKILL and SIGTERM.

use chaski_client::Message;
use chaski_it::Router;
use futures::TryStreamExt as _;

const RULES: &str = r#"
[queue.fsync]
bind = ["a.*"]
[queue.os]
bind = ["a.*"]
durability = "os"
[queue.memory]
bind = ["a.*"]
durability = "memory"
"#;

#[test]
fn what_was_confirmed_survives_sigkill_except_in_memory_queues() {
    let router = Router::with_rules(RULES);
    assert_eq!(router.one(&["publish", "a.b", "x", "--id", "1"])["routed"], 3);
    let router = router.crash();
    assert_eq!(router.count("fsync", "ready"), 1);
    assert_eq!(router.count("os", "ready"), 1);
    assert_eq!(router.count("memory", "ready"), 0);
    let again = router.one(&["consume", "fsync", "--count", "1"]);
    assert_eq!(again["payload"], "x");
    assert_eq!(again["redelivered"], true, "true for every message older than this start");
    assert_eq!(again["attempt"], 1, "nobody had it");
}

#[test]
fn an_ack_is_durable() {
    let router = Router::with_rules(RULES);
    router.cli_with(&["publish", "a.b", "--lines"], b"1\n2\n3").ok();
    router.cli(&["consume", "fsync", "--count", "2"]).ok();
    let router = router.crash();
    assert_eq!(router.all(&["consume", "fsync", "--timeout", "200ms"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_counts_as_an_attempt_and_a_clean_stop_does_not() {
    let router = Router::with_rules("[queue.q]\n[queue.later]\n");
    let client = router.client().await;
    client.publish(Message::new("q", "x")).await.expect("it is taken");
    let mut deliveries = client.consume("q").await.expect("the queue is there");
    let first = deliveries.try_next().await.expect("it lives").expect("it is there");
    assert_eq!((first.attempt(), first.redelivered()), (1, false));
    // Nobody waits for the record of a delivery; it is surely on the disk once a later publish is.
    client.publish(Message::new("later", "x")).await.expect("it is taken");

    let router = router.crash();
    let second = chaski_it::within("the second", deliveries.try_next())
        .await
        .expect("it resumes")
        .expect("it is there");
    assert_eq!((second.attempt(), second.redelivered()), (2, true));
    assert!(first.ack().await.is_err(), "the first lease ended with the crash");

    let _router = router.restart();
    let third = chaski_it::within("the third", deliveries.try_next())
        .await
        .expect("it resumes")
        .expect("it is there");
    assert_eq!(third.attempt(), 2, "a clean stop releases");
    assert!(second.ack().await.is_err(), "the second lease ended with the stop");
    third.ack().await.expect("this lease is held");
}

#[test]
fn sequences_never_repeat_across_a_crash() {
    let router = Router::with_rules(RULES);
    let mut last = 0;
    let mut router = router;
    for _ in 0..3 {
        for _ in 0..3 {
            let sequence = router.one(&["publish", "a.b", "x"])["sequence"].as_u64().expect("it is stored");
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
        router = router.crash();
    }
    let memory = router.one(&["publish", "a.b", "x"])["sequence"].as_u64().expect("it is stored");
    assert!(memory > last);
}

#[test]
fn a_stopped_router_ends_with_0_and_keeps_everything() {
    let router = Router::with_rules(RULES);
    router.cli(&["publish", "a.b", "x", "--id", "1"]).ok();
    let router = router.restart();
    assert_eq!(router.count("fsync", "ready"), 1);
    assert_eq!(router.one(&["publish", "a.b", "x", "--id", "1"])["duplicate"], true);
}
