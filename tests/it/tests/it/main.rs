//! End-to-end tests: the real binary as a user meets it, one noun a file.

mod command_line;
mod consume;
mod dead_letters;
mod events;
mod publish;
mod queues;
mod requests;
mod rules;
mod subscribe;

mod dedup;
mod durability;
mod leases;
mod order;
mod overflow;
mod times;
mod transactions;

mod coordination;
mod filters;
mod hostile;
mod module_kinds;
mod modules;
mod smoke;
mod swaps;

mod gathers;
mod sagas;
mod undone;

mod certificates;
mod crashes;
mod data_directory;
mod http;
mod malformed;
mod migration;
mod tokens;

mod documents;
mod programs;

/// The names of an object's fields, sorted.
fn keys(value: &serde_json::Value) -> Vec<String> {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    let mut keys: Vec<String> = object.keys().cloned().collect();
    keys.sort();
    keys
}
