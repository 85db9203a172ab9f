//! What one version of the rules changes against another: one line a change, effective settings compared, so that a default
//! written out is no change.

use std::collections::{BTreeMap, BTreeSet};

use chaski_broker::Rules;
use serde::Deserialize;
use serde_json::Value as Json;

use super::document::{FilterText, ModuleTable, ModulesTable, RouteTable, SagaTable, ScatterTable};
use super::{limits_table, plan};

/// `+ queue.x`, `- module.y`, `~ queue.z.ack_wait: 30s → 10s`: limits first, then modules, routes, queues, scatters and sagas by name.
pub fn diff(old: &Rules, new: &Rules) -> Vec<String> {
    // Which binary a file or builtin stands for is known once a version was applied, or is about to be.
    let pinned = !old.modules.is_empty() && !new.modules.is_empty();
    let (old, new) = (Spelled::of(old, pinned), Spelled::of(new, pinned));
    let mut lines = Vec::new();
    settings("limits", &old.limits, &new.limits, &mut lines);
    settings("modules", &old.options, &new.options, &mut lines);
    tables("module", &old.modules, &new.modules, &mut lines);
    tables("route", &old.routes, &new.routes, &mut lines);
    order("routes", &old.route_order, &new.route_order, &mut lines);
    tables("queue", &old.queues, &new.queues, &mut lines);
    tables("scatter", &old.scatters, &new.scatters, &mut lines);
    sagas(&old.sagas, &new.sagas, &mut lines);
    lines
}

type Settings = BTreeMap<String, Json>;

/// One version of the rules, defaults written out.
struct Spelled {
    limits: Settings,
    options: Settings,
    modules: BTreeMap<String, Settings>,
    routes: BTreeMap<String, Settings>,
    route_order: Vec<String>,
    queues: BTreeMap<String, Settings>,
    scatters: BTreeMap<String, Settings>,
    sagas: BTreeMap<String, SagaTable>,
}

impl Spelled {
    fn of(rules: &Rules, pinned: bool) -> Spelled {
        let Tables { modules, module, route, queue, scatter, saga } =
            toml::from_str(&rules.document).unwrap_or_default();
        let queues = rules.queues.iter().map(|(name, settings)| {
            let mut spelled = plan::spelled(settings);
            if let Some(filters) =
                queue.get(name).map(|table| &table.filters).filter(|filters| !filters.is_empty())
            {
                spelled.insert("filters".to_owned(), plan::json(filters));
            }
            (name.clone(), spelled)
        });
        let parsed = toml_edit::Document::parse(&rules.document).ok();
        let routes = parsed.as_ref().and_then(|parsed| parsed.get("route")?.as_table_like());
        Spelled {
            limits: plan::flattened(&limits_table(&rules.document)),
            options: plan::flattened(&modules),
            modules: modules_of(rules, &module, pinned),
            routes: route.iter().map(|(name, table)| (name.clone(), plan::flattened(table))).collect(),
            route_order: routes
                .into_iter()
                .flat_map(|routes| routes.iter())
                .map(|(name, _)| name.to_owned())
                .collect(),
            queues: queues.collect(),
            scatters: scatter.iter().map(|(name, table)| (name.clone(), plan::flattened(table))).collect(),
            sagas: saga,
        }
    }
}

fn modules_of(
    rules: &Rules,
    tables: &BTreeMap<String, ModuleTable>,
    pinned: bool,
) -> BTreeMap<String, Settings> {
    let spelled = tables.iter().map(|(name, table)| {
        let mut spelled = plan::flattened(table);
        let pin = rules.modules.iter().find(|pin| pinned && pin.name == *name);
        if let Some(binary) = pin.and_then(|pin| pin.binary) {
            spelled.insert("digest".to_owned(), chaski_modules::Digest(binary).to_string().into());
        }
        (name.clone(), spelled)
    });
    spelled.collect()
}

/// The tables that the broker doesn't keep. The document was checked before, perhaps by another version: what can't be read is empty.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tables {
    modules: ModulesTable,
    module: BTreeMap<String, ModuleTable>,
    route: BTreeMap<String, RouteTable>,
    queue: BTreeMap<String, Filters>,
    scatter: BTreeMap<String, ScatterTable>,
    saga: BTreeMap<String, SagaTable>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Filters {
    filters: Vec<FilterText>,
}

fn tables(
    kind: &str,
    old: &BTreeMap<String, Settings>,
    new: &BTreeMap<String, Settings>,
    lines: &mut Vec<String>,
) {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for name in names {
        match (old.get(name), new.get(name)) {
            (Some(old), Some(new)) => settings(&format!("{kind}.{name}"), old, new, lines),
            (Some(_), None) => lines.push(format!("- {kind}.{name}")),
            (None, _) => lines.push(format!("+ {kind}.{name}")),
        }
    }
}

/// Sagas, their steps one by one.
fn sagas(old: &BTreeMap<String, SagaTable>, new: &BTreeMap<String, SagaTable>, lines: &mut Vec<String>) {
    let own = |saga: &SagaTable| -> Settings {
        let mut settings = plan::flattened(saga);
        settings.remove("steps");
        settings
    };
    let all = |sagas: &BTreeMap<String, SagaTable>| -> BTreeMap<String, Settings> {
        sagas.iter().map(|(name, saga)| (name.clone(), own(saga))).collect()
    };
    let names = |saga: &SagaTable| saga.steps.iter().map(|step| step.name.0.clone()).collect::<Vec<_>>();
    let steps = |saga: &SagaTable| -> BTreeMap<String, Settings> {
        saga.steps.iter().map(|step| (step.name.0.clone(), plan::flattened(step))).collect()
    };
    tables("saga", &all(old), &all(new), lines);
    for (name, new) in new {
        if let Some(old) = old.get(name) {
            tables(&format!("saga.{name}.steps"), &steps(old), &steps(new), lines);
            order(&format!("saga.{name}.steps"), &names(old), &names(new), lines);
        }
    }
}

/// Routes judge in their order and steps are done in theirs, so those that are in both and changed places are a change.
fn order(what: &str, old: &[String], new: &[String], lines: &mut Vec<String>) {
    let common = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| those.contains(name)).cloned().collect()
    };
    let (old, new) = (common(old, new), common(new, old));
    if old != new {
        lines.push(format!("~ order of {what}: [{}] → [{}]", old.join(", "), new.join(", ")));
    }
}

fn settings(path: &str, old: &Settings, new: &Settings, lines: &mut Vec<String>) {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
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
