//! Commands whose messages pass filters on their way to the broker: all that a stream has ready is judged together, and what waits for a
//! filter that keeps state is filed for the time when the broker wants it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chaski_broker::{Command, Fields, JobId, Message, Millis, PublishError, Way};
use chaski_protocol::{Head, Refusal};

use crate::driver::publish_refusal;
use crate::modules::{Entry, FilterSet, Modules, Resolved, Settled, Subject, Work};

/// Commands whose messages are resolved, and those of the messages that filters concern.
#[derive(Default)]
pub(super) struct Batch {
    /// Room is made for so many, once there is one.
    expected: usize,
    commands: Vec<Command>,
    /// The number of each one's command, and its own among the command's messages.
    places: Vec<(usize, usize)>,
    entries: Vec<Entry>,
}

impl Batch {
    /// An empty batch that will take about so many commands.
    pub(super) fn expecting(commands: usize) -> Batch {
        Batch { expected: commands, ..Batch::default() }
    }

    /// Where a message of the next command goes, as far as its topic says: to queues, or before its filters, which then get it with
    /// this batch. `part`: its number among the command's messages.
    pub(super) fn way(
        &mut self,
        part: usize,
        resolved: &Resolved,
        (block, fields): (&Bytes, Fields),
        (head, payload_at): (&Head<'_>, usize),
        taken: Millis,
    ) -> Way {
        match resolved {
            Resolved::Direct(targets) => Way::Direct(targets.clone()),
            Resolved::Through(plan) => {
                if self.entries.is_empty() {
                    self.places.reserve(self.expected);
                    self.entries.reserve(self.expected);
                }
                self.places.push((self.commands.len(), part));
                let message = Message { body: block.clone(), fields };
                let subject = Subject::new(message, head, payload_at, taken);
                self.entries.push(Entry { subject, plan: Arc::clone(plan) });
                Way::Pending
            }
        }
    }

    /// Adds the next command, whose messages have their ways.
    pub(super) fn push(&mut self, command: Command) {
        if self.commands.is_empty() {
            self.commands.reserve(self.expected);
        }
        self.commands.push(command);
    }

    /// The next command is none after all: its messages are forgotten.
    pub(super) fn forget(&mut self) {
        let kept = self.places.partition_point(|(command, _)| *command < self.commands.len());
        self.places.truncate(kept);
        self.entries.truncate(kept);
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }
}

/// Judges all messages of a batch together: the commands for the broker, and the numbers of those that are refused, with the reason.
pub(super) async fn judge(
    modules: &Modules,
    set: &Arc<FilterSet>,
    batch: Batch,
) -> (Vec<Command>, Vec<(u64, Refusal)>) {
    let Batch { mut commands, places, entries, .. } = batch;
    if entries.is_empty() {
        return (commands, Vec::new());
    }
    let settled = modules.judge_entries(set, entries).await;
    // By command: what waits for a filter that keeps state, and why it is refused.
    let mut filed: BTreeMap<usize, Vec<Work>> = BTreeMap::new();
    let mut refused: BTreeMap<usize, Refusal> = BTreeMap::new();
    for ((command, part), settled) in places.into_iter().zip(settled) {
        match settled {
            Settled::Way(way) => put(&mut commands[command], part, way),
            Settled::Pending(work) => filed.entry(command).or_default().push(*work),
            Settled::Refused(error) => {
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
