//! What the author of a chaski module depends on: attributes that make a module of an ordinary function, and the types
//! that such a function takes and answers.
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
//! The function stays callable as it is, so it is tested natively like any other; exports and imports exist on
//! `wasm32-unknown-unknown` only. Nothing here opens files or sockets, reads clocks or draws random numbers: a module has none
//! of them. `sdk/MODULES.md` tells the life of a module.

pub mod prelude;

mod headers;
mod log;
mod message;
mod params;
mod state;
mod verdict;

pub mod testing;

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod runtime;

pub use bindings::filter::chaski::module::log::Level;
pub use chaski_guest_macros::{filter, params};
pub use headers::Headers;
pub use message::Message;
pub use params::{FromParam, ParamKind, ParamValue};
pub use state::{State, StateError};
pub use verdict::Verdict;
