//! What the author of a chaski module depends on: attributes that make a module of an ordinary function or `impl`, and the types
//! that it takes and answers. A filter is a function:
//!
//! ```
//! use chaski_guest::prelude::*;
//!
//! #[params]
//! struct Params {
//!     region: String,
//! }
//!
//! #[filter]
//! fn eu_only(#[header("region")] region: Option<&str>, params: &Params) -> Verdict {
//!     if region == Some(&*params.region) { Verdict::Pass } else { Verdict::Drop }
//! }
//!
//! assert_eq!(eu_only(Some("eu"), &Params { region: "eu".into() }), Verdict::Pass);
//! ```
//!
//! An [`Aggregator`] and a [`Compensator`] are an `impl` of that trait, with the attribute of that name.
//!
//! What the attributes stand on stays callable as it is, so it is tested natively like any other; exports and imports exist on
//! `wasm32-unknown-unknown` only. Nothing here opens files or sockets, reads clocks or draws random numbers: a module has none
//! of them. `sdk/MODULES.md` tells the life of a module.

pub mod prelude;

mod params;

mod headers;
mod message;
mod state;
mod verdict;

#[cfg(feature = "serde_json")]
mod json;
mod request;

mod aggregator;
mod compensator;
mod history;

mod log;

pub mod testing;

/// The examples of the page on modules are this crate's tests too.
#[cfg(doctest)]
#[doc = include_str!("../../MODULES.md")]
mod page {}

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod runtime;

#[doc(hidden)]
pub use aggregator::Aggregating;
pub use aggregator::{Aggregator, End, Failed, Flow, Reply, Response, StateBytes};
pub use bindings::filter::chaski::module::log::Level;
pub use chaski_guest_macros::{aggregator, compensator, filter, params};
pub use compensator::{Compensator, Course, Plan, Undo};
pub use headers::Headers;
pub use history::{Cause, History, Step, StepState};
#[cfg(feature = "serde_json")]
pub use json::{JsonArray, json_text};
pub use message::Message;
pub use params::{FromParam, ParamKind, ParamValue};
pub use request::Request;
pub use state::{State, StateError};
pub use verdict::Verdict;
