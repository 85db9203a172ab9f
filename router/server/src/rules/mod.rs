//! The rules: one TOML document, checked whole before anything changes. Everything but `apply` and `watch` is pure and usable without a
//! router, as `chaski rules check` and `rules schema` do.

mod apply;
mod diff;
mod document;
mod edit;
mod errors;
mod formats;
mod modules;
mod place;
mod plan;
mod reference;
mod sagas;
mod scatters;
mod shape;
mod uses;
pub(crate) mod watch;

use std::sync::Arc;

use chaski_broker::{Recipients, Rules, RulesVersion, SagaSettings, ScatterSettings};
use chaski_protocol::{DEFAULT_MAX_HEADERS, DEFAULT_MAX_PAYLOAD};
use serde::Deserialize;
use toml_edit::Table;

pub(crate) use apply::{Binaries, Change, Wanted, change, difference};
pub use diff::diff;
pub use edit::{EditError, create_queue, delete_queue, set_module};
pub use errors::{RulesError, RulesErrors};
pub(crate) use modules::host_params;
pub use modules::{ModuleOptions, ModuleSource, ModuleSpec, OnError, Rollback, RouteSpec};
pub use place::place;
pub use plan::spelled;
pub use reference::{reference, schema};
pub(crate) use uses::{Named, a, use_of};

use document::{Document, LimitsTable};
use errors::Collector;
use modules::{Order, Plan};

/// A document larger than this is refused unread: it is journaled, kept in history and sent whole.
const MAX_DOCUMENT: usize = 4 << 20;

/// A document that is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What the broker needs; version and author are for whoever applies it.
    pub rules: Rules,
    /// What the sessions need.
    pub limits: MessageLimits,
    /// Modules in the document's order, then the builtins that a chain names without a table of their own.
    pub modules: Vec<ModuleSpec>,
    /// Routes in the document's order.
    pub routes: Vec<RouteSpec>,
    /// Queues that judge their own copies, in the document's order, with the names of their filters.
    pub queue_filters: Vec<(String, Vec<String>)>,
    /// What is asked of every module.
    pub module_options: ModuleOptions,
    /// Every place that names a module.
    pub(crate) named: Vec<Named>,
    /// Sentences that don't stop it.
    pub notes: Vec<String>,
}

/// Limits of one message in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Of its payload.
    pub max_payload: u32,
    /// Of its headers: names, values and 2 bytes for each.
    pub max_headers: u32,
}

impl From<&LimitsTable> for MessageLimits {
    fn from(table: &LimitsTable) -> MessageLimits {
        // The shape's ranges lie far below u32.
        let bytes = |size: u64, default| u32::try_from(size).unwrap_or(default);
        MessageLimits {
            max_payload: bytes(table.max_payload.0, DEFAULT_MAX_PAYLOAD),
            max_headers: bytes(table.max_headers.0, DEFAULT_MAX_HEADERS),
        }
    }
}

/// Checks a document whole: what it says, or everything that is wrong with it.
pub fn check(document: &str) -> Result<Checked, RulesErrors> {
    let mut errors = Collector::new(document);
    if document.len() > MAX_DOCUMENT {
        errors.add(
            0,
            format!("the document has {} bytes, where at most {MAX_DOCUMENT} are allowed", document.len()),
        );
        errors.finish()?;
        unreachable!("an error was just added");
    }
    let parsed = match toml_edit::Document::parse(document) {
        Ok(parsed) => parsed,
        Err(error) => {
            errors.add(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', "; "));
            errors.finish()?;
            unreachable!("an error was just added");
        }
    };
    let root = parsed.as_table();
    shape::check(root, &mut errors);
    errors.finish()?;
    let order = |table: &str| -> Vec<String> {
        let table = root.get(table).and_then(|table| table.as_table_like());
        table.into_iter().flat_map(|table| table.iter()).map(|(name, _)| name.to_owned()).collect()
    };
    let order = Order {
        modules: order("module"),
        routes: order("route"),
        queues: order("queue"),
        scatters: order("scatter"),
        sagas: order("saga"),
    };
    let read: Document = toml::from_str(document).map_err(|error| {
        let mut errors = Collector::new(document);
        errors.add(error.span().map_or(0, |span| span.start), error.message());
        errors.finish().expect_err("an error was just added")
    })?;
    let named = uses::named(&read);
    meaning(&read, &named, root, document)?;

    let mut notes = Vec::new();
    let mut queues = Vec::with_capacity(read.queue.len());
    for name in &order.queues {
        if let Some(table) = read.queue.get(name) {
            queues.push((name.clone(), plan::queue_settings(name, table, &mut notes)));
        }
    }
    let Plan { modules, routes, queue_filters } = modules::plan(&read, &order, &mut notes);
    let scatters = order.scatters.iter().filter_map(|name| {
        Some((name.clone(), Arc::new(scatters::settings(read.scatter.get(name)?, &modules))))
    });
    let scatters: Vec<_> = scatters.collect();
    let sagas = order
        .sagas
        .iter()
        .filter_map(|name| Some((name.clone(), Arc::new(sagas::settings(read.saga.get(name)?, &modules)))));
    let sagas: Vec<_> = sagas.collect();
    plan::implied_queues(&scatters, &sagas, &mut queues, &mut notes);
    scatters.iter().for_each(|(name, scatter)| scatters::note(name, scatter, &queues, &mut notes));
    sagas.iter().for_each(|(name, saga)| sagas::note(name, saga, &queues, &mut notes));
    Ok(Checked {
        limits: MessageLimits::from(&read.limits),
        rules: Rules {
            version: RulesVersion(0),
            author: String::new(),
            document: document.to_owned(),
            queues,
            limits: plan::shard_limits(&read.limits),
            modules: Vec::new(),
            failed: Vec::new(),
            scatters,
            sagas,
        },
        modules,
        routes,
        queue_filters,
        module_options: ModuleOptions::from(&read.modules),
        named,
        notes,
    })
}

/// What a document of the right shape says that can't be meant.
fn meaning(read: &Document, named: &[Named], root: &Table, document: &str) -> Result<(), RulesErrors> {
    let mut errors = Collector::new(document);
    read.scatter.iter().for_each(|(name, table)| scatters::check(name, table, root, &mut errors));
    read.saga.iter().for_each(|(name, table)| sagas::check(name, table, root, &mut errors));
    uses::check(named, root, &mut errors);
    errors.finish()
}

/// The table of a scatter or saga that sends to this queue, if any does.
fn sends_to(document: &str, queue: &str) -> Option<String> {
    let rules = check(document).ok()?.rules;
    let is = |other: &String| other == queue;
    let asks = |scatter: &ScatterSettings| match &scatter.recipients {
        Recipients::Queues(recipients) => recipients.iter().any(is),
        Recipients::Pattern(_) => false,
    };
    let steps = |saga: &SagaSettings| {
        saga.steps.iter().any(|step| is(&step.queue) || step.compensate.as_ref().is_some_and(is))
    };
    let scatter = rules.scatters.iter().find(|(_, scatter)| asks(scatter));
    let saga = || rules.sagas.iter().find(|(_, saga)| steps(saga));
    scatter
        .map(|(name, _)| format!("scatter.{name}"))
        .or_else(|| saga().map(|(name, _)| format!("saga.{name}")))
}

/// The limits of a document that was checked before, perhaps by another version: what can't be read is the default.
pub fn message_limits(document: &str) -> MessageLimits {
    MessageLimits::from(&limits_table(document))
}

fn limits_table(document: &str) -> LimitsTable {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct OnlyLimits {
        limits: LimitsTable,
    }
    toml::from_str(document).map(|OnlyLimits { limits }| limits).unwrap_or_default()
}
