//! From the rules' word on a module to a version that judges: its bytes from the journal's blobs, compiled off the hot path, described
//! and configured. It keeps what is in use, so that a change of the rules leaves alone what it doesn't change.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chaski_broker::ModulePin;
use chaski_journal::{BlobDigest, Blobs};
use chaski_modules::{
    Binary, Compiled, Compiler, ConfigureError, Description, Digest, Host, HostLimits, Limits, Options,
    Param, TrustedKeys, Value, VersionId,
};
use chaski_protocol::{Code, Refusal};
use tokio::sync::mpsc;

use super::active::{Active, Manners, Report, Version};
use super::health::Tolerance;
use super::lanes::Lanes;
use super::shadow::Shadow;
use crate::rules::{Checked, ModuleOptions, ModuleSource, ModuleSpec, place};
use crate::start::StartError;

/// Times that a new version is called with nothing before it is taken.
const SMOKE_RUNS: usize = 1;

/// What a version was made from: with the same, it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Recipe {
    name: String,
    id: VersionId,
    time_limit_ms: u64,
    memory_limit_bytes: u64,
    errors_percent: u32,
    of: u32,
}

/// Makes versions.
pub(crate) struct Versions {
    host: Host,
    pub(crate) lanes: Arc<Lanes>,
    blobs: Blobs,
    known: Mutex<HashMap<Recipe, Weak<Version>>>,
    /// A place for a shadow, for each name.
    shadows: Mutex<HashMap<String, Arc<ArcSwapOption<Shadow>>>>,
    reports: mpsc::UnboundedSender<Report>,
}

/// What is wrong with one module of a document.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// Keys that lead to the place in the document.
    pub(crate) path: Vec<String>,
    pub(crate) detail: String,
}

impl Versions {
    /// `program`: the router's own binary, which compiles in a process of its own when called with `compile-module`.
    pub(crate) fn new(
        cache: PathBuf,
        program: Option<PathBuf>,
        blobs: Blobs,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Result<Versions, StartError> {
        let compiler = match program {
            Some(program) => Compiler::Child { program, args: vec!["compile-module".into()] },
            None => Compiler::InProcess,
        };
        let options = Options {
            compiler,
            cache: Some(cache),
            keys: TrustedKeys::default(),
            limits: HostLimits::default(),
        };
        let failed = |error: &dyn std::fmt::Display| StartError::new(Code::Internal, error.to_string());
        Ok(Versions {
            host: Host::new(options).map_err(|error| failed(&error))?,
            lanes: Arc::new(Lanes::start().map_err(|error| failed(&error))?),
            blobs,
            known: Mutex::default(),
            shadows: Mutex::default(),
            reports,
        })
    }

    /// The blobs that module binaries are kept in.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Instances of all modules.
    pub(crate) fn instances(&self) -> u32 {
        self.host.instances()
    }

    /// Checks a binary that came from outside.
    pub(crate) fn check_binary(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
        options: &ModuleOptions,
    ) -> Result<Binary, Refusal> {
        let refuse = |detail: String| Refusal::new(Code::ModuleFailed, detail);
        let keys = TrustedKeys::new(&options.trusted_keys).map_err(|error| refuse(error.to_string()))?;
        let most = usize::try_from(options.max_size_bytes).unwrap_or(usize::MAX);
        self.host.take_under(bytes, signature, &keys, most).map_err(|error| refuse(error.to_string()))
    }

    /// What a binary says of itself. Compiles it where that was not done before; the code is in the cache from then on.
    pub(crate) fn describe(&self, binary: &Binary) -> Result<(Description, Compiled), Refusal> {
        let refuse = |detail: String| Refusal::new(Code::ModuleFailed, detail);
        let compiled = self.host.compile(binary).map_err(|error| refuse(error.to_string()))?;
        let description = self.host.describe(&compiled, &Limits::default());
        Ok((description.map_err(|error| refuse(error.to_string()))?, compiled))
    }

    /// Every module of the document under the binaries that are pinned. Blocks while they compile.
    pub(crate) fn make(
        &self,
        checked: &Checked,
        pins: &[ModulePin],
    ) -> Result<Vec<Arc<Active>>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut made = Vec::with_capacity(checked.modules.len());
        for spec in &checked.modules {
            let pin = pins.iter().find(|pin| pin.name == spec.name);
            match self.active(spec, pin, &checked.module_options) {
                Ok(active) => made.push(Arc::new(active)),
                Err(mut wrong) => problems.append(&mut wrong),
            }
        }
        self.forget_the_dropped();
        if problems.is_empty() { Ok(made) } else { Err(problems) }
    }

    /// The same at a start, where what can't be made waits for a deploy instead.
    pub(crate) fn make_what_can_be(
        &self,
        checked: &Checked,
        pins: &[ModulePin],
    ) -> (Vec<Arc<Active>>, Vec<Problem>) {
        let mut problems = Vec::new();
        let made = checked.modules.iter().map(|spec| {
            let pin = pins.iter().find(|pin| pin.name == spec.name);
            let active = self.active(spec, pin, &checked.module_options).unwrap_or_else(|mut wrong| {
                problems.append(&mut wrong);
                self.named(spec, None)
            });
            Arc::new(active)
        });
        (made.collect(), problems)
    }

    fn active(
        &self,
        spec: &ModuleSpec,
        pin: Option<&ModulePin>,
        options: &ModuleOptions,
    ) -> Result<Active, Vec<Problem>> {
        let Some((pin, digest)) = pin.and_then(|pin| Some((pin, pin.binary?))) else {
            return Ok(self.named(spec, None));
        };
        let problem = |code: Code, key: &[&str], detail: String| {
            let path = ["module", &spec.name].iter().chain(key).map(|key| (*key).to_owned()).collect();
            vec![Problem { code, path, detail: format!("module `{}`: {detail}", spec.name) }]
        };
        let bytes = match self.blobs.get(BlobDigest(digest)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let detail = format!("its binary {} is not here: deploy it again", Digest(digest));
                return Err(problem(Code::UnknownModule, &[], detail));
            }
            Err(error) => return Err(problem(Code::Internal, &[], error.to_string())),
        };
        // What comes with the router needs nobody's signature.
        let own = ModuleOptions { trusted_keys: Vec::new(), ..options.clone() };
        let options = if matches!(spec.source, ModuleSource::Builtin(_)) { &own } else { options };
        let binary = self
            .check_binary(&bytes, pin.signature.as_deref(), options)
            .map_err(|refusal| problem(refusal.code, &[], refusal.detail))?;
        let compiled = self
            .host
            .compile(&binary)
            .map_err(|error| problem(Code::ModuleFailed, &[], error.to_string()))?;
        let limits = Limits {
            cpu_time: Duration::from_millis(spec.time_limit_ms),
            memory_bytes: usize::try_from(spec.memory_limit_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let description = self
            .host
            .describe(&compiled, &limits)
            .map_err(|error| problem(Code::ModuleFailed, &[], error.to_string()))?;
        let params = params(&spec.params);
        let filter =
            self.host.filter(&spec.name, &compiled, &description, &params, limits).map_err(|error| {
                match error {
                    ConfigureError::Params(wrong) => wrong
                        .iter()
                        .flat_map(|wrong| {
                            problem(Code::RulesInvalid, &["params", wrong.name()], wrong.to_string())
                        })
                        .collect(),
                    ConfigureError::Refused(_) => problem(Code::RulesInvalid, &["params"], error.to_string()),
                    error => problem(Code::ModuleFailed, &[], error.to_string()),
                }
            })?;
        let recipe = Recipe {
            name: spec.name.clone(),
            id: filter.id(),
            time_limit_ms: spec.time_limit_ms,
            memory_limit_bytes: spec.memory_limit_bytes,
            errors_percent: spec.rollback.errors_percent,
            of: spec.rollback.of,
        };
        if let Some(version) = self.known().get(&recipe).and_then(Weak::upgrade) {
            return Ok(self.named(spec, Some(version)));
        }
        for _ in 0..SMOKE_RUNS {
            if let Ok(Err(failure)) = filter.smoke(now_ms()) {
                return Err(problem(
                    Code::ModuleFailed,
                    &[],
                    format!("it fails on an empty batch: {}", failure.cause),
                ));
            }
        }
        let tolerance = tolerance(spec);
        let reports = self.reports.clone();
        let version = Arc::new(Version::new(filter, description, tolerance, &self.lanes, reports));
        self.known().insert(recipe, Arc::downgrade(&version));
        Ok(self.named(spec, Some(version)))
    }

    fn named(&self, spec: &ModuleSpec, version: Option<Arc<Version>>) -> Active {
        let manners = Manners { on_error: spec.on_error, tolerance: tolerance(spec) };
        Active { name: spec.name.as_str().into(), manners, version, shadow: self.shadow_place(&spec.name) }
    }

    /// Where a shadow of this module stands, through all its versions.
    pub(crate) fn shadow_place(&self, name: &str) -> Arc<ArcSwapOption<Shadow>> {
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shadows.entry(name.to_owned()).or_default())
    }

    /// A version for a shadow.
    pub(crate) fn apart(
        &self,
        spec: &ModuleSpec,
        pin: &ModulePin,
        options: &ModuleOptions,
    ) -> Result<Arc<Version>, Vec<Problem>> {
        let source = pin.binary.map_or(ModuleSource::Missing, ModuleSource::Digest);
        let spec = ModuleSpec { source, ..spec.clone() };
        let active = self.active(&spec, Some(pin), options)?;
        Ok(active.version.expect("a pin with a binary makes a version"))
    }

    /// Removes compiled code of all binaries but these.
    pub(crate) fn forget_code_except(&self, binaries: &[[u8; 32]]) {
        let kept: Vec<Digest> = binaries.iter().copied().map(Digest).collect();
        if let Err(error) = self.host.forget_code_except(&kept) {
            tracing::warn!(%error, "compiled code that nobody needs any more stays");
        }
    }

    fn forget_the_dropped(&self) {
        self.known().retain(|_, version| version.strong_count() > 0);
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Recipe, Weak<Version>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All problems as one refusal: the first one's code, each with its line.
pub(crate) fn refusal(document: &str, problems: &[Problem]) -> Refusal {
    let lines = problems.iter().map(|problem| {
        let path: Vec<&str> = problem.path.iter().map(String::as_str).collect();
        format!("line {}: {}", place(document, &path), problem.detail)
    });
    let code = problems.first().map_or(Code::Internal, |problem| problem.code);
    Refusal::new(code, lines.collect::<Vec<_>>().join("\n"))
}

fn tolerance(spec: &ModuleSpec) -> Tolerance {
    Tolerance { errors_percent: spec.rollback.errors_percent, of: spec.rollback.of }
}

/// The document's params as the contract knows them.
pub(crate) fn params(params: &[(String, serde_json::Value)]) -> Vec<Param> {
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Bool(value) => Value::Boolean(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Number(number.as_f64().unwrap_or_default()),
        },
        other => Value::Json(other.to_string()),
    };
    params.iter().map(|(name, given)| Param { name: name.clone(), value: value(given) }).collect()
}

/// Milliseconds since 1970, as the machine's clock has it.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
