//! `chaski bench gather`: requests that are scattered to many and answered once, by the builtin aggregator `collect`. A latency is
//! that of the whole exchange.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaski_client::{Client, Delivery};
use tokio::task::JoinSet;

use super::load::{self, Durability, Load};
use super::report::Measurement;
use super::request::ask_all;
use super::rules::Added;
use super::target::Target;
use super::usage;
use crate::child::Router;

/// Gathers at once when nobody says how many.
const IN_FLIGHT: u32 = 256;

/// Requests of the work that leaves all open.
const OPEN: u64 = 100_000;

/// A scatter and its recipients, for the time of a work.
struct Scatter {
    topic: String,
    recipients: Vec<String>,
    rules: Added,
}

impl Scatter {
    async fn make(client: &Client, recipients: u32, durability: Durability) -> anyhow::Result<Scatter> {
        let topic = load::own_name("gather");
        let recipients: Vec<String> = (0..recipients).map(|_| load::own_name("recipient")).collect();
        let mut text = String::new();
        for name in &recipients {
            writeln!(text, "[queue.{}]", serde_json::to_string(name)?)?;
            for (key, value) in load::settings(durability) {
                writeln!(text, "{key} = {value}")?;
            }
        }
        writeln!(
            text,
            "[scatter.{}]\ntopic = {}\nrecipients = {}\ndurability = \"{}\"\ntimeout = \"10m\"",
            serde_json::to_string(&topic.replace('.', "-"))?,
            serde_json::to_string(&topic)?,
            serde_json::to_string(&recipients)?,
            durability.name()
        )?;
        let rules = Added::apply_text(client, &text, recipients.clone()).await?;
        Ok(Scatter { topic, recipients, rules })
    }
}

/// Asks, and answers as every recipient.
pub(crate) async fn run(target: &Target, load: &Load, recipients: u32) -> anyhow::Result<Measurement> {
    let askers = load::connect_all(target, load.producers()).await?;
    let responders = load::connect_all(target, load.consumers()).await?;
    let durability = load.durability.unwrap_or(Durability::Memory);
    let scatter = Scatter::make(&askers[0], recipients, durability).await?;
    let in_flight = load.in_flight.unwrap_or(IN_FLIGHT).min(4_096);
    let count = load.count.unwrap_or(if in_flight == 1 { 3_000 } else { 20_000 }).max(1);
    let answer = Bytes::from(serde_json::to_vec(&"r".repeat(load.size().saturating_sub(2)))?);
    let mut answering = JoinSet::new();
    for (place, queue) in scatter.recipients.iter().enumerate() {
        let client = responders[place % responders.len()].clone();
        let (queue, answer) = (queue.clone(), answer.clone());
        answering.spawn(async move {
            let respond = async move |_: &Delivery| Ok::<_, std::convert::Infallible>(answer.clone());
            client.respond(&queue, in_flight as usize, respond).await
        });
    }
    let asking = async {
        ask_all(&askers, &scatter.topic, load.size(), in_flight, (count / 20).clamp(1, 2_000), None).await?;
        let begun = Instant::now();
        let latencies = ask_all(&askers, &scatter.topic, load.size(), in_flight, count, None).await?;
        Ok::<_, anyhow::Error>((latencies, begun.elapsed()))
    };
    let (latencies, elapsed) = tokio::select! {
        asked = asking => asked?,
        Some(ended) = answering.join_next() => {
            ended??;
            anyhow::bail!("the responders ended before the requests did")
        }
    };
    answering.shutdown().await;
    scatter.rules.remove(&askers[0]).await?;
    for client in askers.into_iter().chain(responders) {
        client.close().await;
    }
    let name = if in_flight == 1 { "gather-one" } else { "gather" };
    Ok(Measurement::new(name, count, elapsed, &latencies)
        .with("size", load.size())
        .with("recipients", recipients)
        .with("durability", durability.name())
        .with("in_flight", in_flight))
}

/// Begins gathers that nobody answers: what they cost in memory.
pub(crate) async fn open(router: &Router, load: &Load, recipients: u32) -> anyhow::Result<Measurement> {
    let target = Target::child(router);
    let clients = load::connect_all(&target, load.producers()).await?;
    let durability = load.durability.unwrap_or(Durability::Memory);
    let scatter = Scatter::make(&clients[0], recipients, durability).await?;
    let count = load.count.unwrap_or(OPEN).max(1);
    let load = Load { in_flight: Some(load.in_flight.unwrap_or(1_024)), ..load.clone() };
    let begun = Instant::now();
    let latencies = load::produce(&clients, &scatter.topic, &load, count).await?;
    let elapsed = begun.elapsed();
    // What the allocator gives back, it gives back soon.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let resident = usage::resident(router.pid())?;
    for client in clients {
        client.close().await;
    }
    Ok(Measurement::new("gather-open", count, elapsed, &latencies)
        .with("recipients", recipients)
        .with("durability", durability.name())
        .with("resident_mib", (resident as f64 / f64::from(1 << 20)).round()))
}
