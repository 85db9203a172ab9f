//! A filter's durable key-value table: the router's on wasm, a map natively.

use std::{fmt, time::Duration};

use crate::bindings::filter::chaski::module::state::Refusal;

/// The filter's durable table. A filter that takes `state: &State` runs after the dedup check, one call at a time, and what
/// it writes is journaled with the messages that caused it. The table goes with the module's name; versions share it.
#[derive(Debug)]
pub struct State {
    #[cfg(not(target_family = "wasm"))]
    fake: std::cell::RefCell<fake::Table>,
}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// The key is empty or longer than 256 bytes.
    BadKey,
    /// The value is longer than 64 KiB.
    ValueTooLarge,
    /// The module's table would exceed 64 MiB.
    Full,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadKey => "the state's key is empty or longer than 256 bytes",
            Self::ValueTooLarge => "the state's value is longer than 64 KiB",
            Self::Full => "the module's state would exceed 64 MiB",
        })
    }
}

impl std::error::Error for StateError {}

impl From<Refusal> for StateError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::BadKey => Self::BadKey,
            Refusal::ValueTooLarge => Self::ValueTooLarge,
            Refusal::Full => Self::Full,
        }
    }
}

impl State {
    /// The value below `key`, unless there is none or its time has passed.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.read(key.as_ref())
    }

    /// Stores a value that stays until it is deleted.
    ///
    /// # Panics
    /// If the router refuses it; the message then takes the module's `on_error`. [`State::try_put`] answers instead.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.try_put(key, value, None).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stores a value that is gone once `ttl` has passed.
    ///
    /// # Panics
    /// As [`State::put`].
    pub fn put_for(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl: Duration) {
        self.try_put(key, value, Some(ttl)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Stores a value, with or without a time to live.
    pub fn try_put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Option<Duration>,
    ) -> Result<(), StateError> {
        self.write(key.as_ref(), value.as_ref(), ttl.map(|ttl| ttl.as_millis() as u64))
    }

    /// Removes `key`, if it is there.
    pub fn delete(&self, key: impl AsRef<[u8]>) {
        self.remove(key.as_ref());
    }
}

#[cfg(target_family = "wasm")]
impl State {
    pub(crate) const ROUTER: State = State {};

    fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
        crate::bindings::filter::chaski::module::state::get(key)
    }

    fn write(&self, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> Result<(), StateError> {
        Ok(crate::bindings::filter::chaski::module::state::put(key, value, ttl_ms)?)
    }

    fn remove(&self, key: &[u8]) {
        crate::bindings::filter::chaski::module::state::delete(key);
    }
}

#[cfg(not(target_family = "wasm"))]
mod fake {
    //! The map that stands in for the router's table natively, with the same limits on keys and values.

    use std::collections::BTreeMap;

    use super::{Refusal, State, StateError};

    #[derive(Debug, Default)]
    pub(super) struct Table {
        now_ms: u64,
        entries: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>,
    }

    impl State {
        /// An empty table for a test; its time is 0 until [`State::set_now`].
        pub fn fake() -> Self {
            State { fake: Default::default() }
        }

        /// Moves the fake's time, in milliseconds since 1970; what has expired by then can't be read any more.
        pub fn set_now(&self, now_ms: u64) {
            self.fake.borrow_mut().now_ms = now_ms;
        }

        pub(super) fn read(&self, key: &[u8]) -> Option<Vec<u8>> {
            let table = self.fake.borrow();
            let (value, expires) = table.entries.get(key)?;
            expires.is_none_or(|at| table.now_ms < at).then(|| value.clone())
        }

        pub(super) fn write(&self, key: &[u8], value: &[u8], ttl_ms: Option<u64>) -> Result<(), StateError> {
            if key.is_empty() || key.len() > 256 {
                return Err(Refusal::BadKey.into());
            }
            if value.len() > 64 * 1024 {
                return Err(Refusal::ValueTooLarge.into());
            }
            let mut table = self.fake.borrow_mut();
            let expires = ttl_ms.map(|ttl| table.now_ms.saturating_add(ttl));
            table.entries.insert(key.to_vec(), (value.to_vec(), expires));
            Ok(())
        }

        pub(super) fn remove(&self, key: &[u8]) {
            self.fake.borrow_mut().entries.remove(key);
        }
    }
}
