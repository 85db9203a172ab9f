//! How many instances live at once, over all modules: when the pool is full, the one that has been idle longest goes. It
//! counts slots, and must not know what fills them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quanta::Instant;

/// Something that keeps idle instances.
pub(crate) trait Idle: Send + Sync {
    /// Since when its longest idle instance has been idle.
    fn oldest(&self) -> Option<Instant>;
    /// Drops its longest idle instance. `false` when there is none any more.
    fn drop_oldest(&self) -> bool;
}

/// The slots of one pool.
pub(crate) struct Slots {
    most: u32,
    live: AtomicU32,
    keepers: Mutex<Vec<Weak<dyn Idle>>>,
}

/// One slot, free again when it is dropped.
pub(crate) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Slots {
    pub(crate) fn new(most: u32) -> Arc<Slots> {
        Arc::new(Slots { most, live: AtomicU32::new(0), keepers: Mutex::default() })
    }

    /// The slots that are taken.
    pub(crate) fn live(&self) -> u32 {
        self.live.load(Ordering::Acquire)
    }

    /// From here on this keeper's idle instances may be taken away.
    pub(crate) fn register(&self, keeper: Weak<dyn Idle>) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(keeper);
    }

    /// A slot, if need be that of the longest idle instance. `None` when all are in use.
    pub(crate) fn take(self: &Arc<Slots>) -> Option<Slot> {
        loop {
            let add = |live| (live < self.most).then_some(live + 1);
            if self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok() {
                return Some(Slot(Arc::clone(self)));
            }
            if !self.drop_oldest() {
                return None;
            }
        }
    }

    fn drop_oldest(&self) -> bool {
        let keepers: Vec<_> = {
            let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
            keepers.iter().filter_map(Weak::upgrade).collect()
        };
        let oldest =
            keepers.iter().filter_map(|keeper| Some((keeper.oldest()?, keeper))).min_by_key(|(at, _)| *at);
        // Another thread may have taken it meanwhile; then there is one less to look at, and the caller looks again.
        oldest.is_some_and(|(_, keeper)| keeper.drop_oldest() || self.live() < self.most)
    }
}
