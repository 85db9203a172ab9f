//! `chaski demo`: a router with rules and a module, a week of earthquakes, new versions of the module and a crash in the middle, then
//! a question for many, a saga that is undone, and counts that add up. It needs nothing running and leaves nothing behind.

mod consumers;
mod counts;
mod crash;
mod events;
mod relief;
mod versions;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chaski_client::{Client, Published};
use chaski_protocol::Code;
use futures::{StreamExt as _, TryStreamExt as _};

use crate::child::{Router, Setup};
use crate::context::Context;
use crate::failure::fail;
use crate::out;
use consumers::{Bulletin, Seen};
use counts::Counts;
use events::Event;
use versions::Parts;

/// Far above the 15 s that it takes: a demo that hangs says so.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the router is asked whether its queues are empty.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A router, a week of earthquakes, a module, a crash, and counts that add up
///
/// Starts a router of its own in a temporary directory and publishes 1,707 seismic events. A module finds those that deserve an
/// alert; in the middle a stricter version of it is deployed, then one that fails and is taken back by itself, then the router
/// is killed. At the end three stations are asked at once, and a saga is undone. Shows what arrived where. Needs nothing running. Exit code 1 when a count is off.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski demo")]
pub(crate) struct Args {}

/// Runs the demo to its end, or to Ctrl-C; the router goes with it either way.
pub(crate) async fn run(_args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::time::timeout(PATIENCE, play(context.json)) => {
            ended.context("the demo did not end within 2 minutes")?
        }
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(interruption())
        }
        _ = terminate.recv() => Err(interruption()),
    }
}

fn interruption() -> anyhow::Error {
    fail(Code::ShuttingDown, "interrupted; the demo's router is stopped")
}

/// Tells on stdout what happens, with the time; silent when the answer is JSON.
struct Narrator {
    begun: Instant,
    silent: bool,
}

impl Narrator {
    fn say(&self, line: impl AsRef<str>) {
        if !self.silent {
            // Nobody reads any more: the demo goes on, and its end says whether all was well.
            let _ = out::text(format!("{:>6.2} s  {}", self.begun.elapsed().as_secs_f64(), line.as_ref()));
        }
    }
}

async fn play(json: bool) -> anyhow::Result<()> {
    let narrator = Narrator { begun: Instant::now(), silent: json };
    let events = events::all()?;
    let directory = tempfile::Builder::new().prefix("chaski-demo-").tempdir()?;
    let rules = directory.path().join("earthquakes.toml");
    std::fs::write(&rules, events::RULES)?;
    let setup = Setup { rules: Some(rules), ..Setup::new(directory.path()) };

    let router = Router::start(setup).await?;
    narrator.say(format!("a router listens on {} (process {})", router.url(), router.pid()));
    let client = Client::builder().ca_file(router.setup().ca()).connect(router.url()).await?;
    let mut stage = Stage { narrator, client, events, counts: Counts::default() };
    let router = stage.tell(router).await?;

    stage.client.close().await;
    router.stop().await?;
    stage.close(json)
}

/// What the acts share.
struct Stage {
    narrator: Narrator,
    client: Client,
    events: Vec<Event>,
    counts: Counts,
}

impl Stage {
    async fn tell(&mut self, router: Router) -> anyhow::Result<Router> {
        self.counts.events = self.events.len() as u64;
        let queues = self.client.admin().queue_list().await?.len();
        self.narrator.say(format!(
            "its rules: {queues} queues, one in order for each of 12 networks, then alerts, bulletins and blasts, and those of a scatter and a saga"
        ));
        let seen = Seen::new(&self.events);
        let mut tasks = consumers::start(&self.client, &self.events, &seen).await?;
        self.narrator.say("14 consumers wait, each on its own QUIC stream");

        let parts = Parts::of(self.events.len());
        self.first_version(&parts).await?;
        self.stricter_version(&parts).await?;
        self.trapping_version(&parts).await?;
        let router = self.publish_with_a_crash(router, parts.crash(), &seen).await?;
        self.say_what_is_in_force().await?;
        self.publish_again().await?;
        tokio::select! {
            settled = self.wait_until_settled(&seen) => settled?,
            Some(ended) = tasks.join_next() => {
                ended??;
                bail!("a consumer ended before its queue was empty")
            }
        }
        tasks.shutdown().await;
        self.bulletins(&parts, &seen).await?;
        self.dead_letters().await?;
        self.ask_the_stations(&seen).await?;
        self.send_relief(&seen).await?;
        let queues = self.client.admin().queue_list().await?;
        self.counts.left = queues.iter().map(|queue| queue.messages + queue.dead).sum();
        Ok(router)
    }

    /// A confirm counts however it came: a publish that was stored before the crash is confirmed as a duplicate after it.
    fn count_confirmed(&mut self, published: &[Published]) {
        self.counts.confirmed += published.len() as u64;
    }

    /// The same events again: all are known.
    async fn publish_again(&mut self) -> anyhow::Result<()> {
        let again = confirmed(self.send(&self.events).await?).await?;
        self.counts.duplicates = again.iter().filter(|published| published.duplicate).count() as u64;
        self.narrator.say(format!(
            "all {} published once more: {} confirmed as duplicates, none stored twice",
            again.len(),
            self.counts.duplicates
        ));
        Ok(())
    }

    async fn send(
        &self,
        events: &[Event],
    ) -> anyhow::Result<
        Vec<impl Future<Output = Result<Published, chaski_client::PublishError>> + Unpin + use<>>,
    > {
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            confirms.push(self.client.publish_pipelined(event.message()).await?);
        }
        Ok(confirms)
    }

    /// Until the consumers have seen everything and the router holds nothing but bulletins and dead letters.
    async fn wait_until_settled(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let total = self.counts.events;
        seen.until(|seen| processed(seen) >= total).await;
        loop {
            let queues = self.client.admin().queue_list().await?;
            let busy =
                |queue: &chaski_protocol::admin::QueueView| queue.name != "bulletins" && queue.messages > 0;
            if !queues.iter().any(busy) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let seen = seen.lock();
        self.counts.networks = seen.networks.clone();
        self.counts.kinds = seen.kinds.clone();
        let again: u64 = seen.networks.values().map(|network| network.again).sum();
        self.narrator.say(format!(
            "all {total} went through their network's queue, each network in order; {again} came twice because of the crash"
        ));
        Ok(())
    }

    async fn bulletins(&mut self, parts: &Parts, seen: &Seen) -> anyhow::Result<()> {
        let stored = self.client.admin().queue_show("bulletins").await?.messages;
        consumers::take_bulletins(&self.client, stored, seen).await?;
        let seen = seen.lock();
        let about: HashSet<&str> = seen.bulletins.iter().map(|bulletin| bulletin.event.as_str()).collect();
        // Twice the same event would be one alert too many, and one event too few.
        anyhow::ensure!(about.len() == seen.bulletins.len(), "an alert was made a bulletin twice");
        self.count_versions(parts, &seen.events, &about);
        self.narrator.say(format!(
            "{stored} alerts became bulletins, each in one transaction with its ack: none lost, none twice"
        ));
        let strongest = |one: &&Bulletin, other: &&Bulletin| one.magnitude.total_cmp(&other.magnitude);
        if let Some(bulletin) = seen.bulletins.iter().max_by(strongest) {
            self.narrator.say(format!("the strongest: {}, {}", bulletin.magnitude, bulletin.place));
        }
        Ok(())
    }

    async fn dead_letters(&mut self) -> anyhow::Result<()> {
        let admin = self.client.admin();
        let letters = admin.dlq_show("blasts", 0, 1000).await?;
        self.counts.dead = letters.len() as u64;
        let reason = letters.first().and_then(|letter| letter.reason.clone()).unwrap_or_default();
        let detail = letters.first().and_then(|letter| letter.detail.clone()).unwrap_or_default();
        self.narrator.say(format!(
            "{} explosions and quarry blasts lie in blasts.dlq: {reason} ({detail} …)",
            letters.len()
        ));
        self.counts.redriven = admin.dlq_redrive("blasts").await?.count;
        self.counts.accepted = consumers::take_blasts(&self.client, self.counts.redriven).await?;
        self.narrator
            .say(format!("redriven: {} go back, and a kinder consumer takes them", self.counts.redriven));
        Ok(())
    }

    /// The table or the object, and what does not add up.
    fn close(mut self, json: bool) -> anyhow::Result<()> {
        self.counts.elapsed_ms = self.narrator.begun.elapsed().as_millis() as u64;
        let blasts = self.events.iter().filter(|event| event.kind() != "earthquake").count() as u64;
        let problems = self.counts.problems(blasts);
        if json {
            out::json(&self.counts)?;
        } else {
            out::text(format!("\n{}", self.counts.table()))?;
        }
        if !problems.is_empty() {
            bail!("the counts don't add up: {}", problems.join("; "));
        }
        if !json {
            out::text(format!(
                "{} published, {} arrived, nothing lost, nothing twice: {:.1} s",
                self.counts.confirmed,
                self.counts.events,
                self.counts.elapsed_ms as f64 / 1000.0
            ))?;
        }
        Ok(())
    }
}

fn processed(seen: &consumers::Inner) -> u64 {
    seen.networks.values().map(|network| network.processed).sum()
}

/// All confirms, in order, or the first error.
async fn confirmed<F>(confirms: Vec<F>) -> anyhow::Result<Vec<Published>>
where
    F: Future<Output = Result<Published, chaski_client::PublishError>>,
{
    Ok(futures::stream::iter(confirms).then(|confirm| confirm).try_collect().await?)
}
