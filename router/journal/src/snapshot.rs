//! Writing a snapshot beside the running log, on a thread of the caller's: under a temporary name, synced, renamed once the
//! records that it covers are durable. A full disk here never ends the log; a disk that fails does.

use std::io;
use std::sync::Arc;

use crate::core::Core;
use crate::journal::{Failure, Position, SnapshotError, SnapshotInfo};
use crate::names;
use crate::snapshot_file::{MAX_CHUNK, SnapshotHeader, chunk_header, trailer};
use crate::storage::{StorageFile, no_room};

/// Written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Synced at once: one large sync at the end would hold up those of the log.
const SYNC_BYTES: u64 = 4 << 20;

/// Snapshots kept.
const KEPT: usize = 2;

/// Where a journal puts a snapshot; implemented by whoever implements [`crate::Journal`].
pub trait SnapshotSink: Send {
    /// The last position in it.
    fn position(&self) -> Position;

    /// Adds a chunk, of any size below a gigabyte.
    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError>;

    /// Makes it valid: blocks until the records that it covers are durable too. Dropped without this, it leaves nothing.
    fn finish(self: Box<Self>) -> Result<SnapshotInfo, SnapshotError>;
}

/// A snapshot under construction; dropped unfinished, it leaves nothing.
pub struct SnapshotWriter(Box<dyn SnapshotSink>);

impl std::fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotWriter").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl SnapshotWriter {
    /// Writes there.
    pub fn new(sink: impl SnapshotSink + 'static) -> SnapshotWriter {
        SnapshotWriter(Box::new(sink))
    }

    /// The last position in it.
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Adds a chunk, of any size below a gigabyte. They are read back one by one, so a chunk is what memory must hold at
    /// once; a few hundred KiB is a good size.
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.0.write_chunk(chunk)
    }

    /// Makes it valid: blocks until the records that it covers are durable too, so never call it on the thread that
    /// appends them.
    pub fn finish(self) -> Result<SnapshotInfo, SnapshotError> {
        self.0.finish()
    }
}

/// A snapshot in the data directory.
pub(crate) struct LocalSnapshot {
    core: Arc<Core>,
    position: Position,
    begun_at: u64,
    name: String,
    /// Made with the first bytes, on the caller's thread.
    file: Option<Arc<dyn StorageFile>>,
    buffer: Vec<u8>,
    offset: u64,
    unsynced: u64,
    chunks: u64,
    bytes: u64,
    /// It has its name, or its name and fate are unknown.
    finished: bool,
}

impl LocalSnapshot {
    pub(crate) fn begin(core: &Arc<Core>, position: Position, now_ms: u64) -> SnapshotWriter {
        let mut status = core.status();
        if let Some((newest, _)) = status.snapshots.kept.last() {
            assert!(
                position >= *newest,
                "a snapshot at {position} behind the one at {newest}: what lies between them may be trimmed already"
            );
        }
        let header = SnapshotHeader {
            position: position.0,
            batch: status.written_batch,
            now_ms,
            synced: status.synced_batch,
        };
        let begun_at = status.appended_bytes;
        status.snapshots.tried_at = Some(begun_at);
        drop(status);
        SnapshotWriter::new(LocalSnapshot {
            core: Arc::clone(core),
            position,
            begun_at,
            name: names::snapshot(position.0),
            file: None,
            buffer: header.encode().to_vec(),
            offset: 0,
            unsynced: 0,
            chunks: 0,
            bytes: 0,
            finished: false,
        })
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let made = self.core.storage.create(&names::unfinished(&self.name)).map_err(sort)?;
                Arc::clone(self.file.insert(made))
            }
        };
        file.write_at(self.offset, &self.buffer).map_err(|error| self.failed("write", error))?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES {
            self.sync(&*file)?;
        }
        Ok(())
    }

    fn sync(&mut self, file: &dyn StorageFile) -> Result<(), SnapshotError> {
        file.sync().map_err(|error| self.failed("sync", error))?;
        self.unsynced = 0;
        Ok(())
    }

    /// A disk that can't be written or synced can't be trusted with the log either. No room is not a failure: the file goes.
    fn failed(&self, what: &str, error: io::Error) -> SnapshotError {
        if no_room(&error) {
            return SnapshotError::NoRoom(error);
        }
        let what = format!("{what} the snapshot at {}", self.position);
        self.core.fail(Failure::Io { what, error: error.to_string() });
        SnapshotError::Io(error)
    }
}

impl SnapshotSink for LocalSnapshot {
    fn position(&self) -> Position {
        self.position
    }

    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.len() > MAX_CHUNK {
            return Err(SnapshotError::Io(io::Error::other("a chunk of a gigabyte or more")));
        }
        self.buffer.extend_from_slice(&chunk_header(self.chunks, chunk));
        self.buffer.extend_from_slice(chunk);
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<SnapshotInfo, SnapshotError> {
        let trailer = trailer(self.chunks, self.bytes);
        self.buffer.extend_from_slice(&trailer);
        self.flush()?;
        let file = self.file.clone().expect("just written");
        self.sync(&*file)?;
        if !self.core.wait_synced(self.position) {
            return Err(SnapshotError::Ended);
        }
        let storage = Arc::clone(&self.core.storage);
        storage.rename(&names::unfinished(&self.name), &self.name).map_err(sort)?;
        self.finished = true;
        if let Err(error) = storage.sync_dir() {
            let what = format!("sync the directory with the snapshot at {}", self.position);
            self.core.fail(Failure::Io { what, error: error.to_string() });
            return Err(SnapshotError::Io(error));
        }
        let (position, bytes) = (self.position, self.offset);
        let mut old = Vec::new();
        self.core.update(|status| {
            let snapshots = &mut status.snapshots;
            snapshots.kept.retain(|(kept, _)| *kept != position);
            snapshots.kept.push((position, bytes));
            snapshots.bytes_before = 0;
            snapshots.begun_at = self.begun_at;
            snapshots.tried_at = None;
            while snapshots.kept.len() > KEPT {
                old.push(snapshots.kept.remove(0).0);
            }
        });
        for position in old {
            // If it stays, the next start removes it.
            let _ = storage.remove(&names::snapshot(position.0));
        }
        Ok(SnapshotInfo { position, bytes, chunks: self.chunks })
    }
}

impl Drop for LocalSnapshot {
    fn drop(&mut self) {
        if !self.finished && self.file.is_some() {
            // What stays is removed at the next start.
            let _ = self.core.storage.remove(&names::unfinished(&self.name));
        }
    }
}

/// An error of something that is neither a write nor an fsync: the snapshot is given up, the log goes on.
fn sort(error: io::Error) -> SnapshotError {
    if no_room(&error) { SnapshotError::NoRoom(error) } else { SnapshotError::Io(error) }
}
