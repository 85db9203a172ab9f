//! What modules remember: by name a table of keys and values, changed by records only. It knows times and bytes, and neither
//! what a module is nor who calls it; limits are the callers' business.
//!
//! A table lies in pages behind `Arc`s, so that a clone is one pointer and a later change copies the page that it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::broker::Broker;
use crate::ids::Millis;

/// Entries in one page at most.
const PAGE_ENTRIES: usize = 128;
/// Expired entries that a record of no writes lets go, and by which one of some lets go more than twice as many as it brings.
pub(crate) const EXPIRED_A_RECORD: usize = 256;

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

/// The state of one module. Cloning costs one pointer; a clone stays as it is.
#[derive(Clone, Debug)]
pub struct ModuleState {
    /// By the least key that may lie in the page; there is always one of the empty key.
    pages: Arc<BTreeMap<Arc<[u8]>, Arc<Page>>>,
    len: usize,
    bytes: u64,
}

type Page = BTreeMap<Arc<[u8]>, StateEntry>;

impl Default for ModuleState {
    fn default() -> ModuleState {
        let first: Arc<[u8]> = Arc::from([]);
        ModuleState { pages: Arc::new(BTreeMap::from([(first, Arc::default())])), len: 0, bytes: 0 }
    }
}

impl ModuleState {
    /// The entry below this key, expired or not.
    pub fn get(&self, key: &[u8]) -> Option<&StateEntry> {
        self.page(key).1.get(key)
    }

    /// Every entry, expired ones included, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &StateEntry)> {
        self.pages.values().flat_map(|page| page.iter()).map(|(key, entry)| (&**key, entry))
    }

    /// The entries behind this key, whether or not it is there, in order of the keys.
    pub fn iter_after<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a StateEntry)> {
        let behind = (Bound::Excluded(key), Bound::Unbounded);
        let (first, page) = self.page(key);
        let pages = self.pages.range::<[u8], _>((Bound::Excluded(&**first), Bound::Unbounded));
        let later = pages.flat_map(|(_, page)| page.iter());
        page.range::<[u8], _>(behind).chain(later).map(|(key, entry)| (&**key, entry))
    }

    /// How many entries there are, expired ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn page(&self, key: &[u8]) -> (&Arc<[u8]>, &Arc<Page>) {
        let pages = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        pages.last().expect("there is a page of the empty key")
    }

    fn put(&mut self, key: Arc<[u8]>, entry: StateEntry) -> Option<StateEntry> {
        let first = self.page(&key).0.clone();
        self.bytes += (key.len() + entry.value.len()) as u64;
        let (key_len, pages) = (key.len(), Arc::make_mut(&mut self.pages));
        let page = Arc::make_mut(pages.get_mut(&first).expect("it was just found"));
        let before = page.insert(key, entry);
        match &before {
            Some(before) => self.bytes -= (key_len + before.value.len()) as u64,
            None => self.len += 1,
        }
        if page.len() > PAGE_ENTRIES {
            let middle = page.keys().nth(PAGE_ENTRIES / 2).expect("it has more than that").clone();
            let upper = page.split_off(&middle);
            pages.insert(middle, Arc::new(upper));
        }
        before
    }

    fn remove(&mut self, key: &[u8]) -> Option<StateEntry> {
        let first = self.page(key).0.clone();
        // Nothing is copied for a key that isn't there.
        self.pages[&first].get(key)?;
        let pages = Arc::make_mut(&mut self.pages);
        let page = Arc::make_mut(pages.get_mut(&first).expect("it was just found"));
        let before = page.remove(key)?;
        if page.is_empty() && !first.is_empty() {
            pages.remove(&first);
        }
        self.len -= 1;
        self.bytes -= (key.len() + before.value.len()) as u64;
        Some(before)
    }
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

    /// Takes an entry back that a snapshot kept.
    pub(crate) fn restore(&mut self, module: &str, key: &[u8], entry: StateEntry) {
        self.tables.entry(module.to_owned()).or_default().write(key, Some(entry));
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

impl Broker {
    /// What the module of this name remembers, if anything.
    pub fn module_state(&self, name: &str) -> Option<&ModuleState> {
        self.states.get(name)
    }

    /// Every module that remembers something, by name.
    pub fn modules_with_state(&self) -> impl Iterator<Item = (&str, &ModuleState)> {
        self.states.iter()
    }
}
