//! `chaski queue`: looking at queues and operating on one.

use chaski_broker::{OperateError, Operation, Progress};
use chaski_protocol::admin::{Count, QueueView};
use chaski_protocol::{Code, Refusal, shown};

use super::{operate_refusal, queue_id, repeat, unknown_queue, views};
use crate::shard::Shard;

/// Every queue by name, dead-letter queues left out.
pub(super) async fn list(shard: &Shard) -> Result<Vec<QueueView>, Refusal> {
    let (rules, mut queues) = shard.inspect(|broker| (broker.rules().clone(), broker.queues())).await?;
    queues.retain(|stats| !views::is_dead_letter_queue(stats));
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    let settings: std::collections::BTreeMap<&str, _> =
        rules.queues.iter().map(|(name, settings)| (name.as_str(), settings)).collect();
    let view = |stats: chaski_broker::QueueStats| {
        let settings = settings.get(&*stats.name).copied();
        views::queue(stats, settings)
    };
    Ok(queues.into_iter().map(view).collect())
}

/// One queue, `NAME.dlq` included.
pub(super) async fn show(shard: &Shard, name: &str) -> Result<QueueView, Refusal> {
    let wanted = if name == "chaski" { "chaski.dlq" } else { name }.to_owned();
    let found = shard.inspect(move |broker| {
        let stats = broker.queues().into_iter().find(|stats| *stats.name == *wanted)?;
        let settings = broker.rules().queues.iter().find(|(name, _)| *name == wanted);
        Some((stats, settings.map(|(_, settings)| settings.clone())))
    });
    let (stats, settings) = found.await?.ok_or_else(|| unknown_queue(name))?;
    Ok(views::queue(stats, settings.as_ref()))
}

/// Removes every message that is not leased.
pub(super) async fn purge(shard: &Shard, name: &str) -> Result<Count, Refusal> {
    let queue = queue_id(shard, name).await?;
    // What is published meanwhile is not what the operator saw: no more than was there is removed.
    let there = show(shard, name).await?.messages;
    repeat(shard, name, queue, there, |limit| Operation::Purge { limit }).await
}

/// Removes the message with this id.
pub(super) async fn cancel(shard: &Shard, name: &str, id: &str) -> Result<Progress, Refusal> {
    step(shard, name, Operation::Cancel { id: id.to_owned().into() }, || {
        let id = shown(id);
        format!(
            "queue `{name}` has no message with id `{id}` to cancel: it was never there, is processed or dead, or is with a \
             consumer now"
        )
    })
    .await
}

/// Lets a parked key go on.
pub(super) async fn unpark(shard: &Shard, name: &str, key: &str) -> Result<Progress, Refusal> {
    step(shard, name, Operation::Unpark { key: key.to_owned().into() }, || {
        let key = shown(key);
        format!(
            "key `{key}` of queue `{name}` is not parked by a dead letter, so there is nothing to let go on"
        )
    })
    .await
}

/// An operation of one step that names nothing but the queue.
pub(super) async fn once(shard: &Shard, name: &str, operation: Operation) -> Result<Progress, Refusal> {
    let queue = queue_id(shard, name).await?;
    shard.operate(queue, operation).await?.map_err(|error| operate_refusal(name, error))
}

/// An operation of one step; `unknown` says that what it names isn't there.
async fn step(
    shard: &Shard,
    name: &str,
    operation: Operation,
    unknown: impl FnOnce() -> String,
) -> Result<Progress, Refusal> {
    let queue = queue_id(shard, name).await?;
    let outcome = shard.operate(queue, operation).await?;
    outcome.map_err(|error| match error {
        OperateError::UnknownId => Refusal::new(Code::UnknownId, unknown()),
        error => operate_refusal(name, error),
    })
}
