//! The state machine: commands in, records and effects out. It knows no clock, thread, file, socket or wasm, and never
//! iterates a hash map where order reaches an output, so a replay of its records yields the same state.

mod ids;

mod command;
mod config;
mod effect;
mod filtered;
mod judging;
mod message;
mod record;
mod saga_settings;
mod scatter_settings;
mod targets;
mod views;

mod broker;

mod attempts;
mod begins;
mod coordinating;
mod gather_facts;
mod gathering;
mod outcomes;
mod owners;
mod replies;
mod steering;
mod viewing;

mod apply;
mod dead;
mod deliver;
mod expire;
mod letters;
mod operate;
mod publish;
mod redrive;
mod requests;
mod resume;
mod room;
mod rules;
mod settle;
mod snapshot;
mod states;
mod stats;
mod steering_image;
mod stillborn;
mod transactions;

mod consumers;
mod gather;
mod gathers;
mod keys;
mod messages;
mod queue;
mod queues;
mod saga;
mod saga_table;
mod sagas;
mod subscriptions;

mod backoff;
mod bindings;
mod codec;
mod dedup;
mod hash;
mod lane;
mod live;
mod module_state;
mod pages;
mod pins;
mod timers;
mod trie;

pub use apply::ApplyError;
pub use bindings::Bindings;
pub use broker::{Broker, ReplayError};
pub use codec::{Kept, Payload, RecordError, body_of};
pub use command::*;
pub use config::*;
pub use dead::Alarm;
pub use effect::*;
pub use filtered::{Filtered, Outgoing, Stillborn, Way};
pub use gather::{GatherFact, Outcome};
pub use hash::MessageHash;
pub use ids::*;
pub use judging::JudgeError;
pub use message::*;
pub use module_state::ModuleState;
pub use queue::Totals;
pub use record::{Move, Moves, Raw, Record, Removal};
pub use rules::{FILE_AUTHOR, RulesEntry};
pub use saga::{Answer, End, SagaFact};
pub use saga_settings::*;
pub use scatter_settings::*;
pub use snapshot::{Restore, RestoreError, Snapshot};
pub use states::{StateEntry, StateWrite};
pub use stats::{Browsed, BrowsedState, QueueStats};
pub use targets::Targets;
pub use trie::Trie;
pub use views::*;
