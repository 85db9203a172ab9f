//! `$chaski.events.>`: what an operator must know, as CloudEvents.

use chaski_client::{Client, Message, Subscription};
use chaski_it::{Router, within};
use futures::StreamExt as _;
use serde_json::Value;

async fn listen(router: &Router) -> (Client, Subscription) {
    let client = router.client().await;
    let events = client.subscribe("$chaski.events.>").await.expect("events can be heard");
    (client, events)
}

/// The next event of a type, whole and well-formed.
async fn event(events: &mut Subscription, kind: &str) -> Value {
    loop {
        let message: Message = within(kind, events.next()).await.expect("the subscription lives");
        let event: Value = serde_json::from_slice(message.payload()).expect("an event is JSON");
        for field in ["specversion", "id", "source", "type", "time", "data"] {
            assert!(!event[field].is_null(), "{field} is missing in {event}");
        }
        assert_eq!(event["specversion"], "1.0");
        if message.topic() == format!("$chaski.events.{kind}") {
            assert!(event["type"].as_str().is_some_and(|name| name.ends_with(kind)), "{event}");
            return event;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_and_its_alarm_are_events() {
    let router = Router::with_rules("[queue.q]\n");
    let (client, mut events) = listen(&router).await;
    client.publish(Message::new("q", "x").id("m1")).await.expect("it is taken");
    router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    let dead = event(&mut events, "dead_letter").await;
    assert!(dead["data"].to_string().contains("\"q\""), "{dead}");
    assert!(dead["data"].to_string().contains("rejected"), "{dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_are_raised_and_cleared() {
    let router = Router::with_rules("[queue.q]\n");
    let (client, mut events) = listen(&router).await;
    client.publish(Message::new("q", "x")).await.expect("it is taken");
    router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    event(&mut events, "alarm_raised").await;
    router.cli(&["dlq", "purge", "q"]).ok();
    event(&mut events, "alarm_cleared").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_dropped_messages_are_events() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 1\noverflow = \"drop-oldest\"\n");
    let (client, mut events) = listen(&router).await;
    for n in 0..2 {
        client.publish(Message::new("q", format!("{n}"))).await.expect("it is taken");
    }
    let dropped = event(&mut events, "queue_dropped").await;
    assert!(dropped["data"].to_string().contains("\"q\""), "{dropped}");
    router.cli(&["queue", "create", "another"]).ok();
    let applied = event(&mut events, "rules_applied").await;
    assert!(applied["data"].to_string().contains('2'), "{applied}");
}

#[test]
fn a_queue_can_keep_the_events() {
    let router = Router::with_rules("[queue.watchdog]\nbind = [\"$chaski.events.>\"]\n[queue.q]\n");
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    let seen = router.all(&["consume", "watchdog", "--timeout", "500ms"]);
    assert!(seen.iter().any(|event| event["topic"] == "$chaski.events.dead_letter"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_watched_file_is_told_and_changes_nothing() {
    let router = Router::with_rules("[queue.one]\nbind = [\"a.*\"]\n");
    let client = router.client().await;
    let mut events = client.subscribe("$chaski.events.rules_refused").await.expect("events can be heard");
    router.write_rules("[queue.one]\nbindd = []\n");
    let event = within("the event", events.next()).await.expect("it lives");
    assert!(String::from_utf8_lossy(event.payload()).contains("bindd"), "{event:?}");
    router.wait_log(|line| line.contains("bindd") && line.contains("rules.toml"));
    assert_eq!(router.one(&["publish", "a.b", "x"])["routed"], 1, "the old rules stay");
}
