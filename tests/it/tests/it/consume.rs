//! `chaski consume`: what it prints, how it settles, and how it stops.

use chaski_it::{Router, eventually};
use serde_json::json;

use crate::keys;

fn router_with(messages: &[&str]) -> Router {
    let router = Router::start();
    router.cli(&["queue", "create", "q", "--set", "backoff=[\"1h\"]"]).ok();
    router.cli_with(&["publish", "q", "--lines"], messages.join("\n").as_bytes()).ok();
    router
}

#[test]
fn a_delivery_has_the_fields_of_the_interface_and_is_acked_after_printing() {
    let router = router_with(&["one"]);
    let delivery = router.one(&["consume", "q", "--count", "1"]);
    let fields = [
        "attempt",
        "headers",
        "id",
        "key",
        "payload",
        "payload_encoding",
        "published_at",
        "queue",
        "redelivered",
        "sequence",
        "topic",
    ];
    for field in fields {
        assert!(delivery.get(field).is_some(), "{field} is missing in {delivery}");
    }
    assert_eq!(keys(&delivery).iter().filter(|key| fields.contains(&key.as_str())).count(), fields.len());
    assert_eq!(delivery["queue"], "q");
    assert_eq!(delivery["attempt"], 1);
    assert_eq!(delivery["redelivered"], false);
    assert_eq!(delivery["payload"], "one");
    assert_eq!(delivery["headers"], json!({}));
    let published = delivery["published_at"].as_str().expect("a time is text");
    assert!(published.ends_with('Z') && published.contains('T'), "RFC 3339: {published}");
    assert_eq!(router.count("q", "messages"), 0);
}

#[test]
fn without_messages_the_timeout_ends_it_in_good_order() {
    let router = router_with(&["one", "two"]);
    let output = router.cli(&["consume", "q", "--timeout", "300ms"]).ok();
    assert!(output.stdout.contains("one") && output.stdout.contains("two"), "{}", output.stdout);
    assert_eq!(router.count("q", "messages"), 0);
    assert_eq!(router.count("q", "consumers"), 0);
}

#[test]
fn peek_takes_nothing() {
    let router = router_with(&["one", "two"]);
    let seen = router.all(&["consume", "q", "--peek"]);
    assert_eq!(
        seen.iter().map(|message| message["payload"].clone()).collect::<Vec<_>>(),
        [json!("one"), json!("two")]
    );
    assert_eq!(router.count("q", "ready"), 2);
    assert_eq!(router.all(&["consume", "q", "--peek", "--count", "1"]).len(), 1);
}

#[test]
fn nack_returns_the_message_after_the_queues_backoff_or_the_given_delay() {
    let router = router_with(&["one"]);
    router.cli(&["consume", "q", "--count", "1", "--nack"]).ok();
    assert_eq!(router.count("q", "delayed"), 1, "it waits for the backoff of an hour");

    let router = router_with(&["one"]);
    router.cli(&["consume", "q", "--count", "1", "--nack", "10ms"]).ok();
    let again = router.one(&["consume", "q", "--count", "1"]);
    assert_eq!((&again["attempt"], &again["redelivered"]), (&json!(2), &json!(true)));
}

#[test]
fn reject_makes_a_dead_letter_with_the_reason() {
    let router = router_with(&["one"]);
    router.cli(&["consume", "q", "--count", "1", "--reject", "not for us"]).ok();
    let dead = router.one(&["dlq", "show", "q"]);
    assert_eq!((&dead["reason"], &dead["detail"]), (&json!("rejected"), &json!("not for us")));
}

#[test]
fn the_exit_code_of_a_program_settles() {
    let router = router_with(&["good", "bad", "ugly"]);
    let script = r#"case "$(cat)" in good) exit 0;; bad) echo first >&2; echo "no such lamp" >&2; exit 65;; *) exit 3;; esac"#;
    router.cli(&["consume", "q", "--count", "3", "--exec", script]).ok();
    let queue = router.one(&["queue", "show", "q"]);
    assert_eq!((&queue["delayed"], &queue["dead"], &queue["messages"]), (&json!(1), &json!(1), &json!(1)));
    let dead = router.one(&["dlq", "show", "q"]);
    assert_eq!(dead["detail"], "no such lamp");
}

#[test]
fn a_program_learns_the_message_from_its_environment() {
    let router = Router::start();
    router.cli(&["queue", "create", "q", "--bind", "a.*"]).ok();
    router
        .cli(&["publish", "a.b", "the payload", "--id", "i1", "--key", "k", "-H", "content-type=text/plain"])
        .ok();
    let script = r#"env | grep ^CHASKI_ | sort > environment; cat > payload"#;
    router.cli(&["consume", "q", "--count", "1", "--exec", script]).ok();
    let environment =
        std::fs::read_to_string(router.setup().path("environment")).expect("the program has run");
    for line in [
        "CHASKI_QUEUE=q",
        "CHASKI_TOPIC=a.b",
        "CHASKI_ID=i1",
        "CHASKI_KEY=k",
        "CHASKI_ATTEMPT=1",
        "CHASKI_REDELIVERED=false",
        "CHASKI_HEADER_CONTENT_TYPE=text/plain",
    ] {
        assert!(environment.lines().any(|have| have == line), "{line} is missing in:\n{environment}");
    }
    assert!(environment.contains("CHASKI_SEQUENCE="));
    assert_eq!(std::fs::read_to_string(router.setup().path("payload")).expect("it has run"), "the payload");
}

#[test]
fn sigterm_ends_a_consumer_in_good_order_and_releases_what_nobody_saw() {
    let router = router_with(&["one"]);
    let mut consumer = router.spawn(&["consume", "q", "--json"]);
    assert_eq!(consumer.json()["payload"], "one");
    consumer.terminate().ok();
    eventually("the consumer is gone", || (router.count("q", "consumers") == 0).then_some(()));
    assert_eq!(router.count("q", "messages"), 0);
}

#[test]
fn a_killed_consumers_message_comes_back_when_its_lease_ends() {
    let router = Router::with_rules("[queue.q]\nack_wait = \"1s\"\nbackoff = [\"1ms\"]\n");
    router.cli(&["publish", "q", "one"]).ok();
    let consumer = router.spawn(&["consume", "q", "--exec", "echo > taken; exec tail -f /dev/null"]);
    eventually("the program runs", || router.setup().path("taken").exists().then_some(()));
    assert_eq!(router.count("q", "leased"), 1);
    consumer.kill();
    let again = router.one(&["consume", "q", "--count", "1"]);
    assert_eq!((&again["attempt"], &again["redelivered"]), (&json!(2), &json!(true)));
}

#[test]
fn competing_consumers_share_a_queue() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    let mut first = router.spawn(&["consume", "q", "--credit", "1", "--json"]);
    let mut second = router.spawn(&["consume", "q", "--credit", "1", "--json"]);
    eventually("both consume", || (router.count("q", "consumers") == 2).then_some(()));
    let input: String = (0..40).map(|n| format!("{n}\n")).collect();
    router.cli_with(&["publish", "q", "--lines"], input.as_bytes()).ok();
    eventually("the queue is empty", || (router.count("q", "messages") == 0).then_some(()));
    let (one, other) = (first.json(), second.json());
    assert_ne!(one["id"], other["id"], "each got its own");
    first.terminate().ok();
    second.terminate().ok();
}

#[test]
fn an_unknown_queue_is_named() {
    let router = Router::start();
    let output = router.cli(&["consume", "nothing", "--count", "1"]).refused("unknown_queue");
    assert!(output.error().contains("nothing"), "{}", output.error());
}
