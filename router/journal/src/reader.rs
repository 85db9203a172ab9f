//! Reads records back by position on threads of their own: a backlog that is larger than memory comes from here. It reads
//! neighbours at once and verifies every record that it hands out.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::core::Core;
use crate::format::{IndexEntry, RECORD_HEADER, record_at};
use crate::journal::Position;
use crate::names;
use crate::scan::find_record;
use crate::segment::Segment;

/// Ranges closer than this are read at once, up to so many bytes.
const JOIN_GAP: u64 = 64 << 10;
const JOIN_BYTES: u64 = 4 << 20;

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It was trimmed, or is not written yet.
    #[error("record {0} is not in the journal")]
    Gone(Position),
    /// It was damaged, and an operator has given it up.
    #[error("record {0} was lost to damage and given up by a repair")]
    Lost(Position),
    /// Its bytes on disk are not what was written.
    #[error(
        "record {position} is damaged on disk (segment {segment}); stop the router and run `chaski repair`"
    )]
    Corrupt {
        /// The record.
        position: Position,
        /// Its segment.
        segment: u64,
    },
    /// The operating system failed.
    #[error("cannot read segment {segment} ({file}): {error}")]
    Io {
        /// The segment.
        segment: u64,
        /// Its file.
        file: String,
        /// What the operating system said.
        error: String,
    },
    /// Too many reads wait already.
    #[error("too many reads are waiting; try again")]
    Busy,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// What a read yields: one answer for each position, in the order asked.
pub type Answers = Vec<(Position, Result<Bytes, ReadError>)>;

struct Job {
    positions: Vec<Position>,
    done: Box<dyn FnOnce(Answers) + Send>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    limit: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics with the queue of reads")
    }
}

/// Finds records; implemented by whoever implements [`crate::Journal`].
pub trait Fetch: Send + Sync {
    /// Calls `done` with one answer for each position, in the order asked. Never blocks the caller.
    fn fetch(&self, positions: Vec<Position>, done: Box<dyn FnOnce(Answers) + Send>);
}

/// A handle for reading; cheap to clone.
#[derive(Clone)]
pub struct Reader(Arc<dyn Fetch>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads there.
    pub fn new(fetch: impl Fetch + 'static) -> Reader {
        Reader(Arc::new(fetch))
    }

    /// Reads records and calls `done` on a reader thread with one answer for each position, in the order asked. When too
    /// many reads wait, or the journal is closed, `done` is called here, at once, with errors.
    pub fn read(&self, positions: Vec<Position>, done: impl FnOnce(Answers) + Send + 'static) {
        self.0.fetch(positions, Box::new(done));
    }
}

/// Reads of the data directory, done on threads.
#[derive(Clone)]
pub(crate) struct LocalReads(Arc<Shared>);

impl Fetch for LocalReads {
    fn fetch(&self, positions: Vec<Position>, done: Box<dyn FnOnce(Answers) + Send>) {
        let error = {
            let mut queue = self.0.lock();
            if queue.closed {
                ReadError::Closed
            } else if queue.jobs.len() >= self.0.limit {
                ReadError::Busy
            } else {
                queue.jobs.push_back(Job { positions, done });
                drop(queue);
                self.0.filled.notify_one();
                return;
            }
        };
        done(positions.into_iter().map(|position| (position, Err(error.clone()))).collect());
    }
}

impl LocalReads {
    pub(crate) fn new(limit: usize) -> LocalReads {
        LocalReads(Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), limit }))
    }

    /// Starts the threads.
    pub(crate) fn start(&self, core: &Arc<Core>, threads: usize) -> io::Result<Vec<JoinHandle<()>>> {
        let spawn = |_| {
            let (reader, core) = (self.clone(), Arc::clone(core));
            std::thread::Builder::new().name("chaski-reader".into()).spawn(move || reader.run(&core))
        };
        (0..threads.max(1)).map(spawn).collect()
    }

    fn run(&self, core: &Core) {
        loop {
            let mut queue = self.0.lock();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if queue.closed => return,
                    None => {
                        queue = self.0.filled.wait(queue).expect("nothing panics with the queue of reads")
                    }
                }
            };
            drop(queue);
            (job.done)(read(core, &job.positions));
        }
    }

    /// Does what waits on the caller's thread.
    pub(crate) fn run_here(&self, core: &Core) {
        loop {
            let job = self.0.lock().jobs.pop_front();
            let Some(job) = job else { return };
            (job.done)(read(core, &job.positions));
        }
    }

    /// What waits is done still; nothing more is taken.
    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
        self.0.filled.notify_all();
    }
}

/// One record to be found in a range of a segment.
struct Wanted {
    /// Its place in the answers.
    slot: usize,
    position: Position,
    segment: Arc<Segment>,
    entry: IndexEntry,
    end: u64,
}

/// Reads records, neighbours together.
pub(crate) fn read(core: &Core, positions: &[Position]) -> Answers {
    let mut answers: Vec<_> =
        positions.iter().map(|position| (*position, Err(ReadError::Gone(*position)))).collect();
    let mut wanted = Vec::with_capacity(positions.len());
    for (slot, &position) in positions.iter().enumerate() {
        let Some(segment) = core.table.find(position.0) else { continue };
        if segment.is_given_up(position.0) {
            answers[slot].1 = Err(ReadError::Lost(position));
            continue;
        }
        let Some((entry, end)) = segment.locate(position.0) else { continue };
        wanted.push(Wanted { slot, position, segment, entry, end });
    }
    wanted.sort_by_key(|wanted| wanted.position);
    let mut rest = &wanted[..];
    while let Some(first) = rest.first() {
        let from = first.entry.offset;
        let mut to = first.end;
        let fits = |next: &&Wanted| {
            let near = next.segment.number == first.segment.number && next.entry.offset <= to + JOIN_GAP;
            let fits = near && (next.end <= to || next.end - from <= JOIN_BYTES);
            if fits {
                to = to.max(next.end);
            }
            fits
        };
        let count = 1 + rest[1..].iter().take_while(fits_by(fits)).count();
        let (group, behind) = rest.split_at(count);
        read_group(core, group, from, to, &mut answers);
        rest = behind;
    }
    answers
}

/// Lets a closure that changes its surroundings be a `take_while` predicate.
fn fits_by<T>(mut fits: impl FnMut(&T) -> bool) -> impl FnMut(&T) -> bool {
    move |item| fits(item)
}

/// Reads one range and takes the group's records out of it.
fn read_group(core: &Core, group: &[Wanted], from: u64, to: u64, answers: &mut Answers) {
    let segment = &group[0].segment;
    let mut bytes = vec![0; (to - from) as usize];
    if let Err(error) = segment.file.read_at(from, &mut bytes) {
        let file = core.storage.path(&names::segment(segment.number)).display().to_string();
        let error = ReadError::Io { segment: segment.number, file, error: error.to_string() };
        for wanted in group {
            answers[wanted.slot].1 = Err(error.clone());
        }
        return;
    }
    let bytes = Bytes::from(bytes);
    let mut found = Vec::with_capacity(group.len());
    let mut useful = 0;
    let mut walked: Option<(u64, usize)> = None;
    for wanted in group {
        let entry = (wanted.entry.position, (wanted.entry.offset - from) as usize);
        // Goes on from the last record found, unless the index leads closer.
        let (position, at) = walked.filter(|(position, _)| *position >= entry.0).unwrap_or(entry);
        let at = find_record(&bytes, at, position, wanted.position.0);
        let record = at.and_then(|at| Some((at, record_at(&bytes, at, wanted.position.0)?.len())));
        match record {
            Some((at, length)) => {
                walked = Some((wanted.position.0, at));
                useful += length;
                found.push((wanted.slot, at + RECORD_HEADER, length));
            }
            None => {
                answers[wanted.slot].1 =
                    Err(ReadError::Corrupt { position: wanted.position, segment: segment.number });
            }
        }
    }
    // A small record must not keep a large buffer alive.
    let share = useful * 2 >= bytes.len();
    for (slot, start, length) in found {
        let body = bytes.slice(start..start + length);
        answers[slot].1 = Ok(if share { body } else { Bytes::copy_from_slice(&body) });
    }
}
