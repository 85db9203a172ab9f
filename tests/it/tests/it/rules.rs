//! The rules document: checked whole, applied at once, watched, with its history.

use chaski_it::{Router, Setup, eventually};
use serde_json::json;

const ONE: &str = "[queue.one]\nbind = [\"a.*\"]\n";
const BOTH: &str = "[queue.one]\nbind = [\"a.*\"]\nack_wait = \"10s\"\n\n[queue.two]\n";

fn file(router: &Router, name: &str, document: &str) -> String {
    let path = router.setup().path(name);
    std::fs::write(&path, document).expect("the test's directory can be written");
    path.to_str().expect("a plain path").to_owned()
}

#[test]
fn a_mistake_is_named_with_its_line_and_the_nearest_name() {
    let setup = Setup::default();
    for (document, line, nearest) in [
        ("[queue.q]\nmax_delivr = 3\n", ":2", "max_deliver"),
        ("\n\n[queue.q]\nordering = \"keys\"\n", ":4", "key"),
        ("[queue.q]\nack_wait = 30\n", ":2", "30s"),
        ("[queue.q]\n[queu.r]\n", ":2", "queue"),
        ("[queue.q]\nmax_deliver = 0\n", ":2", "unlimited"),
        ("[queue.q]\nbind = [\"a.>.b\"]\n", ":2", "a.>.b"),
        ("[queue.\"x.dlq\"]\n", ":1", "dlq"),
        ("[queue.q\n", ":1", ""),
        ("[route.r]\ntopics = [\"a\"]\nfilters = [\"header-mach\"]\n", ":3", "header-match"),
        ("[queue.q]\nfilters = [\"x\"]\n", ":2", "x"),
        ("[module.m]\nbuiltin = \"json-mach\"\n", ":2", "json-match"),
        ("[module.m]\nfile = \"a\"\nbuiltin = \"cel\"\n", ":", "builtin"),
        // Their issues are later ones.
        ("[scatter.s]\n", ":1", "scatter"),
        ("[saga.s]\n", ":1", "saga"),
        ("[access]\n", ":1", "access"),
    ] {
        let path = setup.path("wrong.toml");
        std::fs::write(&path, document).expect("the test's directory can be written");
        let path = path.to_str().expect("a plain path");
        let output = chaski_it::run(setup.command(&["rules", "check", path]), b"").refused("rules_invalid");
        assert!(output.stderr.contains(&format!("wrong.toml{line}")), "{document}: {}", output.stderr);
        assert!(output.stderr.contains(nearest), "{document}: {}", output.stderr);
    }
}

#[test]
fn a_right_document_checks_without_a_router() {
    let setup = Setup::default();
    let path = chaski_it::root().join("examples/rules/earthquakes.toml");
    let path = path.to_str().expect("a plain path");
    let check = chaski_it::run(setup.command(&["rules", "check", path, "--json"]), b"").ok().one();
    assert_eq!(check["queues"], 23);
    let schema = chaski_it::run(setup.command(&["rules", "schema"]), b"").ok();
    let schema: serde_json::Value = serde_json::from_str(&schema.stdout).expect("a JSON Schema is JSON");
    assert!(schema.to_string().contains("max_deliver"));
}

#[test]
fn a_wrong_rules_file_stops_the_start() {
    let output =
        Setup::default().rules("[queue.q]\nmax_delivr = 3\n").try_start().expect_err("it must not start");
    let output = output.refused("rules_invalid");
    assert!(
        output.stderr.contains("rules.toml:2") && output.stderr.contains("max_deliver"),
        "{}",
        output.stderr
    );
}

#[test]
fn diff_and_apply_and_history_and_rollback() {
    let router = Router::with_rules(ONE);
    let both = file(&router, "both.toml", BOTH);
    let diff = router.one(&["rules", "diff", &both]);
    assert_eq!(diff["changes"].as_array().map(Vec::len), Some(2), "{diff}");
    assert!(
        diff.to_string().contains("queue.one.ack_wait") && diff.to_string().contains("+ queue.two"),
        "{diff}"
    );
    assert_eq!(
        router.cli(&["queue", "show", "two"]).refused("unknown_queue").code,
        1,
        "a diff changes nothing"
    );

    let change = router.one(&["rules", "apply", &both]);
    assert_eq!((&change["version"], &change["changes"]), (&json!(2), &diff["changes"]));
    assert_eq!(router.one(&["publish", "two", "x"])["routed"], 1);
    router.cli(&["queue", "purge", "two"]).ok();
    let shown = router.cli(&["rules", "show"]).ok();
    assert_eq!(shown.stdout, BOTH, "the document as it was applied");

    let back = router.one(&["rules", "rollback", "1"]);
    assert_eq!(back["version"], 3, "a rollback is a new version");
    router.cli(&["queue", "show", "two"]).refused("unknown_queue");
    let history = router.all(&["rules", "history"]);
    let versions: Vec<_> = history.iter().map(|entry| entry["version"].clone()).collect();
    assert_eq!(versions[..3], [json!(3), json!(2), json!(1)], "the newest first");
    assert_eq!(history[0]["current"], true);
    assert!(history[2]["author"].as_str().is_some_and(|author| author.contains("rules.toml")), "{history:?}");

    // A restart undoes no rollback, and the file is not applied again.
    let router = router.restart();
    router.cli(&["queue", "show", "two"]).refused("unknown_queue");
    assert_eq!(router.one(&["status"])["rules_version"], 3);
}

#[test]
fn a_rollback_to_what_is_in_force_is_a_new_version_and_an_apply_of_it_is_none() {
    let router = Router::with_rules(ONE);
    let back = router.one(&["rules", "rollback", "1"]);
    assert_eq!((&back["version"], &back["changes"]), (&json!(2), &json!([])));
    let history = router.all(&["rules", "history"]);
    assert_eq!((&history[0]["version"], &history[0]["current"]), (&json!(2), &json!(true)));
    let author = history[0]["author"].as_str().expect("a text");
    assert!(author.starts_with("rollback to 1, "), "{author}");
    let one = file(&router, "one.toml", ONE);
    assert_eq!(router.one(&["rules", "apply", &one])["version"], 2, "nothing changes");
    let router = router.restart();
    assert_eq!(router.one(&["status"])["rules_version"], 2);
}

#[test]
fn a_queue_with_messages_does_not_vanish_unless_it_is_named() {
    let router = Router::with_rules(BOTH);
    router.cli(&["publish", "two", "x"]).ok();
    let one = file(&router, "one.toml", ONE);
    let output = router.cli(&["rules", "apply", &one]).refused("queue_not_empty");
    assert!(output.stderr.contains("two") && output.stderr.contains("--drop-queue"), "{}", output.stderr);
    assert_eq!(router.one(&["status"])["rules_version"], 1, "nothing changed");
    router.cli(&["rules", "apply", &one, "--drop-queue", "two"]).ok();
    router.cli(&["queue", "show", "two"]).refused("unknown_queue");
}

#[test]
fn durability_and_ordering_change_only_on_an_empty_queue() {
    let router = Router::with_rules(ONE);
    router.cli(&["publish", "a.b", "x"]).ok();
    let changed = file(&router, "changed.toml", "[queue.one]\nbind = [\"a.*\"]\nordering = \"key\"\n");
    let output = router.cli(&["rules", "apply", &changed]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stderr.contains("one") && output.stderr.contains("ordering"), "{}", output.stderr);
    router.cli(&["queue", "purge", "one"]).ok();
    router.cli(&["rules", "apply", &changed]).ok();
    assert_eq!(router.one(&["queue", "show", "one"])["settings"]["ordering"], "key");
}

#[test]
fn the_file_is_watched_and_consumers_stay_connected() {
    let router = Router::with_rules(ONE);
    let mut consumer = router.spawn(&["consume", "one", "--json"]);
    router.cli(&["publish", "a.b", "before"]).ok();
    assert_eq!(consumer.json()["payload"], "before");
    router.write_rules(BOTH);
    eventually("the new queue is there", || (router.cli(&["queue", "show", "two"]).code == 0).then_some(()));
    assert_eq!(router.count("one", "consumers"), 1);
    router.cli(&["publish", "a.b", "after"]).ok();
    assert_eq!(consumer.json()["payload"], "after", "the same consumer goes on");
    consumer.terminate().ok();
}

#[test]
fn queue_create_keeps_the_rest_of_the_document() {
    let commented = "# What we bill.\n[queue.one] # and why\nbind = [\"a.*\"]\n";
    let router = Router::with_rules(commented);
    router.cli(&["queue", "create", "two", "--bind", "b.>", "--set", "max_deliver=unlimited"]).ok();
    let shown = router.cli(&["rules", "show"]).ok().stdout;
    assert!(shown.starts_with(commented), "{shown}");
    assert!(shown.contains("[queue.two]") && shown.contains("unlimited"), "{shown}");
    router.cli(&["queue", "delete", "two"]).ok();
    assert_eq!(router.cli(&["rules", "show"]).ok().stdout.trim_end(), commented.trim_end());
}

#[test]
fn limits_take_effect_for_clients_that_are_connected() {
    let router = Router::with_rules("[limits]\nmax_payload = \"10B\"\n[queue.q]\n");
    router.cli(&["publish", "q", "short"]).ok();
    router.cli(&["publish", "q", "longer than that"]).refused("payload_too_large");
    router.write_rules("[limits]\nmax_payload = \"20B\"\n[queue.q]\n");
    eventually("it is taken", || (router.cli(&["publish", "q", "longer than that"]).code == 0).then_some(()));
}
