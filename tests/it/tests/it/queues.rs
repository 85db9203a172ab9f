//! `chaski queue`: made, looked at, paused, emptied, deleted.

use chaski_it::{Router, eventually};
use serde_json::json;

#[test]
fn a_queue_is_made_with_patterns_and_settings() {
    let router = Router::start();
    let change = router.one(&[
        "queue",
        "create",
        "orders",
        "--bind",
        "orders.*.created",
        "--bind",
        "orders.urgent.>",
        "--set",
        "max_deliver=3",
        "--set",
        "ordering=key",
        "--set",
        "ack_wait=10s",
    ]);
    assert!(change["version"].as_u64() >= Some(1), "{change}");
    let queue = router.one(&["queue", "show", "orders"]);
    for field in ["name", "ready", "delayed", "leased", "parked", "dead", "consumers", "messages", "bytes"] {
        assert!(queue.get(field).is_some(), "{field} is missing in {queue}");
    }
    assert_eq!(queue["bind"], json!(["orders.*.created", "orders.urgent.>"]));
    assert_eq!(queue["settings"]["max_deliver"], 3);
    assert_eq!(queue["settings"]["ordering"], "key");
    let listed = router.all(&["queue", "list"]);
    assert_eq!(listed.iter().filter(|queue| queue["name"] == "orders").count(), 1);
}

#[test]
fn messages_is_the_sum_of_the_four_states() {
    let router = Router::with_rules("[queue.q]\nordering = \"key\"\n");
    for (payload, delay) in [("1", "0s"), ("2", "1h"), ("3", "0s")] {
        router.cli(&["publish", "q", payload, "--delay", delay, "--key", payload]).ok();
    }
    let queue = router.one(&["queue", "show", "q"]);
    assert_eq!((&queue["ready"], &queue["delayed"], &queue["messages"]), (&json!(2), &json!(1), &json!(3)));
    assert!(queue["bytes"].as_u64() > Some(0));
}

#[test]
fn bad_names_settings_and_doubles_are_refused() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    assert_eq!(router.cli(&["queue", "create", "q"]).code, 1, "it is there already");
    router.cli(&["queue", "create", "chaski"]).refused("rules_invalid");
    router.cli(&["queue", "create", "x.dlq"]).refused("rules_invalid");
    let output = router.cli(&["queue", "create", "x", "--set", "max_delivr=3"]).refused("rules_invalid");
    assert!(output.stderr.contains("max_deliver"), "the nearest name: {}", output.stderr);
    router.cli(&["queue", "create", "x", "--set", "max_deliver=0"]).refused("rules_invalid");
    router.cli(&["queue", "create", "x", "--set", "ack_wait=30"]).refused("rules_invalid");
    router.cli(&["queue", "create", "x", "--bind", "a.>.b"]).refused("rules_invalid");
    router.cli(&["queue", "show", "x"]).refused("unknown_queue");
}

#[test]
fn a_queue_with_messages_is_not_deleted() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["queue", "delete", "q"]).refused("queue_not_empty");
    assert_eq!(router.count("q", "ready"), 1);
    let purged = router.one(&["queue", "purge", "q"]);
    assert_eq!(purged["count"], 1);
    router.cli(&["queue", "delete", "q"]).ok();
    router.cli(&["queue", "show", "q"]).refused("unknown_queue");
    // Dead letters count for the refusal, too.
    router.cli(&["queue", "create", "q"]).ok();
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    router.cli(&["queue", "delete", "q"]).refused("queue_not_empty");
    assert_eq!(router.one(&["dlq", "purge", "q"])["count"], 1);
    router.cli(&["queue", "delete", "q"]).ok();
}

#[test]
fn a_paused_queue_takes_and_does_not_deliver_across_a_restart() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    router.cli(&["queue", "pause", "q"]).ok();
    router.cli(&["publish", "q", "x"]).ok();
    let output = router.cli(&["consume", "q", "--timeout", "200ms", "--json"]).ok();
    assert_eq!(output.stdout, "");
    let router = router.crash();
    assert_eq!(router.one(&["queue", "show", "q"])["paused"], true);
    router.cli(&["queue", "resume", "q"]).ok();
    assert_eq!(router.one(&["consume", "q", "--count", "1"])["payload"], "x");
}

#[test]
fn a_delayed_message_waits_and_can_be_cancelled() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    router.cli(&["publish", "q", "never", "--id", "m1", "--delay", "1h"]).ok();
    assert_eq!(router.count("q", "delayed"), 1);
    let router = router.crash();
    assert_eq!(router.count("q", "delayed"), 1, "the delay is durable");
    router.cli(&["queue", "cancel", "q", "m1"]).ok();
    assert_eq!(router.count("q", "messages"), 0);
    let output = router.cli(&["queue", "cancel", "q", "m1"]).refused("unknown_id");
    assert!(output.error().contains("no message with id `m1` to cancel"), "{}", output.error());
    let output = router.cli(&["queue", "unpark", "q", "k1"]).refused("unknown_id");
    assert!(output.error().contains("key `k1` of queue `q` is not parked"), "{}", output.error());
    let long = "q".repeat(5000);
    let output = router.cli(&["consume", &long, "--count", "1"]).refused("unknown_queue");
    assert!(output.error().len() < 200, "a refusal stays short: {}", output.error());
}

#[test]
fn deleting_a_queue_ends_its_consumers() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    let consumer = router.spawn(&["consume", "q"]);
    eventually("it consumes", || (router.count("q", "consumers") == 1).then_some(()));
    router.cli(&["queue", "delete", "q"]).ok();
    consumer.finish().refused("unknown_queue");
}

#[test]
fn dead_letter_queues_are_no_ordinary_queues() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    let names: Vec<_> = router.all(&["queue", "list"]).iter().map(|queue| queue["name"].clone()).collect();
    assert_eq!(names, [json!("q")]);
    let human = router.cli(&["queue", "list"]).ok();
    assert!(human.stdout.contains('q'), "{}", human.stdout);
}
