//! Keyed hashes of what clients name. The key is the shard's own and journaled with its first start, so that hashes stay
//! valid across restarts and nobody outside can make two ids collide.

use std::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher128};

/// The shard's hash key.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HashKey(pub(crate) u64, pub(crate) u64);

/// Names a message, by topic and id, in the dedup window: made by [`Bindings::message_hash`](crate::Bindings::message_hash).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MessageHash(pub(crate) u128);

impl HashKey {
    /// Names (topic, id) in the dedup window.
    pub(crate) fn message(self, topic: &[u8], id: &[u8]) -> u128 {
        self.pair(0, topic, id)
    }

    /// Names a transaction in the dedup window: never equal to a message.
    pub(crate) fn transaction(self, id: &[u8]) -> u128 {
        self.pair(1, b"", id)
    }

    /// Names the reply to (reply topic, request id).
    pub(crate) fn reply(self, reply_to: &[u8], request: &[u8]) -> u128 {
        self.pair(2, reply_to, request)
    }

    /// Names a saga by (definition, id).
    pub(crate) fn saga(self, name: &[u8], id: &[u8]) -> u128 {
        self.pair(3, name, id)
    }

    /// Finds a message by its id alone.
    pub(crate) fn id(self, id: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write(id);
        hasher.finish()
    }

    fn pair(self, kind: u64, first: &[u8], second: &[u8]) -> u128 {
        // The kind and the first part's length go into the key and the tail: no two different pairs feed the same bytes.
        let mut hasher = SipHasher128::new_with_keys(self.0 ^ kind, self.1);
        hasher.write(first);
        hasher.write(second);
        hasher.write_u32(first.len() as u32);
        hasher.finish128().as_u128()
    }
}

impl BuildHasher for HashKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// For keys that are hashes already, or numbers that the server draws: one multiplication.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Plain;

impl BuildHasher for Plain {
    type Hasher = PlainHasher;

    fn build_hasher(&self) -> PlainHasher {
        PlainHasher(0)
    }
}

/// See [`Plain`].
#[derive(Copy, Clone, Debug)]
pub(crate) struct PlainHasher(u64);

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(26) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64 ^ (number >> 64) as u64);
    }
}
