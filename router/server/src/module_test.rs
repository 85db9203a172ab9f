//! Modules in this process and without a router: one on sample messages, which is what `chaski module test` does, and those of a rules
//! document against what the document gives them, as `chaski rules check` does. What they make of messages goes nowhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaski_modules::{
    CompileError, Compiled, Compiler, ConfigureError, Context, Description, Digest, Entry, Failure, Filter,
    Host, HostError, HostLimits, Limits, Message, Options, Table, TakeError, TrustedKeys, World,
};
use chaski_protocol::{Code, Refusal};
use serde_json::Value as Json;

use crate::modules::{Coordinator, check_world};
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

/// What a module made of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// `pass`, `drop`, `reject`, `transform`, `route`, `split` or `error`.
    pub verdict: &'static str,
    /// The reason, the topics, what changed or what failed.
    pub detail: Option<String>,
    /// CPU time of the call, this message alone in it.
    pub cpu: Duration,
    /// What the module logged.
    pub log: Vec<String>,
}

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// The digest of its binary.
    pub digest: String,
    /// What it reads of each message, with its params.
    pub fields: Vec<String>,
    /// Whether it keeps state.
    pub keeps_state: bool,
}

/// A module that is ready to be tried.
pub struct ModuleTest {
    about: About,
    filter: Filter,
    state: Arc<Memory>,
    // The filter's ticker and slots are its own; the host is kept since it made them.
    _host: Host,
}

impl ModuleTest {
    /// Takes, compiles, describes and configures a binary, as a deploy would. The refusal says what a deploy would say.
    pub fn load(wasm: &[u8], params: &[(String, Json)]) -> Result<ModuleTest, Refusal> {
        let host = host(chaski_protocol::MAX_MODULE)
            .map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
        let made =
            compile(&host, wasm).and_then(|compiled| make(&host, None, &compiled, params, Limits::default()));
        let (described, filter) =
            made.map_err(|error| Refusal::new(Code::ModuleFailed, error.to_string()))?;
        let about = About {
            name: described.name,
            version: described.version,
            digest: Digest::of(wasm).to_string(),
            fields: filter.fields().iter().map(ToString::to_string).collect(),
            keeps_state: described.keeps_state,
        };
        Ok(ModuleTest { about, filter, state: Arc::default(), _host: host })
    }

    /// What it says of itself.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// Judges one sample. A module that keeps state sees what it wrote for the samples before.
    pub fn judge(&self, sample: &Sample) -> Result<Tried, Refusal> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let state = self.about.keeps_state.then(|| Arc::clone(&self.state) as Arc<dyn Table>);
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

/// Why a binary is no filter with these params.
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

/// The others, for a filter. Without a name the module's own is taken.
fn make(
    host: &Host,
    name: Option<&str>,
    compiled: &Compiled,
    params: &[(String, Json)],
    limits: Limits,
) -> Result<(Description, Filter), MakeError> {
    let described = host.describe(compiled, &limits)?;
    let name = name.unwrap_or(&described.name);
    let filter = host.filter(name, compiled, &described, &host_params(params), limits)?;
    Ok((described, filter))
}

/// What is wrong with one module of a document when this is its binary: each with the line that it is about, from 1. What the binary takes
/// is found out by making a filter of it.
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
    let made = match compiled.world() {
        World::Filter => make(&host, Some(name), &compiled, &module.params, limits).map(drop),
        _ => match Coordinator::new(&host, module, &compiled, &limits) {
            Ok(_) => Ok(()),
            Err(error) => return vec![(at(&["params"]), error)],
        },
    };
    match made {
        Ok(()) => Vec::new(),
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
mod tests {
    use super::*;

    fn load(name: &str, params: &[(String, Json)]) -> Result<ModuleTest, Refusal> {
        ModuleTest::load(chaski_filters::builtin(name).expect("a builtin").wasm, params)
    }

    fn sample(region: &str) -> Sample {
        let headers = vec![("region".to_owned(), region.to_owned())];
        Sample { topic: "orders".into(), id: "o-1".into(), headers, priority: 4, ..Sample::default() }
    }

    #[test]
    fn a_module_judges_samples_as_it_would_judge_messages() {
        let test = load("eu-only", &[("region".into(), "eu".into())]).unwrap();
        let about = test.about();
        assert_eq!((about.name.as_str(), about.keeps_state), ("eu-only", false));
        assert_eq!(about.fields, ["header:region"]);
        assert_eq!(test.judge(&sample("eu")).unwrap().verdict, "pass");
        assert_eq!(test.judge(&sample("us")).unwrap().verdict, "drop");
    }

    #[test]
    fn what_a_deploy_would_refuse_is_refused() {
        let refused = load("eu-only", &[("regoin".into(), "eu".into())]).map(drop).unwrap_err();
        assert_eq!(refused.code, Code::ModuleFailed);
        assert!(refused.detail.contains("did you mean `region`?"), "{}", refused.detail);
        let refused = ModuleTest::load(chaski_filters::NOT_WASM, &[]).map(drop).unwrap_err();
        assert!(refused.detail.contains("no WebAssembly"), "{}", refused.detail);
    }

    #[test]
    fn wrong_params_are_told_with_their_lines() {
        let document = "[module.m]\nbuiltin = \"eu-only\"\n[module.m.params]\nzone = 1\nregoin = \"eu\"\n";
        let mut checked = rules::check(document).unwrap();
        let wasm = chaski_filters::builtin("eu-only").expect("a builtin").wasm;
        let told = |wasm| check_module(&checked, &checked.modules[0], wasm);
        let lines: Vec<_> = told(wasm).into_iter().map(|(line, _)| line).collect();
        // The second is about a param that is not there: the nearest place is the table around it.
        assert_eq!(lines, [5, 4, 3]);
        assert!(told(wasm)[0].1.contains("did you mean `region`?"), "{:?}", told(wasm));
        assert_eq!(told(chaski_filters::NOT_WASM)[0].0, 1);
        checked.module_options.max_size_bytes = 8;
        assert!(check_module(&checked, &checked.modules[0], wasm)[0].1.contains("at most 8"));
        let right = "[module.m]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n";
        let right = rules::check(right).unwrap();
        assert_eq!(check_module(&right, &right.modules[0], wasm), []);
    }

    #[test]
    fn a_filter_is_told_that_it_is_no_aggregator() {
        let document = "[module.m]\nfile = \"m.wasm\"\n[scatter.s]\ntopic = \"s\"\nrecipients = [\"a\"]\naggregator = \"m\"\n";
        let checked = rules::check(document).unwrap();
        let wasm = chaski_filters::builtin("sample").expect("a builtin").wasm;
        let expected = "`scatter.s.aggregator` takes an aggregator, and module `m` is a filter";
        assert_eq!(check_module(&checked, &checked.modules[0], wasm), [(6, expected.to_owned())]);
    }

    #[test]
    fn a_module_that_keeps_state_remembers_the_samples_before() {
        let test = load("dedup-by-content", &[]).unwrap();
        let verdicts = [1, 2].map(|_| test.judge(&sample("eu")).unwrap().verdict);
        assert_eq!(verdicts, ["pass", "drop"]);
    }

    #[test]
    fn a_module_that_traps_is_told_and_can_be_tried_again() {
        let wasm = chaski_filters::hostile("trap").expect("a guest").wasm;
        let test = ModuleTest::load(wasm, &[]).unwrap();
        for _ in 0..2 {
            let tried = test.judge(&sample("eu")).unwrap();
            assert_eq!(tried.verdict, "error");
            assert!(tried.detail.is_some());
        }
    }
}
