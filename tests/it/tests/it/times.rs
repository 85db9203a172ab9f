//! Delays, backoff and priorities: what comes when, told by what comes before what.

use std::time::Duration;

use chaski_client::Message;
use chaski_it::{Router, eventually};
use serde_json::json;

use crate::leases::next;

#[tokio::test(flavor = "multi_thread")]
async fn a_nacked_message_waits_for_its_backoff_and_others_overtake_it() {
    let router = Router::with_rules("[queue.q]\nbackoff = [\"300ms\"]\n");
    let client = router.client().await;
    for payload in ["1", "2"] {
        client.publish(Message::new("q", payload)).await.expect("it is taken");
    }
    let mut consumer = client.consume("q").credit(1).await.expect("the queue is there");
    let first = next(&mut consumer).await;
    assert_eq!(first.payload().as_ref(), b"1");
    first.nack().await.expect("the lease is held");
    let second = next(&mut consumer).await;
    assert_eq!(second.payload().as_ref(), b"2");
    second.ack().await.expect("the lease is held");
    let again = next(&mut consumer).await;
    assert_eq!((again.payload().as_ref(), again.attempt()), (&b"1"[..], 2));
    again.ack().await.expect("the lease is held");
}

#[test]
fn the_backoff_grows_and_is_told() {
    let router = Router::with_rules("[queue.q]\nbackoff = [\"1ms\", \"1h\"]\n");
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["consume", "q", "--count", "2", "--nack"]).ok();
    assert_eq!(
        (router.count("q", "delayed"), router.count("q", "ready")),
        (1, 0),
        "the second wait is an hour"
    );
    let router = router.crash();
    assert_eq!(router.count("q", "delayed"), 1, "a crash doesn't shorten it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_after_one_that_was_published_later() {
    let router = Router::with_rules("[queue.q]\n");
    let client = router.client().await;
    client.publish(Message::new("q", "late").delay(Duration::from_millis(500))).await.expect("it is taken");
    client.publish(Message::new("q", "now")).await.expect("it is taken");
    let mut consumer = client.consume("q").await.expect("the queue is there");
    let (now, late) = (next(&mut consumer).await, next(&mut consumer).await);
    assert_eq!((now.payload().as_ref(), late.payload().as_ref()), (&b"now"[..], &b"late"[..]));
    assert_eq!(late.attempt(), 1, "a delay is no attempt");
}

#[test]
fn higher_priorities_come_first_and_equals_in_their_order() {
    let router = Router::with_rules("[queue.q]\n");
    for (payload, priority) in [("a", "4"), ("b", "0"), ("c", "9"), ("d", "4"), ("e", "9")] {
        router.cli(&["publish", "q", payload, "--priority", priority]).ok();
    }
    router.cli(&["publish", "q", "default"]).ok();
    let order = |router: &Router| -> Vec<String> {
        let seen = router.all(&["consume", "q", "--count", "6", "--credit", "1"]);
        seen.iter().map(|delivery| delivery["payload"].as_str().expect("text").to_owned()).collect()
    };
    let router = router.crash();
    assert_eq!(order(&router), ["c", "e", "a", "d", "default", "b"]);
    let output = router.cli(&["publish", "q", "x", "--priority", "10"]);
    assert_ne!(output.code, 0, "priorities are 0 to 9");
}

#[test]
fn a_ttl_runs_from_the_time_of_delivery_of_a_delayed_message() {
    let router = Router::with_rules("[queue.q]\n");
    router.cli(&["publish", "q", "x", "--delay", "1h", "--ttl", "1ms"]).ok();
    router.cli(&["publish", "q", "y", "--ttl", "1ms"]).ok();
    eventually("the other one expires", || (router.count("q", "dead") == 1).then_some(()));
    assert_eq!(router.one(&["dlq", "show", "q"])["payload"], json!("y"));
    assert_eq!(router.count("q", "delayed"), 1);
}
