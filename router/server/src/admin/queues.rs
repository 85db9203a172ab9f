//! `chaski queue`: looking at queues and operating on one.

use chaski_broker::{Operation, Progress};
use chaski_protocol::Refusal;
use chaski_protocol::admin::{Count, QueueView};

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

/// An operation of one step.
pub(super) async fn once(shard: &Shard, name: &str, operation: Operation) -> Result<Progress, Refusal> {
    let queue = queue_id(shard, name).await?;
    shard.operate(queue, operation).await?.map_err(|error| operate_refusal(name, error))
}
