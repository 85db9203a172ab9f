//! The host of modules, and the only crate that names wasmtime: it takes binaries, compiles them in a process of their own,
//! pools and limits instances, and calls them: filters with batches, aggregators and compensators with one event. It must not know what a session, a queue or a rules document is.
//!
//! A binary becomes a version that judges in five steps, each of which can refuse it:
//!
//! ```no_run
//! use chaski_modules::{Compiler, Context, Host, Limits, Message, Options, Param, TrustedKeys};
//!
//! # fn example<M: Message>(bytes: &[u8], params: &[Param], messages: &[M]) -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::new(Options {
//!     compiler: Compiler::Child { program: std::env::current_exe()?, args: vec!["compile-module".into()] },
//!     cache: Some("data/code".into()),
//!     keys: TrustedKeys::default(),
//!     limits: Default::default(),
//! })?;
//! let binary = host.take(bytes, None)?;
//! let compiled = host.compile(&binary)?;
//! let description = host.describe(&compiled, &Limits::default())?;
//! let filter = host.filter("eu-only", &compiled, &description, params, Limits::default())?;
//!
//! let mut rest = messages;
//! while !rest.is_empty() {
//!     let judged = filter.judge(rest, &Context { now_ms: 1_700_000_000_000, state: None })?;
//!     rest = &rest[judged.outcomes.len()..];
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A binary of the world `aggregator` or `compensator` takes the same way, and becomes an [`Aggregator`] or a
//! [`Compensator`].

// The kit of the tests names this crate from outside.
#[cfg(test)]
extern crate self as chaski_modules;

mod limits;

mod digest;
mod signature;

mod binary;
mod world;

mod cache;
mod child;
mod code;
mod compile;
mod engine;

mod bindings;
mod field;
mod params;

mod answer;
mod columns;
mod compensation;
mod gathering;
mod request;
mod verdict;

mod clock;
mod failure;
mod guest;
mod state;
mod ticker;

mod instance;
mod meter;
mod slots;
mod version;

mod aggregator;
mod compensator;
mod filter;
mod search;

mod host;

pub use aggregator::Aggregator;
pub use answer::Lie;
pub use binary::{Binary, TakeError};
pub use cache::CacheError;
pub use child::compile_child;
pub use clock::Spent;
pub use columns::Message;
pub use compensation::{Course, History, Plan, SagaCause, SagaStep, StepState, Undo};
pub use compensator::Compensator;
pub use compile::{CompileError, Compiler};
pub use digest::{Digest, DigestError};
pub use failure::{Cause, Failure};
pub use field::Field;
pub use filter::{Context, Filter, Judged};
pub use gathering::{Folded, GatherEnd, GatherEvent, Response};
pub use guest::{Level, Line};
pub use host::{Compiled, ConfigureError, Host, HostError, Options};
pub use instance::Description;
pub use limits::*;
pub use meter::Metrics;
pub use params::{Kind, Param, ParamError, ParamSpec, Value};
pub use request::Request;
pub use signature::{SignatureError, TrustedKeys};
pub use state::{Entry, Table, Write};
pub use verdict::{Changes, Child, HeaderChange, Verdict};
pub use version::{Answered, Busy, VersionId};
pub use world::{CONTRACT, World, WorldError};
