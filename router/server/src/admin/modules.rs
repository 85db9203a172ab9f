//! `chaski module`: what is in force, its figures and its past, and the verbs that change it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chaski_broker::Millis;
use chaski_modules::Digest;
use chaski_protocol::admin::{
    Difference, ModuleDeployed, ModuleVersionView, ModuleView, ShadowView, StateEntryView,
};
use chaski_protocol::{Code, Refusal};
use serde_json::{Map, Value};

use crate::modules::{self, Active, Deploy, Deployed, Shadow};
use crate::render::rfc3339;
use crate::rules::{Checked, ModuleSource, ModuleSpec, OnError, check};
use crate::shard::Shard;

/// What writes a key that is no text.
const BASE64_KEY: &str = "base64:";

/// Entries of one page at most.
const PAGE: u32 = 1000;

/// A binary and what comes with it, as asked for.
pub(super) struct Asked {
    pub(super) name: Option<String>,
    pub(super) digest: String,
    pub(super) signature: Option<String>,
    pub(super) params: Option<Map<String, Value>>,
    pub(super) force: bool,
}

/// Gives a module a binary.
pub(super) async fn deploy(shard: &Shard, author: &str, asked: Asked) -> Result<ModuleDeployed, Refusal> {
    let deploy = Deploy {
        name: asked.name,
        digest: super::digest(&asked.digest)?,
        signature: signature(asked.signature)?,
        params: asked.params.map(|params| params.into_iter().collect()),
        force: asked.force,
    };
    Ok(deployed(shard, modules::deploy(shard, author, deploy).await?))
}

pub(super) fn signature(text: Option<String>) -> Result<Option<Vec<u8>>, Refusal> {
    let decode = |text: String| STANDARD.decode(text);
    text.map(decode)
        .transpose()
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the signature is not base64: {error}")))
}

fn deployed(shard: &Shard, deployed: Deployed) -> ModuleDeployed {
    let Deployed { name, change, compilation } = deployed;
    let view = shard.view();
    let digest = view.filters.module(&name).and_then(|active| active.digest());
    ModuleDeployed {
        digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
        version: change.version,
        compile_ms: compilation.map_or(0.0, |compilation| compilation.took.as_secs_f64() * 1e3),
        from_cache: compilation.is_none_or(|compilation| compilation.from_cache),
        changes: change.changes,
        name,
    }
}

/// Every module of the rules, by name.
pub(super) async fn list(shard: &Shard) -> Result<Vec<ModuleView>, Refusal> {
    let rules = in_force(shard).await?;
    let view = shard.view();
    let mut views = Vec::with_capacity(view.filters.filters.modules.len());
    for active in view.filters.filters.modules.values() {
        views.push(module(shard, active, rules.as_ref()).await?);
    }
    Ok(views)
}

/// One module, with the version that a rollback would bring back.
pub(super) async fn show(shard: &Shard, name: &str) -> Result<ModuleView, Refusal> {
    let view = shard.view();
    let active = view.filters.module(name).ok_or_else(|| unknown(name))?;
    let rules = in_force(shard).await?;
    let previous = modules::previous(shard, name).await?;
    let mut shown = module(shard, active, rules.as_ref()).await?;
    shown.previous = previous.and_then(|past| past.pin.binary).map(|binary| Digest(binary).to_string());
    Ok(shown)
}

fn unknown(name: &str) -> Refusal {
    let name = chaski_protocol::shown(name);
    let detail = format!("there is no module `{name}`; `chaski module list` names those there are");
    Refusal::new(Code::UnknownModule, detail)
}

/// What the document in force says.
async fn in_force(shard: &Shard) -> Result<Option<Checked>, Refusal> {
    let document = shard.inspect(|broker| broker.rules().document.clone()).await?;
    modules::beside(move || Ok(check(&document).ok())).await
}

async fn module(shard: &Shard, active: &Arc<Active>, rules: Option<&Checked>) -> Result<ModuleView, Refusal> {
    let spec = rules.and_then(|rules| rules.modules.iter().find(|spec| spec.name == *active.name));
    let name = active.name.to_string();
    let (state_keys, state_bytes) = shard
        .inspect(move |broker| {
            broker.module_state(&name).map_or((0, 0), |state| (state.len() as u64, state.bytes()))
        })
        .await?;
    let version = active.version.as_ref();
    let metrics = active.metrics();
    let (state, lane) = match version {
        None => match &active.coordinator {
            Some(coordinator) => (
                if coordinator.is_suspended() { "suspended" } else { "active" },
                if coordinator.is_slow() { "slow" } else { "inline" },
            ),
            None => ("missing", "slow"),
        },
        Some(version) => (
            if version.is_suspended() { "suspended" } else { "active" },
            if version.is_slow() { "slow" } else { "inline" },
        ),
    };
    let micros = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
    let metrics = metrics.as_ref();
    Ok(ModuleView {
        name: active.name.to_string(),
        kind: active.world().unwrap_or(chaski_modules::World::Filter).name().to_owned(),
        description_version: active
            .description()
            .map(|description| description.version.clone())
            .unwrap_or_default(),
        digest: active.digest().map(|digest| digest.to_string()).unwrap_or_default(),
        source: spec.map(source).unwrap_or_default(),
        state: state.to_owned(),
        lane: lane.to_owned(),
        used_by: rules.map(|rules| used_by(rules, &active.name)).unwrap_or_default(),
        fields: version
            .map(|version| version.filter.fields().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        keeps_state: active.keeps_state(),
        params: spec.map(|spec| spec.params.iter().cloned().collect()).unwrap_or_default(),
        on_error: on_error(active.manners.on_error).to_owned(),
        time_limit_ms: spec.map_or(0, |spec| spec.time_limit_ms),
        memory_limit_bytes: spec.map_or(0, |spec| spec.memory_limit_bytes),
        calls: metrics.map_or(0, |metrics| metrics.calls),
        messages: metrics.map_or(0, |metrics| metrics.messages),
        errors: metrics
            .map(|metrics| {
                metrics.errors.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect()
            })
            .unwrap_or_default(),
        p50_us: metrics.map_or(0.0, |metrics| micros(metrics.call_p50)),
        p99_us: metrics.map_or(0.0, |metrics| micros(metrics.call_p99)),
        memory_bytes: metrics.map_or(0, |metrics| metrics.memory_bytes),
        instances: metrics.map_or(0, |metrics| metrics.instances),
        compile_ms: metrics.map_or(0.0, |metrics| metrics.compile_time.as_secs_f64() * 1e3),
        state_keys,
        state_bytes,
        previous: None,
        shadow: active.shadow.load_full().map(|shadow| shadowed(&shadow)),
    })
}

fn source(spec: &ModuleSpec) -> String {
    match &spec.source {
        ModuleSource::File(path) => format!("file {path}"),
        ModuleSource::Digest(_) => "digest".to_owned(),
        ModuleSource::Builtin(name) => format!("builtin {name}"),
        ModuleSource::Missing => "none".to_owned(),
    }
}

fn on_error(on_error: OnError) -> &'static str {
    match on_error {
        OnError::DeadLetter => "dead-letter",
        OnError::Drop => "drop",
        OnError::Pass => "pass",
        OnError::Retry => "retry",
    }
}

/// The tables that name a module: `route inbound`, `saga order`.
fn used_by(rules: &Checked, name: &str) -> Vec<String> {
    let places = rules.named.iter().filter(|place| place.module == name);
    let mut tables: Vec<String> = places.map(|place| place.path[..2].join(" ")).collect();
    tables.dedup();
    tables
}

fn shadowed(shadow: &Shadow) -> ShadowView {
    let examples = shadow.differences();
    ShadowView {
        digest: shadow.version.filter.id().binary.to_string(),
        messages: shadow.messages.load(Ordering::Relaxed),
        skipped: shadow.skipped.load(Ordering::Relaxed),
        differences: shadow.differing.load(Ordering::Relaxed),
        examples: examples
            .into_iter()
            .map(|difference| Difference {
                id: difference.id,
                live: difference.live,
                shadow: difference.shadow,
            })
            .collect(),
        ends_at: shadow.ends_at_ms.map(|at| rfc3339(Millis(at))),
    }
}

/// The versions that a module had.
pub(super) async fn history(shard: &Shard, name: &str) -> Result<Vec<ModuleVersionView>, Refusal> {
    let (past, failed) = modules::past(shard, name).await?;
    let current = shard.view().filters.module(name).is_some();
    let views = past.into_iter().enumerate().map(|(index, past)| ModuleVersionView {
        rules_version: past.rules.0,
        digest: past.pin.binary.map(|binary| Digest(binary).to_string()).unwrap_or_default(),
        failed: modules::has_failed(&past, &failed),
        params: past.params.into_iter().collect(),
        author: past.author,
        applied_at: rfc3339(past.applied_at),
        current: current && index == 0,
    });
    Ok(views.collect())
}

/// Brings the version before the one in force back.
pub(super) async fn roll_back(shard: &Shard, author: &str, name: &str) -> Result<ModuleDeployed, Refusal> {
    let change = modules::roll_back(shard, author, name).await?;
    Ok(deployed(shard, Deployed { name: name.to_owned(), change, compilation: None }))
}

/// Starts a shadow.
pub(super) async fn shadow(
    shard: &Shard,
    name: &str,
    digest: &str,
    signed: Option<String>,
    for_ms: Option<u64>,
) -> Result<ModuleView, Refusal> {
    let digest = super::digest(digest)?;
    modules::shadow(shard, name, digest, signature(signed)?, for_ms).await?;
    show(shard, name).await
}

/// Puts the shadow in force.
pub(super) async fn promote(shard: &Shard, author: &str, name: &str) -> Result<ModuleDeployed, Refusal> {
    Ok(deployed(shard, modules::promote(shard, author, name).await?))
}

/// A page of what a module remembers; what has expired is left out.
pub(super) async fn state(
    shard: &Shard,
    name: &str,
    key: Option<String>,
    after: Option<String>,
    limit: u32,
) -> Result<Vec<StateEntryView>, Refusal> {
    if shard.view().filters.module(name).is_none() {
        return Err(unknown(name));
    }
    let module = name.to_owned();
    let state =
        shard.inspect(move |broker| broker.module_state(&module).cloned().unwrap_or_default()).await?;
    let now = modules::now_ms();
    let live = |entry: &chaski_broker::StateEntry| entry.expires_ms.is_none_or(|at| at > now);
    if let Some(key) = key {
        let wanted = key_bytes(&key)?;
        let found = state.get(&wanted).filter(|entry| live(entry));
        return Ok(found.map(|entry| state_entry(&wanted, entry)).into_iter().collect());
    }
    let after = after.map(|after| key_bytes(&after)).transpose()?;
    let entries = state.iter_after(after.as_deref()).filter(|(_, entry)| live(entry));
    Ok(entries.take(limit.min(PAGE) as usize).map(|(key, entry)| state_entry(key, entry)).collect())
}

fn key_bytes(text: &str) -> Result<Vec<u8>, Refusal> {
    match text.strip_prefix(BASE64_KEY) {
        None => Ok(text.as_bytes().to_vec()),
        Some(encoded) => STANDARD.decode(encoded).map_err(|error| {
            Refusal::new(Code::BadRequest, format!("the key behind `{BASE64_KEY}` is not base64: {error}"))
        }),
    }
}

fn state_entry(key: &[u8], entry: &chaski_broker::StateEntry) -> StateEntryView {
    let encoded = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), "utf8".to_owned()),
        Err(_) => (STANDARD.encode(bytes), "base64".to_owned()),
    };
    let (key, key_encoding) = encoded(key);
    let (value, value_encoding) = encoded(&entry.value);
    let expires_at = entry.expires_ms.map(|at| rfc3339(Millis(at)));
    StateEntryView { key, key_encoding, value, value_encoding, expires_at }
}
