//! All that most modules need: `use chaski_guest::prelude::*;`.

pub use crate::{Headers, Level, Message, State, Verdict, filter, log, params};
