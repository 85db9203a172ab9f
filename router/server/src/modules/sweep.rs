//! Binaries and compiled code that nobody needs any more go: at a start, and whenever a change of the rules may have driven an older version
//! out of their history.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chaski_broker::{Broker, ModulePin, Rules};

use super::life::beside;
use crate::shard::Shard;

/// What was written, brought or asked for within so long stays: somebody may be about to deploy it.
const YOUNG: Duration = Duration::from_secs(3600);

/// Binaries that somebody had to do with, and when.
#[derive(Default)]
pub(crate) struct Wanted(Mutex<HashMap<[u8; 32], Instant>>);

impl Wanted {
    /// These stay for a while. Whoever looks for a binary that is to come into force says so first, so that it is either gone
    /// already or stays.
    pub(crate) fn want(&self, binaries: impl IntoIterator<Item = [u8; 32]>) {
        let now = Instant::now();
        let mut all = self.all();
        all.retain(|_, at| now.duration_since(*at) < YOUNG);
        all.extend(binaries.into_iter().map(|binary| (binary, now)));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 32], Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The binaries that kept versions of the rules name, or that gathers and sagas under way are pinned to.
pub(crate) fn named_binaries(broker: &Broker) -> Vec<[u8; 32]> {
    let history = broker.rules_history().flat_map(|entry| entry.modules.iter());
    let named = history.chain(&broker.rules().modules).filter_map(|pin| pin.binary);
    named.chain(broker.pinned_binaries()).collect()
}

/// After a change of the rules: sweeps, beside everything else, when binaries of these rules may have gone out of history.
pub(crate) fn sweep_later(shard: &Shard) {
    let shard = shard.clone();
    tokio::spawn(async move {
        let Ok(named) = shard.inspect(named_binaries).await else { return };
        let work = move || {
            sweep(&shard, &named);
            Ok(())
        };
        if let Err(refusal) = beside(work).await {
            tracing::warn!(detail = %refusal.detail, "binaries that nobody needs any more stay");
        }
    });
}

/// Removes binaries that are neither named nor young, nor run as a shadow, and the compiled code of all that are not here. Blocks.
pub(crate) fn sweep(shard: &Shard, named: &[[u8; 32]]) {
    let versions = shard.modules().versions();
    let Ok(blobs) = versions.blobs().list() else { return };
    let mut kept: HashSet<[u8; 32]> = named.iter().copied().chain(versions.shadowed()).collect();
    for blob in blobs {
        // Held while it is removed: see [`Wanted::want`].
        let mut wanted = versions.wanted.all();
        wanted.retain(|_, at| at.elapsed() < YOUNG);
        let young = blob.modified.elapsed().map_or(true, |age| age < YOUNG);
        if young || kept.contains(&blob.digest.0) || wanted.contains_key(&blob.digest.0) {
            kept.insert(blob.digest.0);
        } else if let Err(error) = versions.blobs().remove(blob.digest) {
            tracing::warn!(digest = %blob.digest, %error, "a binary that nobody needs any more stays");
        }
    }
    versions.forget_code_except(&kept.into_iter().collect::<Vec<_>>());
}

/// The binaries that come into force with these rules and are not in force now.
pub(crate) fn new_binaries(before: &Rules, after: &[ModulePin]) -> Vec<[u8; 32]> {
    let known = |binary: &[u8; 32]| before.modules.iter().any(|pin| pin.binary.as_ref() == Some(binary));
    after.iter().filter_map(|pin| pin.binary).filter(|binary| !known(binary)).collect()
}
