//! One test for each rule of SEMANTICS and each row of DESIGN section 3 that concerns the state machine, named for it.

#[path = "../harness/mod.rs"]
mod harness;

mod boundaries;
mod dead_letters;
mod dedup;
mod delivery;
mod disk;
mod durability;
mod filters;
mod gather_durability;
mod gather_recipients;
mod gathers;
mod judging;
mod limits;
mod ordering;
mod recovery;
mod redrive;
mod requests;
mod routing;
mod rules_changes;
mod saga_attempts;
mod saga_compensators;
mod saga_durability;
mod saga_undo;
mod sagas;
mod states;
mod stillborn;
mod time;
mod transactions;
