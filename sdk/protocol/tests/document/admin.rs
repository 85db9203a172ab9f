//! The administrative calls of PROTOCOL.md: every verb and every answer has an example, and each is exactly what the code reads and
//! writes.

use chaski_protocol::admin::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{blocks, rows};

fn examples(kind: &str) -> Vec<Value> {
    let examples = blocks("json").filter(|(info, _)| *info == kind);
    examples.map(|(_, text)| serde_json::from_str(text).expect(text)).collect()
}

/// Checks one example.
type Check = fn(&Value);

fn goes_both_ways<T: Serialize + DeserializeOwned>(example: &Value) {
    let read: T =
        serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{error}: {example}"));
    assert_eq!(&serde_json::to_value(read).expect("it can be written"), example);
}

macro_rules! verbs {
    ($($verb:ident)*) => {
        /// The verb's name in the code. A verb that is added there must be added here.
        fn name(request: &AdminRequest) -> &'static str {
            match request {
                $(AdminRequest::$verb { .. } => stringify!($verb),)*
            }
        }

        const VERBS: &[&str] = &[$(stringify!($verb)),*];
    };
}

verbs! {
    Status QueueList QueueShow QueueCreate QueueDelete QueuePurge QueuePause QueueResume QueueCancel QueueUnpark Peek DlqList
    DlqShow DlqRedrive DlqPurge RulesCheck RulesDiff RulesApply RulesShow RulesHistory RulesRollback ModuleDeploy
    ModuleList ModuleShow ModuleHistory ModuleRollback ModuleShadow ModulePromote ModuleState Trace
    GatherList GatherShow SagaList SagaShow SagaRetry SagaSkip SagaAbort
}

#[test]
fn every_verb_has_an_example_and_a_row_with_its_members() {
    let mut seen = Vec::new();
    let rows = rows("\n## 10. Administrative calls");
    for example in examples("request") {
        goes_both_ways::<AdminRequest>(&example);
        let request: AdminRequest = serde_json::from_value(example.clone()).expect("it was just read");
        seen.push(name(&request));
        let verb = example["verb"].as_str().expect("a verb");
        let row = rows.iter().find(|row| row[0] == verb).unwrap_or_else(|| panic!("no row for {verb}"));
        let mut documented: Vec<&str> =
            row[1].split(", ").map(|member| member.trim_end_matches('?')).collect();
        documented.retain(|member| !member.is_empty());
        let mut members: Vec<&str> =
            example.as_object().expect("an object").keys().map(String::as_str).collect();
        members.retain(|member| *member != "verb");
        documented.sort_unstable();
        members.sort_unstable();
        assert_eq!(documented, members, "{verb}");
        for member in row[1].split(", ").filter(|member| !member.is_empty()) {
            let optional = member.ends_with('?');
            let mut without = example.clone();
            without.as_object_mut().expect("an object").remove(member.trim_end_matches('?'));
            let read = serde_json::from_value::<AdminRequest>(without);
            assert_eq!(read.is_ok(), optional, "{verb} without {member}");
        }
    }
    for verb in VERBS {
        assert!(seen.contains(verb), "{verb} has no example");
    }
    assert_eq!(rows.len(), VERBS.len());
}

#[test]
fn every_answer_has_an_example() {
    let checks: &[(&str, Check)] = &[
        ("Status", goes_both_ways::<Status>),
        ("QueueView", goes_both_ways::<QueueView>),
        ("RulesChange", goes_both_ways::<RulesChange>),
        ("Count", goes_both_ways::<Count>),
        ("Done", goes_both_ways::<Done>),
        ("MessageView", goes_both_ways::<MessageView>),
        ("DeadView", goes_both_ways::<DeadView>),
        ("RulesCheck", goes_both_ways::<RulesCheck>),
        ("RulesDiff", goes_both_ways::<RulesDiff>),
        ("RulesView", goes_both_ways::<RulesView>),
        ("RulesEntry", goes_both_ways::<RulesEntry>),
        ("Uploaded", goes_both_ways::<Uploaded>),
        ("ModuleDeployed", goes_both_ways::<ModuleDeployed>),
        ("ModuleView", goes_both_ways::<ModuleView>),
        ("ModuleVersionView", goes_both_ways::<ModuleVersionView>),
        ("StateEntryView", goes_both_ways::<StateEntryView>),
        ("TraceView", goes_both_ways::<TraceView>),
        ("GatherView", goes_both_ways::<GatherView>),
        ("SagaSummary", goes_both_ways::<SagaSummary>),
        ("SagaView", goes_both_ways::<SagaView>),
        ("SagaSteered", goes_both_ways::<SagaSteered>),
    ];
    for (kind, check) in checks {
        let examples = examples(kind);
        assert!(!examples.is_empty(), "{kind} has no example");
        examples.iter().for_each(check);
    }
    for row in rows("\n## 10. Administrative calls") {
        let answer = row[2].trim_start_matches("list of ").split(',').next().expect("an answer").to_owned();
        assert!(checks.iter().any(|(kind, _)| *kind == answer), "{}: {answer}", row[0]);
    }
}

#[test]
fn requests_with_unknown_verbs_or_members_are_refused() {
    for request in [
        json!({ "verb": "queue_explode", "queue": "q" }),
        json!({ "verb": "queue_show", "queue": "q", "extra": 1 }),
        json!({ "queue": "q" }),
    ] {
        assert!(serde_json::from_value::<AdminRequest>(request.clone()).is_err(), "{request}");
    }
    let bare = json!({ "verb": "status", "extra": 1 });
    assert_eq!(serde_json::from_value::<AdminRequest>(bare).expect("it is read"), AdminRequest::Status);
}

#[test]
fn answers_with_unknown_members_are_read() {
    let count = json!({ "count": 1, "stopped": null, "later": true });
    assert_eq!(serde_json::from_value::<Count>(count).expect("it is read").count, 1);
}
