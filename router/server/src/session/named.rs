//! The filters that a consumer or subscription names for itself: they judge what is about to be handed to it, under the rules in force
//! at that moment.

use std::sync::Arc;

use bytes::Bytes;
use chaski_broker::{DeadReason, Millis, Verdict as Settlement};
use chaski_modules::Verdict;
use chaski_protocol::{Code, MAX_FILTERS, Refusal, shown};

use crate::message;
use crate::modules::{Active, Outcome, Subject};
use crate::rules::OnError;
use crate::shard::{Shard, View};

/// What becomes of one message.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// It is handed over, changed or not.
    Deliver(Bytes),
    /// A filter dropped it.
    Drop,
    /// A filter rejected it or failed on it.
    Dead { reason: DeadReason, detail: String, module: String, digest: String },
    /// It cannot be judged now, or a filter failed whose `on_error` is "retry".
    Later,
}

impl Fate {
    /// How a lease ends whose message is not handed over.
    pub(super) fn settlement(self) -> Option<Settlement> {
        match self {
            Fate::Deliver(_) => None,
            Fate::Drop => Some(Settlement::Ack),
            Fate::Dead { reason, detail, module, digest } => {
                Some(Settlement::Failed { reason, detail, module, digest })
            }
            Fate::Later => Some(Settlement::Nack { delay_ms: None }),
        }
    }
}

/// Whether a stream may name these filters.
pub(super) fn check(view: &View, names: &[&str]) -> Result<Vec<String>, Refusal> {
    if names.len() > MAX_FILTERS {
        let detail = format!("a stream names at most {MAX_FILTERS} filters, this one {}", names.len());
        return Err(Refusal::new(Code::LimitExceeded, detail));
    }
    for name in names {
        let Some(module) = view.filters.module(name) else {
            let detail = format!(
                "the rules name no module `{}`; `chaski module list` names those there are",
                shown(name)
            );
            return Err(Refusal::new(Code::UnknownModule, detail));
        };
        if let Some(coordinator) = &module.coordinator {
            let detail = format!(
                "module `{name}` is {}, and a consumer or subscription names filters",
                crate::rules::a(coordinator.world())
            );
            return Err(Refusal::new(Code::NotAllowed, detail));
        }
        if module.keeps_state() {
            let detail = format!(
                "module `{name}` keeps state, which changes with what is published: put it on a route or on a queue's binding"
            );
            return Err(Refusal::new(Code::NotAllowed, detail));
        }
    }
    Ok(names.iter().map(|name| (*name).to_owned()).collect())
}

/// Judges messages by all of these filters, one after another; answers one fate for each, in order. Each comes with the time at which
/// the router took it.
pub(super) async fn judge(shard: &Shard, names: &[String], taken: Vec<(Bytes, Millis)>) -> Vec<Fate> {
    let view = shard.view();
    let (blocks, taken): (Vec<Bytes>, Vec<Millis>) = taken.into_iter().unzip();
    let mut fates: Vec<Fate> = blocks.into_iter().map(Fate::Deliver).collect();
    for name in names {
        let left: Vec<usize> =
            (0..fates.len()).filter(|index| matches!(fates[*index], Fate::Deliver(_))).collect();
        let Some(module) = view.filters.module(name).filter(|module| !module.keeps_state()) else {
            // It is gone from the rules, or has become another kind of filter.
            left.into_iter().for_each(|index| fates[index] = Fate::Later);
            continue;
        };
        let Some(version) = &module.version else {
            left.into_iter().for_each(|index| fates[index] = Fate::Later);
            continue;
        };
        let subjects: Vec<Subject> =
            left.iter().filter_map(|index| subject(&fates[*index], taken[*index])).collect();
        let outcomes = shard.modules().judge_by(module, version, &subjects).await;
        for ((index, subject), outcome) in left.into_iter().zip(subjects).zip(outcomes) {
            fates[index] = fate(&view, module, subject, outcome);
        }
    }
    fates
}

fn subject(fate: &Fate, taken: Millis) -> Option<Subject> {
    let Fate::Deliver(block) = fate else { return None };
    let (head, payload_at) = chaski_protocol::Head::decode(block).expect("what is stored was checked");
    Some(Subject::new(message::to_broker(block, &head), &head, payload_at, taken))
}

fn fate(view: &View, module: &Arc<Active>, subject: Subject, outcome: Outcome) -> Fate {
    let dead = |reason, detail: String| Fate::Dead {
        reason,
        detail,
        module: module.name.to_string(),
        digest: module.digest().map(|digest| digest.to_string()).unwrap_or_default(),
    };
    let block = subject.message.body.clone();
    let failed = |cause: &str, detail: &str| match module.manners.on_error {
        OnError::DeadLetter => {
            dead(DeadReason::FilterError, format!("module `{}`: {detail} ({cause})", module.name))
        }
        OnError::Drop => Fate::Drop,
        OnError::Pass => Fate::Deliver(block.clone()),
        OnError::Retry => Fate::Later,
    };
    match outcome {
        Outcome::Verdict(Verdict::Pass) => Fate::Deliver(block.clone()),
        Outcome::Verdict(Verdict::Drop) => Fate::Drop,
        Outcome::Verdict(Verdict::Reject { reason }) => dead(DeadReason::Rejected, reason),
        Outcome::Verdict(Verdict::Transform(changes)) => {
            match subject.changed(&changes, None, None, view.filters.bounds) {
                Ok(changed) => Fate::Deliver(changed.message.body),
                Err(detail) => failed("contract", &detail),
            }
        }
        Outcome::Verdict(Verdict::Route { .. } | Verdict::Split(_)) => failed(
            "contract",
            "a consumer's or subscription's filter can pass, drop, reject and transform only",
        ),
        Outcome::Failed { cause, detail } => failed(cause, &detail),
        Outcome::Busy => Fate::Later,
    }
}
