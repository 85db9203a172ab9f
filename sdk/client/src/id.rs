//! Ids and other random numbers. UUIDv7 (RFC 9562) written without an allocation: a message draws one each.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

thread_local! {
    /// SplitMix64, seeded by the operating system once a thread: asking it for each message would cost more than the rest of a
    /// publish. Ids must not collide; nothing relies on their being hard to guess.
    static STATE: Cell<u64> = Cell::new(u64::from(entropy()) << 32 | u64::from(entropy()));
}

/// 32 bits of the operating system's randomness: the last 32 bits of a version 7 UUID are drawn afresh for each.
fn entropy() -> u32 {
    Uuid::now_v7().as_u128() as u32
}

/// A number that nobody else draws: the client instance's.
pub(crate) fn client_id() -> u128 {
    (0..4).fold(0, |id, _| id << 32 | u128::from(entropy()))
}

pub(crate) fn random() -> u64 {
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    // A clock before 1970 is answered as 1970: the router judges times by its own clock.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A UUIDv7 of this moment as its 36 characters.
pub(crate) fn uuid_v7(now_ms: u64) -> [u8; 36] {
    let (a, b) = (random(), random());
    let high = now_ms << 16 | 0x7000 | (a & 0x0fff);
    let low = 0x8000_0000_0000_0000 | (b >> 2);
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    let mut out = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        out[at] = HEX[usize::from(byte >> 4)];
        out[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    out
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_7_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let text = uuid_v7(1_700_000_000_123);
            let text = std::str::from_utf8(&text).expect("hex and hyphens").to_owned();
            let uuid: Uuid = text.parse().expect("a UUID");
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(uuid.as_u128() >> 80, 1_700_000_000_123);
            assert!(seen.insert(text));
        }
    }
}
