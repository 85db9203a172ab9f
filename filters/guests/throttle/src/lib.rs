//! Passes a limited number of messages a second for each key: a token bucket, kept in the module's state.

use std::time::Duration;

use chaski_guest::prelude::*;

#[params]
struct Params {
    /// How many messages a second a key gets, in the long run. With 0 or less only the burst.
    per_second: f64,
    /// How many may come at once.
    burst: u32,
    /// Whether the others are rejected. By default they are dropped.
    #[default(false)]
    reject: bool,
}

/// What a key has left, and when that was counted.
struct Bucket {
    tokens: f64,
    at_ms: u64,
}

impl Bucket {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tokens, at_ms) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            tokens: f64::from_le_bytes(*tokens),
            at_ms: u64::from_le_bytes(*at_ms.first_chunk::<8>()?),
        })
    }

    fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[8..].copy_from_slice(&self.at_ms.to_le_bytes());
        bytes
    }
}

#[filter]
fn throttle(key: Option<&str>, now: u64, state: &State, params: &Params) -> Verdict {
    // A key of a message is at least one byte, and may be longer than one of the state.
    let name = match key {
        Some(key) if key.len() < 200 => ["k", key].concat(),
        Some(key) => ["h", &hash(key).to_string(), &key[..key.floor_char_boundary(200)]].concat(),
        None => "n".into(),
    };
    let burst = f64::from(params.burst);
    let rate = params.per_second.max(0.0) / 1_000.0;
    let bucket = state.get(&name).and_then(|bytes| Bucket::decode(&bytes));
    let mut tokens = bucket
        .map_or(burst, |bucket| (bucket.tokens + now.saturating_sub(bucket.at_ms) as f64 * rate).min(burst));
    let enough = tokens >= 1.0;
    if enough {
        tokens -= 1.0;
        let value = Bucket { tokens, at_ms: now }.encode();
        // Full again by then, and so as good as new.
        let full_in_ms = ((burst - tokens) / rate).ceil();
        if full_in_ms.is_finite() {
            state.put_for(&name, value, Duration::from_millis(full_in_ms as u64));
        } else {
            state.put(&name, value);
        }
    }
    match (enough, params.reject) {
        (true, _) => Verdict::Pass,
        (false, true) => Verdict::reject("throttled"),
        (false, false) => Verdict::Drop,
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(state: &State, key: Option<&str>, now: u64, count: usize) -> usize {
        state.set_now(now);
        let params = Params { per_second: 10.0, burst: 5, reject: false };
        (0..count).filter(|_| throttle(key, now, state, &params) == Verdict::Pass).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let state = State::fake();
        assert_eq!(passed(&state, Some("a"), 0, 8), 5);
        assert_eq!(passed(&state, Some("a"), 99, 8), 0);
        assert_eq!(passed(&state, Some("a"), 300, 8), 3);
        assert_eq!(passed(&state, Some("a"), 60_000, 8), 5);
    }

    #[test]
    fn keys_do_not_share() {
        let state = State::fake();
        let long = "x".repeat(400);
        for key in [Some("a"), Some("b"), None, Some(&*long)] {
            assert_eq!(passed(&state, key, 0, 8), 5);
        }
    }

    #[test]
    fn the_others_can_be_rejected() {
        let params = Params { per_second: 0.0, burst: 0, reject: true };
        assert_eq!(throttle(None, 0, &State::fake(), &params), Verdict::reject("throttled"));
    }
}
