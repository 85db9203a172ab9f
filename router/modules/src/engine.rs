//! The engine and its settings: what every module shares. It knows wasmtime, and no module.

use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::bindings;
use crate::digest::Digest;
use crate::guest::Guest;

/// Core instances in one component. wit-component makes three or four; Python's toolchain some dozens.
const CORE_INSTANCES: u32 = 64;
/// Tables in one component: its own, and those of wit-component's shims.
const TABLES: u32 = 8;
/// Elements of a table that the pool has room for. A module's own limit lies below.
const TABLE_ELEMENTS: usize = 100_000;
/// The engine's own data of one core instance, in bytes.
const INSTANCE_BYTES: usize = 4 * 1024 * 1024;

/// An engine that runs modules, with room for this many instances.
pub(crate) fn running(instances: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_component_instance_size(INSTANCE_BYTES)
        .total_memories(instances)
        .max_memories_per_component(1)
        .max_memories_per_module(1)
        .total_tables(instances.saturating_mul(TABLES))
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS);
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}

/// An engine that compiles and runs nothing: it reserves no pool, so it fits below an address-space limit.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    let mut config = settings();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config)
}

/// What decides which code is made. It is the same in both engines, or one could not load what the other made.
fn settings() -> Config {
    let mut config = Config::new();
    config
        // Another crate in the build could turn the feature on; it more than doubles the cost of a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        // Its results differ between processors.
        .wasm_relaxed_simd(false);
    config
}

/// The hash of all that compiled code depends on beside its module.
pub(crate) fn compatibility(engine: &Engine) -> Digest {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut hasher = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Digest(hasher.0.finalize().into())
}

/// All that a module may import.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    bindings::Filter::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    Ok(linker)
}
