//! From the rules' word on a module to a version that judges: its bytes from the journal's blobs, compiled off the hot path, described
//! and configured. It keeps what is in use, so that a change of the rules leaves alone what it doesn't change.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use chaski_broker::{ModulePin, ModuleUse};
use chaski_journal::{BlobDigest, Blobs};
use chaski_modules::{
    Binary, Compiled, Compiler, ConfigureError, Description, Digest, Host, HostLimits, Limits, Options,
    TrustedKeys, World,
};
use chaski_protocol::{Code, Refusal};
use tokio::sync::mpsc;

use super::active::{Active, Manners, Version};
use super::conduct::{Conduct, Report};
use super::coordinators::{Coordinator, check_world};
use super::health::Tolerance;
use super::lanes::Lanes;
use super::life::params_digest;
use super::samples::Samples;
use super::shadow::Shadow;
use super::smoke::{self, Proof};
use super::sweep::Wanted;
use crate::rules::{Checked, ModuleOptions, ModuleSource, ModuleSpec, Named, host_params, place, use_of};
use crate::start::StartError;

/// Binaries whose compiled code is kept in memory, so that what was just looked at is not loaded again.
const RECENT: usize = 8;

/// What a version is made from: with the same, it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Recipe {
    name: String,
    binary: [u8; 32],
    signature: Option<Vec<u8>>,
    params: [u8; 32],
    time_limit_ms: u64,
    memory_limit_bytes: u64,
    errors_percent: u32,
    of: u32,
    trusted_keys: Vec<[u8; 32]>,
    max_size_bytes: u64,
}

impl Recipe {
    fn new(spec: &ModuleSpec, pin: &ModulePin, binary: [u8; 32], options: &ModuleOptions) -> Recipe {
        Recipe {
            name: spec.name.clone(),
            binary,
            signature: pin.signature.clone(),
            params: params_digest(&spec.params),
            time_limit_ms: spec.time_limit_ms,
            memory_limit_bytes: spec.memory_limit_bytes,
            errors_percent: spec.rollback.errors_percent,
            of: spec.rollback.of,
            trusted_keys: options.trusted_keys.clone(),
            max_size_bytes: options.max_size_bytes,
        }
    }
}

/// Makes versions.
pub(crate) struct Versions {
    host: Host,
    pub(crate) lanes: Arc<Lanes>,
    blobs: Blobs,
    known: Mutex<HashMap<Recipe, Weak<Version>>>,
    /// Aggregators and compensators in use: in force, or pinned by what is under way.
    coordinators: Mutex<Vec<(ModuleUse, Weak<Coordinator>)>>,
    recent: Mutex<VecDeque<Compiled>>,
    /// A place for a shadow, for each name.
    shadows: Mutex<HashMap<String, Arc<ArcSwapOption<Shadow>>>>,
    /// Binaries that are not to go yet.
    pub(super) wanted: Wanted,
    /// What filters judged last, for the smoke runs.
    pub(super) samples: Arc<Samples>,
    reports: mpsc::UnboundedSender<Report>,
}

/// What a binary is made to.
enum Made {
    Filter(Box<Version>),
    Coordinator(Arc<Coordinator>),
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
            coordinators: Mutex::default(),
            recent: Mutex::default(),
            shadows: Mutex::default(),
            wanted: Wanted::default(),
            samples: Arc::default(),
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
        let compiled = self.compiled(binary)?;
        let description = self.host.describe(&compiled, &Limits::default());
        Ok((description.map_err(|error| refuse(error.to_string()))?, compiled))
    }

    /// Every module of the document under the binaries that are pinned. Blocks while they compile and prove themselves.
    pub(crate) fn make(
        &self,
        checked: &Checked,
        pins: &[ModulePin],
        proof: &Proof,
    ) -> Result<Vec<Arc<Active>>, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut made = Vec::with_capacity(checked.modules.len());
        for spec in &checked.modules {
            let pin = pins.iter().find(|pin| pin.name == spec.name);
            match self.active(spec, pin, &checked.module_options, &checked.named) {
                Ok(active) => {
                    problems.extend(smoke::prove(&self.samples, &active, spec, checked, proof).err());
                    made.push(Arc::new(active));
                }
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
            let active = self.active(spec, pin, &checked.module_options, &checked.named).unwrap_or_else(
                |mut wrong| {
                    problems.append(&mut wrong);
                    self.named(spec, None)
                },
            );
            // What the journal says is in force comes back whatever it does.
            active.version.iter().for_each(|version| version.prove());
            Arc::new(active)
        });
        (made.collect(), problems)
    }

    /// `named`: the places that name modules, each of which takes a module of one world.
    fn active(
        &self,
        spec: &ModuleSpec,
        pin: Option<&ModulePin>,
        options: &ModuleOptions,
        named: &[Named],
    ) -> Result<Active, Vec<Problem>> {
        let Some((pin, binary)) = pin.and_then(|pin| Some((pin, pin.binary?))) else {
            return Ok(self.named(spec, None));
        };
        // What comes with the router needs nobody's signature.
        let own = ModuleOptions { trusted_keys: Vec::new(), ..options.clone() };
        let options = if matches!(spec.source, ModuleSource::Builtin(_)) { &own } else { options };
        let recipe = Recipe::new(spec, pin, binary, options);
        // Most changes of the rules leave most modules as they are.
        if let Some(version) = self.known().get(&recipe).and_then(Weak::upgrade) {
            check_world(named, &spec.name, World::Filter)?;
            return Ok(self.named(spec, Some(version)));
        }
        match self.version(spec, pin, binary, options, named)? {
            Made::Filter(version) => {
                let version = Arc::new(*version);
                self.known().insert(recipe, Arc::downgrade(&version));
                Ok(self.named(spec, Some(version)))
            }
            Made::Coordinator(coordinator) => {
                Ok(Active { coordinator: Some(coordinator), ..self.named(spec, None) })
            }
        }
    }

    /// A version that was not there before.
    fn version(
        &self,
        spec: &ModuleSpec,
        pin: &ModulePin,
        binary: [u8; 32],
        options: &ModuleOptions,
        named: &[Named],
    ) -> Result<Made, Vec<Problem>> {
        let problem = |code: Code, key: &[&str], detail: String| {
            let path = ["module", &spec.name].iter().chain(key).map(|key| (*key).to_owned()).collect();
            vec![Problem { code, path, detail: format!("module `{}`: {detail}", spec.name) }]
        };
        let failed = |detail: String| problem(Code::ModuleFailed, &[], detail);
        let bytes = match self.blobs.get(BlobDigest(binary)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let detail = format!("its binary {} is not here: deploy it again", Digest(binary));
                return Err(problem(Code::UnknownModule, &[], detail));
            }
            Err(error) => return Err(problem(Code::Internal, &[], error.to_string())),
        };
        let taken = self.check_binary(&bytes, pin.signature.as_deref(), options);
        let taken = taken.map_err(|refusal| problem(refusal.code, &[], refusal.detail))?;
        let compiled = self.compiled(&taken).map_err(|refusal| failed(refusal.detail))?;
        // Before its params: whoever named the wrong module is helped by nothing else.
        check_world(named, &spec.name, compiled.world())?;
        let limits = Limits {
            cpu_time: Duration::from_millis(spec.time_limit_ms),
            memory_bytes: usize::try_from(spec.memory_limit_bytes).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let description =
            self.host.describe(&compiled, &limits).map_err(|error| failed(error.to_string()))?;
        let given = host_params(&spec.params);
        let wrong = |error: ConfigureError| match error {
            ConfigureError::Params(wrong) => wrong
                .iter()
                .flat_map(|wrong| problem(Code::RulesInvalid, &["params", wrong.name()], wrong.to_string()))
                .collect(),
            ConfigureError::Refused(_) => problem(Code::RulesInvalid, &["params"], error.to_string()),
            error => failed(error.to_string()),
        };
        if compiled.world() != World::Filter {
            let used = ModuleUse { binary: Some(binary), ..use_of(spec) };
            let conduct = Conduct::new(tolerance(spec), self.reports.clone());
            let make =
                || Coordinator::new(&self.host, &spec.name, &compiled, description, &given, limits, conduct);
            let coordinator = self.shared(used, make).map_err(wrong)?;
            // It may have been in use under other rules.
            coordinator.conduct.bear(tolerance(spec));
            return Ok(Made::Coordinator(coordinator));
        }
        let filter = self.host.filter(&spec.name, &compiled, &description, &given, limits).map_err(wrong)?;
        if let Ok(Err(failure)) = filter.smoke(now_ms()) {
            return Err(failed(format!("it fails on an empty batch: {}", failure.cause)));
        }
        let reports = self.reports.clone();
        let version = Version::new(filter, description, tolerance(spec), &self.lanes, reports);
        Ok(Made::Filter(Box::new(version)))
    }

    /// The aggregator or compensator that something under way is pinned to. Blocks while it is compiled or loaded.
    pub(crate) fn coordinator(&self, used: &ModuleUse) -> Result<Arc<Coordinator>, String> {
        let make = || {
            let binary = used.binary.ok_or("it was never deployed")?;
            let bytes = self.blobs.get(BlobDigest(binary)).map_err(|error| error.to_string())?;
            let bytes = bytes.ok_or_else(|| format!("its binary {} is not here any more", Digest(binary)))?;
            // Its signature was looked at when it was deployed.
            let unsigned = ModuleOptions { max_size_bytes: u64::MAX, ..ModuleOptions::default() };
            let taken = self.check_binary(&bytes, None, &unsigned).map_err(|refusal| refusal.detail)?;
            let compiled = self.compiled(&taken).map_err(|refusal| refusal.detail)?;
            let limits = Limits {
                cpu_time: Duration::from_millis(used.time_limit_ms),
                memory_bytes: usize::try_from(used.memory_limit_bytes).unwrap_or(usize::MAX),
                ..Limits::default()
            };
            let description = self.host.describe(&compiled, &limits).map_err(|error| error.to_string())?;
            let params: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&used.params).map_err(|error| error.to_string())?;
            let given = host_params(&params.into_iter().collect::<Vec<_>>());
            // Whoever is not in force is not rolled back, whatever it does.
            let conduct = Conduct::new(Tolerance::ALL, self.reports.clone());
            Coordinator::new(&self.host, &used.name, &compiled, description, &given, limits, conduct)
                .map_err(|error| error.to_string())
        };
        self.shared(used.clone(), make)
    }

    /// The one that is in use already, or a new one.
    fn shared<E>(
        &self,
        used: ModuleUse,
        make: impl FnOnce() -> Result<Coordinator, E>,
    ) -> Result<Arc<Coordinator>, E> {
        let all = || self.coordinators.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all().iter().find(|(known, _)| *known == used).and_then(|(_, one)| one.upgrade());
        if let Some(found) = found {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        let mut all = all();
        all.retain(|(known, one)| one.strong_count() > 0 && *known != used);
        all.push((used, Arc::downgrade(&made)));
        Ok(made)
    }

    /// Whether its compiled code is still in memory.
    pub(crate) fn is_recent(&self, binary: &Binary) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().any(|compiled| compiled.digest() == binary.digest())
    }

    /// The compiled code: of the last few binaries from memory, of others from the cache on disk, else made.
    fn compiled(&self, binary: &Binary) -> Result<Compiled, Refusal> {
        let recent = || self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = recent().iter().find(|compiled| compiled.digest() == binary.digest()) {
            return Ok(compiled.clone());
        }
        let compiled = self.host.compile(binary);
        let compiled = compiled.map_err(|error| Refusal::new(Code::ModuleFailed, error.to_string()))?;
        let mut recent = recent();
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(compiled.clone());
        Ok(compiled)
    }

    fn named(&self, spec: &ModuleSpec, version: Option<Arc<Version>>) -> Active {
        let manners = Manners { on_error: spec.on_error, tolerance: tolerance(spec) };
        let name: Arc<str> = spec.name.as_str().into();
        Active {
            manners,
            version,
            coordinator: None,
            shadow: self.shadow_place(&spec.name),
            sample: self.samples.of_streams(&name),
            name,
        }
    }

    /// Where a shadow of this module stands, through all its versions.
    pub(crate) fn shadow_place(&self, name: &str) -> Arc<ArcSwapOption<Shadow>> {
        let mut shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shadows.entry(name.to_owned()).or_default())
    }

    /// The binaries of all shadows.
    pub(super) fn shadowed(&self) -> Vec<[u8; 32]> {
        let shadows = self.shadows.lock().unwrap_or_else(PoisonError::into_inner);
        shadows.values().filter_map(|place| place.load().as_ref()?.pin.binary).collect()
    }

    /// Whether all of these are here, or the first that is not. They stay for a while.
    pub(crate) fn hold(&self, binaries: &[[u8; 32]]) -> Result<(), Refusal> {
        self.wanted.want(binaries.iter().copied());
        for binary in binaries {
            let found = self.blobs.get(BlobDigest(*binary));
            if found.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?.is_none() {
                let detail = format!("the binary {} is not here any more: deploy it again", Digest(*binary));
                return Err(Refusal::new(Code::UnknownModule, detail));
            }
        }
        Ok(())
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
        let active = self.active(&spec, Some(pin), options, &[])?;
        active.version.ok_or_else(|| {
            let detail = format!("module `{}`: only a filter has a shadow", spec.name);
            vec![Problem { code: Code::NotAllowed, path: vec!["module".to_owned(), spec.name], detail }]
        })
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

/// Milliseconds since 1970, as the machine's clock has it.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
