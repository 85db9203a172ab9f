//! The programs that come with it: the examples, the demo, the benchmarks.

use std::process::Command;

use chaski_it::{Router, Running, Setup, binary, eventually, root, run};
use serde_json::json;

/// Runs an example twice: it ends by itself, and can be run again.
#[track_caller]
fn example(name: &str) {
    let router = Router::start();
    for _ in 0..2 {
        let mut command = Command::new(binary(name));
        command.env("CHASKI_URL", router.url()).env("XDG_CONFIG_HOME", router.setup().config());
        let output = run(command.into_in(&router), b"").ok();
        assert!(!output.stdout.is_empty(), "it says what it did");
    }
}

/// A command that runs in the test's own directory.
trait In {
    fn into_in(self, router: &Router) -> Command;
}

impl In for Command {
    fn into_in(mut self, router: &Router) -> Command {
        self.current_dir(router.setup().path(""));
        self
    }
}

macro_rules! examples {
    ($($test:ident $name:literal;)*) => {
        const EXAMPLES: &[&str] = &[$($name),*];
        $(#[test]
        fn $test() {
            example($name);
        })*
    };
}

examples! {
    the_example_hello_runs "hello";
    the_example_work_queue_runs "work-queue";
    the_example_publish_subscribe_runs "publish-subscribe";
    the_example_ordered_by_key_runs "ordered-by-key";
    the_example_request_reply_runs "request-reply";
    the_example_dead_letters_runs "dead-letters";
    the_example_exactly_once_pipeline_runs "exactly-once-pipeline";
    the_example_idempotent_consumer_runs "idempotent-consumer";
    the_example_quotes_runs "quotes";
    the_example_order_saga_runs "order-saga";
}

/// The router and the program are killed in turns, in the middle of the orders; each order is decided once all the same.
#[test]
fn the_example_order_saga_balances_across_kills_of_the_router_and_of_the_program() {
    const ORDERS: usize = 800;
    let mut router = Router::start();
    let program = |router: &Router| {
        let mut command = Command::new(binary("order-saga"));
        command.env("CHASKI_URL", router.url()).env("XDG_CONFIG_HOME", router.setup().config());
        command.env("BOOKS", router.setup().path("books.sqlite")).env("ORDERS", ORDERS.to_string());
        command.into_in(router)
    };
    let sagas = |router: &Router| router.all(&["saga", "list"]).len();
    // Where orders are fast and looking is slow, the later kills are left out: enough must be left to do for the last run.
    for _ in 0..3 {
        if sagas(&router) > ORDERS / 2 {
            break;
        }
        let running = Running::start(program(&router));
        for kill_the_router in [true, false] {
            let before = sagas(&router);
            eventually("more orders", || (sagas(&router) > before + 10).then_some(()));
            if kill_the_router {
                router = router.crash();
            }
        }
        running.kill();
    }
    assert!(sagas(&router) < ORDERS, "the program was killed before its end");
    let output = run(program(&router), b"").ok();
    assert!(output.stdout.contains(&format!("{ORDERS} orders")), "{}", output.stdout);
    assert_eq!(sagas(&router), ORDERS);
}

#[test]
fn every_example_is_run_by_a_test_and_is_short() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("examples/src/bin"))
        .expect("the examples are there")
        .map(|file| file.expect("it can be listed").path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("it is text");
            assert!(text.lines().count() < 80, "{} is too long for an example", path.display());
            path.file_stem().and_then(|name| name.to_str()).expect("a plain name").to_owned()
        })
        .collect();
    names.sort();
    let mut tested: Vec<&str> = EXAMPLES.to_vec();
    tested.sort_unstable();
    assert_eq!(names, tested);
}

#[test]
fn the_demo_ends_with_counts_that_add_up() {
    let setup = Setup::default();
    let counts = run(setup.command(&["demo", "--json"]), b"").ok().one();
    assert_eq!(counts["events"], 1707, "{counts}");
    assert_eq!(counts["confirmed"], 1707);
    assert_eq!(counts["duplicates"], 1707);
    let versions = counts["versions"].as_array().expect("counts by version of the module");
    let [gentle, strict, trap] = &versions[..] else { panic!("{counts}") };
    assert_eq!(
        (&gentle["alerts"], &strict["alerts"], &counts["alerts"]),
        (&json!(22), &json!(26), &json!(48))
    );
    let decided = |version: &serde_json::Value| {
        version["alerts"].as_u64().expect("a count") + version["quiet"].as_u64().expect("a count")
    };
    assert_eq!((decided(gentle), decided(strict), decided(trap)), (426, 1281, 0));
    assert!(trap["failed"].as_u64() >= Some(20), "it is judged from 20 messages on: {trap}");
    assert_eq!((&counts["failed"], &counts["judged_again"]), (&trap["failed"], &trap["failed"]));
    assert_eq!((&counts["dead"], &counts["redriven"]), (&json!(28), &json!(28)));
    let stations = counts["stations"].as_object().expect("counts by station");
    assert_eq!(stations.values().filter_map(serde_json::Value::as_u64).sum::<u64>(), 1707, "{counts}");
    assert_eq!(counts["missions"], json!({ "completed": 1, "compensated": 1 }));
    assert_eq!(counts["trucks"], json!({ "reserved": 16, "sent": 8, "released": 8 }));
    assert_eq!(counts["fund"], json!({ "charged": 18_000, "kept": 9_000, "refunded": 9_000 }));
    assert_eq!(counts["left"], 0);
    let networks = counts["networks"].as_object().expect("counts by network");
    let processed: u64 =
        networks.values().map(|network| network["processed"].as_u64().expect("a count")).sum();
    assert_eq!((networks.len(), processed), (12, 1707));
}

#[test]
fn the_demo_tells_its_story() {
    let setup = Setup::default();
    let output = run(setup.command(&["demo"]), b"").ok();
    assert!(output.stdout.contains("1707") || output.stdout.contains("1,707"), "{}", output.stdout);
    for part in [
        "a new version",
        "magnitude 5.0",
        "taken back by itself",
        "filter_error",
        "judged again",
        "SIGKILL",
        "one question for 3 stations",
        "the road is closed",
        "compensated",
    ] {
        assert!(output.stdout.contains(part), "{part} in {}", output.stdout);
    }
}

#[test]
fn benchmarks_report_rate_and_latencies() {
    let router = Router::start();
    for work in ["publish", "consume", "roundtrip", "request"] {
        let lines = router.all(&["bench", work, "--count", "300"]);
        let result = lines.iter().find(|line| line["work"] == work).unwrap_or_else(|| panic!("{lines:?}"));
        for field in ["per_second", "p50_us", "p99_us", "p999_us"] {
            assert!(result[field].as_f64().is_some_and(|number| number > 0.0), "{field} in {result}");
        }
    }
    assert_eq!(router.all(&["queue", "list"]).len(), 0, "benchmarks clean up");
}

#[test]
fn the_filter_bench_compares_and_deploys_and_swaps() {
    let setup = Setup::default();
    let data = setup.path("bench");
    let data = data.to_str().expect("a plain path");
    let lines =
        run(setup.command(&["bench", "filter", "--count", "700", "--data", data, "--json"]), b"").ok().json();
    let works: Vec<_> = lines.iter().map(|line| line["work"].as_str().expect("a name")).collect();
    let wanted = [
        "publish-unfiltered",
        "publish-filtered",
        "deploy-cold",
        "deploy-cached",
        "swap",
        "publish-while-swapping",
    ];
    assert_eq!(works, wanted);
    for (line, field) in
        lines.iter().flat_map(|line| ["per_second", "p50_us", "p99_us"].map(|field| (line, field)))
    {
        assert!(line[field].as_f64().is_some_and(|number| number > 0.0), "{field} in {line}");
    }
    assert_eq!(lines[1]["passed"], 1.0, "the module passes all: {}", lines[1]);
    assert!(lines[1]["messages_per_call"].as_f64() >= Some(1.0), "{}", lines[1]);
    assert_eq!(std::fs::read_dir(data).expect("it was made").count(), 0, "its router's data is gone");
}
