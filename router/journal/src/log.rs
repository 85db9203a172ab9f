//! The end of the log: writes batches, syncs, goes from one segment to the next. Synchronous and single-threaded; who calls
//! it, and when, is not decided here.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::core::Core;
use crate::format::{Footer, INDEX_BYTES, INDEX_RECORDS, SEGMENT_HEADER, SegmentHeader, footer_bytes};
use crate::journal::{Failure, Position, Progress};
use crate::names;
use crate::segment::Segment;
use crate::storage::no_room;

/// A batch of more than this needs no blocks zeroed ahead: its fdatasync is dominated by its bytes.
const SMALL_BATCH: usize = 64 << 10;

/// Why a batch wasn't written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No segment can be allocated; nothing has changed, try again when there is room.
    NoRoom,
    /// Fatal.
    Failed(Failure),
}

/// The segment being written and the numbers that come next.
pub(crate) struct Log {
    core: Arc<Core>,
    active: Arc<Segment>,
    header: SegmentHeader,
    /// Where the next batch goes.
    offset: u64,
    next_batch: u64,
    next_position: u64,
    now_ms: u64,
    synced_batch: u64,
    /// The highest `synced` in a header that was written.
    told_synced: u64,
    records: u64,
    unsynced_bytes: u64,
    dirty: bool,
    /// Batches written whose appender waits for the sync.
    awaiting: usize,
    /// Blocks of the segment up to here were written before.
    zeroed_to: u64,
}

/// Where a log goes on.
pub(crate) struct Head {
    pub(crate) active: Arc<Segment>,
    pub(crate) header: SegmentHeader,
    pub(crate) offset: u64,
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    pub(crate) now_ms: u64,
    pub(crate) records: u64,
    pub(crate) recycled: bool,
}

impl Log {
    /// Everything before is durable.
    pub(crate) fn new(core: Arc<Core>, head: Head) -> Log {
        let zeroed_to = if head.recycled { head.active.capacity } else { head.offset };
        Log {
            core,
            active: head.active,
            header: head.header,
            offset: head.offset,
            next_batch: head.next_batch,
            next_position: head.next_position,
            now_ms: head.now_ms,
            synced_batch: head.next_batch - 1,
            told_synced: head.next_batch - 1,
            records: head.records,
            unsynced_bytes: 0,
            dirty: false,
            awaiting: 0,
            zeroed_to,
        }
    }

    /// Writes all that wait, and syncs once if any of them asks for it. What could not be written for want of room is left.
    pub(crate) fn write_all(&mut self, waiting: &mut VecDeque<(Batch, bool)>) -> Result<(), WriteError> {
        let mut unasked = 0;
        let mut outcome = Ok(());
        while let Some((batch, sync)) = waiting.front_mut() {
            outcome = self.write(batch);
            match outcome {
                Err(WriteError::Failed(_)) => return outcome,
                Err(WriteError::NoRoom) => break,
                Ok(()) if *sync => self.awaiting += 1,
                Ok(()) => unasked += 1,
            }
            waiting.pop_front();
        }
        if unasked > 0 {
            self.core.in_flight.fetch_sub(unasked, Ordering::AcqRel);
            self.core.tell(Progress::Written { through: Position(self.next_position - 1) });
        }
        if self.awaiting > 0 {
            self.sync()?;
        }
        outcome
    }

    /// Writes a batch behind the others.
    fn write(&mut self, batch: &mut Batch) -> Result<(), WriteError> {
        let bytes = batch.bytes() as u64;
        if self.needed(batch) > self.active.capacity {
            self.next_segment(batch)?;
        }
        let first = Position(self.next_position);
        let file = Arc::clone(&self.active.file);
        let written = batch.seal(self.header.salt, self.next_batch, self.synced_batch, first);
        let outcome = file.write_at(self.offset, written);
        outcome.map_err(|error| self.failed("write", &error))?;
        let last = self.next_position + batch.len() as u64 - 1;
        self.active.with(|state| {
            for (position, offset) in batch.offsets(first) {
                state.index.note(position, self.offset + offset);
            }
            state.last_position = last;
            state.end = self.offset + bytes;
        });
        self.core.update(|status| {
            status.written = Position(last);
            status.written_batch = self.next_batch;
            status.appended_bytes += bytes;
            status.batches += 1;
        });
        self.offset += bytes;
        self.told_synced = self.synced_batch;
        self.records += batch.len() as u64;
        self.next_batch += 1;
        self.next_position = last + 1;
        self.now_ms = self.now_ms.max(batch.now_ms());
        self.unsynced_bytes += bytes;
        self.dirty = true;
        Ok(())
    }

    /// Everything written is durable when this returns; told.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        if !self.dirty {
            return Ok(());
        }
        let fsync = self.sync_file()?;
        self.synced_batch = self.next_batch - 1;
        self.dirty = false;
        let bytes = std::mem::take(&mut self.unsynced_bytes);
        let through = Position(self.next_position - 1);
        self.core.update(|status| {
            status.synced = through;
            status.synced_batch = self.synced_batch;
            status.syncs += 1;
            status.want_sync = false;
        });
        self.core.in_flight.fetch_sub(std::mem::take(&mut self.awaiting), Ordering::AcqRel);
        self.core.tell(Progress::Synced { through, bytes, fsync });
        Ok(())
    }

    /// Whether [`Log::idle`] has something to do.
    pub(crate) fn is_restless(&self) -> bool {
        self.dirty || self.told_synced < self.synced_batch
    }

    /// The log has gone quiet: syncs what is left and writes the empty batch that says so.
    pub(crate) fn idle(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        if self.told_synced < self.synced_batch {
            let mut mark = Batch::new(self.now_ms);
            if self.needed(&mark) <= self.active.capacity {
                self.write(&mut mark)?;
            }
            self.told_synced = self.synced_batch;
            // The mark waits for nobody: the next sync takes it along.
            self.dirty = false;
        }
        Ok(())
    }

    /// Fills a little of the fresh segment ahead, if small batches are near the end of what is filled. Called when nobody
    /// waits; the next sync takes it along.
    pub(crate) fn zero_ahead(&mut self, last_batch_bytes: usize) -> Result<(), WriteError> {
        let ahead = self.core.options.zero_ahead_bytes;
        let near = self.offset.saturating_add(2 * SMALL_BATCH as u64);
        if ahead == 0 || last_batch_bytes > SMALL_BATCH || near < self.zeroed_to {
            return Ok(());
        }
        let from = self.zeroed_to.max(self.offset);
        let to = (from + ahead).min(self.active.capacity);
        if from < to {
            let zeros = vec![0; (to - from) as usize];
            let outcome = self.active.file.write_at(from, &zeros);
            outcome.map_err(|error| self.failed("write", &error))?;
        }
        self.zeroed_to = to;
        Ok(())
    }

    /// Writes the footer, cuts the file behind it and makes both durable. Nothing may be written after it.
    pub(crate) fn close(&mut self) -> Result<(), WriteError> {
        self.seal()?;
        // What was allocated is given back; a file that stays longer does no harm.
        let _ = self.active.file.truncate(self.active.info().bytes);
        Ok(())
    }

    /// Where this batch and a footer behind it would end.
    fn needed(&self, batch: &Batch) -> u64 {
        let bytes = batch.bytes() as u64;
        let entries = self.active.with(|state| state.index.entries.len()) + most_entries(batch);
        self.offset + bytes + footer_bytes(entries)
    }

    fn sync_file(&self) -> Result<Duration, WriteError> {
        let begun = Instant::now();
        self.active.file.sync().map_err(|error| self.failed("sync", &error))?;
        Ok(begun.elapsed())
    }

    /// Syncs all batches, then writes and syncs the footer, which says so.
    fn seal(&mut self) -> Result<(), WriteError> {
        self.sync()?;
        // An idle mark may be unsynced still.
        if self.synced_batch < self.next_batch - 1 {
            self.sync_file()?;
            self.synced_batch = self.next_batch - 1;
        }
        let entries = self.active.with(|state| state.index.entries.clone());
        let footer = Footer {
            salt: self.header.salt,
            first_position: self.header.first_position,
            last_position: self.next_position - 1,
            first_batch: self.header.first_batch,
            last_batch: self.next_batch - 1,
            now_ms: self.now_ms,
            records: self.records,
            offset: self.offset,
            entries,
        };
        let bytes = footer.encode();
        let outcome = self.active.file.write_at(self.offset, &bytes);
        outcome.map_err(|error| self.failed("write", &error))?;
        self.sync_file()?;
        self.active.with(|state| {
            state.footer = bytes.len() as u64;
            state.sealed = true;
            // It stays for as long as the segment.
            state.index.entries.shrink_to_fit();
        });
        Ok(())
    }

    /// Seals this segment and begins the next with room for this batch.
    fn next_segment(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let core = Arc::clone(&self.core);
        let least = SEGMENT_HEADER as u64 + batch.bytes() as u64 + footer_bytes(most_entries(batch));
        let wanted = least.max(core.options.segment_bytes);
        let spare = core.spares.take(&*core.storage, wanted).map_err(|error| match no_room(&error) {
            true => WriteError::NoRoom,
            false => self.failed("allocate the segment after", &error),
        })?;
        self.seal()?;
        let header = SegmentHeader {
            number: self.header.number + 1,
            salt: core.storage.random(),
            first_position: self.next_position,
            first_batch: self.next_batch,
            previous: self.header.number,
            previous_batch: self.next_batch - 1,
            previous_sealed: true,
            synced: self.next_batch - 1,
        };
        let begin = || {
            spare.file.write_at(0, &header.encode())?;
            spare.file.sync()?;
            core.storage.rename(&spare.name, &names::segment(header.number))?;
            core.storage.sync_dir()
        };
        begin().map_err(|error| self.failed("begin the segment after", &error))?;
        self.active = Arc::new(Segment::fresh(&header, spare.bytes, spare.file));
        core.table.add(Arc::clone(&self.active));
        self.header = header;
        self.offset = SEGMENT_HEADER as u64;
        self.records = 0;
        self.told_synced = self.synced_batch;
        self.zeroed_to = if spare.recycled { spare.bytes } else { self.offset };
        core.spares.ask();
        Ok(())
    }

    fn failed(&self, what: &str, error: &io::Error) -> WriteError {
        let what = format!("{what} segment {}", self.header.number);
        WriteError::Failed(Failure::Io { what, error: error.to_string() })
    }
}

/// How many index entries a batch can add.
fn most_entries(batch: &Batch) -> usize {
    batch.bytes() / INDEX_BYTES as usize + batch.len() / INDEX_RECORDS as usize + 1
}
