//! From `[saga.NAME]` to what the broker needs: what its shape can't say is checked here, and what is allowed but odd is noted.

use std::sync::Arc;

use chaski_broker::{SagaSettings, StepPayload, StepSettings};
use chaski_protocol::{format_duration, pattern_matches};
use toml_edit::Table;

use super::document::{SagaTable, StepPayloadName, StepTable};
use super::errors::Collector;
use super::modules::ModuleSpec;
use super::place::value_offset;
use super::uses::module_use;

/// Reports what is wrong with a saga of the right shape.
pub(super) fn check(name: &str, table: &SagaTable, root: &Table, errors: &mut Collector<'_>) {
    let mut wrong = |index: usize, key: &str, problem: String| {
        let offset = value_offset(root, &["saga", name, "steps", &index.to_string(), key]);
        errors.add(offset, format!("`saga.{name}.steps[{index}].{key}`: {problem}"));
    };
    let mut pivot: Option<&StepTable> = None;
    for (index, step) in table.steps.iter().enumerate() {
        let before = &table.steps[..index];
        if before.iter().any(|other| other.name == step.name) {
            wrong(index, "name", format!("there is a step `{}` already", step.name.0));
        }
        if step.pivot {
            match pivot {
                None => pivot = Some(step),
                Some(first) => wrong(
                    index,
                    "pivot",
                    format!("`{}` is the pivot already, and a saga has one point of no return", first.name.0),
                ),
            }
        }
        let Some(group) = &step.group else { continue };
        let in_group = |other: &&StepTable| other.group.as_ref() == Some(group);
        if before.iter().any(|other| in_group(&other)) && !before.last().is_some_and(|last| in_group(&last)) {
            wrong(
                index,
                "group",
                format!(
                    "the steps of group `{}` run side by side, so they follow one another, and there is another step between them",
                    group.0
                ),
            );
        }
        if step.pivot && table.steps.iter().filter(in_group).count() > 1 {
            wrong(
                index,
                "pivot",
                format!(
                    "a pivot stands alone: what runs beside it in group `{}` might end before or after it, so nobody could say whether a \
                     failure there is compensated",
                    group.0
                ),
            );
        }
    }
}

/// A saga's settings, without its compensator's binary.
pub(super) fn settings(table: &SagaTable, modules: &[ModuleSpec]) -> SagaSettings {
    SagaSettings {
        topic: table.topic.0.clone(),
        timeout_ms: table.timeout.0,
        compensator: table.compensator.as_ref().map(|name| module_use(&name.0, modules)),
        advances: false,
        steps: table.steps.iter().map(step).collect(),
    }
}

fn step(table: &StepTable) -> StepSettings {
    StepSettings {
        name: table.name.0.clone(),
        queue: table.queue.0.clone(),
        compensate: table.compensate.as_ref().map(|queue| queue.0.clone()),
        timeout_ms: table.timeout.0,
        retries: table.retries,
        backoff_ms: table.backoff.iter().map(|wait| wait.0).collect(),
        pivot: table.pivot,
        group: table.group.as_ref().map(|group| group.0.clone()),
        payload: match table.payload {
            StepPayloadName::All => StepPayload::All,
            StepPayloadName::Input => StepPayload::Input,
            StepPayloadName::Previous => StepPayload::Previous,
        },
    }
}

/// Notes what is allowed and hardly meant.
pub(super) fn note(
    name: &str,
    saga: &Arc<SagaSettings>,
    queues: &[(String, chaski_broker::QueueSettings)],
    notes: &mut Vec<String>,
) {
    let pivot = saga.steps.iter().position(|step| step.pivot);
    for (index, step) in saga.steps.iter().enumerate() {
        if step.compensate.is_some() && pivot.is_some_and(|pivot| index >= pivot) {
            let pivot = &saga.steps[pivot.unwrap_or(index)].name;
            notes.push(format!(
                "saga.{name}: `compensate` of step `{}` is never used by itself, since nothing is undone once the pivot `{pivot}` is done; \
                 only `saga abort` would",
                step.name
            ));
        }
        if step.timeout_ms > saga.timeout_ms {
            notes.push(format!(
                "saga.{name}: step `{}` may take {}, and the whole saga is compensated after {}",
                step.name,
                format_duration(step.timeout_ms),
                format_duration(saga.timeout_ms)
            ));
        }
        for queue in [Some(&step.queue), step.compensate.as_ref()].into_iter().flatten() {
            let Some((_, settings)) = queues.iter().find(|(name, _)| name == queue) else { continue };
            if settings.bind.iter().any(|pattern| pattern_matches(pattern, &saga.topic)) {
                let note = format!(
                    "saga.{name}: queue `{queue}` takes its topic `{}` itself as well, so its consumer gets what begins a saga too",
                    saga.topic
                );
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
    }
}
