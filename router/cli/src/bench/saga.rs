//! `chaski bench saga`: sagas of three steps with consumers that complete each at once; and many sagas that wait. A latency is that
//! from the start to the outcome.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use chaski_client::{Client, Message};
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tokio::task::JoinSet;

use super::load::{self, Load};
use super::report::{Latencies, Measurement, Report};
use super::request::ask_all;
use super::rules::Added;
use super::target::Target;
use super::usage;
use crate::child::Router;

/// Sagas at once when nobody says how many.
const IN_FLIGHT: u32 = 1_024;

/// Sagas of the work that leaves all waiting.
const WAITING: u64 = 1_000_000;

/// Sagas whose timeouts are timed, one after another.
const TIMED: u64 = 20;

/// After so long such a saga's time is over.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A saga of three steps, for the time of a work.
struct Saga {
    name: String,
    topic: String,
    queues: Vec<String>,
    rules: Added,
}

impl Saga {
    async fn make(client: &Client, timeout: &str) -> anyhow::Result<Saga> {
        let topic = load::own_name("saga");
        let name = topic.replace('.', "-");
        let queues: Vec<String> = (0..3).map(|_| load::own_name("step")).collect();
        let steps: Vec<String> = queues
            .iter()
            .enumerate()
            .map(|(place, queue)| {
                format!("{{ name = \"step-{place}\", queue = \"{queue}\", timeout = \"1h\" }}")
            })
            .collect();
        let text = format!(
            "[saga.{name}]\ntopic = \"{topic}\"\ntimeout = \"{timeout}\"\nsteps = [{}]\n",
            steps.join(", ")
        );
        let rules = Added::apply_text(client, &text, queues.clone()).await?;
        Ok(Saga { name, topic, queues, rules })
    }
}

/// Starts sagas, and completes their steps.
pub(crate) async fn run(target: &Target, load: &Load) -> anyhow::Result<Measurement> {
    let starters = load::connect_all(target, load.producers()).await?;
    let workers = load::connect_all(target, load.consumers()).await?;
    let saga = Saga::make(&starters[0], "10m").await?;
    let in_flight = load.in_flight.unwrap_or(IN_FLIGHT).min(4_096);
    let count = load.count.unwrap_or(if in_flight == 1 { 1_000 } else { 30_000 }).max(1);
    let mut working = JoinSet::new();
    for (place, queue) in saga.queues.iter().enumerate() {
        working.spawn(complete(workers[place % workers.len()].clone(), queue.clone(), in_flight));
    }
    let starting = async {
        let state = Some(("chaski-saga-state", "completed"));
        let warm = (count / 20).clamp(1, 2_000);
        ask_all(&starters, &saga.topic, load.size(), in_flight, warm, state).await?;
        let before = starters[0].admin().status().await?.journal_bytes;
        let begun = Instant::now();
        let latencies = ask_all(&starters, &saga.topic, load.size(), in_flight, count, state).await?;
        let elapsed = begun.elapsed();
        let after = starters[0].admin().status().await?.journal_bytes;
        Ok::<_, anyhow::Error>((latencies, elapsed, after.saturating_sub(before)))
    };
    let (latencies, elapsed, journaled) = tokio::select! {
        started = starting => started?,
        Some(ended) = working.join_next() => {
            ended??;
            anyhow::bail!("the workers ended before the sagas did")
        }
    };
    working.shutdown().await;
    saga.rules.remove(&starters[0]).await?;
    for client in starters.into_iter().chain(workers) {
        client.close().await;
    }
    let name = if in_flight == 1 { "saga-one" } else { "saga" };
    Ok(Measurement::new(name, count, elapsed, &latencies)
        .with("size", load.size())
        .with("steps", 3)
        .with("in_flight", in_flight)
        .with("journaled_per_saga", (journaled as f64 / count as f64).round()))
}

/// Completes every step of a queue, and waits for no answer but the last.
async fn complete(client: Client, queue: String, credit: u32) -> anyhow::Result<()> {
    let mut steps = client.consume(&queue).credit(credit.max(64)).await?;
    while let Some(step) = steps.try_next().await? {
        drop(step.complete("{}"));
    }
    Ok(())
}

/// Starts sagas that nobody works for: what they cost in memory, and how late timeouts are meanwhile.
pub(crate) async fn waiting(
    router: &Router,
    load: &Load,
    report: &mut Report,
) -> anyhow::Result<Measurement> {
    let target = Target::child(router);
    let clients = load::connect_all(&target, load.producers()).await?;
    let saga = Saga::make(&clients[0], "10h").await?;
    let count = load.count.unwrap_or(WAITING).max(1);
    report.say(&format!("starting {count} sagas that wait"));
    let load = Load {
        in_flight: Some(load.in_flight.unwrap_or(4_096)),
        size: Some(load.size.unwrap_or(64)),
        ..load.clone()
    };
    let begun = Instant::now();
    let latencies = load::produce(&clients, &saga.topic, &load, count).await?;
    let elapsed = begun.elapsed();
    let resident = usage::resident(router.pid())?;
    let late = timeouts(&clients[0]).await?;
    let running = clients[0].admin().status().await?;
    anyhow::ensure!(running.ready, "the router is not ready");
    for client in clients {
        client.close().await;
    }
    Ok(Measurement::new("saga-waiting", count, elapsed, &latencies)
        .with("size", load.size())
        .with("resident_mib", (resident as f64 / f64::from(1 << 20)).round())
        .with("timeout_late_p50_ms", late.at(0.5) / 1_000.0)
        .with("timeout_late_max_ms", late.at(1.0) / 1_000.0))
}

/// How late timeouts fire: from the moment that a saga's time was over to that at which its progress tells so.
async fn timeouts(client: &Client) -> anyhow::Result<Latencies> {
    let saga = Saga::make(client, "500ms").await?;
    let mut late = Latencies::new();
    for number in 0..TIMED {
        let id = format!("timed-{number}");
        let mut progress = client.subscribe(format!("$chaski.saga.{}.{id}", saga.name)).await?;
        client.publish(Message::new(saga.topic.as_str(), "{}").id(id)).await?;
        let mut due = None;
        while let Some(told) = progress.next().await {
            let line: Value = serde_json::from_slice(told.payload()).context("progress is JSON")?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            match line["what"].as_str() {
                Some("began") => {
                    let at = line["at"].as_str().context("progress has a time")?;
                    let at: jiff::Timestamp = at.parse().context("it is RFC 3339")?;
                    let at = Duration::from_millis(u64::try_from(at.as_millisecond())?);
                    due = Some(at + TIMEOUT);
                }
                Some("compensates" | "ended") => {
                    late.record(now.saturating_sub(due.context("it began before it ended")?));
                    break;
                }
                _ => {}
            }
        }
    }
    saga.rules.remove(client).await?;
    Ok(late)
}
