//! Modules in this process and without a router: one on samples, which is what `chaski module test` does, and those of a rules document
//! against what the document gives them, as `chaski rules check` does. What they make of messages goes nowhere.

mod gathers;
mod sagas;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaski_modules::{
    Aggregator, Compensator, CompileError, Compiled, Compiler, ConfigureError, Context, Description, Digest,
    Entry, Failure, Filter, Host, HostError, HostLimits, Limits, Message, Options, Table, TakeError,
    TrustedKeys, World,
};
/// What an aggregator is told, and what a compensator is.
pub use chaski_modules::{GatherEvent, History, Request, SagaCause, SagaStep, StepState};
use chaski_protocol::{Code, Refusal};
use serde_json::Value as Json;

use crate::modules::check_world;
use crate::rules::{self, Checked, ModuleSpec, host_params};
use crate::verdicts;

/// A message to try a module on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its topic.
    pub topic: String,
    /// Its id.
    pub id: String,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Vec<u8>,
    /// 0 to 9.
    pub priority: u8,
}

pub use gathers::{AggregatorTest, Answer};
pub use sagas::CompensatorTest;

/// What a module made of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// Of a filter `pass`, `drop`, `reject`, `transform`, `route` or `split`; of an aggregator `begun`, `continue`, `done`,
    /// `answer` or `failed`; of a compensator `next`, `step`, `complete`, `fail`, `undo`, `retry` or `park`; of each `error`.
    pub verdict: &'static str,
    /// The reason, the topics, the steps, what changed or what failed.
    pub detail: Option<String>,
    /// CPU time of the call, this message alone in it.
    pub cpu: Duration,
    /// What the module logged.
    pub log: Vec<String>,
}

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// `filter`, `aggregator` or `compensator`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The digest of its binary.
    pub digest: String,
    /// What a filter reads of each message, with its params.
    pub fields: Vec<String>,
    /// Whether a filter keeps state.
    pub keeps_state: bool,
    /// Whether a compensator is asked what comes next.
    pub advances: bool,
}

/// A module that is ready to be tried.
pub struct ModuleTest {
    about: About,
    ready: Ready,
    // A version's ticker and slots are its own; the host is kept since it made them.
    _host: Host,
}

/// What can be tried of a module.
pub enum Ready {
    /// A filter, on messages.
    Filter(FilterTest),
    /// An aggregator, on a request and replies.
    Aggregator(AggregatorTest),
    /// A compensator, on a saga's history.
    Compensator(CompensatorTest),
}

/// A filter that is ready to be tried.
pub struct FilterTest {
    filter: Filter,
    state: Arc<Memory>,
}

impl ModuleTest {
    /// Takes, compiles, describes and configures a binary, as a deploy would. The refusal says what a deploy would say.
    pub fn load(wasm: &[u8], params: &[(String, Json)]) -> Result<ModuleTest, Refusal> {
        let host = host(chaski_protocol::MAX_MODULE)
            .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let made =
            compile(&host, wasm).and_then(|compiled| make(&host, None, &compiled, params, Limits::default()));
        let (described, version) =
            made.map_err(|error| Refusal::new(Code::ModuleFailed, error.to_string()))?;
        let mut fields = Vec::new();
        let (kind, ready) = match version {
            Version::Filter(filter) => {
                fields.extend(filter.fields().iter().map(ToString::to_string));
                (World::Filter, Ready::Filter(FilterTest { filter, state: Arc::default() }))
            }
            Version::Aggregator(aggregator) => {
                (World::Aggregator, Ready::Aggregator(AggregatorTest::new(aggregator)))
            }
            Version::Compensator(compensator) => {
                (World::Compensator, Ready::Compensator(CompensatorTest::new(compensator)))
            }
        };
        let Description { name, version, keeps_state, advances, .. } = described;
        let (kind, digest) = (kind.name(), Digest::of(wasm).to_string());
        let about = About { kind, name, version, digest, fields, keeps_state, advances };
        Ok(ModuleTest { about, ready, _host: host })
    }

    /// What it says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What can be tried of it.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }
}

impl FilterTest {
    /// Judges one sample. A module that keeps state sees what it wrote for the samples before.
    pub fn judge(&self, sample: &Sample) -> Result<Tried, Refusal> {
        let now_ms = now_ms();
        let state = self.filter.keeps_state().then(|| Arc::clone(&self.state) as Arc<dyn Table>);
        let judged = self
            .filter
            .judge(&[Timed { sample, now_ms }], &Context { now_ms, state })
            .map_err(|busy| Refusal::new(Code::Busy, busy.to_string()))?;
        self.state.write(judged.writes);
        let outcome = judged.outcomes.first().expect("a batch of one message has one outcome");
        let (verdict, detail) = verdicts::outcome_words(outcome);
        let log = judged.lines.into_iter().map(|line| line.text).collect();
        Ok(Tried { verdict, detail, cpu: judged.longest.cpu, log })
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A host for its author's own modules: it compiles in this process, without limits, and keeps no code.
fn host(binary_bytes: u64) -> Result<Host, HostError> {
    Host::new(Options {
        compiler: Compiler::InProcess,
        cache: None,
        keys: TrustedKeys::default(),
        limits: HostLimits {
            binary_bytes: usize::try_from(binary_bytes).unwrap_or(usize::MAX),
            ..HostLimits::default()
        },
    })
}

/// Why a binary is no version with these params.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Describe(#[from] Failure),
    #[error(transparent)]
    Configure(#[from] ConfigureError),
}

/// The first steps of a deploy.
fn compile(host: &Host, wasm: &[u8]) -> Result<Compiled, MakeError> {
    Ok(host.compile(&host.take(wasm, None)?)?)
}

/// A version of what kind it is.
enum Version {
    Filter(Filter),
    Aggregator(Aggregator),
    Compensator(Compensator),
}

/// The steps of a deploy. Without a name the module's own is taken.
fn make(
    host: &Host,
    name: Option<&str>,
    compiled: &Compiled,
    params: &[(String, Json)],
    limits: Limits,
) -> Result<(Description, Version), MakeError> {
    let described = host.describe(compiled, &limits)?;
    let name = name.unwrap_or(&described.name);
    let given = host_params(params);
    let version = match compiled.world() {
        World::Filter => Version::Filter(host.filter(name, compiled, &described, &given, limits)?),
        World::Aggregator => {
            Version::Aggregator(host.aggregator(name, compiled, &described, &given, limits)?)
        }
        World::Compensator => {
            Version::Compensator(host.compensator(name, compiled, &described, &given, limits)?)
        }
    };
    Ok((described, version))
}

/// What is wrong with one module of a document when this is its binary: each with the line that it is about, from 1. What the binary takes
/// is found out by making a version of it.
pub fn check_module(checked: &Checked, module: &ModuleSpec, wasm: &[u8]) -> Vec<(usize, String)> {
    let (document, name) = (&checked.rules.document, module.name.as_str());
    let at = |path: &[&str]| rules::place(document, &[&["module", name], path].concat());
    let limits = Limits {
        cpu_time: Duration::from_millis(module.time_limit_ms),
        memory_bytes: usize::try_from(module.memory_limit_bytes).unwrap_or(usize::MAX),
        ..Limits::default()
    };
    let host = match host(checked.module_options.max_size_bytes) {
        Ok(host) => host,
        Err(error) => return vec![(at(&[]), error.to_string())],
    };
    let compiled = match compile(&host, wasm) {
        Ok(compiled) => compiled,
        Err(error) => return vec![(at(&["file"]), error.to_string())],
    };
    if let Err(misplaced) = check_world(&checked.named, name, compiled.world()) {
        let line =
            |path: &[String]| rules::place(document, &path.iter().map(String::as_str).collect::<Vec<_>>());
        return misplaced.into_iter().map(|problem| (line(&problem.path), problem.detail)).collect();
    }
    match make(&host, Some(name), &compiled, &module.params, limits) {
        Ok(_) => Vec::new(),
        Err(MakeError::Configure(ConfigureError::Params(errors))) => {
            errors.iter().map(|error| (at(&["params", error.name()]), error.to_string())).collect()
        }
        Err(error @ MakeError::Configure(_)) => vec![(at(&["params"]), error.to_string())],
        Err(error) => vec![(at(&["file"]), error.to_string())],
    }
}

/// The state of a module that is tried.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<Vec<u8>, Entry>>);

impl Memory {
    fn write(&self, writes: Vec<chaski_modules::Write>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write.entry {
                Some(entry) => drop(entries.insert(write.key, entry)),
                None => drop(entries.remove(&write.key)),
            }
        }
    }
}

impl Table for Memory {
    fn get(&self, key: &[u8]) -> Option<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn bytes(&self) -> u64 {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum()
    }
}

struct Timed<'a> {
    sample: &'a Sample,
    now_ms: u64,
}

impl Message for Timed<'_> {
    fn topic(&self) -> &str {
        &self.sample.topic
    }

    fn key(&self) -> Option<&str> {
        self.sample.key.as_deref()
    }

    fn id(&self) -> &str {
        &self.sample.id
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.sample.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn each_header(&self, each: &mut dyn FnMut(&str, &str)) {
        self.sample.headers.iter().for_each(|(name, value)| each(name, value));
    }

    fn payload(&self) -> &[u8] {
        &self.sample.payload
    }

    fn priority(&self) -> u8 {
        self.sample.priority
    }

    fn timestamp_ms(&self) -> u64 {
        self.now_ms
    }
}

#[cfg(test)]
mod tests;
