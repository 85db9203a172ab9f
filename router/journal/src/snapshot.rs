//! Writing a snapshot beside the running log, on a thread of the caller's: under a temporary name, synced, renamed once the
//! records that it covers are durable. A failure here never ends the log.

use std::io;
use std::sync::Arc;

use crate::core::Core;
use crate::journal::{Position, SnapshotError, SnapshotInfo};
use crate::names;
use crate::snapshot_file::{MAX_CHUNK, SnapshotHeader, chunk_header, trailer};
use crate::storage::{StorageFile, no_room};

/// Written at once.
const WRITE_BYTES: usize = 256 << 10;

/// Synced at once: one large sync at the end would hold up those of the log.
const SYNC_BYTES: u64 = 4 << 20;

/// Snapshots kept.
const KEPT: usize = 2;

/// A snapshot under construction; dropped unfinished, it leaves nothing.
pub struct SnapshotWriter {
    core: Arc<Core>,
    position: Position,
    begun_at: u64,
    name: String,
    file: io::Result<Arc<dyn StorageFile>>,
    buffer: Vec<u8>,
    offset: u64,
    unsynced: u64,
    chunks: u64,
    bytes: u64,
    finished: bool,
}

impl SnapshotWriter {
    pub(crate) fn begin(core: &Arc<Core>, position: Position, now_ms: u64) -> SnapshotWriter {
        let mut status = core.status();
        let header = SnapshotHeader {
            position: position.0,
            batch: status.written_batch,
            now_ms,
            synced: status.synced_batch,
        };
        let begun_at = status.appended_bytes;
        status.snapshots.tried_at = begun_at;
        drop(status);
        SnapshotWriter {
            core: Arc::clone(core),
            position,
            begun_at,
            name: names::snapshot(position.0),
            // The file is made on the caller's thread.
            file: Err(io::ErrorKind::NotFound.into()),
            buffer: header.encode().to_vec(),
            offset: 0,
            unsynced: 0,
            chunks: 0,
            bytes: 0,
            finished: false,
        }
    }

    /// The last position in it.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Adds a chunk, of any size below a gigabyte.
    pub fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.len() > MAX_CHUNK {
            return Err(SnapshotError::Io(io::Error::other("a chunk of a gigabyte or more")));
        }
        self.buffer.extend_from_slice(&chunk_header(self.chunks, chunk));
        self.buffer.extend_from_slice(chunk);
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        if self.buffer.len() >= WRITE_BYTES {
            self.flush().map_err(sort)?;
        }
        Ok(())
    }

    /// Makes it valid: blocks until the records that it covers are durable too.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        let trailer = trailer(self.chunks, self.bytes);
        self.buffer.extend_from_slice(&trailer);
        self.flush().map_err(sort)?;
        self.sync().map_err(sort)?;
        if !self.core.wait_synced(self.position) {
            return Err(SnapshotError::Ended);
        }
        let storage = &*self.core.storage;
        storage.rename(&names::unfinished(&self.name), &self.name).map_err(sort)?;
        self.finished = true;
        storage.sync_dir().map_err(sort)?;
        let (position, bytes) = (self.position, self.offset);
        let mut old = Vec::new();
        self.core.update(|status| {
            let snapshots = &mut status.snapshots;
            snapshots.kept.retain(|(kept, _)| *kept != position);
            snapshots.kept.push((position, bytes));
            snapshots.bytes_before = 0;
            snapshots.begun_at = self.begun_at;
            snapshots.tried_at = self.begun_at;
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

    fn flush(&mut self) -> io::Result<()> {
        if self.offset == 0 && self.file.is_err() {
            self.file = self.core.storage.create(&names::unfinished(&self.name));
        }
        let Ok(file) = &self.file else {
            let kind = self.file.as_ref().err().map_or(io::ErrorKind::Other, io::Error::kind);
            return Err(kind.into());
        };
        file.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len() as u64;
        self.buffer.clear();
        if self.unsynced >= SYNC_BYTES {
            file.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        match &self.file {
            Ok(file) => file.sync(),
            Err(error) => Err(error.kind().into()),
        }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished && self.file.is_ok() {
            // What stays is removed at the next start.
            let _ = self.core.storage.remove(&names::unfinished(&self.name));
        }
    }
}

fn sort(error: io::Error) -> SnapshotError {
    if no_room(&error) { SnapshotError::NoRoom(error) } else { SnapshotError::Io(error) }
}
