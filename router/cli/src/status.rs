//! `chaski status`: one look at the router; the exit code says whether it is ready.

use std::time::Duration;

use chaski_protocol::Code;
use chaski_protocol::admin::{AdminRequest, Status};
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::fail;
use crate::table::Facts;
use crate::{human, out};

/// Asks and prints; an error when it is not ready.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let status: Status = context.admin(AdminRequest::Status).await?;
    if context.json {
        out::json(&status)?;
    } else {
        out::text(render(&status, Timestamp::now()))?;
    }
    if status.ready {
        return Ok(());
    }
    let named = |alarm: &str| Code::ALL.iter().copied().find(|code| code.name() == alarm);
    let cause = status.alarms.iter().find_map(|alarm| Some((named(&alarm.alarm)?, alarm.detail.as_str())));
    let (code, detail) = cause.unwrap_or((Code::Busy, "it says so without an alarm; see its log"));
    Err(fail(code, format!("the router is not ready: {detail}")))
}

fn render(status: &Status, now: Timestamp) -> String {
    let mut facts = Facts::new();
    facts.add("state", if status.ready { "ready" } else { "NOT READY" });
    for alarm in &status.alarms {
        let whose = alarm.queue.as_deref().or(alarm.saga.as_deref());
        let whose = whose.map(|name| format!(" ({name})")).unwrap_or_default();
        facts.add("alarm", format!("{}{whose}: {}", alarm.alarm, alarm.detail));
    }
    facts.add("router", &status.server);
    facts.add("running for", format!("{}, since {}", human::age(&status.started_at, now), status.started_at));
    facts.add("rules", format!("version {}", status.rules_version));
    facts.add("queues", status.queues.to_string());
    facts.add("messages", status.messages.to_string());
    facts.add("dead letters", status.dead.to_string());
    facts.add("connections", status.connections.to_string());
    facts.add("consumers", status.consumers.to_string());
    facts.add("journal", human::bytes(status.journal_bytes));
    facts.add("disk free", human::bytes(status.free_bytes));
    facts.add("dedup window", human::duration(Duration::from_millis(status.dedup_window_ms)));
    facts.to_string()
}

#[cfg(test)]
mod tests {
    use chaski_protocol::admin::Alarm;
    use expect_test::expect;

    use super::*;

    #[test]
    fn alarms_stand_right_below_the_state() {
        let status = Status {
            ready: true,
            alarms: vec![
                Alarm {
                    alarm: "dead_letters".to_owned(),
                    queue: Some("billing".to_owned()),
                    saga: None,
                    detail: "10 dead letters: look with `chaski dlq show billing`".to_owned(),
                },
                Alarm {
                    alarm: "saga_parked".to_owned(),
                    queue: None,
                    saga: Some("order".to_owned()),
                    detail: "sagas of `order` wait for an operator".to_owned(),
                },
            ],
            server: "chaski/0.1.0".to_owned(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            rules_version: 3,
            queues: 2,
            messages: 1707,
            dead: 10,
            connections: 4,
            consumers: 1,
            journal_bytes: 64 << 20,
            free_bytes: 10 << 30,
            dedup_window_ms: 120_000,
        };
        let now = "2026-01-03T02:00:00Z".parse().expect("a time");
        expect![[r#"
            state         ready
            alarm         dead_letters (billing): 10 dead letters: look with `chaski dlq show billing`
            alarm         saga_parked (order): sagas of `order` wait for an operator
            router        chaski/0.1.0
            running for   2d 2h, since 2026-01-01T00:00:00Z
            rules         version 3
            queues        2
            messages      1707
            dead letters  10
            connections   4
            consumers     1
            journal       64.0 MiB
            disk free     10.0 GiB
            dedup window  2m
        "#]]
        .assert_eq(&render(&status, now));
    }
}
