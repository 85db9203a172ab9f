//! Modules as people read them. Pure.

use std::fmt::Write as _;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_protocol::admin::{ModuleDeployed, ModuleVersionView, ModuleView, StateEntryView};
use serde_json::{Map, Value};

use crate::human;
use crate::table::{Facts, Table};

/// The longest value that is shown to people in a list, in characters.
const SHOWN: usize = 100;

/// Hexadecimal digits that tell one binary from another to people.
const SHORT: usize = 12;

/// `sha256:e3b0c44298fc…`; nothing for nothing.
pub(crate) fn short(digest: &str) -> String {
    match digest.strip_prefix("sha256:").and_then(|hex| hex.get(..SHORT)) {
        Some(hex) => format!("sha256:{hex}…"),
        None => digest.to_owned(),
    }
}

/// A version that is in force now.
pub(super) fn deployed(deployed: &ModuleDeployed) -> String {
    let mut text = deployed.changes.iter().map(|line| format!("{line}\n")).collect::<String>();
    let compiled = match deployed.from_cache {
        true => "its code was there already".to_owned(),
        false => format!("compiled in {:.0} ms", deployed.compile_ms),
    };
    let ModuleDeployed { name, digest, version, .. } = deployed;
    let _ = writeln!(text, "{name} is {digest}, {compiled}: rules version {version} is in force");
    text
}

/// One line a module.
pub(super) fn list(modules: &[ModuleView]) -> String {
    let titles =
        ["NAME", "STATE", "LANE", ">MESSAGES", ">ERRORS", ">P50", ">P99", ">MEMORY", "USED BY", "DIGEST"];
    let mut table = Table::new(&titles);
    for module in modules {
        let errors: u64 = module.errors.values().sum();
        table.row([
            module.name.clone(),
            module.state.clone(),
            module.lane.clone(),
            module.messages.to_string(),
            errors.to_string(),
            micros(module.p50_us),
            micros(module.p99_us),
            human::bytes(module.memory_bytes),
            or_dash(module.used_by.join(", ")),
            or_dash(short(&module.digest)),
        ]);
    }
    table.to_string()
}

/// Everything about one module.
pub(super) fn facts(module: &ModuleView) -> String {
    let mut facts = Facts::new();
    facts.add("module", format!("{} {}", module.name, module.description_version));
    facts.add("kind", or_dash(module.kind.clone()));
    facts.add("state", module.state.clone());
    facts.add("lane", module.lane.clone());
    facts.add("digest", or_dash(module.digest.clone()));
    facts.add("source", module.source.clone());
    facts.add("previous", or_dash(module.previous.clone().unwrap_or_default()));
    facts.add("used by", or_dash(module.used_by.join(", ")));
    facts.add("reads", or_dash(module.fields.join(", ")));
    facts.add("params", params(&module.params));
    facts.add("on_error", module.on_error.clone());
    let limits = (module.time_limit_ms, human::bytes(module.memory_limit_bytes));
    facts.add("limits", format!("{} ms, {}", limits.0, limits.1));
    let calls = human::count(module.calls, "call");
    facts.add("judged", format!("{} in {calls}", human::count(module.messages, "message")));
    let errors: Vec<_> = module.errors.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    facts.add("errors", or_dash(errors.join(", ")));
    facts.add("time a call", format!("p50 {}, p99 {}", micros(module.p50_us), micros(module.p99_us)));
    let instances = human::count(module.instances, "instance");
    facts.add("memory", format!("{} in {instances}", human::bytes(module.memory_bytes)));
    facts.add("compiled in", format!("{:.0} ms", module.compile_ms));
    if module.keeps_state {
        let keys = human::count(module.state_keys, "key");
        facts.add("keeps", format!("{keys}, {}", human::bytes(module.state_bytes)));
    }
    let mut text = facts.to_string();
    if let Some(shadow) = &module.shadow {
        let ends = shadow.ends_at.as_ref().map(|ends| format!(", until {ends}")).unwrap_or_default();
        let _ = writeln!(text, "\nshadow {}{ends}", shadow.digest);
        let compared = human::count(shadow.messages, "message");
        let _ = writeln!(
            text,
            "  {compared} compared, {} skipped, {} differ",
            shadow.skipped, shadow.differences
        );
        for example in &shadow.examples {
            let said = |text: &str| human::one_line(text, SHOWN);
            let _ = writeln!(
                text,
                "  {}  live {}  shadow {}",
                said(&example.id),
                said(&example.live),
                said(&example.shadow)
            );
        }
    }
    text
}

/// One line a version.
pub(super) fn history(versions: &[ModuleVersionView]) -> String {
    let mut table = Table::new(&[">RULES", "APPLIED AT", "AUTHOR", "DIGEST", "PARAMS", ""]);
    for version in versions {
        let mark = if version.current { "*" } else { "" };
        let failed = if version.failed { "rolled itself back" } else { "" };
        table.row([
            format!("{mark}{}", version.rules_version),
            version.applied_at.clone(),
            version.author.clone(),
            short(&version.digest),
            params(&version.params),
            failed.to_owned(),
        ]);
    }
    table.to_string()
}

/// A state's entry in a line.
pub(super) fn entry(entry: &StateEntryView) -> String {
    let coded = |text: &str, encoding: &str| {
        let prefix = if encoding == "base64" { "base64:" } else { "" };
        human::one_line(&format!("{prefix}{text}"), SHOWN)
    };
    let until = entry.expires_at.as_ref().map(|at| format!("  until {at}")).unwrap_or_default();
    let (key, value) = (coded(&entry.key, &entry.key_encoding), coded(&entry.value, &entry.value_encoding));
    format!("{key}  {value}{until}")
}

/// The value alone, as it is kept; text with a line's end.
pub(super) fn value(entry: &StateEntryView) -> anyhow::Result<Vec<u8>> {
    if entry.value_encoding == "base64" {
        return BASE64.decode(&entry.value).context("the router's answer is no base64");
    }
    Ok(format!("{}\n", human::harmless(&entry.value)).into_bytes())
}

fn micros(us: f64) -> String {
    format!("{us:.1} µs")
}

fn params(params: &Map<String, Value>) -> String {
    if params.is_empty() {
        "-".to_owned()
    } else {
        human::one_line(&Value::Object(params.clone()).to_string(), SHOWN)
    }
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use chaski_protocol::admin::{Difference, ShadowView};
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn module() -> ModuleView {
        ModuleView {
            name: "eu-only".to_owned(),
            kind: "filter".to_owned(),
            description_version: "0.1.0".to_owned(),
            digest: DIGEST.to_owned(),
            source: "digest".to_owned(),
            state: "active".to_owned(),
            lane: "inline".to_owned(),
            used_by: vec!["route inbound".to_owned(), "queue billing".to_owned()],
            fields: vec!["header:region".to_owned()],
            keeps_state: true,
            params: json!({ "region": "eu" }).as_object().expect("an object").clone(),
            on_error: "dead-letter".to_owned(),
            time_limit_ms: 10,
            memory_limit_bytes: 16 << 20,
            calls: 1,
            messages: 48,
            errors: [("trap".to_owned(), 2)].into(),
            p50_us: 3.5,
            p99_us: 11.25,
            memory_bytes: 1 << 20,
            instances: 2,
            compile_ms: 41.5,
            state_keys: 3,
            state_bytes: 512,
            previous: None,
            shadow: Some(ShadowView {
                digest: DIGEST.to_owned(),
                messages: 9,
                skipped: 1,
                differences: 1,
                examples: vec![Difference {
                    id: "o-1".to_owned(),
                    live: "pass".to_owned(),
                    shadow: "reject: no region".to_owned(),
                }],
                ends_at: Some("2026-01-01T00:00:00Z".to_owned()),
            }),
        }
    }

    #[test]
    fn the_list_has_a_line_a_module() {
        expect![[r#"
            NAME     STATE   LANE    MESSAGES  ERRORS     P50      P99   MEMORY  USED BY                       DIGEST
            eu-only  active  inline        48       2  3.5 µs  11.2 µs  1.0 MiB  route inbound, queue billing  sha256:e3b0c44298fc…
        "#]].assert_eq(&list(&[module()]));
    }

    #[test]
    fn a_module_is_shown_with_its_shadow() {
        expect![[r#"
            module       eu-only 0.1.0
            kind         filter
            state        active
            lane         inline
            digest       sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
            source       digest
            previous     -
            used by      route inbound, queue billing
            reads        header:region
            params       {"region":"eu"}
            on_error     dead-letter
            limits       10 ms, 16.0 MiB
            judged       48 messages in 1 call
            errors       trap 2
            time a call  p50 3.5 µs, p99 11.2 µs
            memory       1.0 MiB in 2 instances
            compiled in  42 ms
            keeps        3 keys, 512 B

            shadow sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, until 2026-01-01T00:00:00Z
              9 messages compared, 1 skipped, 1 differ
              o-1  live pass  shadow reject: no region
        "#]].assert_eq(&facts(&module()));
    }

    #[test]
    fn history_tells_which_version_failed() {
        let version = |rules_version, current, failed| ModuleVersionView {
            rules_version,
            digest: DIGEST.to_owned(),
            params: Map::new(),
            author: "module deploy".to_owned(),
            applied_at: "2026-01-01T00:00:00Z".to_owned(),
            current,
            failed,
        };
        expect![[r#"
            RULES  APPLIED AT            AUTHOR         DIGEST                PARAMS
              *10  2026-01-01T00:00:00Z  module deploy  sha256:e3b0c44298fc…  -
                9  2026-01-01T00:00:00Z  module deploy  sha256:e3b0c44298fc…  -       rolled itself back
        "#]]
        .assert_eq(&history(&[version(10, true, false), version(9, false, true)]));
    }

    #[test]
    fn a_deploy_says_what_is_in_force() {
        let view = ModuleDeployed {
            name: "eu-only".to_owned(),
            digest: DIGEST.to_owned(),
            version: 5,
            compile_ms: 41.4,
            from_cache: false,
            changes: vec!["+ module.eu-only".to_owned()],
        };
        expect![[r#"
            + module.eu-only
            eu-only is sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, compiled in 41 ms: rules version 5 is in force
        "#]].assert_eq(&deployed(&view));
    }

    #[test]
    fn bytes_that_are_no_text_are_said_to_be_base64() {
        let view = StateEntryView {
            key: "c42".to_owned(),
            key_encoding: "utf8".to_owned(),
            value: "/wA=".to_owned(),
            value_encoding: "base64".to_owned(),
            expires_at: Some("2026-01-01T00:00:00Z".to_owned()),
        };
        assert_eq!(entry(&view), "c42  base64:/wA=  until 2026-01-01T00:00:00Z");
        assert_eq!(value(&view).expect("base64"), b"\xff\0");
        let text = StateEntryView { value: "7".to_owned(), value_encoding: "utf8".to_owned(), ..view };
        assert_eq!(value(&text).expect("text"), b"7\n");
    }
}
