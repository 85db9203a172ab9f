//! One module's state: keys and values in order of the keys. It lies in pages behind `Arc`s, so that a clone is one pointer and
//! a later change copies the page that it touches. It knows no time: who reads an entry looks whether it is over.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::states::StateEntry;

/// Entries in one page at most.
const PAGE_ENTRIES: usize = 128;

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
        self.iter_after(None)
    }

    /// The entries behind this key, be it there or not, in order of the keys; without one, all.
    pub fn iter_after(&self, after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &StateEntry)> {
        let first = self.page(after.unwrap_or_default()).0.clone();
        let behind = after.map_or(Bound::Unbounded, |key| Bound::Excluded(Arc::from(key)));
        let pages = self.pages.range(first..);
        let rows = pages.flat_map(move |(_, page)| page.range((behind.clone(), Bound::Unbounded)));
        rows.map(|(key, entry)| (&**key, entry))
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
        let mut pages = self.pages.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        pages.next_back().expect("there is a page of the empty key")
    }

    pub(crate) fn put(&mut self, key: Arc<[u8]>, entry: StateEntry) -> Option<StateEntry> {
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

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<StateEntry> {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(value: &str) -> StateEntry {
        StateEntry { value: Bytes::copy_from_slice(value.as_bytes()), expires_ms: None }
    }

    /// Against a plain map: thousands of puts and removals in an order that fills, splits and empties pages.
    #[test]
    fn it_does_what_a_plain_map_does() {
        let (mut state, mut plain) = (ModuleState::default(), BTreeMap::new());
        let (mut number, mut clones) = (7_u64, Vec::new());
        for step in 0..6_000 {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (number >> 52).to_string().into_bytes();
            let grows = !(2_500..=4_500).contains(&step);
            if grows || number & 1024 == 0 {
                let value = entry(&"x".repeat((number >> 20) as usize % 9));
                assert_eq!(state.put(Arc::from(&*key), value.clone()), plain.insert(key.clone(), value));
            } else {
                assert_eq!(state.remove(&key), plain.remove(&key));
            }
            assert_eq!(state.get(&key), plain.get(&key));
            if step % 1_000 == 0 {
                clones.push((state.clone(), plain.clone()));
            }
        }
        clones.push((state, plain));
        for (state, plain) in clones {
            let rows: Vec<(&[u8], &StateEntry)> = plain.iter().map(|(key, entry)| (&**key, entry)).collect();
            assert_eq!(state.iter().collect::<Vec<_>>(), rows);
            assert_eq!((state.len(), state.is_empty()), (plain.len(), plain.is_empty()));
            assert_eq!(
                state.bytes(),
                plain.iter().map(|(key, it)| (key.len() + it.value.len()) as u64).sum()
            );
            for after in ["", "1", "2500", "4", "nothing"] {
                let later = rows.iter().filter(|(key, _)| *key > after.as_bytes()).copied();
                let found: Vec<_> = state.iter_after(Some(after.as_bytes())).collect();
                assert_eq!(found, later.collect::<Vec<_>>(), "after {after}");
            }
        }
    }
}
