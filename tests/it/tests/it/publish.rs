//! `chaski publish`: every option, and what is printed.

use chaski_it::Router;
use serde_json::json;

use crate::keys;

#[test]
fn a_confirm_has_the_fields_of_the_interface() {
    let router = Router::start();
    router.cli(&["queue", "create", "orders", "--bind", "orders.>"]).ok();
    let confirm = router.one(&["publish", "orders.eu.created", "a lamp"]);
    assert_eq!(keys(&confirm), ["dropped", "duplicate", "id", "rejected", "routed", "sequence"]);
    assert_eq!(confirm["routed"], 1);
    assert_eq!(confirm["duplicate"], false);
    assert!(confirm["sequence"].is_u64(), "{confirm}");
    assert!(!confirm["id"].as_str().expect("an id is text").is_empty());
}

#[test]
fn every_option_of_publish_reaches_the_consumer() {
    let router = Router::start();
    router.cli(&["queue", "create", "orders", "--bind", "orders.>"]).ok();
    let options = "publish orders.eu.created lamp --id o-1 --key c42 -H region=eu -H note=a=b --priority 7 --ttl 1h --reply-to answers --mandatory";
    router.cli(&options.split(' ').collect::<Vec<_>>()).ok();
    let script = r#"printf '%s|' "$CHASKI_QUEUE" "$CHASKI_TOPIC" "$CHASKI_ID" "$CHASKI_KEY" "$CHASKI_ATTEMPT" "$CHASKI_REDELIVERED" "$CHASKI_REPLY_TO" "$CHASKI_HEADER_REGION" "$CHASKI_HEADER_NOTE" > seen; cat >> seen"#;
    let seen = router.one(&["consume", "orders", "--peek"]);
    assert_eq!(seen["topic"], "orders.eu.created");
    assert_eq!(seen["id"], "o-1");
    assert_eq!(seen["key"], "c42");
    assert_eq!(seen["headers"], json!({"region": "eu", "note": "a=b"}));
    assert_eq!(seen["payload"], "lamp");
    router.cli(&["consume", "orders", "--count", "1", "--exec", script]).ok();
    let seen = std::fs::read_to_string(router.setup().path("seen")).expect("the program has run");
    assert_eq!(seen, "orders|orders.eu.created|o-1|c42|1|false|answers|eu|a=b|lamp");
}

#[test]
fn a_payload_comes_from_stdin_or_a_file() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    router.cli_with(&["publish", "q"], b"from stdin\n").ok();
    let bytes = [0u8, 159, 146, 150];
    let path = router.setup().path("payload");
    std::fs::write(&path, bytes).expect("the test's directory can be written");
    router.cli(&["publish", "q", "--file", path.to_str().expect("a plain path")]).ok();
    let seen = router.all(&["consume", "q", "--count", "2"]);
    assert_eq!(seen[0]["payload"].as_str().map(str::trim_end), Some("from stdin"));
    assert_eq!(seen[0]["payload_encoding"], "utf8");
    assert_eq!(seen[1]["payload"], "AJ+Slg==");
    assert_eq!(seen[1]["payload_encoding"], "base64");
}

#[test]
fn lines_are_a_message_each_in_their_order() {
    let router = Router::start();
    router.cli(&["queue", "create", "q"]).ok();
    let confirms = router.cli_with(&["publish", "q", "--lines", "--json"], b"one\ntwo\nthree\n").ok().json();
    assert_eq!(confirms.len(), 3);
    let seen = router.all(&["consume", "q", "--count", "3"]);
    let payloads: Vec<_> = seen.iter().map(|message| message["payload"].as_str().expect("text")).collect();
    assert_eq!(payloads, ["one", "two", "three"]);
}

#[test]
fn ndjson_lines_are_messages_with_all_their_fields() {
    let router = Router::start();
    router.cli(&["queue", "create", "q", "--bind", "a.>"]).ok();
    let lines = concat!(
        r#"{"topic":"a.b","id":"1","key":"k","headers":{"x":"y"},"payload":"plain text"}"#,
        "\n",
        r#"{"topic":"a.c","id":"2","payload":{"n": [1, 2]}}"#,
        "\n"
    );
    let path = router.setup().path("messages.ndjson");
    std::fs::write(&path, lines).expect("the test's directory can be written");
    let confirms = router.all(&["publish", "--ndjson", path.to_str().expect("a plain path")]);
    assert_eq!(
        confirms.iter().map(|confirm| confirm["id"].clone()).collect::<Vec<_>>(),
        [json!("1"), json!("2")]
    );
    let seen = router.all(&["consume", "q", "--count", "2"]);
    assert_eq!((&seen[0]["topic"], &seen[0]["key"]), (&json!("a.b"), &json!("k")));
    assert_eq!(seen[0]["headers"], json!({"x": "y"}));
    assert_eq!(seen[0]["payload"], "plain text");
    assert_eq!(seen[1]["payload"], r#"{"n":[1,2]}"#);
}

#[test]
fn a_bad_ndjson_line_is_named() {
    let router = Router::start();
    let output =
        router.cli_with(&["publish", "--ndjson", "-"], b"{\"topic\":\"a\",\"payload\":\"1\"}\n{oops\n");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("line 2"), "{}", output.stderr);
}

#[test]
fn the_earthquakes_arrive_by_network() {
    let rules = std::fs::read_to_string(chaski_it::root().join("examples/rules/earthquakes.toml"))
        .expect("it is committed");
    let router = Router::with_rules(&rules);
    let file = chaski_it::root().join("examples/data/earthquakes.ndjson");
    let confirms = router.all(&["publish", "--ndjson", file.to_str().expect("a plain path")]);
    assert_eq!(confirms.len(), 1707);
    assert!(
        confirms.iter().all(|confirm| confirm["routed"].as_u64() >= Some(1) && confirm["duplicate"] == false)
    );
    let queues = router.all(&["queue", "list"]);
    let count = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let names = queues.iter().filter(|queue| wanted(queue["name"].as_str().expect("a name")));
        names.map(|queue| queue["messages"].as_u64().expect("a count")).sum()
    };
    assert_eq!(count(&|name| name.starts_with("network-")), 1707);
    assert_eq!(count(&|name| name == "alerts"), 85);
    assert_eq!(count(&|name| name == "blasts"), 28);
    // The same file again: nothing is stored twice.
    let again = router.all(&["publish", "--ndjson", file.to_str().expect("a plain path")]);
    assert!(again.iter().all(|confirm| confirm["duplicate"] == true));
    assert_eq!(again[17]["sequence"], confirms[17]["sequence"]);
}

#[test]
fn an_unroutable_publish_is_confirmed_as_such_and_mandatory_makes_it_an_error() {
    let router = Router::start();
    let confirm = router.one(&["publish", "nobody.listens", "x"]);
    assert_eq!(confirm["routed"], 0);
    assert_eq!(confirm["sequence"], json!(null));
    let refused = router.cli(&["publish", "nobody.listens", "x", "--mandatory"]).refused("unroutable");
    assert!(refused.error().contains("`nobody.listens`"), "{}", refused.error());
    // Neither entered the dedup window: the retry is judged afresh.
    router.cli(&["publish", "later", "x", "--id", "1"]).ok();
    router.cli(&["queue", "create", "later"]).ok();
    let confirm = router.one(&["publish", "later", "x", "--id", "1"]);
    assert_eq!((&confirm["duplicate"], &confirm["routed"]), (&json!(false), &json!(1)));
}

#[test]
fn one_publish_reaches_every_queue_that_binds_to_its_topic() {
    let router = Router::with_rules(
        "[queue.one]\nbind = [\"a.*\"]\n[queue.all]\nbind = [\"a.>\", \"a.*\"]\n[queue.deep]\nbind = [\"a.*.c\"]\n[queue.\"a.b\"]\n",
    );
    assert_eq!(router.one(&["publish", "a.b", "x"])["routed"], 3);
    assert_eq!(router.one(&["publish", "a.b.c", "x"])["routed"], 2);
    assert_eq!(router.count("all", "ready"), 2);
    assert_eq!(router.count("deep", "ready"), 1);
}
