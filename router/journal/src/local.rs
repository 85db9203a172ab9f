//! The journal on its threads: one writes and syncs, one keeps spares and looks at the disk, a few read. The owner's calls
//! only hand things over.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::batch::Batch;
use crate::blobs::{Blobs, LocalBlobs};
use crate::core::Core;
use crate::journal::{Failure, Journal, Position, RoomInfo, SegmentInfo, Stats};
use crate::log::{Log, WriteError};
use crate::reader::{LocalReads, Reader};
use crate::snapshot::{LocalSnapshot, SnapshotWriter};
use crate::spares;

#[derive(Default)]
struct Queue {
    batches: VecDeque<(Batch, bool)>,
    /// Somebody wants the writer to look at the status.
    woken: bool,
    stop: bool,
    /// The writer has failed: nothing is taken any more.
    failed: bool,
}

#[derive(Default)]
struct Handover {
    queue: Mutex<Queue>,
    filled: Condvar,
}

impl Handover {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics with the queue of batches")
    }
}

/// A journal in a data directory of this machine.
pub struct LocalJournal {
    core: Arc<Core>,
    handover: Arc<Handover>,
    reads: LocalReads,
    next_position: u64,
    threads: Vec<JoinHandle<()>>,
}

impl LocalJournal {
    pub(crate) fn new(core: Arc<Core>, log: Log) -> io::Result<LocalJournal> {
        let handover = Arc::new(Handover::default());
        let reads = LocalReads::new(core.options.waiting_reads);
        let next_position = core.status().written.0 + 1;
        let mut threads = reads.start(&core, core.options.reader_threads)?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(run)
        };
        let shared = Arc::clone(&core);
        // The first look is over before the owner takes anything, so that a full disk is known from the start.
        let room = spares::look(&core, None);
        threads.push(spawn("chaski-spares", Box::new(move || spares::keep(&shared, room)))?);
        let (shared, queue) = (Arc::clone(&core), Arc::clone(&handover));
        threads.push(spawn("chaski-journal", Box::new(move || run(&shared, &queue, log)))?);
        let queue = Arc::clone(&handover);
        core.on_wake(Box::new(move || {
            queue.lock().woken = true;
            queue.filled.notify_one();
        }));
        Ok(LocalJournal { core, handover, reads, next_position, threads })
    }

    fn end(&mut self) {
        self.handover.lock().stop = true;
        self.handover.filled.notify_one();
        // The writer first: it may still need a spare.
        if let Some(writer) = self.threads.pop() {
            join(writer);
        }
        self.core.spares.stop();
        self.reads.close();
        self.threads.drain(..).for_each(join);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // A panic there has been printed; there is nothing to add to it here.
        let _ = thread.join();
    }
}

impl Journal for LocalJournal {
    fn next_position(&self) -> Position {
        Position(self.next_position)
    }

    fn append(&mut self, batch: Batch, sync: bool) {
        batch.check_first(Position(self.next_position));
        let mut queue = self.handover.lock();
        if queue.failed {
            return;
        }
        self.next_position += batch.len() as u64;
        self.core.in_flight.fetch_add(1, Ordering::AcqRel);
        queue.batches.push_back((batch, sync));
        drop(queue);
        self.handover.filled.notify_one();
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
        self.end();
    }
}

impl Drop for LocalJournal {
    fn drop(&mut self) {
        self.end();
    }
}

/// The writer's loop.
fn run(core: &Core, handover: &Handover, mut log: Log) {
    let outcome = catch_unwind(AssertUnwindSafe(|| write(core, handover, &mut log)));
    // Without its thread the log would only stand still, and nobody would know.
    let outcome = outcome.unwrap_or_else(|_| {
        Err(Failure::Io { what: "write the log".to_owned(), error: "its thread panicked".to_owned() })
    });
    if let Err(failure) = outcome {
        let mut queue = handover.lock();
        queue.failed = true;
        queue.batches.clear();
        drop(queue);
        core.in_flight.store(0, Ordering::Release);
        core.fail(failure);
    }
    core.update(|status| status.ended = true);
}

fn write(core: &Core, handover: &Handover, log: &mut Log) -> Result<(), Failure> {
    let mut waiting = VecDeque::new();
    loop {
        let (quiet, stop) = wait(core, handover, log, &mut waiting);
        // The keeper or a snapshot may have seen the disk fail.
        if let Some(failure) = core.status().failure.clone() {
            return Err(failure);
        }
        let bytes = waiting.back().map_or(usize::MAX, |(batch, _)| batch.bytes());
        let outcome = match quiet {
            true => log.idle(),
            false => log.write_all(&mut waiting),
        };
        match outcome {
            Ok(()) => {}
            Err(WriteError::Failed(failure)) => return Err(failure),
            Err(WriteError::NoRoom) if stop => {
                let what = "allocate a segment for what was pending at the end".to_owned();
                return Err(Failure::Io { what, error: "no space is left".to_owned() });
            }
            Err(WriteError::NoRoom) => {
                core.spares.ask();
                core.spares.wait(core.options.look_at_disk);
                continue;
            }
        }
        let mut rest = || {
            if core.status().want_sync {
                log.sync()?;
            }
            if stop {
                return log.close();
            }
            if handover.lock().batches.is_empty() { log.zero_ahead(bytes) } else { Ok(()) }
        };
        match rest() {
            Err(WriteError::Failed(failure)) => return Err(failure),
            _ if stop => return Ok(()),
            _ => {}
        }
    }
}

/// Waits for something to do. Answers whether the log has gone quiet, and whether this is the end.
fn wait(core: &Core, handover: &Handover, log: &Log, waiting: &mut VecDeque<(Batch, bool)>) -> (bool, bool) {
    let mut queue = handover.lock();
    let mut quiet = false;
    while queue.batches.is_empty() && waiting.is_empty() && !queue.stop && !queue.woken && !quiet {
        if log.is_restless() {
            let waited = handover.filled.wait_timeout(queue, core.options.quiet);
            let (guard, timeout) = waited.expect("nothing panics with the queue of batches");
            queue = guard;
            quiet = timeout.timed_out() && queue.batches.is_empty();
        } else {
            queue = handover.filled.wait(queue).expect("nothing panics with the queue of batches");
        }
    }
    queue.woken = false;
    waiting.append(&mut queue.batches);
    (quiet && waiting.is_empty(), queue.stop)
}
