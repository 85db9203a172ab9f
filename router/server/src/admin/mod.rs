//! Administrative calls: one request, one answer. It asks the shard's handle and shapes what comes back; it knows no streams.

mod dead;
mod gathers;
mod messages;
mod modules;
mod queues;
mod rejudge;
mod rules;
mod sagas;
mod status;
mod trace;
mod views;

use chaski_broker::{OperateError, Operation, Progress, QueueId, SagaVerb};
use chaski_protocol::admin::{AdminRequest, Count, Done};
use chaski_protocol::{Code, Refusal, shown};
use serde::Serialize;
use serde_json::Value;

use crate::session::Connections;
use crate::shard::Shard;

pub(crate) use status::{is_ready, standing_alarms};

/// Messages that one command of an operation concerns at most; between two of them the driver serves everybody else.
const BATCH: u64 = 1000;

/// Answers one request. `author` says who asks, for the rules' history.
pub(crate) async fn answer(
    shard: &Shard,
    connections: &Connections,
    author: &str,
    request: AdminRequest,
) -> Result<Value, Refusal> {
    use AdminRequest as R;
    match request {
        R::Status => json(status::status(shard, connections.len()).await?),
        R::QueueList => json(queues::list(shard).await?),
        R::QueueShow { queue } => json(queues::show(shard, &queue).await?),
        R::QueueCreate { queue, bind, set } => {
            json(rules::create_queue(shard, author, &queue, &bind, &set).await?)
        }
        R::QueueDelete { queue, drop_messages } => {
            json(rules::delete_queue(shard, author, &queue, drop_messages).await?)
        }
        R::QueuePurge { queue } => json(queues::purge(shard, &queue).await?),
        R::QueuePause { queue } => done(queues::once(shard, &queue, Operation::Pause).await?),
        R::QueueResume { queue } => done(queues::once(shard, &queue, Operation::Resume).await?),
        R::QueueCancel { queue, id } => done(queues::cancel(shard, &queue, &id).await?),
        R::QueueUnpark { queue, key } => done(queues::unpark(shard, &queue, &key).await?),
        R::Peek { queue, after, limit } => json(messages::page(shard, &queue, after, limit).await?),
        R::DlqList => json(dead::list(shard).await?),
        R::DlqShow { queue, after, limit } => json(dead::show(shard, &queue, after, limit).await?),
        R::DlqRedrive { queue, reason, id, payload, headers, limit } => {
            let redrive = dead::Redrive { queue, reason, id, payload, headers, limit };
            json(dead::redrive(shard, redrive).await?)
        }
        R::DlqPurge { queue } => json(dead::purge(shard, &queue).await?),
        R::RulesCheck { document } => json(rules::check(document).await?),
        R::RulesDiff { document, files, signatures } => {
            json(rules::diff(shard, document, rules::named(files, signatures)?).await?)
        }
        R::RulesApply { document, files, signatures, drop_queues, drop_states } => {
            let drops = rules::Drops { queues: drop_queues, states: drop_states };
            json(rules::apply(shard, author, document, rules::named(files, signatures)?, drops).await?)
        }
        R::RulesShow => json(rules::show(shard).await?),
        R::RulesHistory => json(rules::history(shard).await?),
        R::RulesRollback { version, drop_queues, drop_states } => {
            let drops = rules::Drops { queues: drop_queues, states: drop_states };
            json(rules::rollback(shard, author, version, drops).await?)
        }
        R::ModuleDeploy { name, digest, signature, params, force } => {
            let asked = modules::Asked { name, digest, signature, params, force };
            json(modules::deploy(shard, author, asked).await?)
        }
        R::ModuleList => json(modules::list(shard).await?),
        R::ModuleShow { name } => json(modules::show(shard, &name).await?),
        R::ModuleHistory { name } => json(modules::history(shard, &name).await?),
        R::ModuleRollback { name } => json(modules::roll_back(shard, author, &name).await?),
        R::ModuleShadow { name, digest, signature, for_ms } => {
            json(modules::shadow(shard, &name, &digest, signature, for_ms).await?)
        }
        R::ModulePromote { name } => json(modules::promote(shard, author, &name).await?),
        R::ModuleState { name, key, after, limit } => {
            json(modules::state(shard, &name, key, after, limit).await?)
        }
        R::Trace { topic, id, key, headers, payload, priority, ttl_ms, reply_to, publish } => {
            let asked =
                trace::Asked { topic, id, key, headers, payload, priority, ttl_ms, reply_to, publish };
            json(trace::trace(shard, asked).await?)
        }
        R::GatherList { after, limit } => json(gathers::list(shard, after, limit).await?),
        R::GatherShow { id } => json(gathers::show(shard, id).await?),
        R::SagaList { state, after, limit } => json(sagas::list(shard, state, after, limit).await?),
        R::SagaShow { saga } => json(sagas::show(shard, &saga).await?),
        R::SagaRetry { saga } => json(sagas::steer(shard, &saga, SagaVerb::Retry).await?),
        R::SagaSkip { saga, step, payload } => json(sagas::skip(shard, &saga, step, payload).await?),
        R::SagaAbort { saga, compensate } => {
            json(sagas::steer(shard, &saga, SagaVerb::Abort { compensate }).await?)
        }
    }
}

/// A digest as `sha256:HEX`.
fn digest(text: &str) -> Result<[u8; 32], Refusal> {
    let parsed: Result<chaski_modules::Digest, _> = text.parse();
    parsed.map(|digest| digest.0).map_err(|error| Refusal::new(Code::BadRequest, error.to_string()))
}

fn json(answer: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(answer)
        .map_err(|error| Refusal::new(Code::Internal, format!("the answer cannot be written: {error}")))
}

fn done(_: Progress) -> Result<Value, Refusal> {
    json(Done {})
}

/// The queue of this name, `chaski` and dead-letter queues included.
async fn queue_id(shard: &Shard, name: &str) -> Result<QueueId, Refusal> {
    let wanted = name.to_owned();
    let found = shard.inspect(move |broker| broker.queue_id(&wanted)).await?;
    found.ok_or_else(|| unknown_queue(name))
}

/// The sentence for a queue that isn't there.
pub(crate) fn unknown_queue(name: &str) -> Refusal {
    let name = shown(name);
    Refusal::new(
        Code::UnknownQueue,
        format!("there is no queue `{name}`; `chaski queue list` names them all"),
    )
}

/// Repeats an operation until it is done, `most` messages are reached or it stops by itself.
async fn repeat(
    shard: &Shard,
    name: &str,
    queue: QueueId,
    most: u64,
    make: impl Fn(u64) -> Operation,
) -> Result<Count, Refusal> {
    let mut count = 0;
    loop {
        let limit = BATCH.min(most - count);
        if limit == 0 {
            return Ok(Count { count, stopped: None });
        }
        let progress = match shard.operate(queue, make(limit)).await? {
            Ok(progress) => progress,
            // What was done so far stays done, and is told.
            Err(error) if count > 0 => {
                return Ok(Count { count, stopped: Some(operate_refusal(name, error).detail) });
            }
            Err(error) => return Err(operate_refusal(name, error)),
        };
        count += progress.count;
        if progress.full {
            let stopped = format!(
                "queue `{name}` is full and refuses more: consume from it or raise its limit, then repeat"
            );
            return Ok(Count { count, stopped: Some(stopped) });
        }
        if !progress.more {
            return Ok(Count { count, stopped: None });
        }
    }
}

fn operate_refusal(name: &str, error: OperateError) -> Refusal {
    match error {
        OperateError::UnknownQueue => unknown_queue(name),
        OperateError::UnknownId => {
            let detail = format!("what was named is no longer in queue `{name}`; look again and repeat");
            Refusal::new(Code::UnknownId, detail)
        }
        OperateError::NotAllowed => {
            let detail = format!(
                "that is not possible on queue `{name}`: dead letters have commands of their own (`chaski dlq`)"
            );
            Refusal::new(Code::NotAllowed, detail)
        }
        OperateError::DiskLow => Code::DiskLow.into(),
        OperateError::DiskFull => Code::DiskFull.into(),
    }
}
