//! The messages that the router itself sends for gathers and sagas: requests to recipients, answers, steps, outcomes, progress.
//! Pure: the same input always yields the same bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chaski_broker::{
    AnswerMessage, AskedMessage, Message, OutcomeMessage, Own, ProgressMessage, StepContent, StepMessage,
};
use chaski_protocol::{DEFAULT_PRIORITY, Head};
use serde::de::IgnoredAny;
use serde_json::json;

use crate::message::compose;
use crate::render;

/// The broker's [`chaski_broker::Render`].
pub(crate) fn own(own: Own<'_>) -> Message {
    match own {
        Own::Status(reply) => render::status(reply),
        Own::Asked(asked) => ask(&asked),
        Own::Answer(made) => answer(&made),
        Own::Step(attempt) => step(&attempt),
        Own::Outcome(ended) => outcome(&ended),
        Own::Progress(line) => progress(&line),
    }
}

/// The head of a message that the broker holds, and its payload.
fn parts(message: &Message) -> (Head<'_>, &[u8]) {
    let (head, payload_at) =
        Head::decode(&message.body).expect("a message was decoded before the broker had it");
    (head, &message.body[payload_at..])
}

fn ask(asked: &AskedMessage<'_>) -> Message {
    let (mut head, payload) = parts(asked.request);
    head.reply_to = Some(asked.reply_to);
    head.priority = asked.priority.unwrap_or(head.priority);
    head.ttl_ms = asked.ttl_ms.or(head.ttl_ms);
    compose(&head, payload)
}

fn answer(answer: &AnswerMessage<'_>) -> Message {
    let id = format!("chaski-answer-{}", answer.sequence);
    let (asked, answered, failed) =
        (answer.asked.to_string(), answer.answered.to_string(), answer.failed.to_string());
    let mut headers: Vec<(&str, &str)> =
        answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.extend([
        ("chaski-gather", if answer.complete { "complete" } else { "partial" }),
        ("chaski-gather-asked", &asked),
        ("chaski-gather-answered", &answered),
        ("chaski-gather-failed", &failed),
    ]);
    let head = Head {
        topic: answer.reply_to,
        id: &id,
        correlation_id: Some(answer.request_id),
        headers,
        priority: DEFAULT_PRIORITY,
        timestamp_ms: answer.now.0,
        ..Head::default()
    };
    compose(&head, answer.payload)
}

fn step(attempt: &StepMessage<'_>) -> Message {
    let (input, input_payload) = parts(attempt.input);
    let saga = format!("{}/{}", attempt.name, attempt.id);
    let undo = if attempt.undo.is_some() { "/undo" } else { "" };
    let key = format!("{saga}/{}{undo}", attempt.step);
    let id = format!("{key}/{}", attempt.attempt);
    let number = attempt.attempt.to_string();
    let mut headers: Vec<(&str, &str)> =
        input.headers.iter().filter(|(name, _)| !name.starts_with("chaski-")).copied().collect();
    headers.extend([
        ("chaski-saga", &*saga),
        ("chaski-saga-name", attempt.name),
        ("chaski-step", attempt.step),
        ("chaski-attempt", &number),
        ("chaski-idempotency-key", &key),
        ("chaski-phase", if attempt.undo.is_some() { "undo" } else { "forward" }),
    ]);
    if let Some(outcome) = attempt.undo {
        headers.push(("chaski-compensates", attempt.step));
        headers.push(("chaski-step-outcome", outcome.name()));
    }
    let head = Head {
        topic: attempt.queue,
        id: &id,
        key: input.key,
        headers,
        priority: input.priority,
        timestamp_ms: attempt.now.0,
        ..Head::default()
    };
    match &attempt.payload {
        StepContent::Input => compose(&head, input_payload),
        StepContent::Bytes(bytes) => compose(&head, bytes),
        StepContent::All { results, failed } => {
            let mut text = Vec::with_capacity(64 + input_payload.len());
            text.extend_from_slice(b"{\"input\":");
            push_value(&mut text, input_payload);
            text.extend_from_slice(b",\"results\":");
            push_results(&mut text, results);
            push_failed(&mut text, *failed);
            text.push(b'}');
            compose(&head, &text)
        }
    }
}

fn outcome(ended: &OutcomeMessage<'_>) -> Message {
    let id = format!("chaski-outcome-{}", ended.sequence);
    let saga = format!("{}/{}", ended.name, ended.id);
    let mut text = Vec::with_capacity(256);
    text.extend_from_slice(b"{\"saga\":");
    text.extend_from_slice(json!(saga).to_string().as_bytes());
    text.extend_from_slice(b",\"state\":");
    text.extend_from_slice(json!(ended.state.name()).to_string().as_bytes());
    text.extend_from_slice(b",\"results\":");
    push_results(&mut text, &ended.results);
    push_failed(&mut text, ended.failed);
    text.extend_from_slice(b",\"compensated\":");
    text.extend_from_slice(json!(ended.compensated).to_string().as_bytes());
    text.push(b'}');
    let head = Head {
        topic: ended.reply_to,
        id: &id,
        correlation_id: Some(ended.id),
        headers: vec![("chaski-saga", &*saga), ("chaski-saga-state", ended.state.name())],
        priority: DEFAULT_PRIORITY,
        timestamp_ms: ended.now.0,
        ..Head::default()
    };
    compose(&head, &text)
}

fn progress(progress: &ProgressMessage<'_>) -> Message {
    let ProgressMessage { topic, name, id, state, line, sequence } = progress;
    let message_id = format!("chaski-progress-{sequence}");
    let saga = format!("{name}/{id}");
    let optional = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let payload = json!({
        "saga": saga,
        "state": state.name(),
        "at": render::rfc3339(line.at),
        "what": line.what,
        "step": line.step,
        "undo": line.undo,
        "attempt": (line.attempt > 0).then_some(line.attempt),
        "detail": optional(&line.detail),
    });
    let head = Head {
        topic,
        id: &message_id,
        headers: vec![("chaski-saga", &*saga)],
        priority: DEFAULT_PRIORITY,
        timestamp_ms: line.at.0,
        ..Head::default()
    };
    compose(&head, payload.to_string().as_bytes())
}

/// JSON as it is, other bytes as `{"$base64": "…"}`.
fn push_value(text: &mut Vec<u8>, payload: &[u8]) {
    if serde_json::from_slice::<IgnoredAny>(payload).is_ok() {
        text.extend_from_slice(payload);
    } else {
        text.extend_from_slice(json!({ "$base64": STANDARD.encode(payload) }).to_string().as_bytes());
    }
}

fn push_results(text: &mut Vec<u8>, results: &[(&str, &bytes::Bytes)]) {
    text.push(b'{');
    for (place, (step, result)) in results.iter().enumerate() {
        if place > 0 {
            text.push(b',');
        }
        text.extend_from_slice(json!(step).to_string().as_bytes());
        text.push(b':');
        push_value(text, result);
    }
    text.push(b'}');
}

/// The step that failed, `null` where none did in particular, and why.
fn push_failed(text: &mut Vec<u8>, failed: Option<(&str, &str)>) {
    if let Some((step, reason)) = failed {
        let step = (!step.is_empty()).then_some(step);
        text.extend_from_slice(b",\"failed\":");
        text.extend_from_slice(json!({ "step": step, "reason": reason }).to_string().as_bytes());
    }
}
