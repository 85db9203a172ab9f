//! The state of one module as a batch sees it: the broker's table as it was when the batch began, under what the batch wrote. What
//! was written is handed to the broker with the batch's results, or thrown away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chaski_broker::{ModuleState, StateEntry, StateWrite};
use chaski_modules::{Entry, Table, Write};

/// One module's state under one batch's writes.
pub(crate) struct Overlay {
    table: ModuleState,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    entries: BTreeMap<Vec<u8>, Option<StateEntry>>,
    /// By how many bytes they change the table.
    bytes: i64,
}

impl Overlay {
    pub(crate) fn new(table: ModuleState) -> Arc<Overlay> {
        Arc::new(Overlay { table, written: Mutex::default() })
    }

    /// What the host reads.
    pub(crate) fn table(self: &Arc<Self>) -> Arc<dyn Table> {
        Arc::clone(self) as Arc<dyn Table>
    }

    /// The table without what the batch wrote.
    pub(crate) fn before(&self) -> ModuleState {
        self.table.clone()
    }

    /// What one call wrote.
    pub(crate) fn write(&self, writes: Vec<Write>) {
        let mut written = self.written();
        for Write { key, entry } in writes {
            let entry =
                entry.map(|Entry { value, expires_ms }| StateEntry { value: Bytes::from(value), expires_ms });
            let size = |entry: &StateEntry| (key.len() + entry.value.len()) as i64;
            let before = match written.entries.get(&key) {
                Some(entry) => entry.as_ref().map_or(0, size),
                None => self.table.get(&key).map_or(0, size),
            };
            written.bytes += entry.as_ref().map_or(0, size) - before;
            written.entries.insert(key, entry);
        }
    }

    /// Everything that was written.
    pub(crate) fn writes(&self) -> Vec<StateWrite> {
        let entries = std::mem::take(&mut *self.written()).entries;
        entries.into_iter().map(|(key, entry)| StateWrite { key, entry }).collect()
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        // A write is whole before the next begins, whoever panics.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table for Overlay {
    fn get(&self, key: &[u8]) -> Option<Entry> {
        let entry = match self.written().entries.get(key) {
            Some(entry) => entry.clone(),
            None => self.table.get(key).cloned(),
        };
        entry.map(|StateEntry { value, expires_ms }| Entry { value: value.to_vec(), expires_ms })
    }

    fn bytes(&self) -> u64 {
        self.table.bytes().saturating_add_signed(self.written().bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Write {
        let entry = Entry { value: value.into(), expires_ms: None };
        Write { key: key.into(), entry: Some(entry) }
    }

    #[test]
    fn a_batchs_writes_lie_over_the_table_and_count() {
        let overlay = Overlay::new(ModuleState::default());
        assert_eq!((overlay.get(b"a"), overlay.bytes()), (None, 0));
        overlay.write(vec![put("a", "123"), put("b", "1")]);
        overlay.write(vec![put("a", "1"), Write { key: b"b".to_vec(), entry: None }]);
        assert_eq!(overlay.get(b"a").map(|entry| entry.value), Some(b"1".to_vec()));
        assert_eq!((overlay.get(b"b"), overlay.bytes()), (None, 2));
        let writes = overlay.writes();
        assert_eq!(
            writes.len(),
            2,
            "of several writes of a key the last is kept, a deletion too: {writes:?}"
        );
    }
}
