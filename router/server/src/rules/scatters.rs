//! From `[scatter.NAME]` to what the broker needs: what its shape can't say is checked here, and what is allowed but odd is noted.

use std::sync::Arc;

use chaski_broker::{Late, OnTimeout, Recipients, ScatterSettings};
use chaski_protocol::pattern_matches;
use toml_edit::Table;

use super::document::{LateName, OnTimeoutName, ScatterTable};
use super::errors::Collector;
use super::modules::ModuleSpec;
use super::place::value_offset;
use super::uses::module_use;

/// Reports what is wrong with a scatter of the right shape.
pub(super) fn check(name: &str, table: &ScatterTable, root: &Table, errors: &mut Collector<'_>) {
    let at = |key: &[&str]| value_offset(root, &[&["scatter", name], key].concat());
    if let Some(pattern) = table.pattern.as_ref().filter(|pattern| pattern.0.starts_with('$')) {
        errors.add(
            at(&["pattern"]),
            format!(
                "`scatter.{name}.pattern`: `{}` is reserved: topics that begin with `$` are the router's own",
                pattern.0
            ),
        );
    }
    let recipients = table.recipients.as_deref().unwrap_or_default();
    for (index, recipient) in recipients.iter().enumerate() {
        if recipients[..index].contains(recipient) {
            errors.add(
                at(&["recipients", &index.to_string()]),
                format!("`scatter.{name}.recipients[{index}]`: `{}` is asked twice", recipient.0),
            );
        }
    }
    // With a pattern nobody knows yet how many there will be, but for the most.
    let (asked, whom) = match recipients.len() {
        0 => (table.max_replies as usize, "at most"),
        recipients => (recipients, "only"),
    };
    if let Some(quorum) = table.quorum.filter(|quorum| *quorum as usize > asked) {
        errors.add(
            at(&["quorum"]),
            format!(
                "`scatter.{name}.quorum` is {quorum}, and it asks {whom} {asked}: it would never be reached"
            ),
        );
    }
    if recipients.len() > table.max_replies as usize {
        errors.add(
            at(&["max_replies"]),
            format!(
                "`scatter.{name}.max_replies` is {}, and it has {} recipients",
                table.max_replies,
                recipients.len()
            ),
        );
    }
}

/// A scatter's settings, without its aggregator's binary.
pub(super) fn settings(table: &ScatterTable, modules: &[ModuleSpec]) -> ScatterSettings {
    ScatterSettings {
        topic: table.topic.0.clone(),
        recipients: match (&table.recipients, &table.pattern) {
            (Some(queues), _) => Recipients::Queues(queues.iter().map(|queue| queue.0.clone()).collect()),
            (None, pattern) => {
                Recipients::Pattern(pattern.as_ref().map_or("", |pattern| &pattern.0).to_owned())
            }
        },
        aggregator: module_use(&table.aggregator.0, modules),
        timeout_ms: table.timeout.0,
        quorum: table.quorum,
        on_timeout: match table.on_timeout {
            OnTimeoutName::Partial => OnTimeout::Partial,
            OnTimeoutName::Fail => OnTimeout::Fail,
        },
        late: match table.late {
            LateName::Drop => Late::Drop,
            LateName::DeadLetter => Late::DeadLetter,
        },
        max_replies: table.max_replies,
        durability: table.durability.into(),
        priority: table.priority,
        ttl_ms: table.ttl.map(|ttl| ttl.0),
    }
}

/// Notes what is allowed and hardly meant.
pub(super) fn note(
    name: &str,
    scatter: &Arc<ScatterSettings>,
    queues: &[(String, chaski_broker::QueueSettings)],
    notes: &mut Vec<String>,
) {
    let Recipients::Queues(recipients) = &scatter.recipients else { return };
    for recipient in recipients {
        let Some((_, settings)) = queues.iter().find(|(queue, _)| queue == recipient) else { continue };
        if settings.bind.iter().any(|pattern| pattern_matches(pattern, &scatter.topic)) {
            notes.push(format!(
                "scatter.{name}: queue `{recipient}` takes its topic `{}` itself as well, so it gets every request twice",
                scatter.topic
            ));
        }
    }
}
