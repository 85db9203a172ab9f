//! Modules that mean harm: they harm nobody but their own messages, and every one of those is accounted for.

use chaski_it::{Router, Setup};

use crate::modules::{file, hostile};

/// What no call takes on a busy machine, for those that are to meet another limit first.
const PLENTY: &str = "5s";

/// A router with this hostile module on a route of its own, on the topic `bad`, and a queue `good` beside it.
fn with(name: &str, time_limit: &str) -> Router {
    let setup = Setup::default();
    let path = file(&setup, "hostile.wasm", hostile(name));
    let rules = format!(
        "[module.bad]\nfile = \"{path}\"\ntime_limit = \"{time_limit}\"\n[route.bad]\ntopics = [\"bad\"]\nfilters = [\"bad\"]\n[queue.bad]\n[queue.good]\n"
    );
    setup.rules(&rules).start()
}

/// Its messages are dead letters with this cause, and everybody else's are delivered.
#[track_caller]
fn check(name: &str, time_limit: &str, cause: &str) {
    let router = with(name, time_limit);
    let lines: String = (0..3).map(|n| format!("{n}\n")).collect();
    let sent = router.cli_with(&["publish", "bad", "--lines", "--json"], lines.as_bytes()).ok().json();
    assert!(sent.iter().all(|sent| sent["rejected"] == 1), "{sent:?}");
    let dead = router.all(&["dlq", "show", "chaski"]);
    assert_eq!(dead.len(), 3);
    for letter in &dead {
        let detail = letter["detail"].as_str().expect("a sentence");
        assert_eq!((&letter["reason"], &letter["module"]), (&"filter_error".into(), &"bad".into()));
        assert!(detail.contains(cause), "{detail}");
    }
    assert_eq!(router.one(&["publish", "good", "x"])["routed"], 1);
    router.cli(&["status"]).ok();
}

#[test]
fn spin_forever_runs_out_of_time() {
    check("spin-forever", "10ms", "cpu_time");
}

#[test]
fn bulk_copy_loop_runs_out_of_time() {
    check("bulk-copy-loop", "10ms", "cpu_time");
}

#[test]
fn eat_memory_meets_its_limit() {
    check("eat-memory", PLENTY, "memory");
}

#[test]
fn deep_recursion_traps() {
    check("deep-recursion", PLENTY, "trap");
}

#[test]
fn trap_tells_its_panic() {
    check("trap", PLENTY, "panic");
}

#[test]
fn too_few_verdicts_are_nobodys() {
    check("too-few-verdicts", PLENTY, "contract");
}

#[test]
fn what_lies_of_an_empty_batch_is_not_deployed() {
    let router = Router::with_rules(&format!("[module.bad]\ntime_limit = \"{PLENTY}\"\n"));
    for (name, word) in [("lie-about-lengths", "contract"), ("huge-answer", "handed over more than")] {
        let path = file(router.setup(), "hostile.wasm", hostile(name));
        let refused = router.cli(&["module", "deploy", &path, "--name", "bad"]).refused("module_failed");
        assert!(
            refused.stderr.contains("empty batch") && refused.stderr.contains(word),
            "{}",
            refused.stderr
        );
    }
}

#[test]
fn state_hog_is_stopped_by_its_limit() {
    let router = with("state-hog", PLENTY);
    let lines: String = (0..3).map(|n| format!("{n}\n")).collect();
    let sent = router.cli_with(&["publish", "bad", "--lines", "--json"], lines.as_bytes()).ok().json();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().any(|sent| sent["rejected"] == 1), "{sent:?}");
    let bytes = router.one(&["module", "show", "bad"])["state_bytes"].as_u64().expect("a size");
    assert!(bytes <= 64 << 20, "{bytes}");
    assert_eq!(router.one(&["publish", "good", "x"])["routed"], 1);
}

#[test]
fn log_flood_is_cut() {
    let router = with("log-flood", PLENTY);
    let sent = router.one(&["publish", "bad", "x"]);
    assert_eq!(
        sent["routed"].as_u64().max(sent["rejected"].as_u64()),
        Some(1),
        "it may run out of time: {sent}"
    );
    router.wait_log(|line| line.contains("more lines than it may"));
    let lines = router.log().iter().filter(|line| line.contains("chaski::module")).count();
    assert!(lines <= 20, "{lines} lines of one call");
}

#[test]
fn what_is_no_module_is_refused_by_name() {
    let router = Router::start();
    for (wasm, code, word) in [
        (hostile("import-unknown"), "module_failed", "wasi:clocks"),
        (hostile("wrong-world"), "module_failed", "world"),
        (chaski_filters::NOT_WASM, "module_failed", "WebAssembly"),
    ] {
        let path = file(router.setup(), "hostile.wasm", wasm);
        let refused = router.cli(&["module", "deploy", &path, "--name", "bad"]).refused(code);
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    assert!(router.all(&["module", "list"]).is_empty());
}
