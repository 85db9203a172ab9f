//! Where a document names modules, and what each must be there; and the binary, params and limits under which the gathers and sagas of a
//! version of the rules begin.

use std::collections::BTreeMap;
use std::sync::Arc;

use chaski_broker::{ModuleUse, Rules};
use chaski_modules::World;
use serde_json::Value as Json;
use toml_edit::Table;

use super::document::Document;
use super::errors::Collector;
use super::modules::ModuleSpec;
use super::place::value_offset;

/// One place of a document that names a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The module or builtin.
    pub(crate) module: String,
    /// What it must be there.
    pub(crate) world: World,
    /// The keys that lead to the place.
    pub(crate) path: Vec<String>,
}

impl Named {
    /// The place as errors spell it: `queue.billing.filters[1]`.
    pub(crate) fn place(&self) -> String {
        match &self.path[..] {
            [kind, name, key, index] => format!("{kind}.{name}.{key}[{index}]"),
            path => path.join("."),
        }
    }
}

/// Every place that names a module, but for consumers and subscriptions, which are not in the document.
pub(super) fn named(document: &Document) -> Vec<Named> {
    let place = |module: &str, world, path: &[&str]| Named {
        module: module.to_owned(),
        world,
        path: path.iter().map(|key| (*key).to_owned()).collect(),
    };
    let mut named = Vec::new();
    let routes = document.route.iter().map(|(name, table)| ("route", name, &table.filters));
    let queues = document.queue.iter().map(|(name, table)| ("queue", name, &table.filters));
    for (kind, name, filters) in routes.chain(queues) {
        for (index, filter) in filters.iter().enumerate() {
            named.push(place(&filter.0, World::Filter, &[kind, name, "filters", &index.to_string()]));
        }
    }
    for (name, table) in &document.scatter {
        named.push(place(&table.aggregator.0, World::Aggregator, &["scatter", name, "aggregator"]));
    }
    for (name, table) in &document.saga {
        if let Some(compensator) = &table.compensator {
            named.push(place(&compensator.0, World::Compensator, &["saga", name, "compensator"]));
        }
    }
    named
}

/// Reports modules that would have to be two things at once.
pub(super) fn check(named: &[Named], root: &Table, errors: &mut Collector<'_>) {
    let mut first: BTreeMap<&str, &Named> = BTreeMap::new();
    for place in named {
        let before = *first.entry(&place.module).or_insert(place);
        if before.world != place.world {
            let path: Vec<&str> = place.path.iter().map(String::as_str).collect();
            errors.add(
                value_offset(root, &path),
                format!(
                    "`{}`: `{}` is {} at `{}`, and would have to be {} here",
                    place.place(),
                    place.module,
                    a(before.world),
                    before.place(),
                    a(place.world)
                ),
            );
        }
    }
}

/// What a module is, with its article.
pub(crate) fn a(world: World) -> &'static str {
    match world {
        World::Filter => "a filter",
        World::Aggregator => "an aggregator",
        World::Compensator => "a compensator",
    }
}

/// A module as a scatter or saga uses it, its binary not known yet.
pub(super) fn module_use(name: &str, modules: &[ModuleSpec]) -> ModuleUse {
    // The document was checked, and builtins that it names stand among the modules.
    let spec = modules.iter().find(|spec| spec.name == name).expect("every module that is named is there");
    use_of(spec)
}

/// See [`module_use`].
pub(crate) fn use_of(spec: &ModuleSpec) -> ModuleUse {
    // A map sorts the names, so the same params are the same text in whatever order they are written.
    let params: BTreeMap<&str, &Json> =
        spec.params.iter().map(|(name, value)| (name.as_str(), value)).collect();
    ModuleUse {
        name: spec.name.clone(),
        binary: None,
        params: serde_json::to_string(&params).expect("params are plain data"),
        time_limit_ms: spec.time_limit_ms,
        memory_limit_bytes: spec.memory_limit_bytes,
    }
}

/// Fills in the binaries that are pinned, and which compensators choose the next step as well.
pub(super) fn pin(rules: &mut Rules, advances: impl Fn(&str) -> bool) {
    let pins = &rules.modules;
    let binary =
        |module: &ModuleUse| pins.iter().find(|pin| pin.name == module.name).and_then(|pin| pin.binary);
    for (_, scatter) in &mut rules.scatters {
        let scatter = Arc::make_mut(scatter);
        scatter.aggregator.binary = binary(&scatter.aggregator);
    }
    for (_, saga) in &mut rules.sagas {
        let saga = Arc::make_mut(saga);
        if let Some(compensator) = &mut saga.compensator {
            compensator.binary = binary(compensator);
            saga.advances = compensator.binary.is_some() && advances(&compensator.name);
        }
    }
}
