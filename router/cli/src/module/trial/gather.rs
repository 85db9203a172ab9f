//! A gather on the command line: a request, and what came of those it went to.

use chaski_protocol::Code;
use chaski_server::module_test::{AggregatorTest, Answer, GatherEvent};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Numbered, Row, Trial, each, sample};
use crate::failure::fail;
use crate::human;

/// The request, the first of its recipients, and so on: the answer last.
pub(super) fn trial(
    aggregator: &AggregatorTest,
    messages: &[String],
    replies: &[String],
    lines: &[Numbered],
) -> anyhow::Result<Trial> {
    let request = match messages {
        [] => sample(b"{}", 1)?,
        [message] => sample(message.as_bytes(), 1)?,
        _ => {
            let sentence = "an aggregator takes one --message, the request: give replies with --reply";
            return Err(fail(Code::BadRequest, sentence));
        }
    };
    let events = each(replies, lines, event)?;
    let (tried, answer) = aggregator.gather(&request, &events)?;
    let last = tried.len() - 1;
    let rows = tried.into_iter().enumerate().map(|(at, tried)| {
        let id = match (at, at.checked_sub(1).and_then(|at| events.get(at))) {
            (0, _) => request.id.clone(),
            // The end comes early where the module was done.
            (at, Some(event)) if at < last => recipient(event).to_owned(),
            _ => "end".to_owned(),
        };
        Row { id, topic: request.topic.clone(), tried }
    });
    Ok(Trial { noun: "call", rows: rows.collect(), answer })
}

fn recipient(event: &GatherEvent) -> &str {
    match event {
        GatherEvent::Reply { recipient, .. }
        | GatherEvent::Failed { recipient, .. }
        | GatherEvent::Silent { recipient } => recipient,
    }
}

/// What came of one recipient: a message with `recipient`, and with `failed` or `silent` where none came.
fn event(line: &[u8], number: usize) -> anyhow::Result<GatherEvent> {
    let bad = |sentence: &str| fail(Code::BadRequest, sentence);
    let mut fields: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| bad(&format!("a reply is an object: {error}")))?;
    let recipient = match fields.remove("recipient") {
        None => format!("recipient-{number}"),
        Some(Value::String(name)) => name,
        Some(_) => return Err(bad("`recipient` is text")),
    };
    match (fields.remove("failed"), fields.remove("silent")) {
        (None, None) => {}
        _ if !fields.is_empty() => return Err(bad("who did not answer has no message")),
        (Some(Value::String(reason)), None) => {
            return Ok(GatherEvent::Failed { recipient, at_ms: 0, reason });
        }
        (None, Some(Value::Bool(true))) => return Ok(GatherEvent::Silent { recipient }),
        _ => return Err(bad("a reply that did not come has `failed`, a text, or `silent`, which is true")),
    }
    let reply = sample(&without_recipient(line)?, number)?;
    Ok(GatherEvent::Reply { recipient, at_ms: 0, headers: reply.headers, payload: reply.payload })
}

/// The message alone. Its payload stays as it was written: a number keeps its digits.
fn without_recipient(line: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut fields: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(line)?;
    fields.remove("recipient");
    Ok(serde_json::to_vec(&fields)?)
}

/// What `--json` prints of the answer.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    headers: std::collections::BTreeMap<&'a str, &'a str>,
    payload: String,
}

pub(super) fn line(answer: &Answer) -> Line<'_> {
    let headers = answer.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    Line { headers, payload: String::from_utf8_lossy(&answer.payload).into_owned() }
}

/// The answer for people: its headers, then its body.
pub(super) fn shown(answer: &Answer) -> String {
    let mut text = String::from("\n");
    for (name, value) in &answer.headers {
        text += &format!("{}: {}\n", human::harmless(name), human::harmless(value));
    }
    text + &human::harmless(&String::from_utf8_lossy(&answer.payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<GatherEvent, String> {
        event(line.as_bytes(), 2).map_err(|error| error.to_string())
    }

    #[test]
    fn a_reply_is_a_message_with_its_recipient() {
        let reply = read(r#"{"recipient": "a", "headers": {"h": "v"}, "payload": {"price": 9.90}}"#);
        let (headers, payload) = (vec![("h".to_owned(), "v".to_owned())], b"{\"price\":9.90}".to_vec());
        let wanted = GatherEvent::Reply { recipient: "a".into(), at_ms: 0, headers, payload };
        assert_eq!(reply, Ok(wanted));
        let Ok(GatherEvent::Reply { recipient, .. }) = read("{}") else { panic!() };
        assert_eq!(recipient, "recipient-2");
    }

    #[test]
    fn who_did_not_answer_failed_or_is_silent() {
        let failed = GatherEvent::Failed { recipient: "a".into(), at_ms: 0, reason: "no".into() };
        assert_eq!(read(r#"{"recipient": "a", "failed": "no"}"#), Ok(failed));
        let silent = GatherEvent::Silent { recipient: "a".into() };
        assert_eq!(read(r#"{"recipient": "a", "silent": true}"#), Ok(silent));
        for wrong in [
            "[]",
            r#"{"recipient": 1}"#,
            r#"{"failed": 1}"#,
            r#"{"silent": false}"#,
            r#"{"failed": "no", "payload": 1}"#,
            r#"{"failed": "no", "silent": true}"#,
            r#"{"pyaload": 1}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
