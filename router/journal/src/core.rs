//! What the parts of a running journal share: the storage, the segments, how far the log is, and whom to tell.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::blobs::BlobError;
use crate::journal::{Failure, Options, Position, Progress, RoomInfo, SegmentInfo, Stats};
use crate::segment::Table;
use crate::spares::Spares;
use crate::storage::{Storage, StorageLock};

/// How far the log is.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) written: Position,
    pub(crate) written_batch: u64,
    pub(crate) synced: Position,
    pub(crate) synced_batch: u64,
    pub(crate) appended_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) syncs: u64,
    /// A snapshot waits for its records.
    pub(crate) want_sync: bool,
    pub(crate) ended: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) snapshots: Snapshots,
}

/// The kept snapshots.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    /// Position and bytes of each, oldest first.
    pub(crate) kept: Vec<(Position, u64)>,
    /// Bytes of log behind the newest when this process started.
    pub(crate) bytes_before: u64,
    /// `appended_bytes` when the newest was begun …
    pub(crate) begun_at: u64,
    /// … and when one was begun after it that is not finished.
    pub(crate) tried_at: Option<u64>,
}

pub(crate) struct Core {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) table: Table,
    pub(crate) spares: Spares,
    /// Batches appended and not yet done with.
    pub(crate) in_flight: AtomicUsize,
    status: Mutex<Status>,
    /// `synced`, `failure` or `ended` changed.
    moved: Condvar,
    /// Wakes the log's writer when a snapshot wants a sync, or another thread has failed.
    wake: Mutex<Option<Box<dyn Fn() + Send>>>,
    progress: Box<dyn Fn(Progress) + Send + Sync>,
    /// Held by who writes or removes a blob.
    blobs: Mutex<()>,
    _lock: Box<dyn StorageLock>,
}

impl Core {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        spares: Spares,
        status: Status,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
        lock: Box<dyn StorageLock>,
    ) -> Core {
        Core {
            storage,
            options,
            table: Table::default(),
            spares,
            in_flight: AtomicUsize::new(0),
            status: Mutex::new(status),
            moved: Condvar::new(),
            wake: Mutex::new(None),
            progress,
            blobs: Mutex::new(()),
            _lock: lock,
        }
    }

    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().expect("nothing panics with the status")
    }

    pub(crate) fn tell(&self, progress: Progress) {
        (self.progress)(progress);
    }

    /// Changes the status and wakes who waits for it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status());
        self.moved.notify_all();
    }

    /// Ends the log, whichever thread saw the disk fail: told once.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut first = false;
        self.update(|status| {
            first = status.failure.is_none();
            status.failure.get_or_insert_with(|| failure.clone());
        });
        if first {
            self.tell(Progress::Failed(failure));
            self.wake_writer();
        }
    }

    /// Whose turn it is to write or remove a blob, while the log goes on.
    pub(crate) fn blob_turn(&self) -> Result<MutexGuard<'_, ()>, BlobError> {
        let turn = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let status = self.status();
        if status.ended || status.failure.is_some() { Err(BlobError::Ended) } else { Ok(turn) }
    }

    fn wake_writer(&self) {
        if let Some(wake) = &*self.wake.lock().expect("nothing panics with the waker") {
            wake();
        }
    }

    pub(crate) fn on_wake(&self, wake: Box<dyn Fn() + Send>) {
        *self.wake.lock().expect("nothing panics with the waker") = Some(wake);
    }

    /// Blocks until the record at `position` is durable; false when the journal ended before.
    pub(crate) fn wait_synced(&self, position: Position) -> bool {
        let mut status = self.status();
        while status.synced < position {
            if status.failure.is_some() || status.ended {
                return false;
            }
            if !status.want_sync {
                status.want_sync = true;
                drop(status);
                self.wake_writer();
                status = self.status();
                continue;
            }
            // Asked again after a while, since the records may be appended only after the first sync.
            let waited = self.moved.wait_timeout(status, Duration::from_millis(20));
            let (guard, timeout) = waited.expect("nothing panics with the status");
            status = guard;
            if timeout.timed_out() {
                status.want_sync = false;
            }
        }
        true
    }

    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        self.table.all().iter().map(|segment| segment.info()).collect()
    }

    pub(crate) fn room(&self) -> RoomInfo {
        let active = self.table.last();
        let left = active.map_or(0, |segment| segment.capacity.saturating_sub(segment.info().bytes));
        let mut info = self.spares.room();
        info.allocated_bytes += left;
        info
    }

    pub(crate) fn stats(&self) -> Stats {
        let segments = self.segments();
        let status = self.status();
        Stats {
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments: segments.len() as u64,
            appended_bytes: status.appended_bytes,
            batches: status.batches,
            syncs: status.syncs,
            last_snapshot_bytes: status.snapshots.kept.last().map_or(0, |(_, bytes)| *bytes),
            bytes_since_snapshot: status.grown(),
        }
    }

    pub(crate) fn snapshot_due(&self) -> bool {
        let status = self.status();
        let last = status.snapshots.kept.last().map_or(0, |(_, bytes)| *bytes);
        let threshold = self.options.snapshot_min_bytes.max(2 * last);
        // A snapshot that failed is tried again after a quarter of the way, not at once.
        let tried = status.snapshots.tried_at;
        let again = tried.is_none_or(|tried| status.appended_bytes - tried >= threshold / 4);
        status.grown() >= threshold && again
    }

    pub(crate) fn trimmable_before(&self) -> Option<Position> {
        let status = self.status();
        let kept = &status.snapshots.kept;
        (kept.len() >= 2).then(|| kept[kept.len() - 2].0)
    }
}

impl Status {
    fn grown(&self) -> u64 {
        self.snapshots.bytes_before + self.appended_bytes - self.snapshots.begun_at
    }
}
