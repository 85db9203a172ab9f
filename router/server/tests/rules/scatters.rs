//! What the rules say of scatters and sagas.

use std::sync::Arc;

use chaski_broker::{
    Durability, Late, ModuleUse, OnTimeout, Recipients, SagaSettings, ScatterSettings, StepPayload,
    StepSettings,
};
use chaski_server::rules::{self, EditError, ModuleSource, delete_queue};
use expect_test::expect;
use serde_json::json;

use super::{accepted, differs, refused};

const SCATTER: &str = "[scatter.quote]\ntopic = \"quotes.request\"\nrecipients = [\"a\", \"b\", \"c\"]\n";

const SAGA: &str = r#"
[saga.order]
topic = "orders.place"
steps = [
  { name = "reserve", queue = "stock.reserve", compensate = "stock.release" },
  { name = "ship", queue = "ship.book", pivot = true },
]
"#;

fn scatter(document: &str) -> ScatterSettings {
    Arc::unwrap_or_clone(accepted(document).rules.scatters.remove(0).1)
}

fn saga(document: &str) -> SagaSettings {
    Arc::unwrap_or_clone(accepted(document).rules.sagas.remove(0).1)
}

fn collect() -> ModuleUse {
    ModuleUse {
        name: "collect".to_owned(),
        binary: None,
        params: "{}".to_owned(),
        time_limit_ms: 10,
        memory_limit_bytes: 16 << 20,
    }
}

#[test]
fn a_scatter_without_settings_has_the_defaults_of_the_design() {
    let expected = ScatterSettings {
        topic: "quotes.request".to_owned(),
        recipients: Recipients::Queues(["a", "b", "c"].map(str::to_owned).to_vec()),
        aggregator: collect(),
        timeout_ms: 30_000,
        quorum: None,
        on_timeout: OnTimeout::Partial,
        late: Late::Drop,
        max_replies: 1_000,
        durability: Durability::Fsync,
        priority: None,
        ttl_ms: None,
    };
    assert_eq!(scatter(SCATTER), expected);
    let checked = accepted(SCATTER);
    assert_eq!(checked.modules[0].source, ModuleSource::Builtin("collect".to_owned()));
}

#[test]
fn every_setting_of_a_scatter_is_read() {
    let document = r#"
        [module.lowest]
        file = "lowest.wasm"
        params = { pointer = "/price", all = [1, { b = true, a = "x" }], deep = { z = 1, a = 2 } }
        time_limit = "20ms"
        memory_limit = "1MiB"
        [scatter.quote]
        topic = "quotes.request"
        pattern = "suppliers.*"
        aggregator = "lowest"
        timeout = "2s"
        quorum = 2
        on_timeout = "fail"
        late = "dead-letter"
        max_replies = 7
        durability = "os"
        priority = 9
        ttl = "1s"
    "#;
    let expected = ScatterSettings {
        topic: "quotes.request".to_owned(),
        recipients: Recipients::Pattern("suppliers.*".to_owned()),
        aggregator: ModuleUse {
            name: "lowest".to_owned(),
            binary: None,
            params: r#"{"all":[1,{"a":"x","b":true}],"deep":{"a":2,"z":1},"pointer":"/price"}"#.to_owned(),
            time_limit_ms: 20,
            memory_limit_bytes: 1 << 20,
        },
        timeout_ms: 2_000,
        quorum: Some(2),
        on_timeout: OnTimeout::Fail,
        late: Late::DeadLetter,
        max_replies: 7,
        durability: Durability::Os,
        priority: Some(9),
        ttl_ms: Some(1_000),
    };
    assert_eq!(scatter(document), expected);
    assert_eq!(accepted(document).notes, [] as [String; 0]);
}

#[test]
fn a_saga_without_settings_has_the_defaults_of_the_design() {
    let step = |name: &str, queue: &str, compensate: Option<&str>, pivot| StepSettings {
        name: name.to_owned(),
        queue: queue.to_owned(),
        compensate: compensate.map(str::to_owned),
        timeout_ms: 30_000,
        retries: 0,
        backoff_ms: vec![1_000, 5_000, 30_000, 120_000],
        pivot,
        group: None,
        payload: StepPayload::All,
    };
    let expected = SagaSettings {
        topic: "orders.place".to_owned(),
        timeout_ms: 300_000,
        compensator: None,
        advances: false,
        steps: vec![
            step("reserve", "stock.reserve", Some("stock.release"), false),
            step("ship", "ship.book", None, true),
        ],
    };
    assert_eq!(saga(SAGA), expected);
}

#[test]
fn every_setting_of_a_saga_is_read_and_steps_may_be_tables() {
    let document = r#"
        [module.undo]
        [saga.order]
        topic = "orders.place"
        timeout = "1h"
        compensator = "undo"
        [[saga.order.steps]]
        name = "one"
        queue = "q"
        compensate = "r"
        timeout = "5s"
        retries = 2
        backoff = ["1s", "5s"]
        group = "g"
        payload = "input"
        [[saga.order.steps]]
        name = "two"
        queue = "q"
        group = "g"
        payload = "previous"
    "#;
    let settings = saga(document);
    assert_eq!((settings.timeout_ms, settings.compensator.unwrap().name.as_str()), (3_600_000, "undo"));
    let one = StepSettings {
        name: "one".to_owned(),
        queue: "q".to_owned(),
        compensate: Some("r".to_owned()),
        timeout_ms: 5_000,
        retries: 2,
        backoff_ms: vec![1_000, 5_000],
        pivot: false,
        group: Some("g".to_owned()),
        payload: StepPayload::Input,
    };
    assert_eq!(settings.steps[0], one);
    assert_eq!(settings.steps[1].payload, StepPayload::Previous);
}

#[test]
fn mistyped_keys_and_words_are_named_with_the_nearest_ones() {
    refused(
        "[module.lowest]\n[scatter.s]\ntopic = \"s\"\nrecipient = [\"a\"]\naggregator = \"lowst\"\non_timeout = \"part\"\nlate = 1\n\
         [saga.t]\ntopic = \"t\"\ncompensator = \"undoer\"\nsteps = [\n  { name = \"x\", queu = \"a\", payload = \"inpt\" },\n  3,\n]\n\
         [saga.v]\ntopic = \"v\"\n[[saga.v.steps]]\nname = \"x\"\nqueue = \"a\"\npvot = true\n",
        expect![[r#"
            rules.toml:2:1: `scatter.s` needs one of `recipients`, `pattern`
            rules.toml:4:1: unknown key `recipient` in `scatter.s`; did you mean `recipients`?
            rules.toml:5:14: `scatter.s.aggregator`: there is no module or builtin `lowst`; did you mean `lowest`?
            rules.toml:6:14: `scatter.s.on_timeout` cannot be "part"; known here: `partial`, `fail`
            rules.toml:7:8: `scatter.s.late` takes `"drop"`, `"dead-letter"`, and this is an integer
            rules.toml:10:15: `saga.t.compensator`: there is no module or builtin `undoer`; known here: `lowest`, `order-compensation`, `skip-steps`
            rules.toml:12:3: `saga.t.steps[0]` needs `queue`
            rules.toml:12:17: unknown key `queu` in `saga.t.steps[0]`; did you mean `queue`?
            rules.toml:12:39: `saga.t.steps[0].payload` cannot be "inpt"; did you mean `input`?
            rules.toml:13:3: `saga.t.steps[1]` takes a table, and this is an integer
            rules.toml:20:1: unknown key `pvot` in `saga.v.steps[0]`; did you mean `pivot`?"#]],
    );
}

#[test]
fn what_can_not_be_meant_of_a_scatter_is_refused() {
    refused(
        "[scatter.a]\ntopic = \"x.*\"\nrecipients = [\"q\", \"q.dlq\", \"chaski\", \"q\"]\n[scatter.b]\ntopic = \"$chaski.x\"\nrecipients = []\n\
         [scatter.c]\ntopic = \"c\"\nrecipients = [\"q\"]\npattern = \"q.>\"\ntimeout = \"0ms\"\nquorum = 0\nmax_replies = 0\npriority = 10\n\
         [scatter.\"d.e\"]\ntopic = \"d\"\npattern = \"a..b\"\nttl = \"0s\"\n",
        expect![[r#"
            rules.toml:2:9: `scatter.a.topic`: topic `x.*` has '*' in token `*`
            rules.toml:3:20: `scatter.a.recipients[1]`: queue name `q.dlq` is reserved: `chaski` and names that end in `.dlq` are the router's own
            rules.toml:3:29: `scatter.a.recipients[2]`: queue name `chaski` is reserved: `chaski` and names that end in `.dlq` are the router's own
            rules.toml:5:9: `scatter.b.topic`: topic `$chaski.x` is reserved: topics that begin with `$` are the router's own
            rules.toml:6:14: `scatter.b.recipients` has 0 entries; it takes 1 to 1000
            rules.toml:10:1: `scatter.c` has `recipients` and `pattern`; it takes one of `recipients`, `pattern`
            rules.toml:11:11: `scatter.c.timeout` is "0ms"; it takes at least 1ms
            rules.toml:12:10: `scatter.c.quorum` is 0; it takes 1 to 100000
            rules.toml:13:15: `scatter.c.max_replies` is 0; it takes 1 to 100000
            rules.toml:14:12: `scatter.c.priority` is 10; it takes at most 9
            rules.toml:15:10: a scatter's name is one token, and `d.e` has a dot in it
            rules.toml:17:11: `scatter.d.e.pattern`: pattern `a..b` has an empty token
            rules.toml:18:7: `scatter.d.e.ttl` is "0s"; it takes at least 1ms"#]],
    );
    refused(
        "[scatter.a]\ntopic = \"a\"\nrecipients = [\"q\", \"r\", \"q\"]\nquorum = 4\nmax_replies = 2\n[scatter.b]\ntopic = \"b\"\npattern = \"$chaski.>\"\n\
         quorum = 8\nmax_replies = 7\n",
        expect![[r#"
            rules.toml:3:25: `scatter.a.recipients[2]`: `q` is asked twice
            rules.toml:4:10: `scatter.a.quorum` is 4, and it asks only 3: it would never be reached
            rules.toml:5:15: `scatter.a.max_replies` is 2, and it has 3 recipients
            rules.toml:8:11: `scatter.b.pattern`: `$chaski.>` is reserved: topics that begin with `$` are the router's own
            rules.toml:9:10: `scatter.b.quorum` is 8, and it asks at most 7: it would never be reached"#]],
    );
}

#[test]
fn what_can_not_be_meant_of_a_saga_is_refused() {
    refused(
        "[saga.\"a/b\"]\ntopic = \"a\"\nsteps = []\n[saga.b]\nsteps = [{ name = \"x.y\", queue = \"q.dlq\" }, { name = \"u/v\", queue = \"$q\", timeout = \"0ms\", retries = -1, backoff = [] }]\n",
        expect![[r#"
            rules.toml:1:7: `a/b` has a `/` in it, which stands between a saga's name, its id and its steps
            rules.toml:3:9: `saga.a/b.steps` has 0 entries; it takes 1 to 64
            rules.toml:4:1: `saga.b` needs `topic`
            rules.toml:5:19: `saga.b.steps[0].name`: a step's name is one token, and `x.y` has a dot in it
            rules.toml:5:34: `saga.b.steps[0].queue`: queue name `q.dlq` is reserved: `chaski` and names that end in `.dlq` are the router's own
            rules.toml:5:54: `saga.b.steps[1].name`: `u/v` has a `/` in it, which stands between a saga's name, its id and its steps
            rules.toml:5:69: `saga.b.steps[1].queue`: queue name `$q` is reserved: topics that begin with `$` are the router's own
            rules.toml:5:85: `saga.b.steps[1].timeout` is "0ms"; it takes at least 1ms
            rules.toml:5:102: `saga.b.steps[1].retries` is -1; it takes at most 1000
            rules.toml:5:116: `saga.b.steps[1].backoff` has 0 entries; it takes 1 to 64"#]],
    );
    let steps: String = (0..65).map(|n| format!("{{ name = \"s{n}\", queue = \"q\" }},")).collect();
    refused(
        &format!("[saga.s]\ntopic = \"s\"\nsteps = [{steps}]\n"),
        expect!["rules.toml:3:9: `saga.s.steps` has 65 entries; it takes 1 to 64"],
    );
    refused(
        r#"[saga.a]
topic = "a"
steps = [
  { name = "x", queue = "q", group = "g" },
  { name = "y", queue = "q", pivot = true },
  { name = "x", queue = "q", group = "g", pivot = true },
]
[[saga.b.steps]]
name = "x"
queue = "q"
group = "g"
[[saga.b.steps]]
name = "y"
queue = "q"
group = "g"
pivot = true
[saga.b]
topic = "b"
"#,
        expect![[r#"
            rules.toml:6:12: `saga.a.steps[2].name`: there is a step `x` already
            rules.toml:6:38: `saga.a.steps[2].group`: the steps of group `g` run side by side, so they follow one another, and there is another step between them
            rules.toml:6:51: `saga.a.steps[2].pivot`: `y` is the pivot already, and a saga has one point of no return
            rules.toml:6:51: `saga.a.steps[2].pivot`: a pivot stands alone: what runs beside it in group `g` might end before or after it, so nobody could say whether a failure there is compensated
            rules.toml:16:9: `saga.b.steps[1].pivot`: a pivot stands alone: what runs beside it in group `g` might end before or after it, so nobody could say whether a failure there is compensated"#]],
    );
}

#[test]
fn a_module_is_one_of_filter_aggregator_and_compensator() {
    refused(
        "[module.m]\n[queue.q]\nfilters = [\"cel\", \"m\"]\n[scatter.s]\ntopic = \"s\"\nrecipients = [\"a\"]\naggregator = \"m\"\n\
         [saga.t]\ntopic = \"t\"\ncompensator = \"m\"\nsteps = [{ name = \"x\", queue = \"a\" }]\n",
        expect![[r#"
            rules.toml:7:14: `scatter.s.aggregator`: `m` is a filter at `queue.q.filters[1]`, and would have to be an aggregator here
            rules.toml:10:15: `saga.t.compensator`: `m` is a filter at `queue.q.filters[1]`, and would have to be a compensator here"#]],
    );
}

#[test]
fn queues_that_only_scatters_and_sagas_name_are_made() {
    let checked = accepted(&format!("[queue.b]\nack_wait = \"1s\"\n{SCATTER}{SAGA}"));
    let names: Vec<_> = checked.rules.queues.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b", "a", "c", "stock.reserve", "stock.release", "ship.book"]);
    assert_eq!(checked.rules.queues[1].1, accepted("[queue.a]").rules.queues[0].1);
    expect![[r#"
        queue.a: made with defaults, since only scatter.quote names it
        queue.c: made with defaults, since only scatter.quote names it
        queue.stock.reserve: made with defaults, since only saga.order names it
        queue.stock.release: made with defaults, since only saga.order names it
        queue.ship.book: made with defaults, since only saga.order names it"#]]
    .assert_eq(&checked.notes.join("\n"));
}

#[test]
fn what_is_odd_about_scatters_and_sagas_is_noted() {
    let checked = accepted(
        r#"
[queue.a]
bind = ["a.*"]
[queue.b]
[scatter.s]
topic = "a.x"
recipients = ["a", "b"]
[scatter.t]
topic = "a.x"
recipients = ["b"]
[saga.u]
topic = "b"
timeout = "1s"
steps = [
  { name = "x", queue = "a", compensate = "b", timeout = "1s" },
  { name = "y", queue = "a", compensate = "b", timeout = "1s", pivot = true },
  { name = "z", queue = "b", compensate = "a" },
]
"#,
    );
    expect![[r#"
        scatter.s: queue `a` takes its topic `a.x` itself as well, so it gets every request twice
        saga.u: queue `b` takes its topic `b` itself as well, so its consumer gets what begins a saga too
        saga.u: `compensate` of step `y` is never used by itself, since nothing is undone once the pivot `y` is done; only `saga abort` would
        saga.u: `compensate` of step `z` is never used by itself, since nothing is undone once the pivot `y` is done; only `saga abort` would
        saga.u: step `z` may take 30s, and the whole saga is compensated after 1s"#]].assert_eq(&checked.notes.join("\n"));
}

#[test]
fn a_queue_that_a_scatter_or_saga_needs_is_not_deleted() {
    let document = format!("[queue.a]\n[queue.\"ship.book\"]\n{SCATTER}{SAGA}");
    let by = |queue| match delete_queue(&document, queue) {
        Err(EditError::Needed { by, .. }) => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (by("a").as_str(), by("c").as_str(), by("ship.book").as_str()),
        ("scatter.quote", "scatter.quote", "saga.order")
    );
}

#[test]
fn a_diff_names_what_changes_of_scatters_and_sagas() {
    let old = format!("{SCATTER}{SAGA}[scatter.gone]\ntopic = \"x\"\npattern = \"y.*\"\n");
    let new = r#"
[scatter.quote]
topic = "quotes.request"
recipients = ["a", "b"]
quorum = 1
late = "drop"
[saga.order]
topic = "orders.place"
timeout = "1h"
steps = [
  { name = "ship", queue = "ship.book", pivot = true, timeout = "10s" },
  { name = "reserve", queue = "stock.reserve", compensate = "stock.release", backoff = ["1s", "5s", "30s", "2m"] },
  { name = "charge", queue = "card.charge" },
]
[saga.new]
topic = "x"
steps = [{ name = "x", queue = "a" }]
"#;
    differs(
        &old,
        new,
        expect![[r#"
        - queue.c
        + queue.card.charge
        - scatter.gone
        ~ scatter.quote.quorum: none → 1
        ~ scatter.quote.recipients: [a, b, c] → [a, b]
        + saga.new
        ~ saga.order.timeout: 5m → 1h
        + saga.order.steps.charge
        ~ saga.order.steps.ship.timeout: 30s → 10s
        ~ order of saga.order.steps: [reserve, ship] → [ship, reserve]"#]],
    );
    differs(&old, &format!("# ours\n{old}"), expect![[""]]);
}

#[test]
fn the_schema_knows_every_key_of_scatters_and_sagas() {
    let schema = rules::schema();
    let scatter = &schema["properties"]["scatter"]["additionalProperties"];
    let steps = &schema["properties"]["saga"]["additionalProperties"]["properties"]["steps"];
    assert_eq!(
        (&scatter["additionalProperties"], &steps["items"]["additionalProperties"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(scatter["required"], json!(["topic"]));
    assert_eq!(steps["items"]["required"], json!(["name", "queue"]));
    assert!(steps["items"]["properties"]["pivot"]["description"].is_string());
}
