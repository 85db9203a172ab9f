//! What is done with one delivery: shown, settled, or given to a command whose exit code settles it.

use std::ffi::OsString;
use std::time::Duration;

use chaski_client::{Client, Delivery, ReplyError, SettleError};
use chaski_protocol::admin::{AdminRequest, QueueView};
use chaski_protocol::parse_duration;
use serde::Serialize;

use crate::context::{Context, ask};
use crate::exec::{Ending, Job, Stdout};
use crate::message::Arrival;
use crate::out;

/// The lease of a queue whose settings don't tell.
const USUAL_ACK_WAIT: Duration = Duration::from_secs(30);

/// What is done with every delivery.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Print, acknowledge.
    Ack,
    /// Print, give back.
    Nack(Option<Duration>),
    /// Print, send to the dead-letter queue.
    Reject(String),
    /// Run a command, settle by its exit code.
    Run(String),
    /// Run a command, and reply with what it prints; of a saga's step that is its result.
    Respond(String),
}

/// A task, and what it needs beside the delivery.
pub(crate) struct Handler {
    task: Task,
    json: bool,
    environment: Vec<(&'static str, OsString)>,
    /// How often the lease of a delivery whose command runs is renewed.
    extend_every: Duration,
}

/// What became of a delivery that a command was run for.
#[derive(Serialize)]
struct Settled<'a> {
    queue: &'a str,
    sequence: u64,
    id: &'a str,
    attempt: u32,
    outcome: &'static str,
    reason: Option<&'a str>,
}

impl Handler {
    /// For a task on a queue.
    pub(crate) async fn new(
        task: Task,
        context: &Context,
        client: &Client,
        queue: &str,
    ) -> anyhow::Result<Handler> {
        let ack_wait = match task {
            Task::Run(_) | Task::Respond(_) => ack_wait(client, queue).await?,
            Task::Ack | Task::Nack(_) | Task::Reject(_) => USUAL_ACK_WAIT,
        };
        let extend_every = (ack_wait / 3).max(Duration::from_millis(1));
        Ok(Handler { task, json: context.json, environment: context.environment(), extend_every })
    }

    /// Prints the delivery, where the task is to show it.
    pub(crate) fn show(&self, delivery: &Delivery) -> anyhow::Result<()> {
        match self.task {
            Task::Run(_) | Task::Respond(_) => Ok(()),
            Task::Ack | Task::Nack(_) | Task::Reject(_) if self.json => {
                out::json(&Arrival::of(delivery).json())
            }
            Task::Ack | Task::Nack(_) | Task::Reject(_) => out::text(Arrival::of(delivery).block()),
        }
    }

    /// Does the rest. A lost lease is told and no failure: the message comes again.
    pub(crate) async fn settle(&self, delivery: Delivery) -> anyhow::Result<()> {
        let sequence = delivery.sequence();
        match &self.task {
            Task::Ack => settled(sequence, delivery.ack().await),
            Task::Nack(None) => settled(sequence, delivery.nack().await),
            Task::Nack(Some(delay)) => settled(sequence, delivery.nack_after(*delay).await),
            Task::Reject(reason) => settled(sequence, delivery.reject(reason.clone()).await),
            Task::Run(command) => {
                let stdout = if self.json { Stdout::Stderr } else { Stdout::Inherit };
                self.exec(delivery, command, stdout).await
            }
            Task::Respond(command) => self.exec(delivery, command, Stdout::Capture).await,
        }
    }

    async fn exec(&self, delivery: Delivery, command: &str, stdout: Stdout) -> anyhow::Result<()> {
        let (sequence, attempt) = (delivery.sequence(), delivery.attempt());
        let (queue, id) = (delivery.queue().to_owned(), delivery.head().id.to_owned());
        let job = Job::new(&Arrival::of(&delivery), &self.environment, delivery.payload().clone());
        let ending = {
            let run = job.run(command, stdout);
            tokio::pin!(run);
            loop {
                tokio::select! {
                    ending = &mut run => break ending?,
                    () = tokio::time::sleep(self.extend_every) => {
                        // A lease that is lost shows when the delivery is settled.
                        let _ = delivery.extend().await;
                    }
                }
            }
        };
        let (outcome, reason) = match ending {
            Ending::Done(printed) if stdout == Stdout::Capture && delivery.step().is_some() => {
                completed(sequence, delivery.complete(printed).await)?;
                ("complete", None)
            }
            Ending::Done(printed) if stdout == Stdout::Capture && delivery.head().reply_to.is_some() => {
                replied(sequence, delivery.reply(printed).await.map(drop))?;
                ("reply", None)
            }
            Ending::Done(_) => {
                settled(sequence, delivery.ack().await)?;
                ("ack", None)
            }
            Ending::Rejected(reason) => {
                settled(sequence, delivery.reject(reason.clone()).await)?;
                ("reject", Some(reason))
            }
            Ending::Failed(why) => {
                out::note(format!("#{sequence}: {why}; the message is given back"));
                settled(sequence, delivery.nack().await)?;
                ("nack", Some(why))
            }
        };
        if self.json {
            let reason = reason.as_deref();
            out::json(&Settled { queue: &queue, sequence, id: &id, attempt, outcome, reason })?;
        }
        Ok(())
    }
}

async fn ack_wait(client: &Client, queue: &str) -> anyhow::Result<Duration> {
    let queue = queue.strip_suffix(".dlq").unwrap_or(queue).to_owned();
    let view: QueueView = match ask(client, AdminRequest::QueueShow { queue }).await {
        Ok(view) => view,
        // The consumer was opened, so the queue is there; one without settings of its own has the usual lease.
        Err(_) => return Ok(USUAL_ACK_WAIT),
    };
    let named = view.settings.get("ack_wait").and_then(|value| parse_duration(value.as_str()?).ok());
    Ok(named.map_or(USUAL_ACK_WAIT, Duration::from_millis))
}

fn settled(sequence: u64, settled: Result<(), SettleError>) -> anyhow::Result<()> {
    match settled {
        Err(SettleError::LeaseLost) => {
            out::note(format!("#{sequence}: the lease was lost; the message may come again"));
            Ok(())
        }
        settled => Ok(settled?),
    }
}

fn completed(sequence: u64, completed: Result<(), SettleError>) -> anyhow::Result<()> {
    match completed {
        // One result that can't be sent (it is too large) is no reason to leave the other steps undone.
        Err(SettleError::Refused(refusal)) => {
            out::note(format!("#{sequence}: the result was refused ({}): {}", refusal.code, refusal.detail));
            Ok(())
        }
        completed => settled(sequence, completed),
    }
}

fn replied(sequence: u64, replied: Result<(), ReplyError>) -> anyhow::Result<()> {
    match replied {
        Err(ReplyError::LeaseLost) => {
            out::note(format!("#{sequence}: the lease was lost; the request may come again"));
            Ok(())
        }
        // One reply that can't be sent (it is too large) is no reason to leave the others unanswered.
        Err(ReplyError::Refused(refusal)) => {
            out::note(format!("#{sequence}: the reply was refused ({}): {}", refusal.code, refusal.detail));
            Ok(())
        }
        replied => Ok(replied?),
    }
}
