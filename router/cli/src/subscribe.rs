//! `chaski subscribe`: shows what is published while it listens. Nothing is stored for it.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use crate::context::Context;
use crate::message::Arrival;
use crate::{args, out, stop};

/// Shows what is published to topics of a pattern, from now on
///
/// `*` stands for one token, a final `>` for one or more. Quote the pattern, or the shell takes `>` for itself.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  chaski subscribe 'orders.>' --json\n  chaski subscribe '$chaski.events.>'"
)]
pub(crate) struct Args {
    /// The pattern
    pattern: String,
    /// Stop after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop once nothing has come for so long
    #[arg(long, value_name = "D", value_parser = args::duration)]
    timeout: Option<Duration>,
    /// Show only what a filter of the rules lets pass; may be given again, and then all judge, in this order
    #[arg(long = "filter", value_name = "M")]
    filters: Vec<String>,
}

/// Listens until it is told to stop, or nothing comes.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    stop::with(async |mut stop| {
        let client = context.connect().await?;
        let subscribe = args
            .filters
            .iter()
            .fold(client.subscribe(&args.pattern), |subscribe, name| subscribe.filter(name));
        let mut subscription = subscribe.await?;
        out::note(format!("listening to {}", args.pattern));
        let mut quiet_since = Instant::now();
        let mut dropped = 0;
        for _ in 0..args.count.unwrap_or(u64::MAX) {
            let quiet = async {
                match args.timeout {
                    Some(timeout) => tokio::time::sleep_until(quiet_since + timeout).await,
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                () = stop.requested() => break,
                next = subscription.next() => match next {
                    Some(message) => message,
                    None => break,
                },
                () = quiet => break,
            };
            quiet_since = Instant::now();
            let arrival = Arrival::passed(&message);
            if context.json {
                out::json(&arrival.json())?;
            } else {
                out::text(arrival.block())?;
            }
            let total = subscription.dropped();
            if total > dropped {
                out::note(format!(
                    "{} more were dropped: they came faster than they were read",
                    total - dropped
                ));
                dropped = total;
            }
        }
        client.close().await;
        Ok(())
    })
    .await
}
