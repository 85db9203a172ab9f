//! Drops messages whose body was seen within a time: what a producer without stable ids needs.

use std::time::Duration;

use chaski_guest::prelude::*;
use sha2::{Digest, Sha256};

#[params]
struct Params {
    /// For how long a body is remembered, from its first sight.
    #[default(300)]
    seconds: u32,
    /// Whether the same body under another key is another message.
    #[default(false)]
    per_key: bool,
}

#[filter]
fn dedup_by_content(key: Option<&str>, payload: &[u8], state: &State, params: &Params) -> Verdict {
    let mut digest = Sha256::new();
    if let (true, Some(key)) = (params.per_key, key) {
        digest.update((key.len() as u64).to_le_bytes());
        digest.update(key);
    }
    digest.update(payload);
    let digest = digest.finalize();
    if state.get(digest).is_some() {
        return Verdict::Drop;
    }
    state.put_for(digest, [], Duration::from_secs(params.seconds.into()));
    Verdict::Pass
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_passes_once_within_the_time() {
        let (state, params) = (State::fake(), Params { seconds: 10, per_key: false });
        assert_eq!(dedup_by_content(None, b"a", &state, &params), Verdict::Pass);
        assert_eq!(dedup_by_content(Some("k"), b"a", &state, &params), Verdict::Drop);
        assert_eq!(dedup_by_content(None, b"b", &state, &params), Verdict::Pass);
        state.set_now(10_000);
        assert_eq!(dedup_by_content(None, b"a", &state, &params), Verdict::Pass);
    }

    #[test]
    fn keys_can_count_apart() {
        let (state, params) = (State::fake(), Params { seconds: 10, per_key: true });
        assert_eq!(dedup_by_content(Some("x"), b"a", &state, &params), Verdict::Pass);
        assert_eq!(dedup_by_content(Some("y"), b"a", &state, &params), Verdict::Pass);
        assert_eq!(dedup_by_content(Some("y"), b"a", &state, &params), Verdict::Drop);
    }
}
