//! All that most modules need: `use chaski_guest::prelude::*;`.

pub use crate::{Aggregator, End, Failed, Flow, Reply, Response, aggregator};
pub use crate::{Cause, Compensator, Course, History, Plan, Step, StepState, Undo, compensator};
pub use crate::{Headers, Level, Message, Request, State, Verdict, filter, log, params};
