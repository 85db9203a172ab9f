//! Filters on routes, bindings, consumers and subscriptions: what becomes of a message under each verdict.

use chaski_it::{Router, Setup, eventually};
use serde_json::{Value, json};

use crate::malformed::{head, refusal};
use crate::modules::{file, hostile};

/// What a publish with `--json` answers: routed, dropped, rejected.
fn counts(router: &Router, arguments: &[&str]) -> [u64; 3] {
    let sent = router.one(&[&["publish"], arguments].concat());
    ["routed", "dropped", "rejected"].map(|count| sent[count].as_u64().expect("a count"))
}

fn payloads(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["payload"].as_str().expect("a text")).collect()
}

#[test]
fn a_routes_filter_judges_all_that_its_topics_match() {
    let router = Router::with_rules(
        "[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n\
         [route.inbound]\ntopics = [\"orders.>\"]\nfilters = [\"eu\"]\n\
         [queue.a]\nbind = [\"orders.>\"]\n[queue.b]\nbind = [\"orders.new\"]\n[queue.c]\nbind = [\"other\"]\n",
    );
    assert_eq!(counts(&router, &["orders.new", "x", "-H", "region=eu"]), [2, 0, 0]);
    assert_eq!(counts(&router, &["orders.new", "x", "-H", "region=us"]), [0, 1, 0]);
    assert_eq!(counts(&router, &["other", "x"]), [1, 0, 0]);
    assert_eq!((router.count("a", "ready"), router.count("b", "ready")), (1, 1));
}

#[test]
fn a_bindings_filter_judges_that_queues_own_copy() {
    let router = Router::with_rules(
        "[module.strong]\nbuiltin = \"json-match\"\nparams = { pointer = \"/mag\", min = 4.5 }\n\
         [queue.all]\nbind = [\"quakes\"]\n[queue.alerts]\nbind = [\"quakes\"]\nfilters = [\"strong\"]\n",
    );
    assert_eq!(counts(&router, &["quakes", r#"{"mag":5}"#]), [2, 0, 0]);
    assert_eq!(counts(&router, &["quakes", r#"{"mag":4}"#]), [1, 1, 0]);
    assert_eq!(counts(&router, &["quakes", "no json"]), [1, 0, 1]);
    assert_eq!((router.count("all", "ready"), router.count("alerts", "ready")), (3, 1));
    let dead = router.one(&["dlq", "show", "alerts"]);
    assert_eq!(
        (&dead["reason"], &dead["module"], &dead["payload"]),
        (&"rejected".into(), &"strong".into(), &"no json".into())
    );
    assert!(dead["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{dead}");
}

#[test]
fn routes_run_in_the_documents_order_each_on_what_the_former_left() {
    let router = Router::with_rules(
        "[module.hide]\nbuiltin = \"redact\"\nparams = { mask = [\"/name\"] }\n\
         [module.named]\nbuiltin = \"json-match\"\nparams = { pointer = \"/name\", equals = \"***\" }\n\
         [route.z-first]\ntopics = [\"people\"]\nfilters = [\"hide\"]\n\
         [route.a-second]\ntopics = [\"people\"]\nfilters = [\"named\"]\n[queue.people]\n",
    );
    assert_eq!(counts(&router, &["people", r#"{"name":"Ada"}"#]), [1, 0, 0]);
    let message = router.one(&["consume", "people", "--count", "1"]);
    assert_eq!(message["payload"], r#"{"name":"***"}"#);
}

#[test]
fn a_split_makes_children_that_keep_topic_and_headers() {
    let router = Router::with_rules(
        "[module.lines]\nbuiltin = \"split\"\nparams = { key = \"/sku\" }\n\
         [route.r]\ntopics = [\"orders\"]\nfilters = [\"lines\"]\n[queue.orders]\n",
    );
    let body = r#"[{"sku":"a"},{"sku":"b"}]"#;
    assert_eq!(counts(&router, &["orders", body, "--id", "o1", "-H", "region=eu"]), [2, 0, 0]);
    let children = router.all(&["consume", "orders", "--count", "2"]);
    for (child, (id, key)) in children.iter().zip([("o1/1", "a"), ("o1/2", "b")]) {
        assert_eq!(
            (&child["id"], &child["key"], &child["topic"]),
            (&id.into(), &key.into(), &"orders".into())
        );
        assert_eq!(child["headers"], json!({ "region": "eu" }));
    }
    let again = router.one(&["publish", "orders", body, "--id", "o1"]);
    assert_eq!(again["duplicate"], true, "the id that the client named is remembered");
}

#[test]
fn a_route_verdict_enters_other_topics_from_the_start() {
    let router = Router::with_rules(
        "[module.by-country]\nbuiltin = \"content-router\"\n\
         params = { header = \"country\", table = { DE = \"orders.eu\", PE = [\"orders.sa\", \"audit\"], XX = \"nowhere\" } }\n\
         [module.urgent]\nbuiltin = \"header-match\"\nparams = { all = \"urgent = yes\" }\n\
         [route.r]\ntopics = [\"orders\"]\nfilters = [\"by-country\"]\n\
         [route.eu]\ntopics = [\"orders.eu\"]\nfilters = [\"urgent\"]\n\
         [queue.eu]\nbind = [\"orders.eu\"]\n[queue.sa]\nbind = [\"orders.sa\"]\n[queue.audit]\n",
    );
    assert_eq!(counts(&router, &["orders", "x", "-H", "country=PE"]), [2, 0, 0]);
    assert_eq!(counts(&router, &["orders", "x", "-H", "country=DE"]), [0, 1, 0]);
    assert_eq!(counts(&router, &["orders", "x", "-H", "country=DE", "-H", "urgent=yes"]), [1, 0, 0]);
    assert_eq!(counts(&router, &["orders", "lost", "-H", "country=XX"]), [0, 0, 1]);
    let dead = router.one(&["dlq", "show", "chaski"]);
    assert_eq!((&dead["reason"], &dead["payload"]), (&"unroutable".into(), &"lost".into()));
    assert_eq!(dead["topic"], "orders", "as the client published it");
    let message = router.one(&["consume", "eu", "--count", "1"]);
    assert_eq!(message["topic"], "orders.eu");
}

#[test]
fn filters_that_route_in_a_loop_end_in_a_dead_letter() {
    let router = Router::with_rules(
        "[module.round]\nbuiltin = \"content-router\"\nparams = { header = \"go\", table = { round = \"b\" } }\n\
         [module.back]\nbuiltin = \"content-router\"\nparams = { header = \"go\", table = { round = \"a\" } }\n\
         [route.a]\ntopics = [\"a\"]\nfilters = [\"round\"]\n[route.b]\ntopics = [\"b\"]\nfilters = [\"back\"]\n[queue.a]\n",
    );
    assert_eq!(counts(&router, &["a", "x", "-H", "go=round"]), [0, 0, 1]);
    let dead = router.one(&["dlq", "show", "chaski"]);
    assert_eq!((&dead["reason"], &dead["topic"]), (&"hop_limit".into(), &"a".into()));
    assert_eq!(counts(&router, &["a", "x", "-H", "go=no"]), [1, 0, 0]);
}

#[test]
fn on_error_decides_what_a_failed_message_takes() {
    let setup = Setup::default();
    let trap = file(&setup, "trap.wasm", hostile("trap"));
    let module =
        |on_error: &str| format!("[module.{on_error}]\nfile = \"{trap}\"\non_error = \"{on_error}\"\n");
    let queue = |on_error: &str| {
        format!(
            "[route.{on_error}]\ntopics = [\"{on_error}\"]\nfilters = [\"{on_error}\"]\n[queue.{on_error}]\n"
        )
    };
    let all = ["dead-letter", "drop", "pass", "retry"];
    let rules: String = all.map(module).into_iter().chain(all.map(queue)).collect();
    let router = setup.rules(&rules).start();
    assert_eq!(counts(&router, &["dead-letter", "x"]), [0, 0, 1]);
    assert_eq!(counts(&router, &["drop", "x"]), [0, 1, 0]);
    assert_eq!(counts(&router, &["pass", "x"]), [1, 0, 0]);
    let refused = router.cli(&["publish", "retry", "x"]).refused("filter_failed");
    assert!(refused.error().contains("nothing was stored"), "{}", refused.error());
    let dead = router.one(&["dlq", "show", "chaski"]);
    assert_eq!((&dead["reason"], &dead["module"]), (&"filter_error".into(), &"dead-letter".into()));
    assert!(
        dead["detail"].as_str().is_some_and(|detail| detail.contains("panic")),
        "the panic's text: {dead}"
    );
    assert_eq!(dead["headers"]["chaski-dead-route"], "dead-letter");
}

#[test]
fn one_poison_message_of_a_batch_is_found_and_it_alone_dies() {
    let setup = Setup::default();
    let trap = file(&setup, "trap.wasm", hostile("trap-on-one-message"));
    let router = setup
        .rules(&format!(
            "[module.m]\nfile = \"{trap}\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n"
        ))
        .start();
    let lines: String = (0..128)
        .map(|n| {
            let headers = if n == 77 { json!({ "poison": "1" }) } else { json!({}) };
            format!(
                "{}\n",
                json!({ "topic": "t", "id": n.to_string(), "payload": n.to_string(), "headers": headers })
            )
        })
        .collect();
    router.cli_with(&["publish", "--ndjson", "-"], lines.as_bytes()).ok();
    let dead = router.one(&["dlq", "show", "chaski"]);
    assert_eq!(dead["id"], "77");
    let delivered = router.all(&["consume", "t", "--count", "127"]);
    let wanted: Vec<String> = (0..128).filter(|n| *n != 77).map(|n| n.to_string()).collect();
    assert_eq!(payloads(&delivered), wanted, "the others in their order");
}

#[test]
fn mandatory_publishes_and_requests_learn_that_filters_took_them_out() {
    let router = Router::with_rules(
        "[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n\
         [module.json]\nbuiltin = \"json-match\"\nparams = { pointer = \"/x\" }\n\
         [queue.q]\nfilters = [\"eu\"]\n[queue.j]\nfilters = [\"json\"]\n",
    );
    router.cli(&["publish", "q", "x", "--mandatory"]).refused("unroutable");
    router.cli(&["request", "q", "x"]).refused("no_responders");
    let refused = router.cli(&["request", "j", "no json"]).refused("rejected");
    assert!(refused.error().contains("JSON"), "the filter's reason: {}", refused.error());
}

#[test]
fn a_consumers_filter_drops_what_is_then_acked() {
    let router = Router::with_rules(
        "[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n\
         [module.json]\nbuiltin = \"json-match\"\nparams = { pointer = \"/x\" }\n[queue.q]\n[queue.j]\n",
    );
    for (n, region) in ["eu", "us", "eu"].iter().enumerate() {
        router.cli(&["publish", "q", &n.to_string(), "-H", &format!("region={region}")]).ok();
    }
    let taken = router.all(&["consume", "q", "--filter", "eu", "--count", "2"]);
    assert_eq!(payloads(&taken), ["0", "2"]);
    eventually("the dropped one is acked", || (router.count("q", "messages") == 0).then_some(()));
    router.cli(&["publish", "j", "no json"]).ok();
    router.cli(&["consume", "j", "--filter", "json", "--timeout", "300ms"]).ok();
    let dead = router.one(&["dlq", "show", "j"]);
    assert_eq!((&dead["reason"], &dead["module"]), (&"rejected".into(), &"json".into()));
    router.cli(&["consume", "q", "--filter", "none"]).refused("unknown_module");
}

#[test]
fn a_subscriptions_filter_keeps_messages_from_it() {
    let router = Router::with_rules("[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n");
    let news = router.spawn(&["subscribe", "news", "--filter", "eu", "--count", "2", "--json"]);
    eventually("the subscription stands", || {
        (counts(&router, &["news", "first", "-H", "region=eu"])[0] == 1).then_some(())
    });
    router.cli(&["publish", "news", "no", "-H", "region=us"]).ok();
    router.cli(&["publish", "news", "last", "-H", "region=eu"]).ok();
    let seen = news.finish().ok().json();
    assert_eq!(payloads(&seen), ["first", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_sees_when_the_router_took_a_message_whatever_its_client_claims() {
    let router = Router::with_rules(
        "[module.fresh]\nbuiltin = \"cel\"\nparams = { condition = \"timestamp > 1600000000000\" }\n\
         [route.r]\ntopics = [\"t\"]\nfilters = [\"fresh\"]\n[queue.t]\nfilters = [\"fresh\"]\n[queue.plain]\n",
    );
    let claim = async |topic: &str, id: &str| {
        let head = chaski_protocol::Head { timestamp_ms: 1, ..head(topic, id) };
        assert_eq!(refusal(&router, &head, b"old").await, None);
    };
    claim("t", "1").await;
    assert_eq!(router.count("t", "ready"), 1, "on a route and on a binding");
    claim("plain", "2").await;
    let taken = router.all(&["consume", "plain", "--filter", "fresh", "--count", "1"]);
    assert_eq!(payloads(&taken), ["old"]);
    let news = router.spawn(&["subscribe", "news", "--filter", "fresh", "--count", "2", "--json"]);
    eventually("the subscription stands", || (counts(&router, &["news", "new"])[0] == 1).then_some(()));
    claim("news", "3").await;
    assert_eq!(payloads(&news.finish().ok().json()), ["new", "old"]);
}

#[test]
fn a_filter_that_keeps_state_survives_a_crash_and_a_duplicate_changes_nothing() {
    let router = Router::with_rules(
        "[module.once]\nbuiltin = \"dedup-by-content\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"once\"]\n[queue.t]\n",
    );
    assert_eq!(counts(&router, &["t", "a", "--id", "1"]), [1, 0, 0]);
    assert_eq!(router.one(&["publish", "t", "a", "--id", "1"])["duplicate"], true);
    assert_eq!(counts(&router, &["t", "a", "--id", "2"]), [0, 1, 0]);
    let state = router.all(&["module", "state", "once"]);
    assert_eq!(state.len(), 1, "{state:?}");
    let router = router.crash();
    assert_eq!(counts(&router, &["t", "a", "--id", "3"]), [0, 1, 0]);
    assert_eq!(counts(&router, &["t", "b", "--id", "4"]), [1, 0, 0]);
    let again = router.one(&["publish", "t", "a", "--id", "2"]);
    assert_eq!(again["duplicate"], true, "a judged id is remembered, dropped or not");
}

#[test]
fn a_publish_that_a_full_queue_refuses_is_not_remembered_by_its_filter() {
    let router = Router::with_rules(
        "[module.once]\nbuiltin = \"dedup-by-content\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"once\"]\n\
         [queue.t]\nmax_messages = 1\noverflow = \"reject\"\n",
    );
    assert_eq!(counts(&router, &["t", "one"]), [1, 0, 0]);
    router.cli(&["publish", "t", "two"]).refused("queue_full");
    router.one(&["consume", "t", "--count", "1"]);
    // Had the filter remembered it, this would be dropped as seen: confirmed and gone.
    assert_eq!(counts(&router, &["t", "two"]), [1, 0, 0]);
    assert_eq!(router.one(&["consume", "t", "--count", "1"])["payload"], "two");
}

#[test]
fn a_thousand_messages_through_a_stateful_filter_keep_their_order() {
    let router = Router::with_rules(
        "[module.once]\nbuiltin = \"dedup-by-content\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"once\"]\n[queue.t]\n",
    );
    let lines: String = (0..1000).map(|n| format!("{}\n", n / 2)).collect();
    router.cli_with(&["publish", "t", "--lines"], lines.as_bytes()).ok();
    let taken = router.all(&["consume", "t", "--count", "500"]);
    let wanted: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(payloads(&taken), wanted);
}

#[tokio::test]
async fn a_transaction_is_whole_with_filters_too() {
    let router = Router::with_rules(
        "[module.once]\nbuiltin = \"dedup-by-content\"\n[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n\
         [route.s]\ntopics = [\"s\"]\nfilters = [\"once\"]\n[route.e]\ntopics = [\"e\"]\nfilters = [\"eu\"]\n[queue.s]\n[queue.e]\n[queue.p]\n",
    );
    let client = router.client().await;
    let mut transaction = client.transaction();
    transaction.publish(chaski_client::Message::new("s", "one"));
    transaction.publish(chaski_client::Message::new("e", "two").header("region", "us"));
    transaction.publish(chaski_client::Message::new("p", "three"));
    chaski_it::within("a commit", transaction.commit()).await.expect("it is done");
    assert_eq!(
        (router.count("s", "ready"), router.count("e", "ready"), router.count("p", "ready")),
        (1, 0, 1)
    );
}

#[test]
fn a_letter_that_a_binding_failed_on_is_judged_again_when_it_is_redriven() {
    let setup = Setup::default();
    let trap = file(&setup, "trap.wasm", hostile("trap"));
    let router =
        setup.rules(&format!("[module.m]\nfile = \"{trap}\"\n[queue.q]\nfilters = [\"m\"]\n")).start();
    assert_eq!(counts(&router, &["q", "x", "-H", "region=eu"]), [0, 0, 1]);
    assert_eq!(router.one(&["dlq", "redrive", "q"])["count"], 1);
    assert_eq!((router.count("q", "dead"), router.count("q", "ready")), (1, 0), "it failed again");
    router.write_rules(
        "[module.m]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n[queue.q]\nfilters = [\"m\"]\n",
    );
    eventually("the rules are reloaded", || {
        (router.one(&["module", "show", "m"])["source"] == "builtin eu-only").then_some(())
    });
    assert_eq!(router.one(&["dlq", "redrive", "q"])["count"], 1);
    assert_eq!((router.count("q", "dead"), router.count("q", "ready")), (0, 1));
}

#[test]
fn a_letter_of_a_route_is_published_again_when_it_is_redriven() {
    let router = Router::with_rules(
        "[module.json]\nbuiltin = \"json-match\"\nparams = { pointer = \"/x\" }\n\
         [route.r]\ntopics = [\"t\"]\nfilters = [\"json\"]\n[queue.t]\n",
    );
    assert_eq!(counts(&router, &["t", "no json"]), [0, 0, 1]);
    router.write_rules("[queue.t]\n");
    eventually("the rules are reloaded", || router.all(&["module", "list"]).is_empty().then_some(()));
    assert_eq!(router.one(&["dlq", "redrive", "chaski"])["count"], 1);
    assert_eq!(router.count("t", "ready"), 1);
    assert!(router.all(&["dlq", "list"]).is_empty());
}
