//! What holds for every command: exit codes, help, where the router is, `--json`.

use chaski_it::{Router, Setup, eventually, run};
use serde_json::json;

const COMMANDS: &[&str] = &[
    "serve",
    "status",
    "publish",
    "consume",
    "subscribe",
    "request",
    "respond",
    "queue list",
    "queue show",
    "queue create",
    "queue delete",
    "queue purge",
    "queue pause",
    "queue resume",
    "queue cancel",
    "queue unpark",
    "dlq list",
    "dlq show",
    "dlq redrive",
    "dlq purge",
    "rules check",
    "rules diff",
    "rules apply",
    "rules show",
    "rules schema",
    "rules history",
    "rules rollback",
    "bench",
    "demo",
    "repair",
    "completions",
];

#[test]
fn every_command_has_help_with_an_example() {
    let setup = Setup::default();
    let all = run(setup.command(&["--help"]), b"").ok().stdout;
    for command in COMMANDS {
        let mut words: Vec<&str> = command.split(' ').collect();
        assert!(all.contains(words[0]), "`{command}` is not in --help");
        words.push("--help");
        let help = run(setup.command(&words), b"").ok().stdout;
        assert!(help.contains("Example"), "`{command} --help` has no example:\n{help}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let setup = Setup::default();
    for arguments in [
        &["nonsense"][..],
        &["publish"],
        &["publish", "a", "b", "--ttl", "30"],
        &["publish", "a", "b", "-H", "novalue"],
        &["consume", "q", "--ack", "--reject", "x"],
        &["serve"],
        &["queue", "create", "q", "--set", "novalue"],
    ] {
        let output = run(setup.command(arguments), b"");
        assert_eq!(output.code, 2, "{output:?}");
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("error"), "{output:?}");
    }
}

#[test]
fn nobody_at_the_address_is_unreachable() {
    let setup = Setup::default();
    // A port that was free a moment ago, and a socket that nobody answers on.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("quic://{}", socket.local_addr().expect("it is bound"));
    let router = Router::start();
    let output = run(
        setup.command(&["status", "--url", &url, "--ca", router.ca().to_str().expect("a plain path")]),
        b"",
    );
    output.refused("unreachable");
}

#[test]
fn the_router_is_named_by_option_or_environment() {
    let router = Router::start();
    let mut command = router.setup().command(&["status", "--json", "--url", &router.url()]);
    assert_eq!(run(command, b"").ok().one()["ready"], true);
    command = router.setup().command(&["status", "--json"]);
    command.env("CHASKI_URL", router.url());
    assert_eq!(run(command, b"").ok().one()["ready"], true);
    // The authority by option, from a configuration that has none.
    let ca = router.ca();
    let elsewhere = Setup::default();
    let mut command = elsewhere.command(&["status", "--json", "--url", &router.url(), "--ca"]);
    command.arg(&ca);
    assert_eq!(run(command, b"").ok().one()["ready"], true);
    let mut command = elsewhere.command(&["status", "--json"]);
    command.env("CHASKI_URL", router.url()).env("CHASKI_CA", &ca);
    run(command, b"").ok();
}

#[test]
fn status_tells_how_the_router_is() {
    let router = Router::with_rules("[queue.q]\n");
    router.cli(&["publish", "q", "x"]).ok();
    let status = router.one(&["status"]);
    assert_eq!((&status["ready"], &status["alarms"]), (&json!(true), &json!([])));
    assert_eq!(
        (&status["queues"], &status["messages"], &status["rules_version"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let human = router.cli(&["status"]).ok();
    assert!(human.stdout.contains("ready"), "{}", human.stdout);
}

#[test]
fn data_goes_to_stdout_and_the_rest_to_stderr() {
    let router = Router::with_rules("[queue.q]\n");
    router.cli(&["publish", "q", "the payload"]).ok();
    let consumed = router.cli(&["consume", "q", "--count", "1"]).ok();
    assert!(consumed.stdout.contains("the payload"));
    let failed = router.cli(&["queue", "show", "nothing"]).refused("unknown_queue");
    assert_eq!(failed.stdout, "");
}

#[test]
fn human_output_is_a_table() {
    let router = Router::with_rules("[queue.orders]\nbind = [\"a.*\"]\n[queue.other]\n");
    router.cli(&["publish", "a.b", "x"]).ok();
    let listed = router.cli(&["queue", "list"]).ok().stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines.len() >= 3, "{listed}");
    let column = lines[0].to_lowercase().find("ready").expect("a head with names");
    let row = lines.iter().find(|line| line.starts_with("orders")).expect("a row a queue");
    let end = column + "ready".len();
    assert!(row.get(column..end).is_some_and(|cell| cell.contains('1')), "columns are aligned:\n{listed}");
}

#[test]
fn completions_are_printed() {
    let setup = Setup::default();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(setup.command(&["completions", shell]), b"").ok();
        assert!(output.stdout.contains("redrive"), "{shell}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let router = Router::with_rules("[queue.q]\n");
    let input: String = (0..5000).map(|n| format!("{n}\n")).collect();
    router.cli_with(&["publish", "q", "--lines"], input.as_bytes()).ok();
    let mut shell = std::process::Command::new("sh");
    let binary = chaski_it::binary("chaski");
    shell.arg("-c").arg(format!("{} consume q --peek --json | head -n 1", binary.display()));
    shell.env("CHASKI_URL", router.url()).env("XDG_CONFIG_HOME", router.setup().config());
    let output = run(shell, b"").ok();
    assert_eq!(output.stdout.lines().count(), 1);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

#[test]
fn serve_says_where_it_listens_as_json_too() {
    let setup = Setup::default();
    let data = setup.path("data");
    let arguments =
        ["--json", "serve", "--dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"];
    let mut command = setup.command(&arguments);
    command.arg(&data);
    let mut serving = chaski_it::Running::start(command);
    let line = serving.json();
    assert_eq!(line["event"], "listening");
    assert!(line["url"].as_str().is_some_and(|url| url.starts_with("quic://127.0.0.1:")), "{line}");
    serving.terminate().ok();
}

#[test]
fn a_failed_command_leaves_no_connection_behind() {
    let router = Router::start();
    router.cli(&["consume", "nothing"]).refused("unknown_queue");
    router.cli(&["publish", "a..b", "x"]).refused("bad_topic");
    // The one that asks.
    eventually("only this command is connected", || {
        (router.one(&["status"])["connections"] == 1).then_some(())
    });
}

#[test]
fn dev_is_for_loopback_only() {
    let setup = Setup::default();
    let mut command =
        setup.command(&["serve", "--dev", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(setup.path("data"));
    let output = run(command, b"");
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.error().contains("--cert"), "{}", output.stderr);
}
