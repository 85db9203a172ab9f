//! Aggregators and compensators on the command line: a project of each kind from an empty folder to a trial, and where one of another
//! kind is refused.

use std::path::Path;
use std::process::Command;

use chaski_it::{Router, Setup, run};
use serde_json::{Value, json};

use crate::modules::{builtin, file};

/// Runs `module test`, and answers a line of JSON for each call.
#[track_caller]
fn trial(setup: &Setup, arguments: &[&str]) -> Vec<Value> {
    run(setup.command(&[&["module", "test", "--json"], arguments].concat()), b"").ok().json()
}

fn verdicts(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["verdict"].as_str()).collect()
}

/// Makes a project of this kind, builds it as its README says, and answers the binary's path.
#[track_caller]
fn built(setup: &Setup, name: &str, kind: &str) -> String {
    run(setup.command(&["module", "new", name, "--kind", kind]), b"").ok();
    let project = setup.path(name);
    build(&project);
    let binary = project.join(format!("target/wasm32-unknown-unknown/release/{name}.wasm"));
    binary.to_str().expect("a plain path").to_owned()
}

#[track_caller]
fn build(project: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--offline", "--locked", "--target", "wasm32-unknown-unknown"]);
    cargo.current_dir(project);
    // What is meant for this test's own build is not meant for the project's.
    for name in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    run(cargo, b"").ok();
}

#[test]
fn a_new_aggregator_is_built_and_answers_a_gather() {
    let setup = Setup::default();
    let wasm = built(&setup, "longest", "aggregator");
    let params = ["--params", r#"{"enough":9}"#];
    let replies = ["--reply", r#"{"payload":"one"}"#, "--reply", r#"{"recipient":"b","failed":"no"}"#];
    let lines = trial(&setup, &[&[wasm.as_str()], &params[..], &replies[..]].concat());
    assert_eq!(verdicts(&lines), ["begun", "continue", "continue", "answer"]);
    assert_eq!(lines[4], json!({"headers": {}, "payload": "one"}));
    let ids: Vec<&str> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
    assert_eq!(ids, ["sample-1", "recipient-1", "b", "end"]);
}

#[test]
fn a_new_compensator_is_built_and_plans() {
    let setup = Setup::default();
    let wasm = built(&setup, "patient", "compensator");
    let history = r#"{"steps":[{"name":"a","state":"completed"},{"name":"b","state":"failed"}]}"#;
    let plan = |tries: &str| {
        let lines = trial(&setup, &[&wasm, "--params", tries, "--message", history]);
        (lines[0]["verdict"].clone(), lines[0]["detail"].clone())
    };
    assert_eq!(plan(r#"{"tries":1}"#), (json!("retry"), Value::Null));
    assert_eq!(plan(r#"{"tries":0}"#), (json!("undo"), json!("a")));
}

#[test]
fn a_trial_takes_what_its_kind_takes() {
    let setup = Setup::default();
    let lowest = file(&setup, "lowest.wasm", builtin("lowest-quote"));
    let ndjson = setup.path("replies");
    std::fs::write(&ndjson, "{\"payload\": {\"price\": 12}}\n\n{\"payload\": {\"price\": 9.90}}\n")
        .expect("written");
    let ndjson = ndjson.to_str().expect("a plain path");
    let params = r#"{"pointer":"/price"}"#;
    let lines = trial(&setup, &[&lowest, "--params", params, "--message", "{}", "--ndjson", ndjson]);
    assert_eq!(lines.last().expect("an answer")["payload"], "{\"price\":9.90}");
    let shown =
        run(setup.command(&["module", "test", &lowest, "--params", params, "--ndjson", ndjson]), b"").ok();
    assert!(shown.stdout.ends_with("\n{\"price\":9.90}\n"), "{}", shown.stdout);
    assert!(shown.stderr.contains(": aggregator"), "{}", shown.stderr);
    let eu = file(&setup, "eu.wasm", builtin("eu-only"));
    let wrong = ["module", "test", &eu, "--params", r#"{"region":"eu"}"#, "--reply", "{}"];
    let refused = run(setup.command(&wrong), b"").refused("bad_request");
    assert!(refused.error().contains("a filter takes no --reply"), "{}", refused.error());
    let twice = ["module", "test", &lowest, "--params", params, "--message", "{}", "--message", "{}"];
    let refused = run(setup.command(&twice), b"").refused("bad_request");
    assert!(refused.error().contains("one --message"), "{}", refused.error());
}

#[test]
fn an_aggregator_is_refused_where_a_filter_is_asked_for() {
    let router = Router::with_rules("[queue.t]\n");
    let rules = router.setup().path("aggregator.toml");
    std::fs::write(&rules, "[queue.t]\nfilters = [\"collect\"]\n").expect("written");
    let refused =
        router.cli(&["rules", "apply", rules.to_str().expect("a plain path")]).refused("rules_invalid");
    let sentence = "`queue.t.filters[0]` takes a filter, and module `collect` is an aggregator";
    assert!(refused.error().contains(sentence), "{}", refused.error());
}
