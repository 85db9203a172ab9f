//! Commands whose messages pass filters on their way to the broker: all that a stream has ready is judged together, and what waits for a
//! filter that keeps state is filed for the time when the broker wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use chaski_broker::{Command, JobId, Message, PublishError, Way};
use chaski_protocol::{Head, Refusal};

use crate::driver::publish_refusal;
use crate::modules::{FilterSet, Modules, Resolved, Subject, Work};

/// Commands whose messages are resolved, and those of the messages that filters concern.
#[derive(Default)]
pub(super) struct Batch {
    commands: Vec<Command>,
    /// Each with the number of its command, and its own among the command's messages.
    works: Vec<(usize, usize, Work)>,
}

impl Batch {
    /// Adds a command with its messages that filters concern, each with its number among the command's messages.
    pub(super) fn push(&mut self, command: Command, works: impl IntoIterator<Item = (usize, Box<Work>)>) {
        let number = self.commands.len();
        self.works.extend(works.into_iter().map(|(part, work)| (number, part, *work)));
        self.commands.push(command);
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }
}

/// Where a message goes, as far as its topic says: to queues, or before its filters.
pub(super) fn way(
    set: &Arc<FilterSet>,
    resolved: &Resolved,
    message: &Message,
    head: &Head<'_>,
    payload_at: usize,
) -> (Way, Option<Box<Work>>) {
    match resolved {
        Resolved::Direct(targets) => (Way::Direct(Arc::clone(targets)), None),
        Resolved::Through(plan) => {
            let subject = Subject::new(message.clone(), head, payload_at);
            (Way::Pending, Some(Box::new(Work::new(set, plan, subject))))
        }
    }
}

/// Judges all messages of a batch together: the commands for the broker, and the numbers of those that are refused, with the reason.
pub(super) async fn judge(modules: &Modules, batch: Batch) -> (Vec<Command>, Vec<(u64, Refusal)>) {
    let Batch { mut commands, works } = batch;
    if works.is_empty() {
        return (commands, Vec::new());
    }
    let (places, mut works): (Vec<_>, Vec<_>) =
        works.into_iter().map(|(command, part, work)| ((command, part), work)).unzip();
    modules.judge(&mut works).await;
    // By command: what waits for a filter that keeps state, and why it is refused.
    let mut filed: BTreeMap<usize, Vec<Work>> = BTreeMap::new();
    let mut refused: BTreeMap<usize, Refusal> = BTreeMap::new();
    for ((command, part), work) in places.into_iter().zip(works) {
        if !work.is_done() {
            filed.entry(command).or_default().push(work);
            continue;
        }
        match work.finish() {
            Ok(way) => put(&mut commands[command], part, way),
            Err(error) => {
                refused.entry(command).or_insert_with(|| publish_refusal(&PublishError::Judge(error)));
            }
        }
    }
    for (command, works) in filed {
        if !refused.contains_key(&command) {
            *job(&mut commands[command]) = Some(modules.jobs().file(works));
        }
    }
    if refused.is_empty() {
        return (commands, Vec::new());
    }
    let mut taken = Vec::with_capacity(commands.len());
    let mut told = Vec::with_capacity(refused.len());
    for (number, command) in commands.into_iter().enumerate() {
        match refused.remove(&number) {
            Some(refusal) => told.push((frame(&command), refusal)),
            None => taken.push(command),
        }
    }
    (taken, told)
}

/// The number of the frame that it came in.
fn frame(command: &Command) -> u64 {
    match command {
        Command::Publish(publish) => publish.number,
        Command::Transaction(transaction) => transaction.number,
        _ => unreachable!("only these have messages"),
    }
}

/// Where it names the work under way for it.
fn job(command: &mut Command) -> &mut Option<JobId> {
    match command {
        Command::Publish(publish) => &mut publish.job,
        Command::Transaction(transaction) => &mut transaction.job,
        _ => unreachable!("only these have messages"),
    }
}

fn put(command: &mut Command, part: usize, way: Way) {
    match command {
        Command::Publish(publish) => publish.way = way,
        Command::Transaction(transaction) => transaction.publishes[part].1 = way,
        _ => unreachable!("only these have messages"),
    }
}
