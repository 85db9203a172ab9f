//! Publishing twice is publishing once.

use std::time::Duration;

use chaski_client::Message;
use chaski_it::{Router, within};
use serde_json::json;

#[test]
fn a_duplicate_is_confirmed_with_the_first_sequence_across_a_crash() {
    let router = Router::with_rules("[queue.q]\nbind = [\"a.*\"]\n");
    let first = router.one(&["publish", "a.b", "x", "--id", "1"]);
    let again = router.one(&["publish", "a.b", "y", "--id", "1"]);
    assert_eq!((&again["duplicate"], &again["sequence"]), (&json!(true), &first["sequence"]));
    assert_eq!((&again["routed"], &again["dropped"], &again["rejected"]), (&json!(0), &json!(0), &json!(0)));
    let router = router.crash();
    let again = router.one(&["publish", "a.b", "x", "--id", "1", "--mandatory"]);
    assert_eq!(
        (&again["duplicate"], &again["sequence"]),
        (&json!(true), &first["sequence"]),
        "never an error"
    );
    assert_eq!(router.count("q", "ready"), 1);
}

#[test]
fn the_id_is_the_topics_and_is_remembered_after_the_ack() {
    let router = Router::with_rules("[queue.q]\nbind = [\"a.*\"]\n");
    router.cli(&["publish", "a.b", "x", "--id", "1"]).ok();
    assert_eq!(router.one(&["publish", "a.c", "x", "--id", "1"])["duplicate"], false);
    router.cli(&["consume", "q", "--count", "2"]).ok();
    assert_eq!(router.one(&["publish", "a.b", "x", "--id", "1"])["duplicate"], true);
    assert_eq!(router.count("q", "messages"), 0);
}

#[test]
fn a_refused_publish_does_not_enter_the_window() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 1\n");
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["publish", "q", "y", "--id", "1"]).refused("queue_full");
    router.cli(&["consume", "q", "--count", "1"]).ok();
    let confirm = router.one(&["publish", "q", "y", "--id", "1"]);
    assert_eq!((&confirm["duplicate"], &confirm["routed"]), (&json!(false), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn twice_in_one_pipeline_is_once() {
    let router = Router::with_rules("[queue.q]\n");
    let client = router.client().await;
    let mut confirms = Vec::new();
    for n in 0..200 {
        let message = Message::new("q", "x").id(format!("{}", n / 2));
        confirms.push(client.publish_pipelined(message).await.expect("there is room"));
    }
    let mut sequences = Vec::new();
    for (n, confirm) in confirms.into_iter().enumerate() {
        let published = confirm.await.expect("it is taken");
        assert_eq!(published.duplicate, n % 2 == 1, "{n}");
        sequences.push(published.sequence);
    }
    assert!(sequences.chunks(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(router.count("q", "ready"), 100);
}

#[test]
fn the_real_window_is_told() {
    let router = Router::with_rules("[queue.q]\ndedup_window = \"1h\"\n");
    router.cli(&["publish", "q", "x"]).ok();
    let window = router.one(&["status"])["dedup_window_ms"].as_u64().expect("a number");
    assert!(window >= 120_000, "{window}");
    let (_, metrics) = router.http("/metrics");
    assert!(metrics.contains("chaski_dedup_window_seconds"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_real_window_the_outcome_is_unknown() {
    let router = Router::with_rules("[limits]\ndedup_max_entries = 10\n\n[queue.q]\n");
    let client = router.client().await;
    // More ids than are remembered, so the real window shrinks, and the client is told.
    let mut number = 0;
    while client.dedup_window() > Duration::from_secs(2) {
        // The last of them may already be overtaken by the window.
        let _ = client.publish(Message::new("q", number.to_string())).await;
        number += 1;
    }
    router.freeze();
    let confirm = client.publish_pipelined(Message::new("q", "the last")).await.expect("there is room");
    let error = within("the end of its patience", confirm).await.expect_err("nobody knows");
    assert_eq!((error.code().to_string().as_str(), error.is_retryable()), ("outcome_unknown", false));
}

#[test]
fn a_window_below_two_minutes_is_refused() {
    let router = Router::start();
    let output = router.cli(&["queue", "create", "q", "--set", "dedup_window=1m"]).refused("rules_invalid");
    assert!(output.stderr.contains("2"), "{}", output.stderr);
}
