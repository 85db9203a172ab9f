//! What modules remember: by name a table of keys and values, changed by records only. It knows times and bytes, and neither
//! what a module is nor who calls it; limits are the callers' business.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::broker::Broker;
use crate::effect::Output;
use crate::ids::Millis;
use crate::module_state::ModuleState;
use crate::record::Record;

/// Expired entries that a record lets go at most, beside two for each that it writes.
const EXPIRED_A_RECORD: usize = 1024;

/// One write of a module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StateWrite {
    /// The key.
    pub key: Vec<u8>,
    /// What lies below it from now on; `None`: nothing.
    pub entry: Option<StateEntry>,
}

/// One entry of a module's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// Its value.
    pub value: Bytes,
    /// It is gone once a batch's time is at or past this; milliseconds since 1970. The table lets it go some time later.
    pub expires_ms: Option<u64>,
}

/// An entry, as a snapshot keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct StateRow {
    key: Vec<u8>,
    entry: StateEntry,
}

/// One table with its entries in order of their ends.
#[derive(Debug, Default)]
struct Table {
    state: ModuleState,
    expiries: BTreeSet<(u64, Arc<[u8]>)>,
}

impl Table {
    fn write(&mut self, key: &[u8], entry: Option<StateEntry>) {
        let key: Arc<[u8]> = Arc::from(key);
        let expires_ms = entry.as_ref().and_then(|entry| entry.expires_ms);
        let before = match entry {
            Some(entry) => self.state.put(key.clone(), entry),
            None => self.state.remove(&key),
        };
        if let Some(at) = before.and_then(|before| before.expires_ms) {
            self.expiries.remove(&(at, key.clone()));
        }
        if let Some(at) = expires_ms {
            self.expiries.insert((at, key));
        }
    }

    fn next_expiry(&self) -> Option<Millis> {
        self.expiries.first().map(|(at, _)| Millis(*at))
    }

    /// Lets entries go whose time is over, the oldest first.
    fn expire(&mut self, now: Millis, budget: usize) {
        for _ in 0..budget {
            if self.next_expiry().is_none_or(|at| at > now) {
                return;
            }
            let (_, key) = self.expiries.pop_first().expect("it was just looked at");
            self.state.remove(&key);
        }
    }
}

/// Every module's state, by name; empty ones are none.
#[derive(Debug, Default)]
pub(crate) struct States {
    tables: BTreeMap<String, Table>,
}

impl States {
    /// Writes of a batch at `at`. Each lets some entries go that are over by then, so that what is there depends on the records
    /// alone.
    pub(crate) fn write(&mut self, at: Millis, module: &str, writes: &[StateWrite]) {
        let table = self.tables.entry(module.to_owned()).or_default();
        for write in writes {
            table.write(&write.key, write.entry.clone());
        }
        table.expire(at, EXPIRED_A_RECORD + 2 * writes.len());
        if table.state.is_empty() {
            self.tables.remove(module);
        }
    }

    /// The states as they are now, cheaply.
    pub(crate) fn image(&self) -> StatesImage {
        let states = self.tables.iter().map(|(module, table)| (module.clone(), table.state.clone()));
        StatesImage { states: states.collect(), last: None }
    }

    /// Takes entries back that an image yielded.
    pub(crate) fn restore(&mut self, module: &str, rows: Vec<StateRow>) {
        let table = self.tables.entry(module.to_owned()).or_default();
        for row in rows {
            table.write(&row.key, Some(row.entry));
        }
    }

    pub(crate) fn drop_state(&mut self, module: &str) {
        self.tables.remove(module);
    }

    /// Names that this doesn't keep lose their state.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.tables.retain(|module, _| keep(module));
    }

    pub(crate) fn get(&self, module: &str) -> Option<&ModuleState> {
        self.tables.get(module).map(|table| &table.state)
    }

    /// By name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &ModuleState)> {
        self.tables.iter().map(|(module, table)| (&**module, &table.state))
    }

    pub(crate) fn next_expiry(&self) -> Option<Millis> {
        self.tables.values().filter_map(Table::next_expiry).min()
    }

    /// Modules with an entry whose time is over.
    pub(crate) fn expired(&self, now: Millis) -> impl Iterator<Item = &str> {
        let due =
            self.tables.iter().filter(move |(_, table)| table.next_expiry().is_some_and(|at| at <= now));
        due.map(|(module, _)| &**module)
    }
}

/// Every module's state as it was; yields its rows. Can go to another thread.
pub(crate) struct StatesImage {
    states: VecDeque<(String, ModuleState)>,
    /// The last key of the first that was yielded.
    last: Option<Vec<u8>>,
}

impl StatesImage {
    /// The next rows of one module, about so many bytes of them. None means that there are no more.
    pub(crate) fn next_rows(&mut self, bytes: usize) -> Option<(String, Vec<StateRow>)> {
        loop {
            let (module, state) = self.states.front()?;
            let (mut rows, mut size) = (Vec::new(), 0);
            for (key, entry) in state.iter_after(self.last.as_deref()) {
                if size >= bytes {
                    break;
                }
                size += 16 + key.len() + entry.value.len();
                rows.push(StateRow { key: key.to_vec(), entry: entry.clone() });
            }
            if let Some(last) = rows.last() {
                self.last = Some(last.key.clone());
                return Some((module.clone(), rows));
            }
            self.states.pop_front();
            self.last = None;
        }
    }
}

impl Broker {
    /// What a batch wrote, now that its time is `now`; writes of a module that is gone from the rules are lost with it.
    pub(crate) fn write_state(
        &mut self,
        now: Millis,
        module: String,
        writes: Vec<StateWrite>,
        output: &mut Output,
    ) {
        if !writes.is_empty() && self.rules.names(&module) {
            self.commit(Record::State { at: now, module, writes }, true, output);
        }
    }

    /// Lets entries go whose time is over, some of each module's; whether there are more.
    pub(crate) fn expire_states(&mut self, now: Millis, output: &mut Output) -> bool {
        let due: Vec<String> = self.states.expired(now).map(str::to_owned).collect();
        for module in due {
            self.commit(Record::State { at: now, module, writes: Vec::new() }, true, output);
        }
        self.states.expired(now).next().is_some()
    }

    /// An operator wants these modules to forget.
    pub(crate) fn drop_states(&mut self, modules: &[String], output: &mut Output) {
        for module in modules {
            if self.states.get(module).is_some() {
                self.commit(Record::StateDropped { module: module.clone() }, true, output);
            }
        }
    }

    /// What the module of this name remembers, if anything.
    pub fn module_state(&self, name: &str) -> Option<&ModuleState> {
        self.states.get(name)
    }

    /// Every module that remembers something, by name.
    pub fn modules_with_state(&self) -> impl Iterator<Item = (&str, &ModuleState)> {
        self.states.iter()
    }
}
