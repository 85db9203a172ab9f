//! A full queue: it refuses, or makes room.

use chaski_it::Router;
use serde_json::json;

fn payloads(router: &Router, queue: &str) -> Vec<String> {
    let seen = router.all(&["consume", queue, "--peek"]);
    seen.iter().map(|message| message["payload"].as_str().expect("text").to_owned()).collect()
}

#[test]
fn a_full_queue_that_rejects_stores_nothing_anywhere_and_is_named() {
    let router = Router::with_rules(
        "[queue.small]\nbind = [\"a.*\"]\nmax_messages = 2\noverflow = \"reject\"\n[queue.other]\nbind = [\"a.*\"]\n",
    );
    for n in ["1", "2"] {
        router.cli(&["publish", "a.b", n]).ok();
    }
    let output = router.cli(&["publish", "a.b", "3"]).refused("queue_full");
    assert!(output.error().contains("small"), "{}", output.error());
    assert_eq!((router.count("small", "messages"), router.count("other", "messages")), (2, 2));
    router.cli(&["consume", "small", "--count", "1"]).ok();
    router.cli(&["publish", "a.b", "3"]).ok();
}

#[test]
fn delayed_messages_count_for_the_limit() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 1\n");
    router.cli(&["publish", "q", "1", "--delay", "1h"]).ok();
    router.cli(&["publish", "q", "2"]).refused("queue_full");
}

#[test]
fn bytes_are_limited_too() {
    let router = Router::with_rules("[queue.q]\nmax_bytes = \"2KiB\"\n");
    let big = "x".repeat(1500);
    router.cli(&["publish", "q", &big]).ok();
    router.cli(&["publish", "q", &big]).refused("queue_full");
    router.cli(&["publish", "q", "small"]).ok();
}

#[test]
fn drop_oldest_makes_room_and_is_an_event() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 2\noverflow = \"drop-oldest\"\n");
    for n in ["1", "2", "3"] {
        assert_eq!(router.one(&["publish", "q", n])["routed"], 1);
    }
    assert_eq!(payloads(&router, "q"), ["2", "3"]);
    assert_eq!(router.count("q", "dead"), 0);
}

#[test]
fn dead_letter_oldest_keeps_what_it_pushes_out() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 2\noverflow = \"dead-letter-oldest\"\n");
    for n in ["1", "2", "3"] {
        router.cli(&["publish", "q", n]).ok();
    }
    assert_eq!(payloads(&router, "q"), ["2", "3"]);
    let dead = router.one(&["dlq", "show", "q"]);
    assert_eq!((&dead["payload"], &dead["reason"]), (&json!("1"), &json!("overflow")));
    let router = router.crash();
    assert_eq!(payloads(&router, "q"), ["2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leased_message_is_never_pushed_out() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 1\noverflow = \"drop-oldest\"\n");
    let client = router.client().await;
    router.cli(&["publish", "q", "1"]).ok();
    let mut consumer = client.consume("q").credit(1).await.expect("the queue is there");
    let held = crate::leases::next(&mut consumer).await;
    // The newcomer itself is dropped, and its publish confirmed; a newcomer that overflow removes counts as routed.
    assert_eq!(router.one(&["publish", "q", "2"])["routed"], 1);
    assert_eq!(router.count("q", "messages"), 1);
    held.ack().await.expect("the lease is held");
    assert_eq!(router.count("q", "messages"), 0);
}
