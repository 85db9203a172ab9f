//! The last acts: a question for many that is answered once, and a saga of which one run is undone.

use std::cell::Cell;

use anyhow::{Context as _, bail};
use chaski_client::{Client, ConsumeError, Delivery, MemorySeen, Message};
use serde_json::{Value, json};

use super::Stage;
use super::consumers::{Bulletin, Seen};

/// The stations of the rules, and the networks that each knows about.
const STATIONS: [(&str, &[&str]); 3] = [
    ("north", &["ak"]),
    ("west", &["ci", "mb", "nc", "nn", "uu", "uw"]),
    ("elsewhere", &["hv", "nm", "pr", "se", "us"]),
];

/// Trucks of a mission, and what it costs.
const TRUCKS: u64 = 8;
const SOLES: u64 = 9_000;

/// What the workers of the saga have in their books.
#[derive(Default)]
struct Books {
    reserved: Cell<u64>,
    released: Cell<u64>,
    charged: Cell<u64>,
    refunded: Cell<u64>,
    sent: Cell<u64>,
}

impl Stage {
    /// One request, three stations, one answer.
    pub(super) async fn ask_the_stations(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let counts = STATIONS.map(|(name, networks)| {
            let seen = seen.lock();
            let processed = networks.iter().filter_map(|network| seen.networks.get(*network));
            (name, processed.map(|network| network.processed).sum::<u64>())
        });
        let client = &self.client;
        let stations = counts.map(|(name, count)| {
            let census = async move |_: &Delivery| Ok::<_, String>(json!({ name: count }).to_string());
            client.respond(format!("station-{name}"), 1, census)
        });
        let answer = tokio::select! {
            ended = futures::future::try_join_all(stations) => {
                ended?;
                bail!("a station ended before it was asked")
            }
            answer = client.request(Message::new("stations.census", "how many events?")) => answer?,
        };
        self.counts.stations = serde_json::from_slice(answer.payload())?;
        let parts: Vec<String> =
            self.counts.stations.iter().map(|(name, count)| format!("{name} {count}")).collect();
        self.narrator.say(format!(
            "one question for {} stations, one answer, made by a module ({}): {}",
            answer.header_value("chaski-gather-asked").unwrap_or("?"),
            answer.header_value("chaski-gather").unwrap_or("?"),
            parts.join(", ")
        ));
        Ok(())
    }

    /// Two missions: one that is done, and one that is undone.
    pub(super) async fn send_relief(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let mut hit: Vec<Bulletin> = seen.lock().bulletins.clone();
        hit.sort_by(|one, other| other.magnitude.total_cmp(&one.magnitude));
        let client = self.client.clone();
        let books = Books::default();
        for (bulletin, road) in hit.iter().zip(["open", "closed"]) {
            let mission = json!({ "event": bulletin.event, "trucks": TRUCKS, "soles": SOLES, "road": road });
            let request = Message::new("relief.request", mission.to_string()).id(&bulletin.event);
            let outcome = tokio::select! {
                ended = work(&client, &books) => bail!("a worker of the saga ended before it: {ended:?}"),
                outcome = client.request(request) => outcome?,
            };
            let outcome: Value = serde_json::from_slice(outcome.payload())?;
            self.tell_mission(bulletin, &outcome).await?;
        }
        self.counts.trucks.reserved = books.reserved.get();
        self.counts.trucks.sent = books.sent.get();
        self.counts.trucks.released = books.released.get();
        self.counts.fund.charged = books.charged.get();
        self.counts.fund.refunded = books.refunded.get();
        Ok(())
    }

    async fn tell_mission(&mut self, bulletin: &Bulletin, outcome: &Value) -> anyhow::Result<()> {
        let state = outcome["state"].as_str().context("an outcome has a state")?;
        *self.counts.missions.entry(state.to_owned()).or_default() += 1;
        let mission = format!("a saga, relief for {}, {}", bulletin.magnitude, bulletin.place);
        if state == "completed" {
            self.counts.fund.kept += SOLES;
            self.narrator.say(format!("{mission}: trucks reserved, fund charged, dispatched: {state}"));
            return Ok(());
        }
        // The saga's own timeline: what was undone, in its order.
        let saga = self.client.admin().saga(format!("relief/{}", bulletin.event)).await?;
        let undone = saga.timeline.into_iter().filter(|line| line.phase == "undo" && line.what == "sent");
        let undone: Vec<String> = undone.filter_map(|line| line.step).collect();
        self.narrator.say(format!(
            "{mission}: `{}` fails, {}; undone, the last first: {}: {state}",
            outcome["failed"]["step"].as_str().unwrap_or("?"),
            outcome["failed"]["reason"].as_str().unwrap_or("?"),
            undone.join(", ")
        ));
        Ok(())
    }
}

/// Those who do the steps and undo them, each once by its idempotency key.
async fn work(client: &Client, books: &Books) -> Result<(), ConsumeError> {
    let seen = MemorySeen::new(1_000);
    let once = async |queue: &str, account: &Cell<u64>, what: &str| {
        let enter = async |step: &Delivery| {
            let amount = mission(step)[what].as_u64().ok_or("no mission says how much")?;
            account.set(account.get() + amount);
            Ok::<(), &str>(())
        };
        client.consume(queue).await?.once(&seen, 4, enter).await
    };
    let dispatch = async |step: &Delivery| match mission(step) {
        mission if mission["road"] == "closed" => Err("the road is closed"),
        mission => {
            books.sent.set(books.sent.get() + mission["trucks"].as_u64().unwrap_or_default());
            Ok(r#""on their way""#)
        }
    };
    tokio::try_join!(
        once("trucks.reserve", &books.reserved, "trucks"),
        once("trucks.release", &books.released, "trucks"),
        once("fund.charge", &books.charged, "soles"),
        once("fund.refund", &books.refunded, "soles"),
        client.respond("trucks.dispatch", 4, dispatch),
    )?;
    Ok(())
}

/// The mission that a step is a part of.
fn mission(step: &Delivery) -> Value {
    step.step().and_then(|step| step.input_as().ok()).unwrap_or_default()
}
