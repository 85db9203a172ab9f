//! Scatters and sagas from the outside: what the rules take, what commands say, and settlements with a result.

use chaski_client::{Code, Message, SettleError};
use chaski_it::Router;
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
