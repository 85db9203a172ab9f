//! `chaski bench hostile`: publishes on routes of their own while modules misbehave on theirs, beside publishes while those are
//! silent. It judges nobody by the modules' own messages but for counting what became of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use chaski_client::{Client, Message};
use chaski_filters::TAKEN_HOSTILE_FILTERS;
use futures::future::try_join_all;

use super::load::{self, Durability, Load};
use super::report::{Latencies, Measurement};
use super::target::Target;
use super::usage;
use crate::child::Router;

/// The routes that are measured. All but the first have a filter, the builtin header-match.
const OTHERS: usize = 5;

/// Spells with the hostile modules at work, each after one of the same length without.
const PARTS: u32 = 4;
const SPELL: Duration = Duration::from_secs(3);

/// Messages between two looks whether a spell is over.
const STRETCH: u64 = 2_048;

/// A window that keeps the router busy without a long queue of its own, so that a pause shows as a pause.
const IN_FLIGHT: u32 = 256;

/// Modules whose messages come over one connection.
const A_CONNECTION: usize = 25;

/// What is published beside how many modules.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "hostile")]
pub(crate) struct Options {
    /// Modules, of nine kinds in turn, each with a route of its own
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) modules: u32,
    /// Bytes of a payload on the other routes
    #[arg(long, default_value_t = 256)]
    pub(crate) size: usize,
    /// Unconfirmed messages of each of them; 1 is one at a time
    #[arg(long, default_value_t = IN_FLIGHT, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: u32,
    /// When their publishes are confirmed: on disk, written, or in memory
    #[arg(long, value_enum, default_value_t = Durability::Fsync)]
    pub(crate) durability: Durability,
}

impl Default for Options {
    fn default() -> Options {
        Options { modules: 100, size: 256, in_flight: IN_FLIGHT, durability: Durability::Fsync }
    }
}

/// In turns without and with so many hostile modules at work.
pub(crate) async fn run(router: &Router, options: &Options) -> anyhow::Result<Measurement> {
    let target = Target::child(router);
    let modules = options.modules as usize;
    let load = Load {
        headers: &[("region", "eu")],
        size: Some(options.size),
        in_flight: Some(options.in_flight),
        durability: Some(options.durability),
        ..Load::default()
    };
    let others = load::connect_all(&target, OTHERS as u32).await?;
    let hostile = load::connect_all(&target, modules.div_ceil(A_CONNECTION) as u32).await?;
    prepare(&others[0], modules, &load).await?;

    let mut without: Vec<Latencies> = (0..OTHERS).map(|_| Latencies::new()).collect();
    let mut with: Vec<Latencies> = (0..OTHERS).map(|_| Latencies::new()).collect();
    let (mut published, mut elapsed, mut bad) = (0, Duration::ZERO, Fates::default());
    for _ in 0..PARTS {
        spell(&others, &load, &mut without).await?;
        let (begun, over) = (Instant::now(), AtomicBool::new(false));
        let measured = async {
            let count = spell(&others, &load, &mut with).await;
            over.store(true, Ordering::Relaxed);
            count
        };
        let (count, fates) = futures::try_join!(measured, misbehave(&hostile, modules, &over))?;
        published += count;
        elapsed += begun.elapsed();
        bad.add(fates);
    }
    let growths = with.iter().zip(&without).map(|(with, without)| with.at(0.99) / without.at(0.99).max(1.0));
    let growth = growths.fold(0.0, f64::max);
    let [mut all_with, mut all_without] = [Latencies::new(), Latencies::new()];
    with.iter().for_each(|latencies| all_with.merge(latencies));
    without.iter().for_each(|latencies| all_without.merge(latencies));
    let found = Measurement::new("publish-beside-hostile", published, elapsed, &all_with)
        .with("modules", modules)
        .with("routes", OTHERS)
        .with("in_flight", load.in_flight())
        .with("p99_without_us", all_without.at(0.99))
        .with("p99_growth", growth)
        .with("hostile_messages", bad.messages)
        .with("hostile_dead", bad.dead)
        .with("resident_mib", usage::resident(router.pid())? >> 20);
    for client in others.into_iter().chain(hostile) {
        client.close().await;
    }
    Ok(found)
}

/// What became of the messages of hostile modules.
#[derive(Default)]
struct Fates {
    messages: u64,
    dead: u64,
}

impl Fates {
    fn add(&mut self, more: Fates) {
        self.messages += more.messages;
        self.dead += more.dead;
    }
}

fn other(number: usize) -> String {
    format!("bench.other.{number}")
}

/// Rules, and a version of every module. What is measured is warm.
async fn prepare(client: &Client, modules: usize, load: &Load) -> anyhow::Result<()> {
    use std::fmt::Write as _;
    let mut rules = String::from("[queue.hostile]\nbind = [\"bench.hostile.*\"]\n[module.good]\n");
    for number in 0..OTHERS {
        writeln!(rules, "[queue.{:?}]", other(number))?;
        for (key, value) in load::settings(load.durability()) {
            writeln!(rules, "{key} = {value}")?;
        }
    }
    let filtered: Vec<String> = (1..OTHERS).map(other).collect();
    writeln!(rules, "[route.good]\ntopics = {filtered:?}\nfilters = [\"good\"]")?;
    for number in 0..modules {
        writeln!(rules, "[module.h{number}]\n[route.h{number}]")?;
        writeln!(rules, "topics = [\"bench.hostile.{number}\"]\nfilters = [\"h{number}\"]")?;
    }
    let admin = client.admin();
    admin.rules_apply(rules, Vec::new(), Vec::new(), Vec::new(), Vec::new()).await?;
    let good =
        chaski_filters::builtin("header-match").context("this binary was built without its modules")?;
    let params = serde_json::Map::from_iter([("all".to_owned(), "region = eu".into())]);
    admin.deploy("good", Bytes::from_static(good.wasm)).params(params).await?;
    for number in 0..modules {
        let kind = TAKEN_HOSTILE_FILTERS[number % TAKEN_HOSTILE_FILTERS.len()];
        let guest = chaski_filters::hostile(kind).context("this binary was built without its modules")?;
        admin.deploy(format!("h{number}"), Bytes::from_static(guest.wasm)).await?;
    }
    for number in 0..OTHERS {
        load::produce(std::slice::from_ref(client), &other(number), load, STRETCH).await?;
        admin.queue_purge(&other(number)).await?;
    }
    Ok(())
}

/// Publishes to all other routes at once, each over a connection of its own, for one spell; answers how many.
async fn spell(clients: &[Client], load: &Load, latencies: &mut [Latencies]) -> anyhow::Result<u64> {
    let begun = Instant::now();
    let publishing = clients.iter().zip(latencies).enumerate().map(async |(number, (client, latencies))| {
        let mut count = 0;
        while begun.elapsed() < SPELL {
            let own = std::slice::from_ref(client);
            latencies.merge(&load::produce(own, &other(number), load, STRETCH).await?);
            count += STRETCH;
        }
        client.admin().queue_purge(&other(number)).await?;
        anyhow::Ok(count)
    });
    Ok(try_join_all(publishing).await?.into_iter().sum())
}

/// Publishes to every hostile module, one message at a time each, until it is over.
async fn misbehave(clients: &[Client], modules: usize, over: &AtomicBool) -> anyhow::Result<Fates> {
    let publishing = (0..modules).map(async |number| {
        let client = &clients[number / A_CONNECTION];
        let mut fates = Fates::default();
        while !over.load(Ordering::Relaxed) {
            let message = Message::new(format!("bench.hostile.{number}"), "x").header("poison", "1");
            let confirmed = client.publish(message).await?;
            fates.add(Fates { messages: 1, dead: u64::from(confirmed.rejected) });
        }
        anyhow::Ok(fates)
    });
    let mut all = Fates::default();
    try_join_all(publishing).await?.into_iter().for_each(|fates| all.add(fates));
    Ok(all)
}
