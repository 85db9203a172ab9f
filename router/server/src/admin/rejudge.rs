//! Dead letters that filters judge again on their way back: those of `chaski.dlq`, from the start of their topic's filters, and those that a
//! filter of a queue's binding failed on, by that binding. What filters with state write meanwhile is thrown away: the message itself has
//! been counted before.

use chaski_broker::{Browsed, DeadReason, Operation, PublishError, QueueId, Sequence};
use chaski_protocol::admin::Count;
use chaski_protocol::{Code, MAX_PAGE, Refusal};

use super::{messages, operate_refusal};
use crate::driver::publish_refusal;
use crate::message;
use crate::modules::{Subject, Work};
use crate::shard::Shard;

/// Which letters, and how many at most.
pub(super) struct Wanted<'a> {
    /// The source queue: `chaski` for those that died before they had one.
    pub(super) source: &'a str,
    pub(super) queue: QueueId,
    pub(super) reason: Option<DeadReason>,
    pub(super) id: Option<&'a [u8]>,
    pub(super) most: u64,
}

/// Brings back those that must be judged; others are left where they are.
pub(super) async fn rejudge(shard: &Shard, wanted: &Wanted<'_>) -> Result<Count, Refusal> {
    let letters = format!("{}.dlq", wanted.source);
    let mut count = Count { count: 0, stopped: None };
    let mut copies = false;
    let mut after = Sequence(0);
    let mut seen = 0;
    // A letter that dies again lies behind those that were there, and is not seen again.
    let there = shard.inspect(|broker| broker.queues()).await?;
    let there = there
        .iter()
        .find(|stats| *stats.name == *letters)
        .map_or(0, |stats| stats.ready + stats.delayed + stats.parked + stats.leased);
    while count.count < wanted.most && seen < there {
        let page = messages::browse(shard, &letters, after, MAX_PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = last.sequence;
        for (browsed, block) in page {
            seen += 1;
            if count.count == wanted.most || seen > there {
                break;
            }
            let Ok((head, payload_at)) = chaski_protocol::Head::decode(&block) else { continue };
            if !wanted.takes(&browsed, head.id.as_bytes()) {
                continue;
            }
            if browsed.dead.as_ref().is_some_and(|info| is_copy(info.reason)) {
                copies = true;
                continue;
            }
            let subject =
                Subject::new(message::to_broker(&block, &head), &head, payload_at, browsed.published_at);
            match one(shard, wanted, browsed.sequence, subject).await {
                Ok(None) => count.count += 1,
                Ok(Some(stopped)) => return Ok(Count { stopped: Some(stopped), ..count }),
                // What was done so far stays done, and is told.
                Err(refusal) if count.count > 0 => {
                    return Ok(Count { stopped: Some(refusal.detail), ..count });
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }
    if count.count == 0 && copies {
        let detail = "dead letters of gathers and sagas are copies to look at, and don't go back: purge them; a parked saga goes on by \
                      `chaski saga retry`";
        return Err(Refusal::new(Code::NotAllowed, detail));
    }
    Ok(count)
}

/// Letters of gathers and sagas that failed: the broker lets none of them back.
fn is_copy(reason: DeadReason) -> bool {
    matches!(reason, DeadReason::AggregationFailed | DeadReason::CompensationFailed)
}

impl Wanted<'_> {
    fn takes(&self, letter: &Browsed, id: &[u8]) -> bool {
        let Some(info) = &letter.dead else { return false };
        let judged =
            self.source == "chaski" || (info.reason == DeadReason::FilterError && info.module.is_some());
        judged
            && self.reason.is_none_or(|reason| info.reason == reason)
            && self.id.is_none_or(|wanted| wanted == id)
    }
}

/// Judges one letter and puts what came of it in its stead; or says why it can't be.
async fn one(
    shard: &Shard,
    wanted: &Wanted<'_>,
    sequence: Sequence,
    subject: Subject,
) -> Result<Option<String>, Refusal> {
    let view = shard.view();
    let work = if wanted.source == "chaski" {
        Work::new(&view.filters, &view.filters.plan_of(subject.topic_text()), subject)
    } else {
        Work::for_queue(&view.filters, wanted.queue, subject)
    };
    let mut works = [work];
    shard.modules().judge_dry(&mut works, shard).await?;
    let [work] = works;
    let filtered = work.finish_filtered().map_err(|error| publish_refusal(&PublishError::Judge(error)))?;
    let operation = Operation::RedriveAs { sequence, filtered: Box::new(filtered) };
    let progress = shard.operate(wanted.queue, operation).await?;
    let progress = progress.map_err(|error| operate_refusal(wanted.source, error))?;
    if progress.full {
        return Ok(Some(
            "a queue that it goes to is full and refuses more: make room, then repeat".to_owned(),
        ));
    }
    if progress.count == 0 {
        return Ok(Some(format!(
            "nobody takes what filters make of dead letter {sequence}: bind a queue to its topic, then repeat"
        )));
    }
    Ok(None)
}
