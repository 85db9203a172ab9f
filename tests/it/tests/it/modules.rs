//! The life of a module: deployed, replaced, rolled back by hand and by itself, shadowed, promoted, kept across restarts.

use chaski_it::{Router, Setup, eventually};
use serde_json::Value;

/// Writes a module below the test's directory; answers its path.
pub(crate) fn file(setup: &Setup, name: &str, wasm: &[u8]) -> String {
    let path = setup.path(name);
    std::fs::write(&path, wasm).expect("the test's directory can be written");
    path.to_str().expect("a plain path").to_owned()
}

/// A module that misbehaves.
pub(crate) fn hostile(name: &str) -> &'static [u8] {
    chaski_filters::hostile(name).expect("a hostile guest").wasm
}

/// A module that comes with the router.
pub(crate) fn builtin(name: &str) -> &'static [u8] {
    chaski_filters::builtin(name).expect("a builtin").wasm
}

/// The same module with other bytes: a custom section of this size behind it.
pub(crate) fn padded(wasm: &[u8], zeros: usize) -> Vec<u8> {
    let mut bytes = wasm.to_vec();
    bytes.push(0);
    leb(&mut bytes, 4 + zeros);
    bytes.extend_from_slice(&[3, b'p', b'a', b'd']);
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}

fn leb(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const RULES: &str = "[module.m]\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n";

fn dropped(router: &Router, topic: &str, payload: &str) -> u64 {
    router.one(&["publish", topic, payload])["dropped"].as_u64().expect("a count")
}

#[test]
fn a_module_that_is_named_and_not_deployed_refuses_what_would_reach_it() {
    let router = Router::with_rules(RULES);
    let refused = router.cli(&["publish", "t", "x"]).refused("module_missing");
    assert!(refused.error().contains("chaski module deploy"), "{}", refused.error());
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#]).ok();
    assert_eq!(dropped(&router, "t", "x"), 1);
    assert_eq!(router.one(&["publish", "t", "x", "-H", "region=eu"])["routed"], 1);
}

#[test]
fn a_deploy_a_second_one_and_a_rollback_are_versions_of_the_rules_and_survive_a_crash() {
    let router = Router::with_rules(RULES);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    let deploy = |region: &str| {
        let params = format!("{{\"region\":\"{region}\"}}");
        router.one(&["module", "deploy", &eu, "--name", "m", "--params", &params])
    };
    let first = deploy("eu");
    let second = deploy("us");
    assert_eq!(second["version"].as_u64(), first["version"].as_u64().map(|version| version + 1));
    assert_eq!(second["digest"], first["digest"]);
    let routed = |router: &Router, region: &str| {
        router.one(&["publish", "t", "x", "-H", &format!("region={region}")])["routed"].as_u64()
    };
    assert_eq!((routed(&router, "eu"), routed(&router, "us")), (Some(0), Some(1)));
    router.cli(&["module", "rollback", "m"]).ok();
    assert_eq!((routed(&router, "eu"), routed(&router, "us")), (Some(1), Some(0)));
    // The rules file is what it was when it was last applied: the start undoes nothing.
    let router = router.crash();
    assert_eq!((routed(&router, "eu"), routed(&router, "us")), (Some(1), Some(0)));
    let history = router.all(&["module", "history", "m"]);
    let regions: Vec<&Value> = history.iter().map(|version| &version["params"]["region"]).collect();
    assert_eq!(regions[..3], ["eu", "us", "eu"], "{history:?}");
    assert_eq!((&history[0]["current"], &history[1]["current"]), (&true.into(), &false.into()));
    let rules = router.all(&["rules", "history"]);
    assert!(
        rules[0]["author"].as_str().is_some_and(|author| author.starts_with("module rollback m")),
        "{rules:?}"
    );
}

#[test]
fn a_version_that_fails_too_often_goes_back_by_itself_and_a_restart_does_not_bring_it_back() {
    let router = Router::with_rules(RULES);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    let trap = file(router.setup(), "trap.wasm", hostile("trap"));
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#]).ok();
    let mut events = router.spawn(&["subscribe", "$chaski.events.>", "--json"]);
    eventually("the subscription stands", || {
        let text = router.http("/metrics").1;
        router.cli(&["rules", "rollback", "1"]).ok();
        router.cli(&["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#]).ok();
        let told = events.line();
        (told.contains("rules_applied") && !text.is_empty()).then_some(())
    });
    let bad = router.one(&["module", "deploy", &trap, "--name", "m", "--params", "{}"]);
    let lines: String = (0..100).map(|n| format!("{n}\n")).collect();
    router.cli_with(&["publish", "t", "--lines", "-H", "region=eu"], lines.as_bytes()).ok();
    let event = eventually("the event comes", || {
        let line = events.line();
        line.contains("module_rolled_back").then_some(line)
    });
    assert!(event.contains(bad["digest"].as_str().expect("a digest")), "{event}");
    let shown = router.one(&["module", "show", "m"]);
    assert_ne!(shown["digest"], bad["digest"]);
    assert_eq!(router.one(&["publish", "t", "x", "-H", "region=eu"])["routed"], 1);
    let dead = router.one(&["dlq", "list"])["dead"].as_u64().expect("a count");
    assert_eq!(dead + router.count("t", "ready"), 101, "every message is in one place");
    let refused =
        router.cli(&["module", "deploy", &trap, "--name", "m", "--params", "{}"]).refused("module_failed");
    assert!(refused.error().contains("--force"), "{}", refused.error());
    let router = router.restart();
    assert_eq!(router.one(&["module", "show", "m"])["digest"], shown["digest"]);
    let history = router.all(&["module", "history", "m"]);
    assert!(
        history.iter().any(|version| version["failed"] == true && version["digest"] == bad["digest"]),
        "{history:?}"
    );
    assert!(
        history[0]["author"].as_str().is_some_and(|author| author.starts_with("automatic")),
        "{history:?}"
    );
    router.cli(&["module", "deploy", &trap, "--name", "m", "--params", "{}", "--force"]).ok();
}

#[test]
fn a_version_without_another_before_it_is_suspended_when_it_burns_its_time() {
    let setup = Setup::default();
    let spin = file(&setup, "spin.wasm", hostile("spin-forever"));
    let router = setup
        .rules(&format!(
            "[module.m]\nfile = \"{spin}\"\ntime_limit = \"700ms\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n[queue.free]\n"
        ))
        .start();
    let mut published = 0;
    eventually("it is suspended", || {
        router.cli(&["publish", "t", "x"]).ok();
        published += 1;
        (router.one(&["module", "show", "m"])["state"] == "suspended").then_some(())
    });
    let began = router.one(&["module", "show", "m"])["calls"].as_u64();
    router.cli(&["publish", "t", "x"]).ok();
    let dead = router.all(&["dlq", "show", "chaski"]);
    assert_eq!(dead.len(), published + 1, "every message has its letter");
    let told = |what: &str| {
        dead.iter().any(|letter| letter["detail"].as_str().is_some_and(|detail| detail.contains(what)))
    };
    assert!(told("cpu_time") && told("suspended"), "{dead:?}");
    assert!(began.is_some() && router.one(&["publish", "free", "x"])["routed"] == 1);
}

#[test]
fn a_changed_module_file_is_deployed_anew() {
    let setup = Setup::default();
    let path = file(&setup, "m.wasm", builtin("eu-only"));
    let router = setup
        .rules("[module.m]\nfile = \"m.wasm\"\nparams = { region = \"eu\" }\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n[queue.t]\n")
        .start();
    let before = router.one(&["module", "show", "m"])["digest"].clone();
    std::fs::write(&path, padded(builtin("eu-only"), 10)).expect("it can be written");
    eventually("the new file is in force", || {
        (router.one(&["module", "show", "m"])["digest"] != before).then_some(())
    });
    let version = router.one(&["status"])["rules_version"].clone();
    let router = router.restart();
    assert_eq!(router.one(&["status"])["rules_version"], version, "nothing changed since");
}

#[test]
fn a_queue_that_is_made_leaves_the_modules_as_they_are_and_many_deploys_make_no_restart_apply_the_file_again()
{
    let setup = Setup::default();
    file(&setup, "m.wasm", builtin("eu-only"));
    let router = setup
        .rules("[module.m]\nfile = \"m.wasm\"\nparams = { region = \"eu\" }\n[queue.t]\nfilters = [\"m\"]\n")
        .start();
    router.cli(&["queue", "create", "made"]).ok();
    assert_eq!(dropped(&router, "t", "x"), 1);
    for n in 0..110 {
        let path = file(router.setup(), "other.wasm", &padded(builtin("eu-only"), n % 2));
        router.cli(&["module", "deploy", &path, "--name", "m"]).ok();
    }
    let in_force = router.one(&["module", "show", "m"])["digest"].clone();
    let router = router.restart();
    assert_eq!(router.one(&["module", "show", "m"])["digest"], in_force);
    router.cli(&["queue", "show", "made"]).ok();
}

#[test]
fn params_that_a_module_does_not_take_are_named_with_their_line() {
    let setup = Setup::default().rules(
        "[module.m]\nbuiltin = \"eu-only\"\n\n[module.m.params]\nregon = \"eu\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"m\"]\n",
    );
    let router = setup.start();
    let log = router.wait_log(|line| line.contains("refused"));
    assert!(log.contains("line 5") && log.contains("region"), "{log}");
}

#[test]
fn signatures_are_asked_for_where_keys_are_trusted() {
    let router = Router::with_rules(RULES);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    // An Ed25519 seed, and the public key that belongs to it (RFC 8032, test 1).
    let seed = file(router.setup(), "seed", b"nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    router.write_rules(&format!("[modules]\ntrusted_keys = [\"{key}\"]\n{RULES}"));
    eventually("the rules are reloaded", || {
        router.one(&["rules", "show"])["document"]
            .as_str()
            .is_some_and(|text| text.contains("trusted_keys"))
            .then_some(())
    });
    let deploy = ["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#];
    let refused = router.cli(&deploy).refused("module_failed");
    assert!(refused.error().contains("sign"), "{}", refused.error());
    router.cli(&[&deploy[..], &["--sign-key", &seed]].concat()).ok();
    assert_eq!(dropped(&router, "t", "x"), 1);
}

#[test]
fn a_document_that_is_applied_brings_the_signatures_beside_its_module_files() {
    let router = Router::with_rules("[queue.t]\n");
    // RFC 8032, section 7.1, test 1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let seed: Vec<u8> = (0..64)
        .step_by(2)
        .map(|at| u8::from_str_radix(&seed[at..at + 2], 16).expect("hexadecimal"))
        .collect();
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed");
    let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    file(router.setup(), "eu.wasm", builtin("eu-only"));
    let document = format!(
        "[modules]\ntrusted_keys = [\"{key}\"]\n[module.m]\nfile = \"eu.wasm\"\nparams = {{ region = \"eu\" }}\n\
         [queue.t]\nfilters = [\"m\"]\n"
    );
    let rules = file(router.setup(), "applied.toml", document.as_bytes());
    let refused = router.cli(&["rules", "apply", &rules]).refused("module_failed");
    assert!(
        refused.error().contains("module `m`") && refused.error().contains("sign"),
        "{}",
        refused.error()
    );
    file(router.setup(), "eu.wasm.sig", &[0; 64]);
    router.cli(&["rules", "apply", &rules]).refused("module_failed");
    file(router.setup(), "eu.wasm.sig", pair.sign(builtin("eu-only")).as_ref());
    assert!(!router.cli(&["rules", "diff", &rules]).ok().stdout.is_empty());
    router.cli(&["rules", "apply", &rules]).ok();
    assert_eq!((dropped(&router, "t", "x"), router.count("t", "ready")), (1, 0));
    let router = router.crash();
    assert_eq!(dropped(&router, "t", "x"), 1, "the signature is kept with the rules");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_that_no_kept_version_of_the_rules_names_goes_while_the_router_runs() {
    let router = Router::with_rules(RULES);
    let digest = |bytes: &[u8]| {
        let path = file(router.setup(), "m.wasm", bytes);
        let deployed =
            router.one(&["module", "deploy", &path, "--name", "m", "--params", r#"{"region":"eu"}"#]);
        let digest = deployed["digest"].as_str().expect("a digest");
        digest.strip_prefix("sha256:").expect("a SHA-256").to_owned()
    };
    let (old, kept) = (digest(&padded(builtin("eu-only"), 1)), digest(builtin("eu-only")));
    let data = router.setup().path("data");
    let blob = |digest: &str| data.join("blobs").join(digest);
    // As if nobody had had to do with either for two hours.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    for digest in [&old, &kept] {
        let file = std::fs::File::options().write(true).open(blob(digest)).expect("the binary is kept");
        file.set_modified(long_ago).expect("its time can be set");
    }
    let router = router.restart();
    let code = || std::fs::read_dir(data.join("code")).expect("compiled code is kept").count();
    assert!(blob(&old).exists(), "the rules' history names it");
    let before = code();
    let client = router.client().await;
    for number in 0..100 {
        client.admin().queue_create(format!("q{number}"), vec![], vec![]).await.expect("a queue");
    }
    eventually("it is removed, with its code", || (!blob(&old).exists() && code() < before).then_some(()));
    assert!(blob(&kept).exists(), "the rules in force name it");
    let router = router.restart();
    assert_eq!(dropped(&router, "t", "x"), 1);
}

#[test]
fn a_shadow_judges_beside_the_version_in_force_and_is_promoted() {
    let router = Router::with_rules(RULES);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#]).ok();
    let trap = file(router.setup(), "other.wasm", &padded(builtin("eu-only"), 7));
    router.cli(&["module", "shadow", "m", &trap]).ok();
    router.cli(&["publish", "t", "x", "-H", "region=eu"]).ok();
    let seen = eventually("the shadow saw it", || {
        let shadow = router.one(&["module", "show", "m"])["shadow"].clone();
        (shadow["messages"] == 1).then_some(shadow)
    });
    assert_eq!(seen["differences"], 0, "{seen}");
    router.cli(&["module", "promote", "m"]).ok();
    let shown = router.one(&["module", "show", "m"]);
    assert_eq!((&shown["digest"], &shown["shadow"]), (&seen["digest"], &Value::Null));
}

#[test]
fn a_shadow_that_differs_or_fails_is_told_and_acts_on_nothing() {
    let router = Router::with_rules(RULES);
    let eu = file(router.setup(), "eu.wasm", builtin("eu-only"));
    router.cli(&["module", "deploy", &eu, "--name", "m", "--params", r#"{"region":"eu"}"#]).ok();
    let other = file(router.setup(), "dedup.wasm", hostile("trap-on-one-message"));
    let refused = router.cli(&["module", "shadow", "m", &other]);
    assert_eq!(refused.code, 1, "it does not take the params: {}", refused.stderr);
}

#[test]
fn state_goes_with_its_name_and_only_when_that_is_asked_for() {
    let document = "[module.once]\nbuiltin = \"dedup-by-content\"\n[route.r]\ntopics = [\"t\"]\nfilters = [\"once\"]\n[queue.t]\n";
    let router = Router::with_rules(document);
    router.cli(&["publish", "t", "x"]).ok();
    let without = file(router.setup(), "without.toml", b"[queue.t]\n");
    let refused = router.cli(&["rules", "apply", &without]).refused("not_allowed");
    assert!(refused.error().contains("--drop-state once"), "{}", refused.error());
    router.cli(&["rules", "apply", &without, "--drop-state", "once"]).ok();
    let with = file(router.setup(), "with.toml", document.as_bytes());
    router.cli(&["rules", "apply", &with]).ok();
    assert_eq!(dropped(&router, "t", "x"), 0, "nothing is remembered");
}

#[test]
fn a_trace_tells_what_would_happen_and_delivers_nothing() {
    let router = Router::with_rules(
        "[module.eu]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n[module.once]\nbuiltin = \"dedup-by-content\"\n\
         [route.r]\ntopics = [\"t\"]\nfilters = [\"eu\", \"once\"]\n[queue.q]\nbind = [\"t\"]\n",
    );
    let seen = router.one(&["trace", "t", "x", "-H", "region=eu"]);
    let verdicts: Vec<&Value> =
        seen["steps"].as_array().expect("a list").iter().map(|step| &step["verdict"]).collect();
    assert_eq!(verdicts, ["pass", "pass"]);
    assert_eq!((&seen["routes"][0], &seen["results"][0]["queues"][0]), (&"r".into(), &"q".into()));
    assert_eq!(router.count("q", "messages"), 0);
    assert!(router.all(&["module", "state", "once"]).is_empty(), "nothing is remembered");
    let dropped = router.one(&["trace", "t", "x"]);
    assert_eq!((&dropped["steps"][0]["verdict"], &dropped["dropped"]), (&"drop".into(), &1.into()));
    let real = router.one(&["publish", "t", "x", "-H", "region=eu", "--trace"]);
    assert_eq!(real["published"]["routed"], 1, "{real}");
    assert_eq!(router.count("q", "messages"), 1);
}
