//! A saga's history on the command line, and what a compensator makes of it.

use chaski_protocol::Code;
use chaski_server::module_test::{CompensatorTest, History, Request, SagaCause, SagaStep, StepState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Numbered, Row, Trial, each, sample};
use crate::failure::fail;

/// One history.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Line<'a> {
    saga: Option<String>,
    id: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    steps: Vec<Step<'a>>,
    cause: Option<Cause>,
    #[serde(default)]
    retries: u32,
}

/// One step of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Step<'a> {
    name: String,
    #[serde(default)]
    state: State,
    attempts: Option<u32>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    reason: Option<String>,
    #[serde(default = "yes")]
    can_undo: bool,
    #[serde(default)]
    undone: bool,
    #[serde(default)]
    pivot: bool,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    #[default]
    Pending,
    Running,
    Completed,
    Failed,
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cause {
    Step(String),
    Timeout,
    Aborted(String),
}

pub(super) fn trial(
    compensator: &CompensatorTest,
    messages: &[String],
    lines: &[Numbered],
) -> anyhow::Result<Trial> {
    let mut rows = Vec::new();
    for history in each(messages, lines, history)? {
        let tried = compensator.decide(&history)?;
        rows.push(Row { id: history.id, topic: history.saga, tried });
    }
    Ok(Trial { noun: "history", rows, answer: None })
}

fn history(line: &[u8], number: usize) -> anyhow::Result<History> {
    let bad = |error: serde_json::Error| fail(Code::BadRequest, format!("a history: {error}"));
    let line: Line<'_> = serde_json::from_slice(line).map_err(bad)?;
    let input = sample(line.input.map_or("{}", RawValue::get).as_bytes(), number)?;
    let id = line.id.unwrap_or_else(|| input.id.clone());
    let steps = line.steps.into_iter().map(step).collect::<Result<Vec<_>, _>>()?;
    let cause = match line.cause {
        Some(Cause::Step(step)) => Some(SagaCause::Step(step)),
        Some(Cause::Timeout) => Some(SagaCause::Timeout),
        Some(Cause::Aborted(reason)) => Some(SagaCause::Aborted(reason)),
        None => {
            let ended = |state| steps.iter().find(|step| step.state == state);
            let ended = ended(StepState::Failed).or_else(|| ended(StepState::Unknown));
            ended.map(|step| SagaCause::Step(step.name.clone()))
        }
    };
    let input = Request {
        topic: input.topic,
        id: input.id,
        key: input.key,
        headers: input.headers,
        payload: input.payload,
        priority: input.priority,
        timestamp_ms: 0,
    };
    let saga = line.saga.unwrap_or_else(|| "sample".to_owned());
    Ok(History { saga, id, now_ms: 0, input, steps, cause, retries: line.retries })
}

fn step(step: Step<'_>) -> anyhow::Result<SagaStep> {
    let Step { name, state, attempts, payload, reason, can_undo, undone, pivot } = step;
    let state = match state {
        State::Pending => StepState::Pending,
        State::Running => StepState::Running,
        State::Completed => StepState::Completed,
        State::Failed => StepState::Failed,
        State::Unknown => StepState::Unknown,
    };
    let payload = match payload {
        // As a message's payload is read: JSON as it is, text without its quotes.
        Some(raw) => Some(sample(format!("{{\"payload\":{}}}", raw.get()).as_bytes(), 1)?.payload),
        None => (state == StepState::Completed).then(Vec::new),
    };
    let attempts = attempts.unwrap_or_else(|| u32::from(state != StepState::Pending));
    Ok(SagaStep { name, state, attempts, payload, reason, can_undo, undone, pivot })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<History, String> {
        history(line.as_bytes(), 1).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_history_leaves_out_is_plain() {
        let history = read(
            r#"{"saga": "order", "input": {"id": "o-7", "payload": {"n": 1.50}}, "steps": [
                {"name": "stock", "state": "completed", "payload": {"slot": 3}},
                {"name": "card", "state": "failed", "reason": "declined", "attempts": 2},
                {"name": "ship", "pivot": true, "can_undo": false}]}"#,
        )
        .expect("a history");
        assert_eq!((history.saga.as_str(), history.id.as_str()), ("order", "o-7"));
        assert_eq!(history.input.payload, b"{\"n\":1.50}");
        assert_eq!(history.cause, Some(SagaCause::Step("card".into())));
        let [stock, card, ship] = &history.steps[..] else { panic!("three steps") };
        assert_eq!((stock.payload.as_deref(), stock.attempts), (Some(&b"{\"slot\":3}"[..]), 1));
        assert_eq!((card.attempts, card.reason.as_deref(), card.can_undo), (2, Some("declined"), true));
        assert_eq!((ship.state, ship.attempts, ship.pivot), (StepState::Pending, 0, true));
    }

    #[test]
    fn a_cause_is_a_step_the_time_or_an_abort() {
        let cause = |text: &str| read(&format!(r#"{{"cause": {text}}}"#)).map(|history| history.cause);
        assert_eq!(cause(r#"{"step": "a"}"#), Ok(Some(SagaCause::Step("a".into()))));
        assert_eq!(cause("\"timeout\""), Ok(Some(SagaCause::Timeout)));
        assert_eq!(cause(r#"{"aborted": "why"}"#), Ok(Some(SagaCause::Aborted("why".into()))));
        assert!(cause("\"tired\"").is_err());
        assert!(read(r#"{"stpes": []}"#).is_err_and(|error| error.contains("unknown field `stpes`")));
    }
}
