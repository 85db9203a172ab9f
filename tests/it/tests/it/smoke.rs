//! The smoke run: a new version is tried on the messages that were judged last where it is to stand, before it judges a live one.

use chaski_it::{Router, eventually};
use serde_json::Value;

use crate::modules::{builtin, file, hostile, padded};

const ON_A_ROUTE: &str = "[module.m]\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n";
const ON_A_QUEUE: &str = "[module.m]\n[queue.t]\nfilters = [\"m\"]\n";
const AT_A_CONSUMER: &str = "[module.m]\n[queue.t]\n";

const EU: &str = r#"{"region":"eu"}"#;

/// Publishes messages that `eu-only` passes and `trap` fails on, with the ids 1 to `count`.
fn publish(router: &Router, count: usize) {
    for id in 1..=count {
        router.cli(&["publish", "t", "x", "--id", &id.to_string(), "-H", "region=eu"]).ok();
    }
}

fn refused_before_it_judges(router: &Router, take: impl Fn()) {
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    let trap = file(router.setup(), "trap.wasm", hostile("trap"));
    let first = router.one(&["module", "deploy", &eu, "--name", "m", "--params", EU]);
    publish(router, 3);
    take();
    let deploy = ["module", "deploy", &trap, "--name", "m", "--params", "{}"];
    let refused = router.cli(&deploy).refused("module_failed");
    for told in ["`m`", "message `1` of topic `t`", "on purpose", "--force"] {
        assert!(refused.error().contains(told), "{told}: {}", refused.error());
    }
    let shown = router.one(&["module", "show", "m"]);
    assert_eq!(
        (&shown["digest"], &router.one(&["status"])["rules_version"]),
        (&first["digest"], &first["version"])
    );
    assert_eq!(router.one(&["publish", "t", "x", "-H", "region=eu"])["routed"], 1, "the old version goes on");
    take();
    assert!(router.all(&["dlq", "list"]).is_empty(), "it judged no live message");
    router.cli(&[&deploy[..], &["--force"]].concat()).ok();
    assert_ne!(router.one(&["module", "show", "m"])["digest"], first["digest"]);
}

#[test]
fn a_version_that_fails_on_what_a_route_carries_is_refused_before_it_judges_a_live_message() {
    refused_before_it_judges(&Router::with_rules(ON_A_ROUTE), || {});
}

#[test]
fn a_version_that_fails_on_what_a_queue_gets_is_refused_before_it_judges_a_live_message() {
    refused_before_it_judges(&Router::with_rules(ON_A_QUEUE), || {});
}

#[test]
fn a_version_that_fails_on_what_consumers_get_is_refused_before_it_judges_a_live_message() {
    let router = Router::with_rules(AT_A_CONSUMER);
    refused_before_it_judges(&router, || {
        router.cli(&["consume", "t", "--filter", "m", "--count", "1"]).ok();
    });
}

#[test]
fn a_message_that_the_version_in_force_fails_on_as_well_bars_no_remedy() {
    let router = Router::with_rules(ON_A_ROUTE);
    let deploy = |name: &str, wasm: &[u8]| {
        let path = file(router.setup(), name, wasm);
        router.cli(&["module", "deploy", &path, "--name", "m", "--params", "{}"])
    };
    let fragile = hostile("trap-on-one-message");
    deploy("fragile.wasm", fragile).ok();
    for poison in ["1", "2"] {
        assert_eq!(router.one(&["publish", "t", "x", "-H", &format!("poison={poison}")])["rejected"], 1);
    }
    assert_eq!(router.one(&["publish", "t", "x"])["routed"], 1);
    deploy("other.wasm", &padded(fragile, 1)).ok();
    let refused = deploy("worse.wasm", hostile("trap")).refused("module_failed");
    assert!(refused.error().contains("fails on 1 of 1"), "{}", refused.error());
}

#[test]
fn going_back_is_never_barred() {
    let router = Router::with_rules(ON_A_ROUTE);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    let fragile = file(router.setup(), "fragile.wasm", hostile("trap-on-one-message"));
    let first = router.one(&["module", "deploy", &fragile, "--name", "m", "--params", "{}"]);
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", EU]).ok();
    router.cli(&["publish", "t", "x", "-H", "region=eu", "-H", "poison=1"]).ok();
    router.cli(&["module", "rollback", "m"]).ok();
    assert_eq!(router.one(&["module", "show", "m"])["digest"], first["digest"]);
    // A change of the rules that leaves it as it is does not try it either.
    router.cli(&["queue", "create", "other"]).ok();
    let version = first["version"].as_u64().expect("a version");
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", EU]).ok();
    router.cli(&["rules", "rollback", &version.to_string(), "--drop-queue", "other"]).ok();
    assert_eq!(router.one(&["module", "show", "m"])["digest"], first["digest"]);
}

#[test]
fn what_a_version_writes_in_its_smoke_run_is_thrown_away() {
    let router = Router::with_rules(
        "[module.m]\nbuiltin = \"throttle\"\nparams = { per_second = 0.0, burst = 9 }\n\
         [route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n",
    );
    publish(&router, 3);
    let state = || router.all(&["module", "state", "m"]);
    let before = state();
    assert_eq!(before.len(), 1);
    let other = file(router.setup(), "throttle.wasm", &padded(builtin("throttle"), 1));
    router.cli(&["module", "deploy", &other, "--name", "m"]).ok();
    assert_eq!(state(), before);
    let shown = router.one(&["module", "show", "m"]);
    assert_eq!((&shown["calls"], &shown["messages"]), (&0.into(), &0.into()), "no live message met it");
}

#[test]
fn the_calls_of_a_smoke_run_count_towards_the_way_out_of_the_slow_lane() {
    let router = Router::with_rules(ON_A_ROUTE);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    let mut deployed = 0;
    let mut deploy = || {
        deployed += 1;
        let params = format!("{{\"region\":\"{deployed}\"}}");
        router.cli(&["module", "deploy", &eu, "--name", "m", "--params", &params]).ok();
        router.one(&["module", "show", "m"])["lane"].clone()
    };
    assert_eq!(deploy(), Value::from("slow"), "there was nothing to try it on");
    publish(&router, 32);
    // One call that a busy machine makes long keeps a version in the lane; not each of many.
    eventually("a version runs inline from the start", || (deploy() == "inline").then_some(()));
}
