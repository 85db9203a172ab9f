//! The rules: one TOML document, checked whole before anything changes. Everything but `apply` and `watch` is pure and usable without a
//! router, as `chaski rules check` and `rules schema` do.

mod apply;
mod diff;
mod document;
mod edit;
mod errors;
mod plan;
mod reference;
mod shape;
pub(crate) mod watch;

use chaski_broker::{Rules, RulesVersion};
use chaski_protocol::{DEFAULT_MAX_HEADERS, DEFAULT_MAX_PAYLOAD};
use serde::Deserialize;

pub(crate) use apply::{apply, change, repeat};
pub use diff::diff;
pub use edit::{EditError, create_queue, delete_queue};
pub use errors::{RulesError, RulesErrors};
pub use plan::spelled;
pub use reference::{reference, schema};

use document::{Document, LimitsTable};
use errors::Collector;

/// A document larger than this is refused unread: it is journaled, kept in history and sent whole.
const MAX_DOCUMENT: usize = 4 << 20;

/// A document that is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What the broker needs; version and author are for whoever applies it.
    pub rules: Rules,
    /// What the sessions need.
    pub limits: MessageLimits,
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
        Ok(parsed) => Some(parsed),
        Err(error) => {
            errors.add(error.span().map_or(0, |span| span.start), error.message().trim().replace('\n', "; "));
            None
        }
    };
    if let Some(parsed) = &parsed {
        shape::check(parsed.as_table(), &mut errors);
    }
    errors.finish()?;
    let order = parsed.as_ref().and_then(|parsed| parsed.get("queue")?.as_table_like());
    let mut read: Document = toml::from_str(document).map_err(|error| {
        let mut errors = Collector::new(document);
        errors.add(error.span().map_or(0, |span| span.start), error.message());
        errors.finish().expect_err("an error was just added")
    })?;
    let mut notes = Vec::new();
    let mut queues = Vec::with_capacity(read.queue.len());
    for (name, _) in order.into_iter().flat_map(|queues| queues.iter()) {
        if let Some(table) = read.queue.remove(name) {
            let settings = plan::queue_settings(name, &table, &mut notes);
            queues.push((name.to_owned(), settings));
        }
    }
    Ok(Checked {
        limits: MessageLimits::from(&read.limits),
        rules: Rules {
            version: RulesVersion(0),
            author: String::new(),
            document: document.to_owned(),
            queues,
            limits: plan::shard_limits(&read.limits),
        },
        notes,
    })
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
