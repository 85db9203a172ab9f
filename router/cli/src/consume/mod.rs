//! `chaski consume`: takes a queue's messages, shows them or gives them to a command, and settles them.

mod peek;
mod work;

use std::time::Duration;

use anyhow::Context as _;
use chaski_client::{Consumer, Delivery};
use chaski_protocol::{DEFAULT_CREDIT, MAX_CREDIT};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::Instant;

use crate::args;
use crate::context::Context;
use crate::stop::{self, Stop};

pub(crate) use peek::pages;
pub(crate) use work::Task;

use work::Handler;

/// Takes messages from a queue
///
/// Each is printed and then acknowledged, unless told otherwise. Ctrl-C finishes what is under way and gives the rest
/// back.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "With --exec the command (`sh -c CMD`) gets the payload on stdin and CHASKI_QUEUE, _TOPIC, _ID, _KEY, \
    _SEQUENCE, _ATTEMPT, _REDELIVERED, _REPLY_TO, _CORRELATION_ID and CHASKI_HEADER_<NAME> in its environment. Exit code \
    0 acknowledges, 65 rejects with the last line of its stderr, anything else gives the message back.\n\n\
    Example:\n  chaski consume billing --exec ./bill.sh\n  chaski consume billing --count 10 --timeout 5s --json"
)]
#[command(group = clap::ArgGroup::new("verdict").args(["ack", "nack", "reject", "peek", "exec"]))]
pub(crate) struct Args {
    /// The queue; NAME.dlq for its dead letters
    queue: String,
    /// Stop after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop once nothing has come for so long
    #[arg(long, value_name = "D", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// Messages in flight at most (64); with --exec, commands that run at the same time (1)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CREDIT)))]
    credit: Option<u32>,
    /// Take only what a filter of the rules lets pass; may be given again, and then all judge, in this order
    ///
    /// What a filter drops is acknowledged, and counted.
    #[arg(long = "filter", value_name = "M", conflicts_with = "peek")]
    filters: Vec<String>,
    /// Acknowledge each message once it is printed (the default)
    #[arg(long)]
    ack: bool,
    /// Give each back, to come again after D, or after the queue's backoff
    #[arg(long, value_name = "D", num_args = 0..=1, value_parser = args::duration)]
    nack: Option<Option<Duration>>,
    /// Send each to the dead-letter queue
    #[arg(long, value_name = "REASON")]
    reject: Option<String>,
    /// Look at what is there without taking it
    #[arg(long, conflicts_with_all = ["timeout", "credit"])]
    peek: bool,
    /// Run a command for each; its exit code decides
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,
}

/// Consumes until it is told to stop, or nothing comes.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    if args.peek {
        return peek::run(&args.queue, args.count, context).await;
    }
    let task = match (&args.exec, &args.nack, &args.reject) {
        (Some(command), _, _) => Task::Run(command.clone()),
        (None, Some(delay), _) => Task::Nack(*delay),
        (None, None, Some(reason)) => Task::Reject(reason.clone()),
        (None, None, None) => Task::Ack,
    };
    let usual = if args.exec.is_some() { 1 } else { DEFAULT_CREDIT };
    let flow = Flow {
        count: args.count,
        timeout: args.timeout,
        credit: args.credit.unwrap_or(usual),
        filters: args.filters.clone(),
    };
    serve(&args.queue, task, flow, context).await
}

/// How much is taken, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// Messages at most.
    pub(crate) count: Option<u64>,
    /// The end once nothing has come for so long.
    pub(crate) timeout: Option<Duration>,
    /// In flight at most.
    pub(crate) credit: u32,
    /// Filters of the rules that judge before delivery.
    pub(crate) filters: Vec<String>,
}

/// Connects, does a task for every delivery of a queue, and ends in good order.
pub(crate) async fn serve(queue: &str, task: Task, flow: Flow, context: &Context) -> anyhow::Result<()> {
    stop::with(async |stop| {
        let client = context.connect().await?;
        // What `--count` leaves over would only be given back.
        let wanted = flow.count.map_or(flow.credit, |count| u32::try_from(count).unwrap_or(u32::MAX));
        let consume = client.consume(queue).credit(flow.credit.min(wanted));
        let consumer = flow.filters.iter().fold(consume, |consume, name| consume.filter(name)).await?;
        let handler = Handler::new(task, context, &client, queue).await?;
        take(consumer, &handler, flow, stop).await?;
        client.close().await;
        Ok(())
    })
    .await
}

async fn take(mut consumer: Consumer, handler: &Handler, flow: Flow, mut stop: Stop) -> anyhow::Result<()> {
    let mut under_way = FuturesUnordered::new();
    let mut left = flow.count.unwrap_or(u64::MAX);
    let mut quiet_since = Instant::now();
    let mut failed: Option<anyhow::Error> = None;
    while left > 0 && failed.is_none() {
        let room = under_way.len() < flow.credit as usize;
        tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(done) = under_way.next(), if !under_way.is_empty() => {
                failed = anyhow::Result::<()>::err(done);
                quiet_since = Instant::now();
            }
            next = within(&mut consumer, flow.timeout, quiet_since), if room => match next {
                Ok(Some(delivery)) => {
                    left -= 1;
                    quiet_since = Instant::now();
                    match handler.show(&delivery) {
                        Ok(()) => under_way.push(handler.settle(delivery)),
                        Err(error) => {
                            // Nobody saw it. Should the lease be lost meanwhile, it comes again all the same.
                            let _ = delivery.release().await;
                            failed = Some(error);
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => failed = Some(error),
            }
        }
    }
    while let Some(done) = under_way.next().await {
        failed = failed.or(done.err());
    }
    let closed = consumer.close().await.context("the consumer did not close in good order");
    failed.map_or(closed, Err)
}

/// The next delivery; none when nothing came in time.
async fn within(
    consumer: &mut Consumer,
    timeout: Option<Duration>,
    quiet_since: Instant,
) -> anyhow::Result<Option<Delivery>> {
    let next = match timeout {
        Some(timeout) => match tokio::time::timeout_at(quiet_since + timeout, consumer.next()).await {
            Ok(next) => next,
            Err(_) => return Ok(None),
        },
        None => consumer.next().await,
    };
    Ok(next.transpose()?)
}
