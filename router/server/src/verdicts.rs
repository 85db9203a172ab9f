//! A filter's verdicts in words, as traces, shadows and `chaski module test` tell them. It decides nothing.

use chaski_modules::{Changes, Failure, HeaderChange, Verdict};

/// The verdict in one word, and what there is to say beside it.
pub(crate) fn words(verdict: &Verdict) -> (&'static str, Option<String>) {
    match verdict {
        Verdict::Pass => ("pass", None),
        Verdict::Drop => ("drop", None),
        Verdict::Reject { reason } => ("reject", Some(reason.clone())),
        Verdict::Transform(changes) => ("transform", Some(changed(changes))),
        Verdict::Route { topics, changes } => {
            let changed = Some(changed(changes)).filter(|changed| !changed.is_empty());
            let changed = changed.map(|changed| format!("; {changed}")).unwrap_or_default();
            ("route", Some(format!("to {}{changed}", topics.join(", "))))
        }
        Verdict::Split(children) => ("split", Some(format!("into {}", children.len()))),
    }
}

/// The same of a message that the filter failed on.
pub(crate) fn outcome_words(outcome: &Result<Verdict, Box<Failure>>) -> (&'static str, Option<String>) {
    match outcome {
        Ok(verdict) => words(verdict),
        Err(failure) => ("error", Some(failure.cause.to_string())),
    }
}

fn changed(changes: &Changes) -> String {
    let Changes { payload, key, headers, priority, ttl_ms, deliver_at_ms } = changes;
    let mut said = Vec::new();
    if let Some(payload) = payload {
        said.push(format!("payload of {} bytes", payload.len()));
    }
    if let Some(key) = key {
        said.push(match key {
            Some(key) => format!("key {key}"),
            None => "no key".to_owned(),
        });
    }
    for change in headers {
        said.push(match change {
            HeaderChange::Set { name, value } => format!("header {name}: {value}"),
            HeaderChange::Remove { name } => format!("no header {name}"),
        });
    }
    if let Some(priority) = priority {
        said.push(format!("priority {priority}"));
    }
    for (name, change) in [("ttl", ttl_ms), ("delivery", deliver_at_ms)] {
        if let Some(change) = change {
            said.push(match (name, change) {
                ("ttl", Some(ms)) => format!("ttl of {ms} ms"),
                (_, Some(ms)) => format!("delivered at {ms}"),
                (name, None) => format!("no {name} set"),
            });
        }
    }
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_what_it_does() {
        let header = |name: &str, value: &str| HeaderChange::Set { name: name.into(), value: value.into() };
        let changes = Changes {
            payload: Some(vec![0; 3]),
            key: Some(None),
            headers: vec![header("checked", "yes"), HeaderChange::Remove { name: "raw".into() }],
            priority: Some(9),
            ttl_ms: Some(Some(5)),
            deliver_at_ms: Some(None),
        };
        let told = "payload of 3 bytes, no key, header checked: yes, no header raw, priority 9, ttl of 5 ms, no delivery set";
        assert_eq!(words(&Verdict::Transform(Box::new(changes))), ("transform", Some(told.into())));
        let route = Verdict::Route { topics: vec!["a".into(), "b".into()], changes: Box::default() };
        assert_eq!(words(&route), ("route", Some("to a, b".into())));
        assert_eq!(words(&Verdict::Drop), ("drop", None));
        assert_eq!(words(&Verdict::Reject { reason: "no".into() }), ("reject", Some("no".into())));
    }
}
