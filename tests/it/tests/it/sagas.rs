//! Sagas: steps one after another, undone when one fails, kept by the router whatever happens to it, and an operator's ways on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chaski_client::{Client, Delivery, Message, Phase, Retry};
use chaski_it::{Router, Running, eventually, within};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::modules::{builtin, file};

/// An order of three steps; what a test sets of the saga, and behind it.
fn rules(of_the_saga: &str, more: &str) -> String {
    format!(
        "[saga.order]\ntopic = \"orders.place\"\n{of_the_saga}\nsteps = [\n\
         {{ name = \"reserve\", queue = \"stock.reserve\", compensate = \"stock.release\", timeout = \"1h\" }},\n\
         {{ name = \"charge\", queue = \"card.charge\", compensate = \"card.refund\", timeout = \"1h\" }},\n\
         {{ name = \"ship\", queue = \"ship.book\", pivot = true, timeout = \"1h\" }},\n]\n{more}"
    )
}

const QUEUES: [&str; 5] = ["stock.reserve", "stock.release", "card.charge", "card.refund", "ship.book"];

/// What workers saw, in their order: the step, with `undo ` before it where it was undone, and the payload.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(String, Value)>>>);

impl Log {
    fn steps(&self) -> Vec<String> {
        self.0.lock().expect("nobody panicked").iter().map(|(step, _)| step.clone()).collect()
    }

    fn payload(&self, step: &str) -> Value {
        let log = self.0.lock().expect("nobody panicked");
        let (_, payload) = log.iter().find(|(known, _)| known == step).expect("it was done");
        payload.clone()
    }
}

/// How a worker answers one of its steps.
#[derive(Clone, Copy)]
enum Say {
    /// Complete, with the step's name in the result.
    Done,
    /// Fail for good.
    Fails(&'static str),
}

/// One worker for each of these queues; `say` has the answers of those that don't just complete.
async fn workers(client: &Client, queues: &[&'static str], say: &[(&'static str, Say)]) -> Log {
    let log = Log::default();
    for queue in queues {
        let say = say.iter().find(|(name, _)| name == queue).map_or(Say::Done, |(_, say)| *say);
        let mut steps = client.consume(*queue).await.expect("the queue is there");
        let log = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(delivery)) = steps.try_next().await {
                let step = delivery.step().expect("only the saga sends here");
                let undo = if step.phase() == Phase::Undo { "undo " } else { "" };
                let name = format!("{undo}{}", step.name());
                let payload = serde_json::from_slice(delivery.payload()).unwrap_or(Value::Null);
                log.0.lock().expect("nobody panicked").push((name.clone(), payload));
                // After a crash of the router the lease is lost, and the step comes again.
                match say {
                    Say::Done => drop(delivery.complete(json!({ "done": name }).to_string()).await),
                    Say::Fails(reason) => drop(delivery.fail(reason, Retry::No).await),
                }
            }
        });
    }
    log
}

/// Begins an order, and waits for what became of it.
async fn order(client: &Client, id: &str) -> Value {
    let message = Message::new("orders.place", r#"{"item": "lamp"}"#).id(id);
    let outcome = within("the outcome", client.request(message).timeout(Duration::from_secs(80)));
    serde_json::from_slice(outcome.await.expect("it ends").payload()).expect("an outcome is JSON")
}

/// Begins an order, and waits for nothing.
async fn begin(client: &Client, id: &str) {
    let message = Message::new("orders.place", r#"{"item": "lamp"}"#).id(id);
    let begun = within("the confirm", client.publish(message)).await.expect("it is taken");
    assert_eq!(begun.routed, 1, "the saga took it");
}

#[track_caller]
fn wait_state(router: &Router, saga: &str, state: &str) -> Value {
    eventually(&format!("{saga} is {state}"), || {
        let output = router.cli(&["saga", "show", saga, "--json"]);
        let shown = (output.code == 0).then(|| output.one())?;
        (shown["state"] == state).then_some(shown)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn three_steps_follow_one_another_and_each_sees_the_results_before_it() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let log = workers(&client, &QUEUES, &[]).await;
    let outcome = order(&client, "o-1").await;
    let results = json!({
        "reserve": { "done": "reserve" }, "charge": { "done": "charge" }, "ship": { "done": "ship" }
    });
    assert_eq!(
        outcome,
        json!({ "saga": "order/o-1", "state": "completed", "results": results, "compensated": [] })
    );
    assert_eq!(log.steps(), ["reserve", "charge", "ship"]);
    assert_eq!(log.payload("reserve"), json!({ "input": { "item": "lamp" }, "results": {} }));
    let before = json!({ "reserve": { "done": "reserve" }, "charge": { "done": "charge" } });
    assert_eq!(log.payload("ship"), json!({ "input": { "item": "lamp" }, "results": before }));
    for queue in QUEUES {
        assert_eq!((router.count(queue, "messages"), router.count(queue, "dead")), (0, 0), "{queue}");
    }
}

#[test]
fn programs_do_the_steps() {
    let router = Router::with_rules(
        "[saga.order]\ntopic = \"orders.place\"\nsteps = [\n\
         { name = \"reserve\", queue = \"stock.reserve\", compensate = \"stock.release\" },\n\
         { name = \"charge\", queue = \"card.charge\", payload = \"previous\" },\n]\n",
    );
    let _workers = [
        ("stock.reserve", "echo \"shelf 7\""),
        ("card.charge", "cat >&2; echo \"$CHASKI_HEADER_CHASKI_IDEMPOTENCY_KEY declined\" >&2; exit 65"),
        ("stock.release", "cat > released"),
    ]
    .map(|(queue, command)| router.spawn(&["respond", queue, "--exec", command]));
    let reply = router.one(&["request", "orders.place", "a lamp", "--id", "o-1"]);
    let outcome: Value =
        serde_json::from_str(reply["payload"].as_str().expect("it is text")).expect("it is JSON");
    assert_eq!((&outcome["state"], &outcome["compensated"]), (&"compensated".into(), &json!(["reserve"])));
    assert_eq!(outcome["failed"], json!({ "step": "charge", "reason": "order/o-1/charge declined" }));
    let released = std::fs::read_to_string(router.setup().path("released")).expect("it was undone");
    let released: Value = serde_json::from_str(&released).expect("it is JSON");
    assert_eq!(released["failed"]["step"], "charge");
    // What is no JSON is carried as base64: "a lamp", and "shelf 7" with its line's end.
    assert_eq!(released["input"], json!({ "$base64": "YSBsYW1w" }));
    assert_eq!(released["results"]["reserve"], json!({ "$base64": "c2hlbGYgNwo=" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_has_those_before_it_undone_the_last_first() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let log = workers(&client, &QUEUES, &[("ship.book", Say::Fails("no carrier"))]).await;
    let outcome = order(&client, "o-1").await;
    assert_eq!(outcome["state"], "compensated");
    assert_eq!(outcome["failed"], json!({ "step": "ship", "reason": "no carrier" }));
    assert_eq!(outcome["compensated"], json!(["charge", "reserve"]));
    assert_eq!(log.steps(), ["reserve", "charge", "ship", "undo charge", "undo reserve"]);
    let undo = log.payload("undo charge");
    assert_eq!(undo["failed"], json!({ "step": "ship", "reason": "no carrier" }), "{undo}");
    assert_eq!(undo["results"]["charge"], json!({ "done": "charge" }), "{undo}");
    for queue in QUEUES {
        assert_eq!((router.count(queue, "messages"), router.count(queue, "dead")), (0, 0), "{queue}");
    }
    let shown = router.cli(&["saga", "show", "order/o-1"]).ok().stdout;
    assert!(shown.contains("no carrier") && shown.contains("completed, undone"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_nobody_answers_in_time_is_undone_too() {
    let router = Router::with_rules(
        "[saga.order]\ntopic = \"orders.place\"\nsteps = [\n\
         { name = \"reserve\", queue = \"stock.reserve\", compensate = \"stock.release\", timeout = \"1h\" },\n\
         { name = \"charge\", queue = \"card.charge\", compensate = \"card.refund\", timeout = \"300ms\" },\n]\n",
    );
    let client = router.client().await;
    let log = workers(&client, &["stock.reserve", "stock.release", "card.refund"], &[]).await;
    // It has the card in its hands, and says nothing.
    let mut charges = client.consume("card.charge").await.expect("the queue is there");
    let silent = tokio::spawn(async move {
        let delivery: Delivery = charges.try_next().await.expect("it lives").expect("it is there");
        (charges, delivery)
    });
    let outcome = order(&client, "o-1").await;
    assert_eq!((&outcome["state"], &outcome["failed"]["step"]), (&"compensated".into(), &"charge".into()));
    assert_eq!(log.steps(), ["reserve", "undo charge", "undo reserve"]);
    let (_charges, late) = silent.await.expect("it has a delivery");
    late.complete("late").await.expect_err("its lease ended with its time");
    assert_eq!(router.one(&["saga", "show", "order/o-1"])["steps"][1]["outcome"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_with_the_same_id_gets_the_first_ones_outcome_also_after_a_crash() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let log = workers(&client, &QUEUES, &[]).await;
    let first = order(&client, "o-1").await;
    assert_eq!(order(&client, "o-1").await, first);
    let router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    let client = router.client().await;
    assert_eq!(order(&client, "o-1").await, first);
    assert_eq!(log.steps(), ["reserve", "charge", "ship"]);
    assert_eq!(router.all(&["saga", "list"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_goes_on_after_a_crash_where_it_stood() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let before = workers(&client, &["stock.reserve"], &[]).await;
    begin(&client, "o-1").await;
    eventually("the card is to be charged", || (router.count("card.charge", "ready") == 1).then_some(()));
    let router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    let after = workers(&client, &QUEUES[1..], &[]).await;
    assert_eq!(order(&client, "o-1").await["state"], "completed", "the same id joins it");
    assert_eq!(
        (before.steps(), after.steps()),
        (vec!["reserve".into()], vec!["charge".into(), "ship".into()])
    );
    assert_eq!(router.one(&["saga", "list", "--state", "completed"])["id"], "o-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_as_messages() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    // One stream of both, so that its first line says that it listens.
    let mut listen = std::process::Command::new("sh");
    let chaski = router.command(&["subscribe", "$chaski.saga.order.o-1", "--json"]);
    listen.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(chaski.get_program()).args(chaski.get_args());
    for (name, value) in chaski.get_envs() {
        match value {
            Some(value) => listen.env(name, value),
            None => listen.env_remove(name),
        };
    }
    let mut listening = Running::start(listen);
    assert!(listening.line().starts_with("listening to "));
    workers(&client, &QUEUES, &[("card.charge", Say::Fails("declined"))]).await;
    order(&client, "o-0").await;
    order(&client, "o-1").await;
    let mut told = Vec::new();
    loop {
        let message = listening.json();
        assert_eq!(message["headers"]["chaski-saga"], "order/o-1", "{message}");
        let payload = message["payload"].as_str().expect("it is text");
        let progress: Value = serde_json::from_str(payload).expect("progress is JSON");
        let step = progress["step"].as_str().unwrap_or("the saga").to_owned();
        told.push((step, progress["what"].as_str().expect("a word").to_owned()));
        if progress["state"] == "compensated" {
            break;
        }
    }
    let has = |step: &str, what: &str| told.contains(&(step.to_owned(), what.to_owned()));
    assert!(has("reserve", "sent") && has("reserve", "completed") && has("charge", "failed"), "{told:?}");
    listening.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compensator_decides_the_order() {
    let router = Router::with_rules(&rules(
        "compensator = \"stock-first\"",
        "[module.stock-first]\nbuiltin = \"order-compensation\"\nparams = { order = [\"reserve\", \"charge\"] }\n",
    ));
    let client = router.client().await;
    let log = workers(&client, &QUEUES, &[("ship.book", Say::Fails("no carrier"))]).await;
    let outcome = order(&client, "o-1").await;
    assert_eq!(outcome["compensated"], json!(["reserve", "charge"]));
    assert_eq!(log.steps()[3..], ["undo reserve", "undo charge"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_saga_keeps_its_modules_version_while_a_new_one_is_deployed() {
    let router = Router::with_rules(&rules(
        "compensator = \"plan\"",
        "[module.plan]\nbuiltin = \"order-compensation\"\nparams = { order = [\"reserve\", \"charge\"] }\n",
    ));
    let client = router.client().await;
    let first = workers(&client, &QUEUES[..4], &[]).await;
    begin(&client, "old").await;
    eventually("it is to be shipped", || (router.count("ship.book", "ready") == 1).then_some(()));
    let wasm = file(router.setup(), "plan.wasm", builtin("order-compensation"));
    let params = r#"{"order": ["charge", "reserve"]}"#;
    router.cli(&["module", "deploy", &wasm, "--name", "plan", "--params", params]).ok();
    // Also over a crash.
    let router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    workers(&client, &["ship.book"], &[("ship.book", Say::Fails("no carrier"))]).await;
    order(&client, "old").await;
    assert_eq!(first.steps()[2..], ["undo reserve", "undo charge"]);
    order(&client, "new").await;
    assert_eq!(first.steps()[4..], ["reserve", "charge", "undo charge", "undo reserve"]);
    drop(router);
}

/// A router with the saga `order/o-1` parked, since its card can't be refunded.
async fn parked() -> (Router, Client) {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let say = [("ship.book", Say::Fails("no carrier")), ("card.refund", Say::Fails("the bank is closed"))];
    workers(&client, &["stock.reserve", "stock.release", "card.charge", "card.refund", "ship.book"], &say)
        .await;
    begin(&client, "o-1").await;
    wait_state(&router, "order/o-1", "parked");
    // Whoever comes next finds nobody in its way.
    client.close().await;
    let client = router.client().await;
    (router, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_saga_is_an_event_an_alarm_and_a_number() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let mut events = client.subscribe("$chaski.events.saga_parked").await.expect("events can be heard");
    let say = [("ship.book", Say::Fails("no carrier")), ("card.refund", Say::Fails("the bank is closed"))];
    workers(&client, &QUEUES, &say).await;
    begin(&client, "o-1").await;
    let event = within("the event", events.next()).await.expect("it lives");
    let event: Value = serde_json::from_slice(event.payload()).expect("an event is JSON");
    assert_eq!((&event["data"]["saga"], &event["data"]["id"]), (&"order".into(), &"o-1".into()), "{event}");
    assert!(
        event["data"]["reason"].as_str().is_some_and(|why| why.contains("the bank is closed")),
        "{event}"
    );
    let status = router.cli(&["status"]).ok().stdout;
    assert!(status.contains("chaski saga list --state parked"), "{status}");
    let (_, metrics) = router.http("/metrics");
    for line in [
        "chaski_sagas{saga=\"order\",state=\"parked\"} 1",
        "chaski_sagas{saga=\"order\",state=\"running\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
    let letter = router.one(&["dlq", "show", "chaski"]);
    assert_eq!(letter["reason"], "compensation_failed", "{letter}");
    router.cli(&["dlq", "redrive", "chaski"]).refused("not_allowed");
    // It rests as it is, over a crash too.
    let router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    assert_eq!(router.one(&["saga", "list", "--state", "parked"])["id"], "o-1");
    assert!(router.cli(&["status"]).ok().stdout.contains("chaski saga list --state parked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_saga_goes_on_by_retry() {
    let (router, client) = parked().await;
    let log = workers(&client, &QUEUES, &[]).await;
    let steered = router.one(&["saga", "retry", "order/o-1"]);
    assert_eq!(steered["state"], "compensating", "{steered}");
    assert_eq!(order(&client, "o-1").await["state"], "compensated");
    assert_eq!(log.steps(), ["undo charge", "undo reserve"]);
    assert!(!router.cli(&["status"]).ok().stdout.contains("saga list"), "the alarm is over");
    router.cli(&["saga", "retry", "order/o-1"]).refused("not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_skips_a_compensation_that_was_done_by_hand() {
    let (router, client) = parked().await;
    let log = workers(&client, &QUEUES, &[]).await;
    router.cli(&["saga", "skip", "order/o-1", "charge"]).ok();
    let outcome = order(&client, "o-1").await;
    assert_eq!((&outcome["state"], log.steps()), (&"compensated".into(), vec!["undo reserve".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_skips_a_step_beyond_the_pivot_with_its_result() {
    let router = Router::with_rules(
        "[saga.order]\ntopic = \"orders.place\"\nsteps = [\n\
         { name = \"charge\", queue = \"card.charge\", compensate = \"card.refund\", pivot = true },\n\
         { name = \"ship\", queue = \"ship.book\" },\n]\n",
    );
    let client = router.client().await;
    workers(&client, &["card.charge", "ship.book"], &[("ship.book", Say::Fails("no carrier"))]).await;
    begin(&client, "o-1").await;
    let shown = wait_state(&router, "order/o-1", "parked");
    assert!(shown["detail"].as_str().is_some_and(|detail| detail.contains("no carrier")), "{shown}");
    router.cli(&["saga", "skip", "order/o-1", "ship", "--payload", r#"{"by": "phone"}"#]).ok();
    let outcome = order(&client, "o-1").await;
    assert_eq!(
        (&outcome["state"], &outcome["results"]["ship"]),
        (&"completed".into(), &json!({ "by": "phone" }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_aborts_a_saga_with_and_without_compensation() {
    let router = Router::with_rules(&rules("", ""));
    let client = router.client().await;
    let log = workers(&client, &QUEUES[..4], &[]).await;
    for (id, how, state, undone) in [
        ("o-1", &[][..], "compensated", json!(["charge", "reserve"])),
        ("o-2", &["--no-compensation"][..], "aborted", json!([])),
    ] {
        begin(&client, id).await;
        eventually("it is to be shipped", || (router.count("ship.book", "ready") == 1).then_some(()));
        let saga = format!("order/{id}");
        router.cli(&[&["saga", "abort", &saga], how].concat()).ok();
        let outcome = order(&client, id).await;
        assert_eq!((&outcome["state"], &outcome["compensated"]), (&state.into(), &undone), "{outcome}");
        assert_eq!(router.count("ship.book", "messages"), 0, "its step is withdrawn");
    }
    assert_eq!(log.steps(), ["reserve", "charge", "undo charge", "undo reserve", "reserve", "charge"]);
    router.cli(&["saga", "show", "order/o-3"]).refused("unknown_id");
}
