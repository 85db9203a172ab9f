//! The host: takes binaries, compiles them, asks what they say of themselves, and makes versions that can judge. It must not
//! know sessions, queues or rules documents.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::{InstancePre, Linker};

use crate::aggregator::{self, Aggregator};
use crate::binary::{self, Binary, TakeError};
use crate::cache::{Cache, CacheError};
use crate::code;
use crate::compensator::{self, Compensator};
use crate::compile::{self, CompileError, Compiler};
use crate::digest::Digest;
use crate::engine;
use crate::failure::{Cause, Failure};
use crate::filter::{self, Filter};
use crate::guest::Guest;
use crate::instance::{self, Description, Exports, Instance, MakeError, Recipe};
use crate::limits::{HostLimits, Limits};
use crate::params::{self, Param, ParamError};
use crate::signature::TrustedKeys;
use crate::slots::Slots;
use crate::ticker::Ticker;
use crate::version::{Shared, Version, VersionId};
use crate::world::World;

/// How a host is set up.
#[derive(Debug)]
pub struct Options {
    /// Where binaries are compiled.
    pub compiler: Compiler,
    /// The folder for compiled code, which only the router's user may enter. Without one nothing is kept.
    pub cache: Option<PathBuf>,
    /// The keys of which one must have signed each binary. None: no signatures.
    pub keys: TrustedKeys,
    /// The limits of the host as a whole.
    pub limits: HostLimits,
}

/// The host of all modules.
pub struct Host {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
    slots: Arc<Slots>,
    compiler: Compiler,
    cache: Option<Cache>,
    keys: TrustedKeys,
    limits: HostLimits,
    /// Held while a child compiles: one at a time, so that a flood of deploys takes one core.
    compiling: Mutex<()>,
}

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine did not start.
    #[error("the WebAssembly engine did not start: {reason}")]
    Engine {
        /// What it says.
        reason: String,
    },
    /// The folder for compiled code can't be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// A compiled module, of which instances can be made.
#[derive(Clone)]
pub struct Compiled {
    digest: Digest,
    world: World,
    pre: InstancePre<Guest>,
    took: Duration,
    from_cache: bool,
}

impl Compiled {
    /// The digest of the binary.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What kind of module it is.
    pub fn world(&self) -> World {
        self.world
    }

    /// What the compilation took, or the loading from the cache.
    pub fn compile_time(&self) -> Duration {
        self.took
    }

    /// Whether the code came from the cache.
    pub fn from_cache(&self) -> bool {
        self.from_cache
    }
}

/// Why a compiled module with its params is not what is asked for.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It is of another world.
    #[error("the module is {}, and {} is needed here", .world.a(), .wanted.a())]
    World {
        /// Its world.
        world: World,
        /// The world that is asked for.
        wanted: World,
    },
    /// The params are not those that it describes.
    #[error("{}", .0.iter().map(ParamError::to_string).collect::<Vec<_>>().join("; "))]
    Params(Vec<ParamError>),
    /// It refused the params, with this sentence.
    #[error("the module refuses its params: {0}")]
    Refused(String),
    /// It failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Host {
    /// Starts a host.
    pub fn new(options: Options) -> Result<Host, HostError> {
        let Options { compiler, cache, keys, limits } = options;
        let fail = |error: wasmtime::Error| HostError::Engine { reason: format!("{error:#}") };
        let engine = engine::running(limits.instances).map_err(fail)?;
        let linker = engine::linker(&engine).map_err(fail)?;
        let ticking = engine.clone();
        let ticker = Ticker::start(move || ticking.increment_epoch()).map_err(|error| fail(error.into()))?;
        let compatibility = engine::compatibility(&engine);
        let cache = cache.map(|folder| Cache::open(&folder, compatibility)).transpose()?;
        Ok(Host {
            engine,
            linker,
            ticker: Arc::new(ticker),
            slots: Slots::new(limits.instances),
            compiler,
            cache,
            keys,
            limits,
            compiling: Mutex::new(()),
        })
    }

    /// Takes a binary from outside: its size, signature, world and imports are checked, and a core module becomes a
    /// component. `signature` is the raw Ed25519 signature over the bytes.
    pub fn take(&self, bytes: &[u8], signature: Option<&[u8]>) -> Result<Binary, TakeError> {
        binary::take(bytes, signature, &self.keys, self.limits.binary_bytes)
    }

    /// The same under other keys and another limit of the size in bytes than the host's own.
    pub fn take_under(
        &self,
        bytes: &[u8],
        signature: Option<&[u8]>,
        keys: &TrustedKeys,
        binary_bytes: usize,
    ) -> Result<Binary, TakeError> {
        binary::take(bytes, signature, keys, binary_bytes)
    }

    /// Compiles a binary, or loads its code from the cache. Blocks for as long as that takes, and for other compilations.
    pub fn compile(&self, binary: &Binary) -> Result<Compiled, CompileError> {
        let began = Instant::now();
        if let Some(pre) = self.cached(binary) {
            return compiled(binary, pre, began.elapsed(), true);
        }
        let _alone = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        // Another thread may have compiled the same binary meanwhile.
        if let Some(pre) = self.cached(binary) {
            return compiled(binary, pre, began.elapsed(), true);
        }
        let code = compile::compile(&self.compiler, &self.engine, &self.limits.compile, binary.component())?;
        let refused = |error: wasmtime::Error| CompileError::Refused { reason: format!("{error:#}") };
        let component = code::load(&self.engine, &code).map_err(refused)?;
        if let Some(cache) = &self.cache {
            // A cache that cannot be written costs time at the next start, and nothing else.
            let _ = cache.write(binary.digest(), &code);
        }
        let types = |error: wasmtime::Error| CompileError::Types { reason: format!("{error:#}") };
        let pre = self.linker.instantiate_pre(&component).map_err(types)?;
        compiled(binary, pre, began.elapsed(), false)
    }

    /// What a module says of itself, asked in an instance that is thrown away.
    pub fn describe(&self, compiled: &Compiled, limits: &Limits) -> Result<Description, Failure> {
        let failure = |cause| Failure {
            module: compiled.digest.hex()[..12].to_owned(),
            digest: compiled.digest,
            cause,
        };
        let Some(_slot) = self.slots.take() else {
            return Err(failure(Cause::Instance { text: "all instances are in use".into() }));
        };
        instance::describe(self.ticker.hand(), &compiled.pre, limits).map_err(failure)
    }

    /// Makes a version of a filter: checks its params against its description, and configures a first instance, which
    /// answers the fields that it reads.
    pub fn filter(
        &self,
        name: &str,
        compiled: &Compiled,
        description: &Description,
        params: &[Param],
        limits: Limits,
    ) -> Result<Filter, ConfigureError> {
        self.version(name, compiled, description, params, limits).map(Filter::new)
    }

    /// Makes a version of an aggregator: checks its params against its description, and configures a first instance.
    pub fn aggregator(
        &self,
        name: &str,
        compiled: &Compiled,
        description: &Description,
        params: &[Param],
        limits: Limits,
    ) -> Result<Aggregator, ConfigureError> {
        let limits = limits.for_whole_messages();
        self.version(name, compiled, description, params, limits).map(Aggregator::new)
    }

    /// Makes a version of a compensator: checks its params against its description, and configures a first instance.
    pub fn compensator(
        &self,
        name: &str,
        compiled: &Compiled,
        description: &Description,
        params: &[Param],
        limits: Limits,
    ) -> Result<Compensator, ConfigureError> {
        let limits = limits.for_whole_messages();
        let version = self.version(name, compiled, description, params, limits)?;
        Ok(Compensator::new(version, description.advances))
    }

    fn version<E: Exports>(
        &self,
        name: &str,
        compiled: &Compiled,
        description: &Description,
        params: &[Param],
        limits: Limits,
    ) -> Result<Version<E>, ConfigureError> {
        if compiled.world != E::WORLD {
            return Err(ConfigureError::World { world: compiled.world, wanted: E::WORLD });
        }
        let params = params::check(params, &description.params).map_err(ConfigureError::Params)?;
        let id = VersionId { binary: compiled.digest, params: params::digest(&params) };
        let failure = |cause| Failure { module: name.to_owned(), digest: id.binary, cause };
        let instance = |text| failure(Cause::Instance { text });
        let pre = E::check(compiled.pre.clone()).map_err(|error| instance(format!("{error:#}")))?;
        let engine = self.engine.clone();
        let recipe = Recipe { engine, pre, limits, keeps_state: description.keeps_state, params };
        let declared = {
            let slot = self.slots.take();
            let _slot = slot.ok_or_else(|| instance("all instances are in use".into()))?;
            let (_, declared) = Instance::make(self.ticker.hand(), &recipe).map_err(|error| match error {
                MakeError::Failed(cause, _) => ConfigureError::Failed(failure(cause)),
                MakeError::Refused(sentence) => ConfigureError::Refused(sentence),
            })?;
            declared
        };
        let shared = Shared { ticker: Arc::clone(&self.ticker), slots: Arc::clone(&self.slots) };
        Ok(Version::new(name.into(), id, recipe, declared, compiled.took, shared))
    }

    /// Live instances of all modules.
    pub fn instances(&self) -> u32 {
        self.slots.live()
    }

    /// Removes compiled code of all binaries but these from the cache.
    pub fn forget_code_except(&self, binaries: &[Digest]) -> std::io::Result<()> {
        self.cache.as_ref().map_or(Ok(()), |cache| cache.retain(binaries))
    }

    /// The code from the cache, where it is there and loads. Anything else is made again.
    fn cached(&self, binary: &Binary) -> Option<InstancePre<Guest>> {
        let code = self.cache.as_ref()?.read(binary.digest())?;
        let component = code::load(&self.engine, &code).ok()?;
        self.linker.instantiate_pre(&component).ok()
    }
}

/// The compiled module, when its exports are of the contract's types. Its imports were looked at before.
fn compiled(
    binary: &Binary,
    pre: InstancePre<Guest>,
    took: Duration,
    from_cache: bool,
) -> Result<Compiled, CompileError> {
    let (digest, world) = (binary.digest(), binary.world());
    let checked = match world {
        World::Filter => filter::Exported::check(pre.clone()).map(drop),
        World::Aggregator => aggregator::Exported::check(pre.clone()).map(drop),
        World::Compensator => compensator::Exported::check(pre.clone()).map(drop),
    };
    checked.map_err(|error| CompileError::Types { reason: format!("{error:#}") })?;
    Ok(Compiled { digest, world, pre, took, from_cache })
}

#[cfg(test)]
#[path = "../tests/host/kit.rs"]
mod kit;

#[cfg(test)]
mod tests {
    use super::kit::{Guest, HEADER, deploy, host, samples};
    use super::*;
    use crate::field::Field;
    use crate::filter::Context;

    /// A module has nothing by which two of its instances could differ, so the version's memory is changed in its place.
    #[test]
    fn a_configure_that_answers_other_fields_later_fails_the_call() {
        let host = host();
        let (compiled, description) = deploy(&host, &Guest::actor().module());
        let mut version: Version<filter::Exported> =
            host.version("test", &compiled, &description, &[], Limits::default()).unwrap();
        assert_eq!(version.declared, [Field::Header("do".into())]);
        version.declared.push(Field::Payload);
        let filter = Filter::new(version);
        let judged = filter.judge(&samples("."), &Context::default()).unwrap();
        let cause = judged.outcomes[0].clone().unwrap_err().cause;
        assert_eq!(cause, Cause::Fields { got: "header:do".into(), wanted: "header:do, payload".into() });
        assert_eq!(host.instances(), 0);
    }

    #[test]
    fn a_full_pool_is_busy_and_decides_nothing() {
        let host = host();
        let (compiled, description) =
            deploy(&host, &Guest { fields: vec![(HEADER, "do")], ..Guest::default() }.module());
        let filter = host.filter("test", &compiled, &description, &[], Limits::default()).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| host.slots.take()).collect();
        assert_eq!(taken.len(), 16);
        assert!(filter.judge(&samples(".."), &Context::default()).is_err());
        assert!(filter.smoke(0).is_err());
        drop(taken);
        assert_eq!(filter.judge(&samples(".."), &Context::default()).unwrap().outcomes.len(), 2);
    }
}
