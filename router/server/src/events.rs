//! What an operator must know, as messages on `$chaski.events.TYPE`: CloudEvents 1.0 in JSON. It makes them; the driver publishes
//! them.

use chaski_broker::{Event, Message, Millis, RulesVersion};
use chaski_protocol::{Code, DEFAULT_PRIORITY, Head};
use serde_json::{Value, json};

use crate::message::compose;
use crate::render::rfc3339;

/// The alarm of a saga definition of which sagas wait for an operator; all other alarms of the broker's are queues'.
pub(crate) const SAGA_PARKED: &str = "saga_parked";

/// The broker's event as a message.
pub(crate) fn message(event: &Event, now: Millis) -> Message {
    match event {
        Event::DeadLetter { queue, count, reason } => {
            let data = json!({ "queue": queue, "count": count, "reason": reason.name() });
            cloud_event("dead_letter", Some(queue), data, now)
        }
        Event::QueueDropped { queue, count } => {
            cloud_event("queue_dropped", Some(queue), json!({ "queue": queue, "count": count }), now)
        }
        Event::DedupWindow { window_ms, wanted_ms } => {
            let data = json!({ "window_ms": window_ms, "wanted_ms": wanted_ms });
            cloud_event("dedup_window", None, data, now)
        }
        Event::SagaParked { saga, id, reason } => {
            let data = json!({ "saga": saga, "id": id, "reason": reason });
            cloud_event("saga_parked", Some(saga), data, now)
        }
        Event::AlarmRaised { alarm: SAGA_PARKED, queue: saga } => {
            let detail = alarm_detail(SAGA_PARKED, saga);
            let data = json!({ "alarm": SAGA_PARKED, "saga": saga, "detail": detail });
            cloud_event("alarm_raised", Some(saga), data, now)
        }
        Event::AlarmCleared { alarm: SAGA_PARKED, queue: saga } => {
            let data = json!({ "alarm": SAGA_PARKED, "saga": saga });
            cloud_event("alarm_cleared", Some(saga), data, now)
        }
        Event::AlarmRaised { alarm, queue } => {
            alarm_raised(alarm, Some(queue), &alarm_detail(alarm, queue), now)
        }
        Event::AlarmCleared { alarm, queue } => alarm_cleared(alarm, Some(queue), now),
    }
}

/// The same for the log.
pub(crate) fn log(event: &Event) {
    match event {
        Event::DeadLetter { queue, count, reason } => {
            tracing::warn!(%queue, count, reason = reason.name(), "dead letters");
        }
        Event::QueueDropped { queue, count } => {
            tracing::warn!(%queue, count, "messages dropped that nobody processed")
        }
        Event::DedupWindow { window_ms, wanted_ms } if window_ms < wanted_ms => {
            tracing::warn!(
                window_ms,
                wanted_ms,
                "the dedup window is shorter than the rules ask for: raise limits.dedup_max_entries"
            );
        }
        Event::DedupWindow { window_ms, .. } => tracing::info!(window_ms, "the dedup window is whole"),
        Event::SagaParked { saga, id, reason } => tracing::warn!(%saga, %id, %reason, "saga parked"),
        Event::AlarmRaised { alarm, queue } => tracing::warn!(alarm, %queue, "alarm raised"),
        Event::AlarmCleared { alarm, queue } => tracing::info!(alarm, %queue, "alarm cleared"),
    }
}

/// An alarm stands from now on.
pub(crate) fn alarm_raised(alarm: &str, queue: Option<&str>, detail: &str, now: Millis) -> Message {
    cloud_event("alarm_raised", queue, json!({ "alarm": alarm, "queue": queue, "detail": detail }), now)
}

/// An alarm stands no longer.
pub(crate) fn alarm_cleared(alarm: &str, queue: Option<&str>, now: Millis) -> Message {
    cloud_event("alarm_cleared", queue, json!({ "alarm": alarm, "queue": queue }), now)
}

/// A rules version is in force.
pub(crate) fn rules_applied(version: RulesVersion, author: &str, now: Millis) -> Message {
    cloud_event("rules_applied", None, json!({ "version": version.0, "author": author }), now)
}

/// A rules document was not applied.
pub(crate) fn rules_refused(author: &str, code: Code, detail: &str, now: Millis) -> Message {
    cloud_event(
        "rules_refused",
        None,
        json!({ "author": author, "code": code.name(), "detail": detail }),
        now,
    )
}

/// A module's version rolled itself back.
pub(crate) fn module_rolled_back(module: &str, from: &str, to: &str, why: &str, now: Millis) -> Message {
    let data = json!({ "module": module, "from": from, "to": to, "detail": why });
    cloud_event("module_rolled_back", Some(module), data, now)
}

/// A module's version is called no more, but for a probe now and then.
pub(crate) fn module_suspended(module: &str, digest: &str, why: &str, now: Millis) -> Message {
    let data = json!({ "module": module, "digest": digest, "detail": why });
    cloud_event("module_suspended", Some(module), data, now)
}

/// What an alarm of a queue or a saga definition means and what to do.
pub(crate) fn alarm_detail(alarm: &str, queue: &str) -> String {
    match alarm {
        "dead_letters" => {
            format!(
                "queue `{queue}` has dead letters: look with `chaski dlq show {queue}`, then redrive or purge them"
            )
        }
        SAGA_PARKED => format!(
            "sagas of `{queue}` wait for an operator: look with `chaski saga list --state parked`, then retry, skip or abort them"
        ),
        other => format!("queue `{queue}`: {other}"),
    }
}

fn cloud_event(kind: &str, subject: Option<&str>, data: Value, now: Millis) -> Message {
    let id = uuid::Uuid::now_v7().to_string();
    let mut event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "chaski",
        "type": format!("chaski.{kind}"),
        "time": rfc3339(now),
        "datacontenttype": "application/json",
        "data": data,
    });
    if let Some(subject) = subject {
        event["subject"] = subject.into();
    }
    let topic = format!("$chaski.events.{kind}");
    let head = Head {
        topic: &topic,
        id: &id,
        headers: vec![("content-type", "application/cloudevents+json")],
        priority: DEFAULT_PRIORITY,
        timestamp_ms: now.0,
        ..Head::default()
    };
    compose(&head, event.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use chaski_broker::DeadReason;

    use super::*;

    fn read(message: &Message) -> (String, Value) {
        let (head, payload_at) = Head::decode(&message.body).unwrap();
        (head.topic.to_owned(), serde_json::from_slice(&message.body[payload_at..]).unwrap())
    }

    #[test]
    fn an_event_is_a_cloud_event_on_its_own_topic() {
        let event = Event::DeadLetter { queue: "billing".into(), count: 10, reason: DeadReason::Rejected };
        let (topic, read) = read(&message(&event, Millis(0)));
        assert_eq!(topic, "$chaski.events.dead_letter");
        assert_eq!(read["specversion"], "1.0");
        assert_eq!(read["type"], "chaski.dead_letter");
        assert_eq!(read["subject"], "billing");
        assert_eq!(read["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(read["data"], json!({ "queue": "billing", "count": 10, "reason": "rejected" }));
        assert!(!read["id"].as_str().unwrap().is_empty() && read["source"] == "chaski");
    }

    #[test]
    fn every_event_has_the_topic_that_documents_name() {
        let queue = || "q".to_owned();
        let messages = [
            ("queue_dropped", message(&Event::QueueDropped { queue: queue(), count: 1 }, Millis(0))),
            ("dedup_window", message(&Event::DedupWindow { window_ms: 1, wanted_ms: 2 }, Millis(0))),
            (
                "alarm_raised",
                message(&Event::AlarmRaised { alarm: "dead_letters", queue: queue() }, Millis(0)),
            ),
            (
                "alarm_cleared",
                message(&Event::AlarmCleared { alarm: "dead_letters", queue: queue() }, Millis(0)),
            ),
            ("rules_applied", rules_applied(RulesVersion(3), "cli", Millis(0))),
            ("rules_refused", rules_refused("file x", Code::RulesInvalid, "line 1", Millis(0))),
        ];
        for (kind, message) in messages {
            assert_eq!(read(&message).0, format!("$chaski.events.{kind}"));
        }
    }
}
