//! Scatters and sagas from the outside: what the rules take, what commands say, and settlements with a result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chaski_client::{
    Code, Delivery, MemorySeen, Message, Phase, RequestError, Retry, Seen as _, SettleError,
};
use chaski_it::{Router, eventually};
use futures::TryStreamExt as _;

const RULES: &str = r#"
[module.pick]
[scatter.quote]
topic = "quotes.request"
recipients = ["supplier-a", "supplier-b"]
aggregator = "pick"
[saga.order]
topic = "orders.place"
steps = [
  { name = "reserve", queue = "stock.reserve", compensate = "stock.release", timeout = "5s" },
  { name = "ship", queue = "ship.book", pivot = true },
]
[limits]
max_payload = "1KiB"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_with_a_result_ends_the_lease_of_any_message() {
    let router = Router::with_rules("[queue.work]\n[limits]\nmax_payload = \"1KiB\"\n");
    let client = router.client().await;
    for id in ["1", "2", "3"] {
        client.publish(Message::new("work", "x").id(id)).await.expect("it is stored");
    }
    let mut work = client.consume("work").await.expect("the queue is there");
    let mut one = async || work.try_next().await.expect("deliveries").expect("one more");
    one().await.complete(vec![b'x'; 1024]).await.expect("as an ack");
    let refused = one().await.complete(vec![b'x'; 1025]).await.expect_err("it is too large");
    let SettleError::Refused(refusal) = refused else { panic!("{refused}") };
    assert_eq!(refusal.code, Code::PayloadTooLarge);
    // The stream goes on, and the answers keep their order.
    one().await.ack().await.expect("it is held");
    assert_eq!(router.count("work", "messages"), 1, "what was refused is still held");
    client.close().await;
}

#[test]
fn queues_that_only_scatters_and_sagas_name_are_there_and_stay() {
    let router = Router::with_rules(RULES);
    let names: Vec<_> = router
        .all(&["queue", "list"])
        .iter()
        .map(|queue| queue["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["ship.book", "stock.release", "stock.reserve", "supplier-a", "supplier-b"]);
    let refused = router.cli(&["queue", "delete", "ship.book"]).refused("not_allowed");
    assert!(refused.error().contains("saga.order"), "{}", refused.error());
    let module = router.one(&["module", "show", "pick"]);
    assert_eq!(module["used_by"], serde_json::json!(["scatter quote"]));
}

#[test]
fn a_filter_is_not_deployed_where_a_scatter_takes_an_aggregator() {
    let router = Router::with_rules(RULES);
    let file = router.setup().path("sample.wasm");
    let guest = chaski_filters::builtin("sample").expect("a builtin");
    std::fs::write(&file, guest.wasm).expect("a file");
    let file = file.to_str().expect("a path");
    let refused = router.cli(&["module", "deploy", file, "--name", "pick"]).refused("rules_invalid");
    assert!(
        refused.error().contains("`scatter.quote.aggregator` takes an aggregator"),
        "{}",
        refused.error()
    );
}

#[test]
fn what_is_not_there_is_said() {
    let router = Router::with_rules(RULES);
    assert_eq!(router.cli(&["gather", "list", "--json"]).ok().stdout, "");
    assert_eq!(router.cli(&["saga", "list", "--state", "parked", "--json"]).ok().stdout, "");
    router.cli(&["gather", "show", "q-1"]).refused("unknown_id");
    for verb in [&["show"][..], &["retry"], &["abort"]] {
        let line = [&["saga"], verb, &["order/o-1"]].concat();
        router.cli(&line).refused("unknown_id");
    }
    router.cli(&["saga", "skip", "order/o-1", "ship", "--payload", "{}"]).refused("unknown_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_done_by_commands_and_clients_and_shown_with_its_timeline() {
    let router = Router::with_rules(RULES);
    let client = router.client().await;
    let command = "cat > \"reserve-$CHASKI_HEADER_CHASKI_ATTEMPT\"; echo '{\"shelf\": 7}'";
    let _reserve = router.spawn(&["respond", "stock.reserve", "--exec", command]);
    let _release = router.spawn(&["respond", "stock.release", "--exec", "cat > released"]);
    let mut ship = client.consume("ship.book").await.expect("the queue is there");

    let order = Message::new("orders.place", "three llamas").id("o-1");
    assert_eq!(client.publish(order).await.expect("it begins").routed, 1);
    let delivery = ship.try_next().await.expect("deliveries").expect("the second step");
    let step = delivery.step().expect("a step");
    assert_eq!((step.saga(), step.saga_name(), step.name()), ("order/o-1", "order", "ship"));
    assert_eq!((step.key(), step.attempt(), step.phase()), ("order/o-1/ship", 1, Phase::Forward));
    assert_eq!(step.input().as_deref(), Some(&b"three llamas"[..]));
    let shelf = step.result_as::<serde_json::Value>("reserve").expect("JSON").expect("a result");
    assert_eq!(shelf, serde_json::json!({ "shelf": 7 }));
    let running = client.admin().saga("order/o-1").await.expect("it is there");
    assert_eq!((running.state.as_str(), running.steps[0].outcome.as_str()), ("running", "completed"));
    delivery.fail("no carrier", Retry::No).await.expect("it is held");

    let ended = eventually("the saga is compensated", || {
        let saga = router.one(&["saga", "show", "o-1"]);
        (saga["state"] == "compensated").then_some(saga)
    });
    assert_eq!((&ended["id"], &ended["name"]), (&"o-1".into(), &"order".into()));
    assert_eq!(ended["failed"], serde_json::json!({ "step": "ship", "reason": "no carrier" }));
    let outcomes: Vec<_> = ended["steps"].as_array().expect("steps").iter().collect();
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["undone"]), (&"completed".into(), &true.into()));
    assert_eq!((&outcomes[1]["outcome"], &outcomes[1]["attempts"]), (&"failed".into(), &1.into()));
    let released = std::fs::read_to_string(router.setup().path("released")).expect("it was undone");
    let released: serde_json::Value = serde_json::from_str(&released).expect("JSON");
    assert_eq!(released["failed"]["reason"], "no carrier");
    let text = router.cli(&["saga", "show", "order/o-1"]).ok().stdout;
    assert!(text.contains("undo 1") && text.contains("no carrier"), "{text}");
    let list = router.all(&["saga", "list", "--state", "compensated"]);
    assert_eq!(list.len(), 1);
    assert_eq!(router.all(&["saga", "list", "--state", "running"]).len(), 0);
    router.cli(&["saga", "retry", "order/o-1"]).refused("not_allowed");
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_consumer_undoes_what_it_did_and_nothing_else() {
    let router = Router::with_rules(&RULES.replace("timeout = \"5s\"", "timeout = \"300ms\""));
    let client = router.client().await;
    static UNDONE: AtomicU32 = AtomicU32::new(0);
    let seen = Arc::new(MemorySeen::new(100));
    let release = client.consume("stock.release").await.expect("the queue is there");
    let known = Arc::clone(&seen);
    let worker = tokio::spawn(async move {
        let handler = async |_: &Delivery| {
            UNDONE.fetch_add(1, Ordering::SeqCst);
            Ok::<(), String>(())
        };
        release.once(known, 4, handler).await
    });

    // Delivered and never answered: nobody knows whether it was done, and here it was not.
    let mut reserve = client.consume("stock.reserve").await.expect("the queue is there");
    client.publish(Message::new("orders.place", "x").id("o-1")).await.expect("it begins");
    let late = reserve.try_next().await.expect("deliveries").expect("the first step");
    let step_key = late.idempotency_key();
    assert_eq!(step_key, "order/o-1/reserve");
    eventually("the saga is compensated", || {
        let saga = router.one(&["saga", "show", "order/o-1"]);
        (saga["state"] == "compensated").then_some(())
    });
    assert_eq!(UNDONE.load(Ordering::SeqCst), 0, "there was nothing to undo");
    assert!(seen.check(&step_key).await.expect("it can tell"), "the step is closed");
    late.complete("").await.expect_err("the step was withdrawn");
    client.close().await;
    worker.await.expect("no panic").expect("it ends with the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gather_is_shown_while_it_waits_and_a_requester_hears_when_nobody_answers() {
    let rules = RULES.replace("aggregator = \"pick\"", "timeout = \"1s\"");
    let router = Router::with_rules(&rules);
    let client = router.client().await;
    let ask = client.request(Message::new("quotes.request", "wool").id("q-1"));
    let asked = tokio::spawn(async move { ask.timeout(Duration::from_secs(60)).await });
    let gather = eventually("the gather is there", || {
        router.all(&["gather", "list"]).into_iter().find(|gather| gather["id"] == "q-1")
    });
    assert_eq!((&gather["scatter"], &gather["state"]), (&"quote".into(), &"open".into()));
    assert!(gather["left_ms"].as_u64().expect("a number") <= 1000);
    let shown = router.one(&["gather", "show", "q-1"]);
    let names: Vec<_> = shown["recipients"].as_array().expect("recipients").iter().collect();
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&"supplier-a".into(), &"supplier-b".into()));
    let answer = asked.await.expect("no panic");
    assert_eq!(answer.err(), Some(RequestError::Timeout));
    client.close().await;
}
