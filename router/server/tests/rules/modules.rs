//! What the rules say of modules, routes and filters.

use chaski_broker::ModulePin;
use chaski_server::rules::{
    self, EditError, ModuleOptions, ModuleSource, ModuleSpec, OnError, Rollback, RouteSpec, set_module,
};
use expect_test::expect;
use serde_json::json;

use super::{accepted, differs, refused};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The public key of RFC 8032, section 7.1, test 1.
const KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

fn module(document: &str) -> ModuleSpec {
    accepted(document).modules.remove(0)
}

#[test]
fn a_module_without_settings_has_the_defaults_of_the_design() {
    let expected = ModuleSpec {
        name: "eu-only".to_owned(),
        source: ModuleSource::Missing,
        params: vec![],
        on_error: OnError::DeadLetter,
        time_limit_ms: 10,
        memory_limit_bytes: 16 << 20,
        rollback: Rollback { errors_percent: 5, of: 200 },
    };
    assert_eq!(module("[module.eu-only]"), expected);
    let options = ModuleOptions { trusted_keys: vec![], max_size_bytes: 8 << 20 };
    assert_eq!(accepted("").module_options, options);
}

#[test]
fn every_setting_of_modules_and_routes_is_read() {
    let document = format!(
        r#"
        [modules]
        trusted_keys = ["{KEY}"]
        max_size = "64MiB"
        [module.z]
        file = "z.wasm"
        on_error = "retry"
        time_limit = "1s"
        memory_limit = "1GiB"
        rollback = {{ errors = "100%", of = 20 }}
        params = {{ text = "eu", whole = 3, real = 0.5, flag = true, list = ["a", 1], table = {{ a = 1 }} }}
        [module.digest]
        digest = "{DIGEST}"
        [module.a]
        builtin = "header-match"
        [module.a.params]
        conditions = ["region == eu"]
        [route.second]
        topics = ["orders.>", "refunds.*"]
        filters = ["z", "a"]
        [route.first]
        topics = ["x"]
        filters = ["digest", "content-router"]
        [queue.plain]
        [queue.billing]
        filters = ["a"]
    "#
    );
    let checked = accepted(&document);
    assert_eq!(checked.module_options.max_size_bytes, 64 << 20);
    assert_eq!(checked.module_options.trusted_keys[0][..4], [0xd7, 0x5a, 0x98, 0x01]);
    let params = json!({
        "flag": true, "list": ["a", 1], "real": 0.5, "table": { "a": 1 }, "text": "eu", "whole": 3,
    });
    let names: Vec<_> = checked.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["z", "digest", "a", "content-router"]);
    let z = ModuleSpec {
        name: "z".to_owned(),
        source: ModuleSource::File("z.wasm".to_owned()),
        params: params.as_object().unwrap().clone().into_iter().collect(),
        on_error: OnError::Retry,
        time_limit_ms: 1_000,
        memory_limit_bytes: 1 << 30,
        rollback: Rollback { errors_percent: 100, of: 20 },
    };
    assert_eq!(checked.modules[0], z);
    assert!(
        matches!(&checked.modules[1].source, ModuleSource::Digest(digest) if digest[..2] == [0xe3, 0xb0])
    );
    assert_eq!(checked.modules[2].source, ModuleSource::Builtin("header-match".to_owned()));
    assert_eq!(checked.modules[2].params, [("conditions".to_owned(), json!(["region == eu"]))]);
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let route = |name: &str, topics, filters| RouteSpec {
        name: name.to_owned(),
        topics: strings(topics),
        filters: strings(filters),
    };
    let routes = [
        route("second", &["orders.>", "refunds.*"], &["z", "a"]),
        route("first", &["x"], &["digest", "content-router"]),
    ];
    assert_eq!(checked.routes, routes);
    assert_eq!(checked.queue_filters, [("billing".to_owned(), strings(&["a"]))]);
    assert_eq!(checked.notes, [] as [String; 0]);
}

#[test]
fn a_builtin_needs_no_table_of_its_own() {
    let checked = accepted("[queue.q]\nfilters = [\"eu-only\", \"eu-only\"]\n");
    let [module] = &checked.modules[..] else { panic!("{:?}", checked.modules) };
    assert_eq!((module.name.as_str(), &module.params[..]), ("eu-only", &[][..]));
    assert_eq!(module.source, ModuleSource::Builtin("eu-only".to_owned()));
    // A table of that name is what counts where there is one.
    let own = module_named("[module.eu-only]\nfile = \"own.wasm\"\n[queue.q]\nfilters = [\"eu-only\"]\n");
    assert_eq!(own.source, ModuleSource::File("own.wasm".to_owned()));
}

fn module_named(document: &str) -> ModuleSpec {
    let checked = accepted(document);
    assert_eq!(checked.modules.len(), 1);
    module(document)
}

#[test]
fn an_unknown_filter_is_named_with_the_nearest_module_or_builtin() {
    refused(
        "[module.validate]\n[route.r]\ntopics = [\"x\"]\nfilters = [\n  \"validate\",\n  \"valdate\",\n]\n[queue.q]\nfilters = [\"heder-match\"]\n",
        expect![[r#"
            rules.toml:6:3: `route.r.filters[1]`: there is no module or builtin `valdate`; did you mean `validate`?
            rules.toml:9:12: `queue.q.filters[0]`: there is no module or builtin `heder-match`; did you mean `header-match`?"#]],
    );
    refused(
        "[queue.q]\nfilters = [\"zzzzzzzzzz\"]\n",
        expect![
            "rules.toml:2:12: `queue.q.filters[0]`: there is no module or builtin `zzzzzzzzzz`; known here: `cel`, `content-router`, `dedup-by-content`, `eu-only`, `header-match`, `json-match`, `redact`, `sample`, `schema-check`, `split`, `throttle`"
        ],
    );
}

#[test]
fn a_module_has_one_source() {
    refused(
        &format!(
            "[module.a]\nfile = \"a.wasm\"\ndigest = \"{DIGEST}\"\nbuiltin = \"cel\"\n[module.b]\nbuiltin = \"cell\"\n[module.c]\nfile = \"\"\n"
        ),
        expect![[r#"
            rules.toml:3:1: `module.a` has `file` and `digest`; it takes one of `file`, `digest`, `builtin`
            rules.toml:4:1: `module.a` has `file` and `builtin`; it takes one of `file`, `digest`, `builtin`
            rules.toml:6:11: `module.b.builtin`: there is no builtin `cell`; did you mean `cel`?
            rules.toml:8:8: `module.c.file` is empty"#]],
    );
}

#[test]
fn digests_keys_and_percentages_are_checked() {
    refused(
        "[modules]\ntrusted_keys = [\"?\", \"AAAA\", \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]\nmax_size = \"65MiB\"\n\
         [module.a]\ndigest = \"e3b0\"\nrollback = { errors = \"5\", of = 19 }\n[module.b]\nrollback = { errors = 5 }\n\
         [module.c]\nrollback.errors = \"101%\"\ntime_limit = \"11s\"\nmemory_limit = \"1KiB\"\non_error = \"dead-leter\"\n",
        expect![[r#"
            rules.toml:2:17: `modules.trusted_keys[0]`: it is no base64: Invalid symbol 63, offset 0.
            rules.toml:2:22: `modules.trusted_keys[1]`: an Ed25519 public key has 32 bytes, and this has 3
            rules.toml:2:30: `modules.trusted_keys[2]`: these 32 bytes are no Ed25519 public key
            rules.toml:3:12: `modules.max_size` is "65MiB"; it takes 1B to 64MiB
            rules.toml:5:10: `module.a.digest`: a digest is written `sha256:` and 64 hexadecimal digits, not `e3b0`
            rules.toml:6:23: `module.a.rollback.errors`: `5` is no percentage: write a whole number with its sign, as `5%`
            rules.toml:6:33: `module.a.rollback.of` is 19; it takes 20 to 1000000
            rules.toml:8:23: `module.b.rollback.errors` takes a percentage with its unit, such as "5%", and this is an integer
            rules.toml:10:19: `module.c.rollback.errors` is "101%"; it takes 1% to 100%
            rules.toml:11:14: `module.c.time_limit` is "11s"; it takes 1ms to 10s
            rules.toml:12:16: `module.c.memory_limit` is "1KiB"; it takes 64KiB to 1GiB
            rules.toml:13:12: `module.c.on_error` cannot be "dead-leter"; did you mean `dead-letter`?"#]],
    );
}

#[test]
fn a_route_needs_topics() {
    refused(
        "[route.a]\nfilters = []\n[route.b]\ntopics = []\n[route.c]\ntopics = [\"a..b\"]\n[route]\nd = { topic = [\"x\"] }\n",
        expect![[r#"
            rules.toml:1:1: `route.a` needs `topics`
            rules.toml:4:10: `route.b.topics` has 0 entries; it takes 1 to 10000
            rules.toml:6:11: `route.c.topics[0]`: pattern `a..b` has an empty token
            rules.toml:8:5: `route.d` needs `topics`
            rules.toml:8:7: unknown key `topic` in `route.d`; did you mean `topics`?"#]],
    );
}

#[test]
fn names_of_modules_and_routes_are_tokens() {
    let long = "m".repeat(65);
    refused(
        &format!("[module.\"a.b\"]\n[module.\"a b\"]\n[module.{long}]\n[route.\"*\"]\ntopics = [\"x\"]\n"),
        expect![[r#"
            rules.toml:1:9: a module's name is one token, and `a.b` has a dot in it
            rules.toml:2:9: a module's name is a token of a topic: topic `a b` has ' ' in token `a b`
            rules.toml:3:9: a module's name has at most 64 bytes, this one 65
            rules.toml:4:8: a route's name is a token of a topic: topic `*` has '*' in token `*`"#]],
    );
}

#[test]
fn params_are_what_json_has_too() {
    refused(
        "[module.a]\nparams = { at = 2026-01-01, list = [inf] }\n[module.b.params.table]\nx = nan\n[module.c]\nparams = 3\n",
        expect![[r#"
            rules.toml:2:17: `module.a.params.at`: a param is no date; write it as a string
            rules.toml:2:37: `module.a.params.list`: a param is a finite number
            rules.toml:4:5: `module.b.params.table.x`: a param is a finite number
            rules.toml:6:10: `module.c.params` takes a table, and this is an integer"#]],
    );
}

#[test]
fn modules_and_routes_without_effect_are_noted() {
    let checked =
        accepted("[module.idle]\nbuiltin = \"cel\"\n[route.r]\ntopics = [\"x\", \"x\", \"$chaski.>\"]\n");
    expect![[r#"
        route.r: without filters it has no effect
        route.r: `x` is named twice; once is enough
        route.r: `$chaski.>` has no effect: what the router itself says is not judged
        module.idle: no route, queue, scatter or saga names it; consumers and subscriptions may (--filter idle)"#]]
    .assert_eq(&checked.notes.join("\n"));
    assert_eq!(checked.routes[0].topics, ["x", "$chaski.>"]);
}

#[test]
fn a_diff_names_what_changes_of_modules_routes_and_filters() {
    let old = format!(
        "[module.gone]\n[module.x]\ndigest = \"{DIGEST}\"\nparams = {{ region = \"eu\" }}\n[route.a]\ntopics = [\"x\"]\n[route.b]\ntopics = [\"y\"]\n[route.old]\ntopics = [\"y\"]\n[queue.q]\n"
    );
    let other = DIGEST.replace("e3", "e4");
    let new = format!(
        "[modules]\nmax_size = \"16MiB\"\n[module.x]\ndigest = \"{other}\"\nparams = {{ region = \"us\" }}\nrollback.errors = \"6%\"\ntime_limit = \"10ms\"\n[module.new]\n[route.b]\ntopics = [\"y\"]\nfilters = [\"x\"]\n[route.a]\ntopics = [\"x\"]\n[queue.q]\nfilters = [\"x\", \"new\"]\n"
    );
    differs(
        &old,
        &new,
        expect![[r#"
        ~ modules.max_size: 8MiB → 16MiB
        - module.gone
        + module.new
        ~ module.x.digest: sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 → sha256:e4b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
        ~ module.x.params.region: eu → us
        ~ module.x.rollback.errors: 5% → 6%
        ~ route.b.filters: [] → [x]
        - route.old
        ~ order of routes: [a, b] → [b, a]
        ~ queue.q.filters: none → [x, new]"#]],
    );
    differs("[module.x]\n", "# ours\n[module.x]\non_error = \"dead-letter\"\n", expect![[""]]);
}

#[test]
fn a_diff_tells_that_a_file_is_another_binary_now() {
    let version = |byte: u8| {
        let mut rules = accepted("[module.x]\nfile = \"x.wasm\"\n[module.y]\n").rules;
        let pin = |name: &str, binary| ModulePin { name: name.to_owned(), binary, signature: None };
        rules.modules = vec![pin("x", Some([byte; 32])), pin("y", None)];
        rules
    };
    let changes = rules::diff(&version(1), &version(2));
    let [one, two] = ["01", "02"].map(|byte| byte.repeat(32));
    assert_eq!(changes, [format!("~ module.x.digest: sha256:{one} → sha256:{two}")]);
    // A document that was only checked names no binary.
    assert_eq!(rules::diff(&version(1), &accepted(&version(1).document).rules), [] as [String; 0]);
}

#[test]
fn setting_a_module_keeps_the_rest_of_the_document() {
    let document = "# ours\n[module.a] # first\nfile = \"a.wasm\"\ntime_limit = \"20ms\" # slow\nparams = { region = \"eu\" } # where\n\n[queue.q]\nfilters = [\"a\"]\n";
    let digest = ModuleSource::Digest([0xab; 32]);
    let edited = set_module(document, "a", &digest, None).unwrap();
    expect![[r##"
        # ours
        [module.a] # first
        time_limit = "20ms" # slow
        params = { region = "eu" } # where
        digest = "sha256:abababababababababababababababababababababababababababababababab"

        [queue.q]
        filters = ["a"]
    "##]]
    .assert_eq(&edited);
    let params = [("region".to_owned(), json!("us")), ("list".to_owned(), json!([1, 0.5, { "a": true }]))];
    let edited = set_module(&edited, "a", &ModuleSource::Digest([0xcd; 32]), Some(&params)).unwrap();
    expect![[r##"
        # ours
        [module.a] # first
        time_limit = "20ms" # slow
        params = { region = "us", list = [1, 0.5, { a = true }] } # where
        digest = "sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"

        [queue.q]
        filters = ["a"]
    "##]]
    .assert_eq(&edited);
    let mut written = module(&edited).params;
    written.reverse();
    assert_eq!(written, params);
    let edited = set_module(&edited, "b", &ModuleSource::Builtin("cel".to_owned()), Some(&[])).unwrap();
    expect![[r##"
        # ours
        [module.a] # first
        time_limit = "20ms" # slow
        params = { region = "us", list = [1, 0.5, { a = true }] } # where
        digest = "sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"

        [module.b]
        builtin = "cel"

        [queue.q]
        filters = ["a"]
    "##]]
    .assert_eq(&edited);
    accepted(&edited);
}

#[test]
fn a_module_is_set_in_any_kind_of_document() {
    for document in
        ["", "module = { a = { file = \"x\" } }\n", "module.a.file = \"x\"\n", "[module]\na = {}\n"]
    {
        for name in ["a", "b"] {
            let digest = ModuleSource::Digest([1; 32]);
            let edited = set_module(document, name, &digest, Some(&[("n".to_owned(), json!(1))])).unwrap();
            let modules = accepted(&edited).modules;
            let set = modules.iter().find(|module| module.name == name).unwrap();
            assert_eq!((&set.source, set.params.len()), (&digest, 1), "{edited}");
        }
    }
    let null = [("n".to_owned(), json!(null))];
    let refused = set_module("", "a", &ModuleSource::Missing, Some(&null));
    assert!(matches!(refused, Err(EditError::Setting { key, .. }) if key == "params.n"));
    let huge = [("n".to_owned(), json!(u64::MAX))];
    assert!(set_module("", "a", &ModuleSource::Missing, Some(&huge)).is_err());
    assert!(matches!(
        set_module("module = 3", "a", &ModuleSource::Missing, None),
        Err(EditError::Document(_))
    ));
}

#[test]
fn the_schema_knows_every_key_of_modules_and_routes() {
    let schema = rules::schema();
    for (table, key) in [("module", "rollback"), ("route", "topics"), ("queue", "filters")] {
        let table = &schema["properties"][table]["additionalProperties"];
        assert_eq!(table["additionalProperties"], false);
        assert!(table["properties"][key]["description"].is_string(), "{key}");
    }
    assert_eq!(schema["properties"]["route"]["additionalProperties"]["required"], json!(["topics"]));
}
