//! The harness of the end-to-end tests: the real binary, started, killed and asked. It knows what a user knows (INTERFACES:
//! commands, exit codes, the wire), and nothing of the router's inside.
//!
//! The tests are in `tests/it/`, one binary, one noun a file.

mod build;
mod cli;
mod raw;
mod router;

pub use build::binary;
pub use cli::{Output, Running, run};
pub use raw::{Raw, Stream};
pub use router::{Router, Setup};

use std::path::PathBuf;
use std::time::Duration;

/// Far longer than anything here takes on a busy machine: a test that waits for what never comes ends with a name.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Awaits, and panics with `what` when it does not come.
pub async fn within<T>(what: &str, future: impl IntoFuture<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not come within {PATIENCE:?}"),
    }
}

/// Asks again until the answer is there; each question is a round trip of its own, so nothing spins.
#[track_caller]
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come true within {PATIENCE:?}");
    }
}

/// The README's Rust compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;
