//! From the tables of modules and routes to what sessions and the host of modules need: who judges what, with which binary, params and
//! limits. What is allowed but has no effect is noted. It loads nothing and runs nothing.

use serde_json::Value as Json;

pub use super::document::OnError;
use super::document::{Document, FilterText, ModuleTable, ModulesTable, PatternText};

/// A module of the document, or a builtin that a chain names without a table of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleSpec {
    /// Its name in the rules.
    pub name: String,
    /// Where its binary comes from.
    pub source: ModuleSource,
    /// What it is given, by name.
    pub params: Vec<(String, Json)>,
    /// What a message takes on which it failed.
    pub on_error: OnError,
    /// CPU time of one call in milliseconds.
    pub time_limit_ms: u64,
    /// Memory of one instance in bytes.
    pub memory_limit_bytes: u64,
    /// When a version is rolled back by itself.
    pub rollback: Rollback,
}

/// Where a module's binary comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleSource {
    /// A file, as written: a relative path begins at the document.
    File(String),
    /// A binary that the router has.
    Digest([u8; 32]),
    /// A module that comes with the router.
    Builtin(String),
    /// Nowhere yet: it waits for a deploy.
    Missing,
}

/// When a version is rolled back by itself: more than `errors_percent` of the last `of` messages failed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rollback {
    /// Hundredths.
    pub errors_percent: u32,
    /// Messages.
    pub of: u32,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Its name.
    pub name: String,
    /// Patterns of the topics that it judges, each once.
    pub topics: Vec<String>,
    /// Names of modules, in the order of judging.
    pub filters: Vec<String>,
}

/// What is asked of every module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleOptions {
    /// Ed25519 public keys of which one must have signed each binary; none: no signatures.
    pub trusted_keys: Vec<[u8; 32]>,
    /// The size of a binary in bytes.
    pub max_size_bytes: u64,
}

impl From<&ModulesTable> for ModuleOptions {
    fn from(table: &ModulesTable) -> ModuleOptions {
        ModuleOptions {
            trusted_keys: table.trusted_keys.iter().map(|key| key.0).collect(),
            max_size_bytes: table.max_size.0,
        }
    }
}

impl Default for ModuleOptions {
    fn default() -> Self {
        ModuleOptions::from(&ModulesTable::default())
    }
}

/// The names below these tables as the document has them, in its order.
pub(super) struct Order {
    pub(super) modules: Vec<String>,
    pub(super) routes: Vec<String>,
    pub(super) queues: Vec<String>,
    pub(super) scatters: Vec<String>,
    pub(super) sagas: Vec<String>,
}

/// Everything that a document says of modules.
pub(super) struct Plan {
    pub(super) modules: Vec<ModuleSpec>,
    pub(super) routes: Vec<RouteSpec>,
    pub(super) queue_filters: Vec<(String, Vec<String>)>,
}

/// Reads the tables; what is allowed but has no effect is added to `notes`.
pub(super) fn plan(document: &Document, order: &Order, notes: &mut Vec<String>) -> Plan {
    let names = |filters: &[FilterText]| filters.iter().map(|name| name.0.clone()).collect::<Vec<_>>();
    let mut modules: Vec<_> =
        order.modules.iter().filter_map(|name| Some(module(name, document.module.get(name)?))).collect();
    let mut routes = Vec::new();
    for name in &order.routes {
        if let Some(table) = document.route.get(name) {
            let filters = names(&table.filters);
            if filters.is_empty() {
                notes.push(format!("route.{name}: without filters it has no effect"));
            }
            routes.push(RouteSpec {
                name: name.clone(),
                topics: topics(name, &table.topics, notes),
                filters,
            });
        }
    }
    let queue_filters: Vec<_> = order
        .queues
        .iter()
        .filter_map(|name| Some((name.clone(), names(&document.queue.get(name)?.filters))))
        .filter(|(_, filters)| !filters.is_empty())
        .collect();
    let chains = routes.iter().map(|route| &route.filters).chain(queue_filters.iter().map(|queue| &queue.1));
    let aggregators =
        order.scatters.iter().filter_map(|name| Some(&document.scatter.get(name)?.aggregator.0));
    let compensators =
        order.sagas.iter().filter_map(|name| Some(&document.saga.get(name)?.compensator.as_ref()?.0));
    let used: Vec<_> = chains.flatten().chain(aggregators).chain(compensators).collect();
    for module in modules.iter().filter(|module| !used.contains(&&module.name)) {
        notes.push(format!(
            "module.{name}: no route, queue, scatter or saga names it; consumers and subscriptions may (--filter {name})",
            name = module.name
        ));
    }
    // The check of names left nothing but builtins here.
    for name in used {
        if !modules.iter().any(|module| module.name == *name) {
            modules.push(builtin(name));
        }
    }
    Plan { modules, routes, queue_filters }
}

/// A builtin without a table of its own.
fn builtin(name: &str) -> ModuleSpec {
    ModuleSpec { source: ModuleSource::Builtin(name.to_owned()), ..module(name, &ModuleTable::default()) }
}

fn module(name: &str, table: &ModuleTable) -> ModuleSpec {
    let source = match (&table.file, table.digest, &table.builtin) {
        (Some(file), ..) => ModuleSource::File(file.clone()),
        (_, Some(digest), _) => ModuleSource::Digest(digest.0.0),
        (.., Some(builtin)) => ModuleSource::Builtin(builtin.0.clone()),
        _ => ModuleSource::Missing,
    };
    ModuleSpec {
        name: name.to_owned(),
        source,
        params: table.params.0.clone().into_iter().collect(),
        on_error: table.on_error,
        time_limit_ms: table.time_limit.0,
        memory_limit_bytes: table.memory_limit.0,
        rollback: Rollback {
            // The shape's range ends at 100.
            errors_percent: u32::try_from(table.rollback.errors.0).unwrap_or(100),
            of: table.rollback.of,
        },
    }
}

/// Params as the host of modules takes them.
pub(crate) fn host_params(params: &[(String, Json)]) -> Vec<chaski_modules::Param> {
    use chaski_modules::{Param, Value};
    let value = |json: &Json| match json {
        Json::String(text) => Value::Text(text.clone()),
        Json::Bool(truth) => Value::Boolean(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, real) => Value::Number(real.unwrap_or(f64::NAN)),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => Value::Json(json.to_string()),
    };
    params.iter().map(|(name, json)| Param { name: name.clone(), value: value(json) }).collect()
}

fn topics(route: &str, written: &[PatternText], notes: &mut Vec<String>) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    for PatternText(pattern) in written {
        if pattern.starts_with('$') {
            notes.push(format!(
                "route.{route}: `{pattern}` has no effect: what the router itself says is not judged"
            ));
        }
        if topics.contains(pattern) {
            notes.push(format!("route.{route}: `{pattern}` is named twice; once is enough"));
        } else {
            topics.push(pattern.clone());
        }
    }
    topics
}
