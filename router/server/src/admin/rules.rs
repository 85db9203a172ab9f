//! `chaski rules`, and `queue create` and `delete`, which edit the document. Parsing runs beside the runtime's tasks, since a
//! document can be large.

use std::collections::BTreeMap;

use chaski_broker::{ModulePin, Rules, RulesVersion};
use chaski_protocol::admin::{RulesChange, RulesCheck, RulesDiff, RulesEntry, RulesView};
use chaski_protocol::{Code, Refusal};

use crate::render::rfc3339;
use crate::rules::{self, Binaries, Change, Checked, EditError, Wanted};
use crate::shard::Shard;

/// Checks a document.
pub(super) async fn check(document: String) -> Result<RulesCheck, Refusal> {
    let Checked { rules, notes, .. } = beside(move || checked(&document)).await??;
    Ok(RulesCheck { queues: rules.queues.len() as u64, notes })
}

/// What a document would change.
pub(super) async fn diff(
    shard: &Shard,
    document: String,
    files: BTreeMap<String, ModulePin>,
) -> Result<RulesDiff, Refusal> {
    let wanted = Wanted { document, binaries: Binaries::Named(files) };
    let (version, changes) = rules::difference(shard, wanted).await?;
    Ok(RulesDiff { version: version.0, changes })
}

/// Applies a document.
pub(super) async fn apply(
    shard: &Shard,
    author: &str,
    document: String,
    files: BTreeMap<String, ModulePin>,
    drops: Drops,
) -> Result<RulesChange, Refusal> {
    let wanted = Wanted { document, binaries: Binaries::Named(files) };
    let by = drops.change(format!("rules apply, {author}"));
    rules::change(shard, by, |_| Ok(wanted.clone())).await
}

/// The module files that were uploaded with a document, and their signatures, by path as written in it.
pub(super) fn named(
    files: Vec<(String, String)>,
    signatures: Vec<(String, String)>,
) -> Result<BTreeMap<String, ModulePin>, Refusal> {
    let pin = |(path, digest): (String, String)| {
        let binary = Some(super::digest(&digest)?);
        Ok((path, ModulePin { name: String::new(), binary, signature: None }))
    };
    let mut named: BTreeMap<String, ModulePin> =
        files.into_iter().map(pin).collect::<Result<_, Refusal>>()?;
    for (path, text) in signatures {
        let Some(pin) = named.get_mut(&path) else {
            let detail =
                format!("there is a signature for the file {path}, which did not come with the document");
            return Err(Refusal::new(Code::BadRequest, detail));
        };
        pin.signature = super::modules::signature(Some(text))?;
    }
    Ok(named)
}

/// What may be lost by a change.
pub(super) struct Drops {
    pub(super) queues: Vec<String>,
    pub(super) states: Vec<String>,
}

impl Drops {
    fn change(self, author: String) -> Change {
        Change { author, drop_queues: self.queues, drop_states: self.states, ..Change::default() }
    }
}

/// The document in force.
pub(super) async fn show(shard: &Shard) -> Result<RulesView, Refusal> {
    let view = shard.inspect(|broker| RulesView {
        version: broker.rules().version.0,
        document: broker.rules().document.clone(),
    });
    Ok(view.await?)
}

/// Every version that is kept, the newest first, each with what it changed against the one before.
pub(super) async fn history(shard: &Shard) -> Result<Vec<RulesEntry>, Refusal> {
    let (current, kept) = shard
        .inspect(|broker| {
            let kept = broker.rules_history();
            let kept = kept
                .map(|entry| (entry.version, entry.author.clone(), entry.applied_at, entry.document.clone()));
            (broker.rules().version, kept.collect::<Vec<_>>())
        })
        .await?;
    beside(move || {
        let mut entries = Vec::with_capacity(kept.len());
        // The version before the first is the empty document of a new shard.
        let mut before =
            kept.first().filter(|first| first.0 == RulesVersion(1)).and_then(|_| rules::check("").ok());
        for (version, author, applied_at, document) in kept {
            let after = rules::check(&document).ok();
            // What an earlier version of the router took and this one doesn't cannot be compared.
            let changes = match (&before, &after) {
                (Some(before), Some(after)) => rules::diff(&before.rules, &after.rules),
                _ => Vec::new(),
            };
            let applied_at = rfc3339(applied_at);
            entries.push(RulesEntry {
                version: version.0,
                author,
                applied_at,
                current: version == current,
                changes,
            });
            before = after;
        }
        entries.reverse();
        entries
    })
    .await
}

/// A new version equal to an earlier one.
pub(super) async fn rollback(
    shard: &Shard,
    author: &str,
    version: u64,
    drops: Drops,
) -> Result<RulesChange, Refusal> {
    let found = shard.inspect(move |broker| {
        let kept = broker.rules_history().find(|entry| entry.version.0 == version);
        let kept = kept.map(|entry| (entry.document.clone(), entry.modules.clone()));
        // Version 0 is the empty document of a new shard, and never in the history.
        kept.or_else(|| (version == 0).then(Default::default))
    });
    let (document, pins) = found.await?.ok_or_else(|| {
        let detail =
            format!("there is no rules version {version}; `chaski rules history` lists those that are kept");
        Refusal::new(Code::UnknownId, detail)
    })?;
    let wanted = Wanted { document, binaries: Binaries::Kept(pins) };
    let by =
        Change { always: true, untried: true, ..drops.change(format!("rollback to {version}, {author}")) };
    rules::change(shard, by, |_| Ok(wanted.clone())).await
}

/// Adds a queue to the document.
pub(super) async fn create_queue(
    shard: &Shard,
    author: &str,
    queue: &str,
    bind: &[String],
    set: &[(String, String)],
) -> Result<RulesChange, Refusal> {
    let edit = |current: &Rules| {
        let created = rules::create_queue(&current.document, queue, bind, set);
        created.map(Wanted::document).map_err(|error| refusal(&error))
    };
    let by = Change { author: format!("queue create, {author}"), ..Change::default() };
    rules::change(shard, by, edit).await
}

/// Takes a queue out of the document.
pub(super) async fn delete_queue(
    shard: &Shard,
    author: &str,
    queue: &str,
    drop_messages: bool,
) -> Result<RulesChange, Refusal> {
    let edit = |current: &Rules| {
        let deleted = rules::delete_queue(&current.document, queue);
        deleted.map(Wanted::document).map_err(|error| refusal(&error))
    };
    // Looked up first, so that a name that does not exist is answered as such.
    super::queue_id(shard, queue).await?;
    let drop_queues = if drop_messages { vec![queue.to_owned()] } else { Vec::new() };
    let by = Change { author: format!("queue delete, {author}"), drop_queues, ..Change::default() };
    rules::change(shard, by, edit).await
}

fn checked(document: &str) -> Result<Checked, Refusal> {
    rules::check(document).map_err(|errors| Refusal::new(Code::RulesInvalid, errors.to_string()))
}

fn refusal(error: &EditError) -> Refusal {
    let code = match error {
        EditError::Exists(_) | EditError::Needed { .. } => Code::NotAllowed,
        EditError::Unknown(_) => Code::UnknownQueue,
        EditError::Setting { .. } | EditError::Document(_) => Code::RulesInvalid,
    };
    Refusal::new(code, error.to_string())
}

async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}
