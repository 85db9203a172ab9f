//! The acts of the module: a stricter version in the middle of the run, one that traps and is taken back by itself, and what becomes
//! of the messages that it failed on.

use std::collections::HashSet;
use std::ops::Range;

use anyhow::Context as _;
use chaski_client::{AdminError, Published};
use chaski_filters::Guest;
use chaski_protocol::Code;
use futures::StreamExt as _;
use serde_json::{Map, Value, json};

use super::counts::Version;
use super::events::Event;
use super::{Stage, confirmed};
use crate::module::short;

/// The module's name in the rules.
const MODULE: &str = "strong";

/// From which magnitude on an event is an alert: as the rules have it, then as the second version has it.
const RULES: f64 = 4.5;
const STRICT: f64 = 5.0;

/// Events that the trapping version meets at most: a version is taken back after 20 failures at the earliest.
const TO_THE_TRAP: usize = 64;

/// Which events are published under which version: the first of each.
pub(super) struct Parts {
    strict: usize,
    trap: usize,
    crash: usize,
    end: usize,
}

impl Parts {
    /// A quarter for the first version, an eighth for the second, a few for the one that traps, the rest for the crash.
    pub(super) fn of(events: usize) -> Parts {
        let (strict, trap) = (events / 4, events * 3 / 8);
        Parts { strict, trap, crash: trap + TO_THE_TRAP, end: events }
    }

    /// Those that are under way when the router is killed.
    pub(super) fn crash(&self) -> Range<usize> {
        self.crash..self.end
    }
}

impl Stage {
    /// The module as the rules have it.
    pub(super) async fn first_version(&mut self, parts: &Parts) -> anyhow::Result<()> {
        self.narrator.say(format!(
            "its module `{MODULE}` is the builtin json-match, in WebAssembly: what has magnitude {RULES:.1} or more goes to alerts"
        ));
        let published = self.publish(0..parts.strict).await?;
        self.narrator.say(format!(
            "{} events published, each confirmed when it was on disk; {}",
            published.len(),
            told(&published)
        ));
        self.counts.versions.push(version(RULES, &self.events[..parts.strict]));
        Ok(())
    }

    /// The same binary with other params, deployed while everybody stays connected.
    pub(super) async fn stricter_version(&mut self, parts: &Parts) -> anyhow::Result<()> {
        let wasm = guest(chaski_filters::builtin("json-match"))?.wasm;
        let deploy = self.client.admin().deploy(MODULE, wasm).params(strict());
        let deployed = deploy.await?;
        self.narrator.say(format!(
            "a new version of `{MODULE}` is deployed: magnitude {STRICT:.1} or more (rules version {})",
            deployed.version
        ));
        let published = self.publish(parts.strict..parts.trap).await?;
        self.narrator.say(format!("{} events published under it; {}", published.len(), told(&published)));
        self.counts.versions.push(version(STRICT, &self.events[parts.strict..]));
        Ok(())
    }

    /// A version that fails on everything: the router refuses it, and deployed all the same takes it back by itself.
    pub(super) async fn trapping_version(&mut self, parts: &Parts) -> anyhow::Result<()> {
        let admin = self.client.admin();
        let mut taken_back = self.client.subscribe("$chaski.events.module_rolled_back").await?;
        let trap = guest(chaski_filters::hostile("trap"))?;
        let deploy = admin.deploy(MODULE, trap.wasm).params(Map::new());
        match deploy.clone().await {
            Err(AdminError::Refused(refusal)) if refusal.code == Code::ModuleFailed => self.narrator.say(
                "a version that traps is refused before it judges anything: it was tried on the last events, and failed",
            ),
            Err(error) => return Err(error.into()),
            Ok(deployed) => anyhow::bail!("a version that traps on the last events was deployed: {deployed:?}"),
        }
        let deployed = deploy.force().await?;
        self.narrator.say(format!(
            "it is deployed all the same: {} (rules version {})",
            short(&deployed.digest),
            deployed.version
        ));
        let published = self.publish(parts.trap..parts.crash).await?;
        let event = taken_back.next().await.context("the router ended the subscription to its events")?;
        let event: Value = serde_json::from_slice(event.payload())?;
        anyhow::ensure!(event["data"]["from"] == deployed.digest, "another version was taken back: {event}");
        let failed = published.iter().map(|published| u64::from(published.rejected)).sum();
        self.narrator.say(format!(
            "it failed on {failed} of {} events and was taken back by itself: {}",
            published.len(),
            event["data"]["detail"].as_str().unwrap_or_default()
        ));
        self.counts.versions.push(Version { name: "traps".to_owned(), failed, ..Version::default() });
        self.judge_again(&deployed.digest).await
    }

    /// What a version failed on lies among the dead letters with the cause, and goes to the version that is in force now.
    async fn judge_again(&mut self, digest: &str) -> anyhow::Result<()> {
        let admin = self.client.admin();
        let letters = admin.dlq_show("alerts", 0, 1000).await?;
        let letter = letters.first().context("a version failed, and left no dead letter")?;
        let other = letters.iter().find(|letter| letter.digest.as_deref() != Some(digest));
        anyhow::ensure!(other.is_none(), "a dead letter names another version: {other:?}");
        self.counts.failed = letters.len() as u64;
        self.narrator.say(format!(
            "those {} lie in alerts.dlq: {}, {} ({} …)",
            letters.len(),
            letter.reason.as_deref().unwrap_or_default(),
            short(digest),
            letter.detail.as_deref().unwrap_or_default()
        ));
        self.counts.judged_again = admin.dlq_redrive("alerts").await?.count;
        self.narrator.say(format!(
            "redriven: {} are judged again, by the version with magnitude {STRICT:.1}",
            self.counts.judged_again
        ));
        Ok(())
    }

    /// A crash brings no earlier version back, and none that was taken back.
    pub(super) async fn say_what_is_in_force(&self) -> anyhow::Result<()> {
        let module = self.client.admin().module_show(MODULE).await?;
        anyhow::ensure!(module.params == strict(), "after the crash another version is in force: {module:?}");
        self.narrator.say(format!("in force is still the version of `{MODULE}` with magnitude {STRICT:.1}"));
        Ok(())
    }

    /// Who decided what: `seen` went through their networks' queues, `alerts` came out at the end.
    pub(super) fn count_versions(&mut self, parts: &Parts, seen: &HashSet<String>, alerts: &HashSet<&str>) {
        for (index, event) in self.events.iter().enumerate().filter(|(_, event)| seen.contains(&event.id)) {
            let version = &mut self.counts.versions[usize::from(index >= parts.strict)];
            if alerts.contains(event.id.as_str()) {
                version.alerts += 1;
            } else {
                version.quiet += 1;
            }
        }
        self.counts.alerts = alerts.len() as u64;
    }

    /// Publishes a part and waits for every confirm.
    async fn publish(&mut self, part: Range<usize>) -> anyhow::Result<Vec<Published>> {
        let published = confirmed(self.send(&self.events[part]).await?).await?;
        self.count_confirmed(&published);
        Ok(published)
    }
}

/// What the confirms say that the module did.
fn told(published: &[Published]) -> String {
    let dropped: u64 = published.iter().map(|published| u64::from(published.dropped)).sum();
    format!("the module made {} of them alerts", published.len() as u64 - dropped)
}

/// A version that decides these events, or those among them that no other decides.
fn version(magnitude: f64, events: &[Event]) -> Version {
    let expected = events.iter().filter(|event| event.magnitude() >= magnitude).count() as u64;
    Version { name: format!("magnitude >= {magnitude:.1}"), expected, ..Version::default() }
}

fn strict() -> Map<String, Value> {
    [("pointer".to_owned(), json!("/mag")), ("min".to_owned(), json!(STRICT))].into_iter().collect()
}

fn guest(guest: Option<&'static Guest>) -> anyhow::Result<&'static Guest> {
    guest.context("this binary was built without its modules")
}
