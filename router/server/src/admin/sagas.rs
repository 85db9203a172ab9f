//! `chaski saga`: where sagas stand, what happened to them, and an operator's commands.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chaski_broker::{
    Broker, SagaState, SagaSummary as Summary, SagaVerb, SagaView as Saga, Sequence, SteerError, StepView,
    TimelineView,
};
use chaski_protocol::admin::{SagaFailure, SagaSteered, SagaStep, SagaSummary, SagaView, TimelineEntry};
use chaski_protocol::{Code, MAX_PAGE, Refusal, shown};

use super::messages::payload;
use crate::render::rfc3339;
use crate::shard::Shard;

/// One page by number.
pub(super) async fn list(
    shard: &Shard,
    state: Option<String>,
    after: u64,
    limit: u32,
) -> Result<Vec<SagaSummary>, Refusal> {
    let state = state.as_deref().map(named_state).transpose()?;
    let limit = limit.min(MAX_PAGE) as usize;
    let (mut found, mut after) = (Vec::new(), Sequence(after));
    // The driver does other things between two looks.
    loop {
        let room = limit - found.len();
        let page = shard.inspect(move |broker| broker.sagas(state, after, room)).await?;
        found.extend(page.sagas.into_iter().map(summary));
        match page.next {
            Some(next) if found.len() < limit => after = next,
            _ => return Ok(found),
        }
    }
}

fn named_state(name: &str) -> Result<SagaState, Refusal> {
    SagaState::ALL.iter().copied().find(|state| state.name() == name).ok_or_else(|| {
        let names: Vec<&str> = SagaState::ALL.iter().map(|state| state.name()).collect();
        let detail = format!("`{}` is no state of a saga; they are {}", shown(name), names.join(", "));
        Refusal::new(Code::BadRequest, detail)
    })
}

/// One saga, whole.
pub(super) async fn show(shard: &Shard, saga: &str) -> Result<SagaView, Refusal> {
    let wanted = saga.to_owned();
    let found = shard.inspect(move |broker| {
        let (name, id) = find(broker, &wanted)?;
        broker.saga(&name, &id).ok_or_else(|| unknown(&wanted))
    });
    Ok(view(found.await??))
}

/// Does what an operator wants of one saga.
pub(super) async fn steer(shard: &Shard, saga: &str, verb: SagaVerb) -> Result<SagaSteered, Refusal> {
    let wanted = saga.to_owned();
    let (name, id) = shard.inspect(move |broker| find(broker, &wanted)).await??;
    match shard.steer(name.clone(), id.clone(), verb).await? {
        Ok(state) => Ok(SagaSteered { id, name, state: state.name().to_owned() }),
        Err(SteerError::UnknownSaga) => Err(unknown(saga)),
        Err(SteerError::UnknownStep) => {
            let detail = format!("saga `{saga}` has no such step; `chaski saga show {saga}` names its steps");
            Err(Refusal::new(Code::UnknownId, detail))
        }
        Err(SteerError::NotAllowed { detail }) => Err(Refusal::new(Code::NotAllowed, detail)),
        Err(SteerError::DiskFull) => Err(Code::DiskFull.into()),
    }
}

/// Counts a step as done with this result, which is base64.
pub(super) async fn skip(
    shard: &Shard,
    saga: &str,
    step: String,
    result: Option<String>,
) -> Result<SagaSteered, Refusal> {
    let payload = BASE64
        .decode(result.unwrap_or_default())
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the payload is not base64: {error}")))?;
    let most = shard.view().max_payload as usize;
    if payload.len() > most {
        let detail = format!("a result has at most {most} bytes, this one {}", payload.len());
        return Err(Refusal::new(Code::PayloadTooLarge, detail));
    }
    steer(shard, saga, SagaVerb::Skip { step, payload: Bytes::from(payload) }).await
}

/// The definition's name and the id: `NAME/ID`, or the id alone where one definition has it. A message's id may hold a `/` itself; a
/// definition's name can't.
fn find(broker: &Broker, saga: &str) -> Result<(String, String), Refusal> {
    if let Some((name, id)) = saga.split_once('/')
        && broker.saga(name, id).is_some()
    {
        return Ok((name.to_owned(), id.to_owned()));
    }
    // Definitions that the rules no longer have can have sagas too.
    let mut names: BTreeSet<String> = broker.rules().sagas.iter().map(|(name, _)| name.clone()).collect();
    names.extend(broker.saga_counts().into_iter().map(|(name, ..)| name));
    let mut having = names.into_iter().filter(|name| broker.saga(name, saga).is_some());
    match (having.next(), having.next()) {
        (Some(name), None) => Ok((name, saga.to_owned())),
        (Some(first), Some(second)) => {
            let saga = shown(saga);
            let detail = format!(
                "several definitions have a saga `{saga}`: write `{first}/{saga}` or `{second}/{saga}`"
            );
            Err(Refusal::new(Code::BadRequest, detail))
        }
        (None, _) => Err(unknown(saga)),
    }
}

fn unknown(saga: &str) -> Refusal {
    let detail = format!(
        "there is no saga `{}`, and none is remembered; `chaski saga list` names those there are, as NAME/ID",
        shown(saga)
    );
    Refusal::new(Code::UnknownId, detail)
}

fn summary(saga: Summary) -> SagaSummary {
    SagaSummary {
        id: saga.id,
        name: saga.name,
        sequence: saga.number.0,
        state: saga.state.name().to_owned(),
        began_at: rfc3339(saga.began_at),
        changed_at: rfc3339(saga.changed_at),
        detail: saga.detail,
    }
}

fn view(saga: Saga) -> SagaView {
    let SagaSummary { id, name, state, began_at, changed_at, detail, .. } = summary(saga.summary);
    SagaView {
        id,
        name,
        state,
        began_at,
        changed_at,
        deadline: rfc3339(saga.deadline),
        detail,
        steps: saga.steps.into_iter().map(step).collect(),
        pending: saga.pending,
        failed: saga
            .failed
            .map(|(step, reason)| SagaFailure { step: Some(step).filter(|step| !step.is_empty()), reason }),
        timeline: saga.timeline.into_iter().map(entry).collect(),
    }
}

fn step(step: StepView) -> SagaStep {
    let (result, encoding) = step.result.map(|result| payload(&result)).unzip();
    SagaStep {
        name: step.name,
        outcome: step.outcome.name().to_owned(),
        attempts: step.attempts,
        result,
        result_encoding: encoding.map(str::to_owned),
        reason: step.reason,
        undo_attempts: step.undo_attempts,
        undone: step.undone,
    }
}

fn entry(line: TimelineView) -> TimelineEntry {
    TimelineEntry {
        at: rfc3339(line.at),
        step: line.step,
        phase: if line.undo { "undo" } else { "forward" }.to_owned(),
        attempt: Some(line.attempt).filter(|attempt| *attempt > 0),
        what: line.what,
        detail: line.detail,
    }
}

#[cfg(test)]
mod tests {
    use chaski_broker::{Millis, StepOutcome};

    use super::*;

    #[test]
    fn a_saga_is_told_with_its_steps_and_its_timeline() {
        let saga = Saga {
            summary: Summary {
                name: "order".to_owned(),
                id: "o-1".to_owned(),
                number: Sequence(7),
                state: SagaState::Parked,
                began_at: Millis(1),
                changed_at: Millis(2),
                detail: "no carrier".to_owned(),
            },
            deadline: Millis(3),
            steps: vec![StepView {
                name: "ship".to_owned(),
                outcome: StepOutcome::Unknown,
                attempts: 2,
                result: Some(Bytes::from_static(&[0xff])),
                reason: None,
                undo_attempts: 0,
                undone: false,
            }],
            pending: vec!["ship".to_owned()],
            failed: Some((String::new(), "its time is over".to_owned())),
            timeline: vec![TimelineView {
                at: Millis(4),
                step: None,
                undo: true,
                attempt: 0,
                what: "parked".to_owned(),
                detail: String::new(),
            }],
        };
        let shown = view(saga);
        assert_eq!(
            (shown.name.as_str(), shown.id.as_str(), shown.state.as_str()),
            ("order", "o-1", "parked")
        );
        let step = &shown.steps[0];
        assert_eq!((step.outcome.as_str(), step.result.as_deref()), ("unknown", Some("/w==")));
        assert_eq!(step.result_encoding.as_deref(), Some("base64"));
        assert_eq!(shown.failed.unwrap().step, None);
        assert_eq!((shown.timeline[0].phase.as_str(), shown.timeline[0].attempt), ("undo", None));
    }

    #[test]
    fn an_unknown_state_is_told_with_those_there_are() {
        assert_eq!(named_state("parked"), Ok(SagaState::Parked));
        let refused = named_state("stuck").unwrap_err();
        assert_eq!(refused.code, Code::BadRequest);
        assert!(refused.detail.contains("running, compensating, parked, completed"), "{}", refused.detail);
    }
}
