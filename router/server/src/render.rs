//! How the router writes what people and programs read: times, a dead letter's headers, and its own answers to a requester.
//! Pure: the same input always yields the same bytes.

use chaski_broker::{DeadInfo, Message, Millis, Status, StatusReply};
use chaski_protocol::frames::{REASON_HEADER, STATUS_HEADER};
use chaski_protocol::{Code, DEFAULT_PRIORITY, Head};
use jiff::Timestamp;

use crate::message::compose;

/// A time in RFC 3339, in UTC, with milliseconds.
pub(crate) fn rfc3339(time: Millis) -> String {
    let ms = i64::try_from(time.0).unwrap_or(i64::MAX);
    // Beyond the year 9999, which only a message's own deliver_at can name, the last moment stands for it.
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

/// The headers that a dead letter carries beside its own (SEMANTICS, Dead letters).
pub(crate) fn dead_headers(dead: &DeadInfo) -> Vec<(&'static str, String)> {
    let optional = |name, value: &Option<String>| value.clone().map(|value| (name, value));
    [
        Some(("chaski-dead-reason", dead.reason.name().to_owned())),
        Some(("chaski-dead-detail", dead.detail.clone())),
        optional("chaski-dead-queue", &dead.queue),
        optional("chaski-dead-route", &dead.route),
        optional("chaski-dead-scatter", &dead.scatter),
        optional("chaski-dead-saga", &dead.saga),
        optional("chaski-dead-module", &dead.module),
        optional("chaski-dead-digest", &dead.digest),
        Some(("chaski-dead-attempts", dead.attempts.to_string())),
        Some(("chaski-dead-first-at", rfc3339(dead.first_at))),
        Some(("chaski-dead-last-at", rfc3339(dead.last_at))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A status for a requester as a message.
pub(crate) fn status(reply: StatusReply<'_>) -> Message {
    let code = match reply.status {
        Status::Rejected => Code::Rejected,
        Status::Failed => Code::Failed,
        Status::ReplyLost => Code::ReplyLost,
        Status::Timeout => Code::Timeout,
        Status::AggregationFailed => Code::AggregationFailed,
    };
    let id = format!("chaski-status-{}", reply.sequence);
    let mut headers = vec![(STATUS_HEADER, code.name())];
    if !reply.reason.is_empty() {
        headers.push((REASON_HEADER, reply.reason));
    }
    let head = Head {
        topic: reply.reply_to,
        id: &id,
        correlation_id: Some(reply.request_id),
        headers,
        priority: DEFAULT_PRIORITY,
        timestamp_ms: reply.now.0,
        ..Head::default()
    };
    compose(&head, &[])
}

#[cfg(test)]
mod tests {
    use chaski_broker::{DeadReason, Sequence};
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_dead_letter_says_why_where_and_when() {
        let dead = DeadInfo {
            reason: DeadReason::MaxDeliver,
            detail: "5 deliveries failed".to_owned(),
            queue: Some("billing".to_owned()),
            route: None,
            scatter: None,
            saga: None,
            module: None,
            digest: None,
            attempts: 5,
            first_at: Millis(1_700_000_000_000),
            last_at: Millis(1_700_000_090_042),
        };
        let lines: Vec<String> =
            dead_headers(&dead).iter().map(|(name, value)| format!("{name}: {value}")).collect();
        expect![[r#"
            chaski-dead-reason: max_deliver
            chaski-dead-detail: 5 deliveries failed
            chaski-dead-queue: billing
            chaski-dead-attempts: 5
            chaski-dead-first-at: 2023-11-14T22:13:20.000Z
            chaski-dead-last-at: 2023-11-14T22:14:50.042Z"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn a_dead_letter_of_a_route_names_the_filter() {
        let dead = DeadInfo {
            reason: DeadReason::FilterError,
            detail: "it trapped".to_owned(),
            queue: None,
            route: Some("eu".to_owned()),
            scatter: None,
            saga: None,
            module: Some("eu-only".to_owned()),
            digest: Some("sha256:00".to_owned()),
            attempts: 0,
            first_at: Millis(0),
            last_at: Millis(0),
        };
        let names: Vec<&str> = dead_headers(&dead).iter().map(|(name, _)| *name).collect();
        assert_eq!(names[2..5], ["chaski-dead-route", "chaski-dead-module", "chaski-dead-digest"]);
    }

    #[test]
    fn a_time_that_no_calendar_knows_is_still_written() {
        assert_eq!(rfc3339(Millis(0)), "1970-01-01T00:00:00.000Z");
        assert!(rfc3339(Millis(u64::MAX)).starts_with("9999-12-30T"));
    }

    #[test]
    fn a_status_is_a_message_to_the_requester() {
        let reply = StatusReply {
            reply_to: "$inbox.1.2",
            request_id: "r1",
            status: Status::Failed,
            reason: "no stock",
            sequence: Sequence(42),
            now: Millis(7),
        };
        let message = status(reply);
        assert_eq!(message.topic(), b"$inbox.1.2");
        assert_eq!(message.correlation_id(), Some(&b"r1"[..]));
        let (head, payload_at) = Head::decode(&message.body).unwrap();
        assert_eq!(head.headers, [("chaski-status", "failed"), ("chaski-reason", "no stock")]);
        assert_eq!(payload_at, message.body.len());
        assert_eq!(status(reply), message);
    }
}
