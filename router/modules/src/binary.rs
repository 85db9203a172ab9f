//! Taking a binary: its size, its signature, its world and its imports, before anything of it is compiled. Core modules
//! become components here. Nothing is run, and precompiled code is never taken.

use wasmparser::{Encoding, Validator, WasmFeatures};

use crate::digest::Digest;
use crate::signature::{SignatureError, TrustedKeys};
use crate::world::{self, World, WorldError};

/// A binary that passed all checks that need no compilation: a component of a known world that imports no more than it may.
#[derive(Clone)]
pub struct Binary {
    digest: Digest,
    world: World,
    component: Vec<u8>,
}

impl Binary {
    /// The digest of the bytes as they came, which names the module.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What kind of module it is.
    pub fn world(&self) -> World {
        self.world
    }

    /// The component: the bytes as they came, or what was made of a core module.
    pub fn component(&self) -> &[u8] {
        &self.component
    }
}

impl std::fmt::Debug for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Binary")
            .field("digest", &self.digest)
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

/// Why a binary was not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// Larger than allowed.
    #[error(
        "the module has {bytes} bytes, and at most {limit} are taken: build it for size, or raise `max_size` below `[modules]`"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Unsigned or wrongly signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// No WebAssembly.
    #[error("the file is no WebAssembly: it takes a core module for wasm32-unknown-unknown, or a component")]
    NotWasm,
    /// Machine code, which is never taken from outside.
    #[error("the file is precompiled code, which is never taken: give the WebAssembly that it was made of")]
    Precompiled,
    /// WebAssembly, but damaged or with features that modules don't have.
    #[error("the module is not valid WebAssembly: {reason}")]
    Invalid {
        /// What the validator says.
        reason: String,
    },
    /// A core module that is no component in the making.
    #[error(
        "the core module cannot be made a component: {reason}; build it with the guest SDK, or from chaski.wit"
    )]
    NotComponent {
        /// What wit-component says.
        reason: String,
    },
    /// Of no known world, or one that asks for too much.
    #[error(transparent)]
    World(#[from] WorldError),
}

/// Takes a binary from outside.
pub(crate) fn take(
    bytes: &[u8],
    signature: Option<&[u8]>,
    keys: &TrustedKeys,
    limit: usize,
) -> Result<Binary, TakeError> {
    if bytes.len() > limit {
        return Err(TakeError::TooLarge { bytes: bytes.len(), limit });
    }
    keys.check(bytes, signature)?;
    if bytes.starts_with(b"\x7fELF") {
        return Err(TakeError::Precompiled);
    }
    let component = match world::encoding(bytes) {
        None => return Err(TakeError::NotWasm),
        Some(Encoding::Component) => bytes.to_vec(),
        Some(Encoding::Module) => componentize(bytes)?,
    };
    Validator::new_with_features(features()).validate_all(&component).map_err(invalid)?;
    let world = world::check(&world::border(&component).map_err(invalid)?)?;
    Ok(Binary { digest: Digest::of(bytes), world, component })
}

/// Makes a component of a core module, by the description of its world that its toolchain left in it.
fn componentize(module: &[u8]) -> Result<Vec<u8>, TakeError> {
    Validator::new_with_features(features()).validate_all(module).map_err(invalid)?;
    for import in world::core_imports(module).map_err(invalid)? {
        world::check_import(&import, World::Filter)?;
    }
    let encoder = wit_component::ComponentEncoder::default().module(module);
    let component = encoder.and_then(|mut encoder| encoder.encode());
    component.map_err(|error| TakeError::NotComponent { reason: format!("{error:#}") })
}

/// What of WebAssembly a module may use: the standard, without what the engine has switched off.
fn features() -> WasmFeatures {
    let mut features = WasmFeatures::WASM2 | WasmFeatures::COMPONENT_MODEL;
    features |= WasmFeatures::TAIL_CALL | WasmFeatures::EXTENDED_CONST;
    features
}

fn invalid(error: wasmparser::BinaryReaderError) -> TakeError {
    TakeError::Invalid { reason: error.to_string() }
}
