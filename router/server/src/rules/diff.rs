//! What one version of the rules changes against another: one line a change, effective settings compared, so that a default
//! written out is no change.

use std::collections::BTreeMap;

use chaski_broker::Rules;
use serde_json::Value as Json;

use super::{limits_table, plan};

/// `+ queue.x`, `- queue.y`, `~ queue.z.ack_wait: 30s → 10s`: limits first, then queues by name.
pub fn diff(old: &Rules, new: &Rules) -> Vec<String> {
    let mut lines = Vec::new();
    let limits = |rules: &Rules| plan::flattened(&limits_table(&rules.document));
    settings("limits", &limits(old), &limits(new), &mut lines);
    let queues = |rules: &Rules| -> BTreeMap<String, BTreeMap<String, Json>> {
        rules.queues.iter().map(|(name, settings)| (name.clone(), plan::spelled(settings))).collect()
    };
    let (old, new) = (queues(old), queues(new));
    for name in old
        .keys()
        .chain(new.keys().filter(|name| !old.contains_key(*name)))
        .collect::<std::collections::BTreeSet<_>>()
    {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => settings(&format!("queue.{name}"), old, new, &mut lines),
            (Some(_), None) => lines.push(format!("- queue.{name}")),
            (None, _) => lines.push(format!("+ queue.{name}")),
        }
    }
    lines
}

fn settings(path: &str, old: &BTreeMap<String, Json>, new: &BTreeMap<String, Json>, lines: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (old, new) = (old.get(key), new.get(key));
        if old != new {
            lines.push(format!("~ {path}.{key}: {} → {}", shown(old), shown(new)));
        }
    }
}

fn shown(value: Option<&Json>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Array(values)) => {
            format!("[{}]", values.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(", "))
        }
        Some(value) => value.to_string(),
    }
}
