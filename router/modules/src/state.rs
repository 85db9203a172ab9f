//! A filter's state, as a call sees it: the table as the router has it, under the writes of this batch. It knows keys, values
//! and the batch's time, and must not know where the table lies or how its writes are journaled.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::{STATE_KEY_BYTES, STATE_VALUE_BYTES};

/// The table of one module's name, as it was when the batch was taken: what is written and what earlier calls will write.
pub trait Table: Send + Sync {
    /// The entry below this key, expired or not.
    fn get(&self, key: &[u8]) -> Option<Entry>;
    /// The bytes of all keys and values.
    fn bytes(&self) -> u64;
}

/// One entry of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: Vec<u8>,
    /// It is gone once a batch's time is at or past this, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// One write: an entry, or `None` where the key was deleted. Of several writes of a key the last is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Its key.
    pub key: Vec<u8>,
    /// What lies below it now.
    pub entry: Option<Entry>,
}

/// Why a `put` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PutError {
    BadKey,
    ValueTooLarge,
    Full,
}

/// The state that one batch sees. Writes of a call count once it has ended well; those of a failed one leave no trace.
pub(crate) struct Overlay {
    table: Arc<dyn Table>,
    now_ms: u64,
    limit_bytes: u64,
    bytes: u64,
    done: BTreeMap<Vec<u8>, Option<Entry>>,
    call: BTreeMap<Vec<u8>, Option<Entry>>,
    bytes_before_call: u64,
}

impl Overlay {
    pub(crate) fn new(table: Arc<dyn Table>, now_ms: u64, limit_bytes: u64) -> Overlay {
        let bytes = table.bytes();
        let (done, call) = (BTreeMap::new(), BTreeMap::new());
        Overlay { table, now_ms, limit_bytes, bytes, done, call, bytes_before_call: bytes }
    }

    /// The value below this key: this call's own writes, then those of the batch's calls before, then the table.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let entry = self.entry(key)?;
        match entry.expires_ms {
            Some(at) if self.now_ms >= at => None,
            _ => Some(entry.value),
        }
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), PutError> {
        if key.is_empty() || key.len() > STATE_KEY_BYTES {
            return Err(PutError::BadKey);
        }
        if value.len() > STATE_VALUE_BYTES {
            return Err(PutError::ValueTooLarge);
        }
        let added = (key.len() + value.len()) as u64;
        let bytes = self.bytes.saturating_sub(self.size(&key)) + added;
        if bytes > self.limit_bytes {
            return Err(PutError::Full);
        }
        self.bytes = bytes;
        let expires_ms = ttl_ms.map(|ttl| self.now_ms.saturating_add(ttl));
        self.call.insert(key, Some(Entry { value, expires_ms }));
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.bytes = self.bytes.saturating_sub(self.size(&key));
        self.call.insert(key, None);
    }

    /// The call ended well: its writes count from here on.
    pub(crate) fn keep(&mut self) {
        self.done.append(&mut self.call);
        self.bytes_before_call = self.bytes;
    }

    /// The call failed: it wrote nothing.
    pub(crate) fn discard(&mut self) {
        self.call.clear();
        self.bytes = self.bytes_before_call;
    }

    /// All writes that count, by key.
    pub(crate) fn into_writes(self) -> Vec<Write> {
        self.done.into_iter().map(|(key, entry)| Write { key, entry }).collect()
    }

    fn entry(&self, key: &[u8]) -> Option<Entry> {
        match self.call.get(key).or_else(|| self.done.get(key)) {
            Some(written) => written.clone(),
            None => self.table.get(key),
        }
    }

    fn size(&self, key: &[u8]) -> u64 {
        self.entry(key).map_or(0, |entry| (key.len() + entry.value.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<(&'static [u8], Entry)>);

    impl Table for Fixed {
        fn get(&self, key: &[u8]) -> Option<Entry> {
            self.0.iter().find(|(name, _)| *name == key).map(|(_, entry)| entry.clone())
        }
        fn bytes(&self) -> u64 {
            self.0.iter().map(|(key, entry)| (key.len() + entry.value.len()) as u64).sum()
        }
    }

    fn overlay(now_ms: u64) -> Overlay {
        let entry = |value: &[u8], expires_ms| Entry { value: value.to_vec(), expires_ms };
        let table = Fixed(vec![(b"a", entry(b"1", None)), (b"b", entry(b"2", Some(100)))]);
        Overlay::new(Arc::new(table), now_ms, 100)
    }

    #[test]
    fn reads_see_this_calls_writes_then_the_batchs_then_the_table() {
        let mut state = overlay(50);
        assert_eq!(state.get(b"a"), Some(b"1".to_vec()));
        state.put(b"a".to_vec(), b"x".to_vec(), None).unwrap();
        state.keep();
        state.put(b"a".to_vec(), b"y".to_vec(), None).unwrap();
        assert_eq!(state.get(b"a"), Some(b"y".to_vec()));
        state.discard();
        assert_eq!(state.get(b"a"), Some(b"x".to_vec()));
        state.delete(b"a".to_vec());
        assert_eq!(state.get(b"a"), None);
        state.keep();
        assert_eq!(state.into_writes(), [Write { key: b"a".to_vec(), entry: None }]);
    }

    #[test]
    fn entries_expire_by_the_batchs_time() {
        assert_eq!(overlay(99).get(b"b"), Some(b"2".to_vec()));
        assert_eq!(overlay(100).get(b"b"), None);
        let mut state = overlay(50);
        state.put(b"c".to_vec(), b"3".to_vec(), Some(0)).unwrap();
        assert_eq!(state.get(b"c"), None);
        state.put(b"c".to_vec(), b"3".to_vec(), Some(1)).unwrap();
        assert_eq!(state.get(b"c"), Some(b"3".to_vec()));
    }

    #[test]
    fn keys_values_and_the_table_are_bounded() {
        let mut state = overlay(0);
        let mut put = |key: usize, value: usize| state.put(vec![1; key], vec![0; value], None);
        assert_eq!(put(0, 1), Err(PutError::BadKey));
        assert_eq!(put(257, 1), Err(PutError::BadKey));
        assert_eq!(put(1, STATE_VALUE_BYTES + 1), Err(PutError::ValueTooLarge));
        assert_eq!(put(1, 96), Err(PutError::Full));
        assert_eq!(put(1, 95), Ok(()));
        // A key's own old value makes room for its new one.
        assert_eq!(put(1, 94), Ok(()));
        assert_eq!(put(2, 0), Err(PutError::Full));
        state.discard();
        assert_eq!(state.put(vec![1], vec![0; 95], None), Ok(()));
        state.delete(b"a".to_vec());
        assert_eq!(state.put(vec![2], vec![0; 1], None), Ok(()));
    }
}
