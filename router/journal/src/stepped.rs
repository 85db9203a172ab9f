//! The same journal without threads, for simulators and crash tests: what the threads would do happens in
//! [`SteppedJournal::step`], on the caller's thread and in a fixed order.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::Batch;
use crate::blobs::{Blobs, LocalBlobs};
use crate::core::Core;
use crate::journal::{Journal, Position, Room, RoomInfo, SegmentInfo, Stats};
use crate::log::{Log, WriteError};
use crate::reader::{LocalReads, Reader};
use crate::snapshot::{LocalSnapshot, SnapshotWriter};
use crate::spares;

/// What a step does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes and syncs what was appended.
    Write,
    /// The log has gone quiet.
    Quiet,
    /// Trimmed segments, spares, free space.
    Keep,
    /// Reads what readers asked for.
    Read,
}

/// A journal that does nothing by itself.
pub struct SteppedJournal {
    core: Arc<Core>,
    log: Log,
    waiting: VecDeque<(Batch, bool)>,
    reads: LocalReads,
    next_position: u64,
    room: Option<Room>,
}

impl SteppedJournal {
    pub(crate) fn new(core: Arc<Core>, log: Log) -> SteppedJournal {
        let reads = LocalReads::new(core.options.waiting_reads);
        let next_position = core.status().written.0 + 1;
        SteppedJournal { core, log, waiting: VecDeque::new(), reads, next_position, room: None }
    }

    /// Does one thing; its outcome is told as progress. False when it could not be done for want of room.
    pub fn step(&mut self, step: Step) -> bool {
        if self.core.status().failure.is_some() {
            return true;
        }
        let outcome = match step {
            Step::Write => self.log.write_all(&mut self.waiting),
            Step::Quiet => self.log.idle(),
            Step::Keep => {
                self.room = Some(spares::look(&self.core, self.room));
                Ok(())
            }
            Step::Read => {
                self.reads.run_here(&self.core);
                Ok(())
            }
        };
        match outcome {
            Ok(()) => true,
            Err(WriteError::NoRoom) => false,
            Err(WriteError::Failed(failure)) => {
                self.waiting.clear();
                self.core.in_flight.store(0, Ordering::Release);
                self.core.fail(failure);
                true
            }
        }
    }
}

impl Journal for SteppedJournal {
    fn next_position(&self) -> Position {
        Position(self.next_position)
    }

    fn append(&mut self, batch: Batch, sync: bool) {
        batch.check_first(Position(self.next_position));
        if self.core.status().failure.is_some() {
            return;
        }
        self.next_position += batch.len() as u64;
        self.core.in_flight.fetch_add(1, Ordering::AcqRel);
        self.waiting.push_back((batch, sync));
    }

    fn in_flight(&self) -> usize {
        self.core.in_flight.load(Ordering::Acquire)
    }

    fn reader(&self) -> Reader {
        Reader::new(self.reads.clone())
    }

    fn blobs(&self) -> Blobs {
        LocalBlobs::handle(&self.core)
    }

    fn room(&self) -> RoomInfo {
        self.core.room()
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        self.core.segments()
    }

    fn trim(&mut self, positions: RangeInclusive<Position>) {
        spares::trim(&self.core, *positions.start(), *positions.end());
    }

    fn trimmable_before(&self) -> Option<Position> {
        self.core.trimmable_before()
    }

    fn begin_snapshot(&mut self, at: Position, now_ms: u64) -> SnapshotWriter {
        LocalSnapshot::begin(&self.core, at, now_ms)
    }

    fn snapshot_due(&self) -> bool {
        self.core.snapshot_due()
    }

    fn stats(&self) -> Stats {
        self.core.stats()
    }

    fn close(mut self: Box<Self>) {
        self.step(Step::Write);
        if self.core.status().failure.is_none()
            && let Err(WriteError::Failed(failure)) = self.log.close()
        {
            self.core.fail(failure);
        }
    }
}

impl Drop for SteppedJournal {
    fn drop(&mut self) {
        self.core.update(|status| status.ended = true);
    }
}
