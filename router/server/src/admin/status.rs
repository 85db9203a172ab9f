//! `chaski status`, and what the admin address calls ready.

use chaski_broker::Millis;
use chaski_protocol::Refusal;
use chaski_protocol::admin::{Alarm, Status};

use crate::events::{SAGA_PARKED, alarm_detail};
use crate::render::rfc3339;
use crate::shard::Shard;

/// The whole status.
pub(super) async fn status(shard: &Shard, connections: usize) -> Result<Status, Refusal> {
    let (version, queues, dedup_window_ms) =
        shard.inspect(|broker| (broker.rules().version, broker.queues(), broker.dedup_window_ms())).await?;
    let alarms = standing_alarms(shard).await?;
    let journal = shard.journal();
    let ordinary = queues.iter().filter(|queue| !super::views::is_dead_letter_queue(queue));
    Ok(Status {
        ready: is_ready(&alarms),
        alarms,
        server: format!("chaski {}", env!("CARGO_PKG_VERSION")),
        started_at: rfc3339(Millis(shard.started_ms())),
        rules_version: version.0,
        queues: ordinary.clone().count() as u64,
        messages: ordinary.map(super::views::messages).sum(),
        dead: queues
            .iter()
            .filter(|queue| super::views::is_dead_letter_queue(queue))
            .map(super::views::messages)
            .sum(),
        connections: connections as u64,
        consumers: queues.iter().map(|queue| queue.consumers).sum(),
        journal_bytes: journal.bytes,
        free_bytes: journal.free_bytes,
        dedup_window_ms,
    })
}

/// Every alarm that stands: the server's own, then those of queues and sagas.
pub(crate) async fn standing_alarms(shard: &Shard) -> Result<Vec<Alarm>, Refusal> {
    let of_queues = shard.inspect(|broker| broker.alarms()).await?;
    let own = shard.alarms().into_iter();
    let own = own.map(|(alarm, detail)| Alarm { alarm: alarm.to_owned(), queue: None, saga: None, detail });
    let of_queues = of_queues.into_iter().map(|alarm| {
        let detail = alarm_detail(alarm.alarm, &alarm.queue);
        let (queue, saga) = match alarm.alarm {
            SAGA_PARKED => (None, Some(alarm.queue)),
            _ => (Some(alarm.queue), None),
        };
        Alarm { alarm: alarm.alarm.to_owned(), queue, saga, detail }
    });
    Ok(own.chain(of_queues).collect())
}

/// Whether publishes are taken; the other alarms want a look and stop nothing.
pub(crate) fn is_ready(alarms: &[Alarm]) -> bool {
    !alarms.iter().any(|alarm| matches!(&*alarm.alarm, "disk_low" | "disk_full"))
}
