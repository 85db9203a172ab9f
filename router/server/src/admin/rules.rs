//! `chaski rules`, and `queue create` and `delete`, which edit the document. Parsing runs beside the runtime's tasks, since a
//! document can be large.

use chaski_broker::{Rules, RulesVersion};
use chaski_protocol::admin::{RulesChange, RulesCheck, RulesDiff, RulesEntry, RulesView};
use chaski_protocol::{Code, Refusal};

use crate::render::rfc3339;
use crate::rules::{self, Checked, EditError};
use crate::shard::Shard;

/// Checks a document.
pub(super) async fn check(document: String) -> Result<RulesCheck, Refusal> {
    let Checked { rules, notes, .. } = beside(move || checked(&document)).await??;
    Ok(RulesCheck { queues: rules.queues.len() as u64, notes })
}

/// What a document would change.
pub(super) async fn diff(shard: &Shard, document: String) -> Result<RulesDiff, Refusal> {
    let current = shard.inspect(|broker| broker.rules().clone()).await?;
    let version = current.version.0;
    let changes =
        beside(move || Ok::<_, Refusal>(rules::diff(&current, &checked(&document)?.rules))).await??;
    Ok(RulesDiff { version, changes })
}

/// Applies a document.
pub(super) async fn apply(
    shard: &Shard,
    author: &str,
    document: &str,
    drop_queues: &[String],
) -> Result<RulesChange, Refusal> {
    rules::apply(shard, &format!("rules apply, {author}"), document, drop_queues).await
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
    drop_queues: &[String],
) -> Result<RulesChange, Refusal> {
    let found = shard.inspect(move |broker| {
        let document = broker
            .rules_history()
            .find(|entry| entry.version.0 == version)
            .map(|entry| entry.document.clone());
        // Version 0 is the empty document of a new shard, and never in the history.
        document.or_else(|| (version == 0).then(String::new))
    });
    let document = found.await?.ok_or_else(|| {
        let detail =
            format!("there is no rules version {version}; `chaski rules history` lists those that are kept");
        Refusal::new(Code::UnknownId, detail)
    })?;
    rules::repeat(shard, &format!("rollback to {version}, {author}"), &document, drop_queues).await
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
        rules::create_queue(&current.document, queue, bind, set).map_err(|error| refusal(&error))
    };
    rules::change(shard, &format!("queue create, {author}"), &[], edit).await
}

/// Takes a queue out of the document.
pub(super) async fn delete_queue(
    shard: &Shard,
    author: &str,
    queue: &str,
    drop_messages: bool,
) -> Result<RulesChange, Refusal> {
    let edit =
        |current: &Rules| rules::delete_queue(&current.document, queue).map_err(|error| refusal(&error));
    let dropped = [queue.to_owned()];
    // Looked up first, so that a name that does not exist is answered as such.
    super::queue_id(shard, queue).await?;
    let drop_queues = if drop_messages { &dropped[..] } else { &[] };
    rules::change(shard, &format!("queue delete, {author}"), drop_queues, edit).await
}

fn checked(document: &str) -> Result<Checked, Refusal> {
    rules::check(document).map_err(|errors| Refusal::new(Code::RulesInvalid, errors.to_string()))
}

fn refusal(error: &EditError) -> Refusal {
    let code = match error {
        EditError::Exists(_) => Code::NotAllowed,
        EditError::Unknown(_) => Code::UnknownQueue,
        EditError::Setting { .. } | EditError::Document(_) => Code::RulesInvalid,
    };
    Refusal::new(code, error.to_string())
}

async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::new(Code::Internal, error.to_string()))
}
