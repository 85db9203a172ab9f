//! From what the broker says of gathers and sagas to what their modules are told: the two crates don't know each other. Pure.

use bytes::Bytes;
use chaski_broker::{Advise, AggregateCall, GatherEnd, Millis, SagaCause, StepOutcome};
use chaski_modules::{GatherEvent, History, Request, SagaStep, StepState};
use chaski_protocol::Head;

/// What a compensator is told of a saga.
pub(super) fn history(call: &Advise) -> History {
    let steps = call.steps.iter().zip(&call.definition.steps).map(|(step, settings)| SagaStep {
        name: step.name.clone(),
        state: match step.outcome {
            StepOutcome::Pending => StepState::Pending,
            StepOutcome::Running => StepState::Running,
            StepOutcome::Completed => StepState::Completed,
            StepOutcome::Failed => StepState::Failed,
            StepOutcome::Unknown => StepState::Unknown,
        },
        attempts: step.attempts,
        payload: step.result.as_ref().map(|result| result.to_vec()),
        reason: step.reason.clone(),
        can_undo: settings.compensate.is_some(),
        undone: step.undone,
        pivot: settings.pivot,
    });
    let cause = call.cause.as_ref().map(|cause| match cause {
        SagaCause::Step { step, .. } => {
            let step = call.definition.steps.get(*step as usize).map(|step| step.name.clone());
            chaski_modules::SagaCause::Step(step.unwrap_or_default())
        }
        SagaCause::Timeout => chaski_modules::SagaCause::Timeout,
        SagaCause::Aborted { reason } => chaski_modules::SagaCause::Aborted(reason.clone()),
    });
    History {
        saga: call.name.clone(),
        id: call.id.clone(),
        now_ms: call.now.0,
        input: request_of(&call.input, call.began_at),
        steps: steps.collect(),
        cause,
        retries: call.retries,
    }
}

/// A message's block, that the router took then, as a module sees it.
pub(super) fn request_of(block: &Bytes, at: Millis) -> Request {
    let (head, payload) = decoded(block);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Request {
        topic: head.topic.to_owned(),
        id: head.id.to_owned(),
        key: head.key.map(str::to_owned),
        headers: head.headers.iter().map(owned).collect(),
        payload: payload.to_vec(),
        priority: head.priority,
        timestamp_ms: at.0,
    }
}

/// What an aggregator is told of a recipient.
pub(super) fn event_of(call: AggregateCall) -> GatherEvent {
    match call {
        AggregateCall::Reply { recipient, at, reply } => {
            let (head, payload) = decoded(&reply);
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let headers = head.headers.iter().map(owned).collect();
            let (recipient, payload) = (recipient.as_ref().to_owned(), payload.to_vec());
            GatherEvent::Reply { recipient, at_ms: at.0, headers, payload }
        }
        AggregateCall::Failed { recipient, at, reason } => {
            GatherEvent::Failed { recipient: recipient.as_ref().to_owned(), at_ms: at.0, reason }
        }
        AggregateCall::Silent { recipient } => {
            GatherEvent::Silent { recipient: recipient.as_ref().to_owned() }
        }
        AggregateCall::Begin { .. } | AggregateCall::Finish { .. } => {
            unreachable!("these two are no event of a recipient")
        }
    }
}

fn decoded(block: &Bytes) -> (Head<'_>, &[u8]) {
    let (head, payload_at) = Head::decode(block).expect("a message was decoded before the broker had it");
    (head, &block[payload_at..])
}

/// Why a gather ends, for its aggregator.
pub(super) fn end(why: GatherEnd) -> chaski_modules::GatherEnd {
    match why {
        GatherEnd::Quorum => chaski_modules::GatherEnd::Quorum,
        GatherEnd::Done => chaski_modules::GatherEnd::Done,
        GatherEnd::Settled => chaski_modules::GatherEnd::Settled,
        GatherEnd::Timeout => chaski_modules::GatherEnd::Timeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::compose;

    #[test]
    fn a_module_sees_when_the_router_took_a_message_whatever_its_client_claims() {
        let headers = vec![("region", "eu")];
        let head = Head { topic: "t", id: "m", key: Some("k"), headers, timestamp_ms: 1, ..Head::default() };
        let seen = request_of(&compose(&head, b"body").body, Millis(7));
        assert_eq!(
            (&*seen.topic, &*seen.id, seen.key.as_deref(), seen.timestamp_ms),
            ("t", "m", Some("k"), 7)
        );
        assert_eq!(
            (seen.headers, seen.payload),
            (vec![("region".to_owned(), "eu".to_owned())], b"body".to_vec())
        );
    }
}
