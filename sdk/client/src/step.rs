//! A saga's step, as the consumer that does or undoes it sees it: what stands in a delivery's headers and payload. It settles nothing.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::value::RawValue;

use crate::base64;
use crate::message::Message;

const SAGA: &str = "chaski-saga";
const SAGA_NAME: &str = "chaski-saga-name";
const STEP: &str = "chaski-step";
const ATTEMPT: &str = "chaski-attempt";
const KEY: &str = "chaski-idempotency-key";
const PHASE: &str = "chaski-phase";
const COMPENSATES: &str = "chaski-compensates";
const OUTCOME: &str = "chaski-step-outcome";

/// What the key of a compensation ends with; before it stands the step's own.
const UNDO: &str = "/undo";

/// Whether a step is to be done or undone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Do it.
    Forward,
    /// Undo it.
    Undo,
}

/// What is known of a step that is to be undone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was done.
    Completed,
    /// It was delivered and never answered: it may have been done.
    Unknown,
}

/// Why a saga is compensated.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Failed {
    /// The step that failed; `None` where the saga's time was over or an operator ended it.
    pub step: Option<String>,
    /// Why.
    pub reason: String,
}

/// One attempt of a saga's step, or of its compensation: [`Delivery::step`](crate::Delivery::step).
///
/// What it was given is in the payload, and read when it is first asked for. A step whose `payload` in the rules is `"input"` or
/// `"previous"`, and a compensation whose payload the compensator made, carry bytes of their own instead:
/// [`Message::payload`](crate::Message::payload) has those, and there is neither input nor results.
#[derive(Clone, Debug)]
pub struct Step<'a> {
    message: &'a Message,
    key: &'a str,
}

/// The payload, as the router makes it.
#[derive(Deserialize)]
struct Carried<'a> {
    #[serde(borrow)]
    input: &'a RawValue,
    #[serde(borrow)]
    results: HashMap<Cow<'a, str>, &'a RawValue>,
    failed: Option<Failed>,
}

/// Bytes that are no JSON, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Coded<'a> {
    #[serde(rename = "$base64", borrow)]
    base64: Cow<'a, str>,
}

impl<'a> Step<'a> {
    /// Clients can't send these headers, so whoever has them comes from the router.
    pub(crate) fn of(message: &'a Message) -> Option<Step<'a>> {
        message.header_value(STEP)?;
        Some(Step { message, key: message.header_value(KEY)? })
    }

    fn header(&self, name: &str) -> &'a str {
        self.message.header_value(name).unwrap_or_default()
    }

    /// The saga: its definition's name, `/`, and the id of the message that began it.
    pub fn saga(&self) -> &'a str {
        self.header(SAGA)
    }

    /// The name of its definition.
    pub fn saga_name(&self) -> &'a str {
        self.header(SAGA_NAME)
    }

    /// The step's name.
    pub fn name(&self) -> &'a str {
        self.header(STEP)
    }

    /// Which attempt of the step this is, from 1. A delivery that comes again is the same attempt.
    pub fn attempt(&self) -> u32 {
        self.header(ATTEMPT).parse().unwrap_or(1)
    }

    /// The idempotency key: the same at all attempts and deliveries of the step, another one for its compensation.
    pub fn key(&self) -> &'a str {
        self.key
    }

    /// Whether it is to be done or undone.
    pub fn phase(&self) -> Phase {
        match self.header(PHASE) {
            "undo" => Phase::Undo,
            _ => Phase::Forward,
        }
    }

    /// Of a compensation: the name of the step that it undoes.
    pub fn compensates(&self) -> Option<&'a str> {
        self.message.header_value(COMPENSATES)
    }

    /// Of a compensation: whether the step was done, as far as anybody knows.
    pub fn step_outcome(&self) -> Option<StepOutcome> {
        match self.message.header_value(OUTCOME)? {
            "completed" => Some(StepOutcome::Completed),
            _ => Some(StepOutcome::Unknown),
        }
    }

    /// Of a compensation: the idempotency key under which the step itself was done, if it was.
    pub(crate) fn undone_key(&self) -> Option<&'a str> {
        (self.phase() == Phase::Undo).then(|| self.key.strip_suffix(UNDO))?
    }

    /// The key of this step's compensation; of a compensation its own.
    pub(crate) fn undo_key(&self) -> String {
        match self.phase() {
            Phase::Undo => self.key.to_owned(),
            Phase::Forward => format!("{}{UNDO}", self.key),
        }
    }

    /// The payload of the message that began the saga.
    pub fn input(&self) -> Option<Bytes> {
        self.carried().map(|carried| self.bytes(carried.input))
    }

    /// The same, read as JSON.
    pub fn input_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.carried() {
            Some(carried) => serde_json::from_str(carried.input.get()),
            None => Err(serde_json::Error::custom("the step carries no input: see its payload")),
        }
    }

    /// What a step before this one answered; `None` when it has not completed.
    pub fn result(&self, step: &str) -> Option<Bytes> {
        self.carried().and_then(|carried| Some(self.bytes(carried.results.get(step)?)))
    }

    /// The same, read as JSON; `None` when it has not completed.
    pub fn result_as<T: DeserializeOwned>(&self, step: &str) -> Result<Option<T>, serde_json::Error> {
        let carried = self.carried();
        let result = carried.as_ref().and_then(|carried| carried.results.get(step));
        result.map(|result| serde_json::from_str(result.get())).transpose()
    }

    /// Of a compensation: what failed.
    pub fn failed(&self) -> Option<Failed> {
        self.carried()?.failed
    }

    fn carried(&self) -> Option<Carried<'a>> {
        serde_json::from_slice(self.message.payload()).ok()
    }

    /// A value's own bytes: shared with the payload where it is JSON.
    fn bytes(&self, value: &'a RawValue) -> Bytes {
        let coded = serde_json::from_str::<Coded<'_>>(value.get()).ok();
        match coded.and_then(|coded| base64::decode(&coded.base64)) {
            Some(bytes) => Bytes::from(bytes),
            None => self.message.payload().slice_ref(value.get().as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(headers: &[(&str, &str)], payload: &'static str) -> Message {
        headers.iter().fold(Message::new("stock.reserve", payload), |message, (name, value)| {
            message.header(name, value)
        })
    }

    const FORWARD: &[(&str, &str)] = &[
        (SAGA, "order/o-1"),
        (SAGA_NAME, "order"),
        (STEP, "charge"),
        (ATTEMPT, "2"),
        (KEY, "order/o-1/charge"),
        (PHASE, "forward"),
    ];

    #[test]
    fn a_step_tells_what_it_is_and_what_it_was_given() {
        let payload = r#"{"input":{"total": 3.50},"results":{"reserve":{"$base64":"/wA="},"größe":[1, 2],"empty":{"$base64":""}}}"#;
        let message = message(FORWARD, payload);
        let step = Step::of(&message).expect("a step");
        assert_eq!((step.saga(), step.saga_name(), step.name()), ("order/o-1", "order", "charge"));
        assert_eq!((step.attempt(), step.key(), step.phase()), (2, "order/o-1/charge", Phase::Forward));
        assert_eq!((step.compensates(), step.step_outcome(), step.failed()), (None, None, None));
        assert_eq!(step.undo_key(), "order/o-1/charge/undo");
        assert_eq!(step.undone_key(), None);
        // Byte for byte, as it was sent, and not copied.
        let input = step.input().expect("an input");
        assert_eq!(&input[..], br#"{"total": 3.50}"#);
        assert!(message.payload().as_ptr_range().contains(&input.as_ptr()));
        assert_eq!(step.input_as::<HashMap<String, f64>>().expect("JSON")["total"], 3.5);
        assert_eq!(step.result("reserve").as_deref(), Some(&[0xff, 0][..]));
        assert_eq!(step.result("empty").as_deref(), Some(&[][..]));
        assert_eq!(step.result("größe").as_deref(), Some(&b"[1, 2]"[..]));
        assert_eq!(step.result_as::<Vec<u8>>("größe").expect("JSON"), Some(vec![1, 2]));
        assert!(step.result_as::<Vec<u8>>("reserve").is_err(), "it is no JSON");
        assert_eq!(step.result("ship"), None);
        assert_eq!(step.result_as::<u8>("ship").expect("nothing is no error"), None);
    }

    #[test]
    fn a_compensation_tells_what_it_undoes_and_why() {
        let headers = [
            (SAGA, "order/o-1"),
            (STEP, "charge"),
            (KEY, "order/o-1/charge/undo"),
            (PHASE, "undo"),
            (COMPENSATES, "charge"),
            (OUTCOME, "unknown"),
        ];
        let payload = r#"{"input":1,"results":{},"failed":{"step":"ship","reason":"no carrier"}}"#;
        let sent = message(&headers, payload);
        let step = Step::of(&sent).expect("a step");
        assert_eq!((step.phase(), step.compensates()), (Phase::Undo, Some("charge")));
        assert_eq!(step.step_outcome(), Some(StepOutcome::Unknown));
        assert_eq!(step.undone_key(), Some("order/o-1/charge"));
        assert_eq!(step.undo_key(), step.key());
        let failed = Failed { step: Some("ship".to_owned()), reason: "no carrier".to_owned() };
        assert_eq!(step.failed(), Some(failed));
        let timeout = message(&headers, r#"{"input":1,"results":{},"failed":{"step":null,"reason":"late"}}"#);
        assert_eq!(Step::of(&timeout).and_then(|step| step.failed()).expect("a failure").step, None);
    }

    #[test]
    fn a_payload_of_its_own_carries_no_input() {
        for payload in ["three llamas", r#"{"input":1}"#, "[]"] {
            let message = message(FORWARD, payload);
            let step = Step::of(&message).expect("a step");
            assert_eq!((step.input(), step.result("a"), step.failed()), (None, None, None), "{payload}");
            assert!(step.input_as::<u8>().is_err());
        }
    }

    #[test]
    fn other_messages_are_no_steps() {
        assert!(Step::of(&Message::new("a", "")).is_none());
    }
}
