//! Commands whose messages pass filters on their way to the broker: all that a stream has ready is judged together, and what waits for a
//! filter that keeps state is filed for the time when the broker wants it.

use std::sync::Arc;

use chaski_broker::{Command, Message, PublishError, Way};
use chaski_protocol::{Head, Refusal};

use crate::driver::publish_refusal;
use crate::modules::{FilterSet, Modules, Resolved, Subject, Work};

/// A command whose messages are resolved, and perhaps not yet judged.
pub(super) struct Unjudged {
    pub(super) number: u64,
    pub(super) command: Command,
    /// Its messages that filters concern, each with its number among the command's messages.
    pub(super) works: Vec<(usize, Work)>,
}

/// Where a message goes, as far as its topic says: to queues, or before its filters.
pub(super) fn way(
    set: &Arc<FilterSet>,
    resolved: &Resolved,
    message: &Message,
    head: &Head<'_>,
    payload_at: usize,
) -> (Way, Option<Work>) {
    match resolved {
        Resolved::Direct(targets) => (Way::Direct(Arc::clone(targets)), None),
        Resolved::Through(plan) => {
            let subject = Subject::new(message.clone(), head, payload_at);
            (Way::Pending, Some(Work::new(set, plan, subject)))
        }
    }
}

/// Judges all of them together; answers each as a command for the broker, or with its number and why it is refused.
pub(super) async fn judge(
    modules: &Modules,
    unjudged: Vec<Unjudged>,
) -> Vec<Result<Command, (u64, Refusal)>> {
    if unjudged.iter().all(|one| one.works.is_empty()) {
        return unjudged.into_iter().map(|one| Ok(one.command)).collect();
    }
    let mut waiting = Vec::with_capacity(unjudged.len());
    let mut works = Vec::new();
    for Unjudged { number, command, works: own } in unjudged {
        let parts: Vec<usize> = own.iter().map(|(part, _)| *part).collect();
        works.extend(own.into_iter().map(|(_, work)| work));
        waiting.push((number, command, parts));
    }
    modules.judge(&mut works).await;
    let mut works = works.into_iter();
    let mut judged = Vec::with_capacity(waiting.len());
    for (number, mut command, parts) in waiting {
        let own = works.by_ref().take(parts.len()).zip(parts);
        judged.push(match settle(modules, &mut command, own) {
            Ok(()) => Ok(command),
            Err(refusal) => Err((number, refusal)),
        });
    }
    judged
}

/// Puts what filters made of a command's messages into it.
fn settle(
    modules: &Modules,
    command: &mut Command,
    works: impl Iterator<Item = (Work, usize)>,
) -> Result<(), Refusal> {
    let mut filed = Vec::new();
    let mut refused = None;
    for (work, part) in works {
        if !work.is_done() {
            filed.push(work);
            continue;
        }
        match work.finish() {
            Ok(way) => put(command, part, way),
            Err(error) => refused = refused.or(Some(publish_refusal(&PublishError::Judge(error)))),
        }
    }
    if let Some(refusal) = refused {
        return Err(refusal);
    }
    if !filed.is_empty() {
        let filed = Some(modules.jobs().file(filed));
        match command {
            Command::Publish(publish) => publish.job = filed,
            Command::Transaction(transaction) => transaction.job = filed,
            _ => unreachable!("only these have messages"),
        }
    }
    Ok(())
}

fn put(command: &mut Command, part: usize, way: Way) {
    match command {
        Command::Publish(publish) => publish.way = way,
        Command::Transaction(transaction) => transaction.publishes[part].1 = way,
        _ => unreachable!("only these have messages"),
    }
}
