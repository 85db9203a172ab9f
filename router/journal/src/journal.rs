//! What the owner of a journal holds: the trait and its small types. Shaped so that another implementation could append to a
//! replicated log: append a batch, read from a position, trim before a position, and an append may fail as fenced; and what
//! the records lean on, snapshots and blobs by digest, so that all that the next owner needs is behind one trait
//! (`tests/fenced.rs` is a small one).

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::batch::Batch;
use crate::blobs::Blobs;
use crate::reader::Reader;
use crate::snapshot::SnapshotWriter;

/// The dense number of a record, counted from 1; 0 stands for "before the first".
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Sizes and limits, all of them in bytes unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of a segment (64 MiB). A larger batch gets a segment of its own size.
    pub segment_bytes: u64,
    /// Segments allocated ahead (2).
    pub spare_segments: usize,
    /// Low disk begins where less than this and twice the last snapshot is free (1 GiB).
    pub low_disk_bytes: u64,
    /// Threads that read backlogs (2).
    pub reader_threads: usize,
    /// Reads that may wait for a thread; further ones are answered [`crate::ReadError::Busy`] (65,536).
    pub waiting_reads: usize,
    /// A snapshot is due once the log has grown by this or twice the last snapshot, whichever is more (256 MiB).
    pub snapshot_min_bytes: u64,
    /// While batches are small, this much behind the end of a fresh segment is filled with zeros ahead of time, since
    /// fdatasync is faster on blocks that were written before; 0 turns it off (512 KiB).
    pub zero_ahead_bytes: u64,
    /// After this long without an append the log syncs what is left and marks its end (50 ms).
    pub quiet: Duration,
    /// How often free space is looked at (1 s).
    pub look_at_disk: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 64 << 20,
            spare_segments: 2,
            low_disk_bytes: 1 << 30,
            reader_threads: 2,
            waiting_reads: 65_536,
            snapshot_min_bytes: 256 << 20,
            zero_ahead_bytes: 512 << 10,
            quiet: Duration::from_millis(50),
            look_at_disk: Duration::from_secs(1),
        }
    }
}

/// What the journal tells its owner, from its own threads: keep the callback short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to here lies in the file (durability `os`). Only told for batches appended without `sync`.
    Written {
        /// The last position.
        through: Position,
    },
    /// Everything up to here is durable: fdatasync has returned.
    Synced {
        /// The last position.
        through: Position,
        /// Bytes that this fdatasync made durable.
        bytes: u64,
        /// How long it took.
        fsync: Duration,
    },
    /// Nothing after this: what was not told as synced may be lost, and later appends do nothing.
    Failed(Failure),
    /// The disk has changed its state.
    Room(Room),
}

/// Why the journal can't go on. Never retried: the process ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A write or fdatasync failed.
    #[error("cannot {what}: {error}")]
    Io {
        /// What was tried, as in "sync segment 7".
        what: String,
        /// What the operating system said.
        error: String,
    },
    /// Another owner has taken the log over.
    #[error("another router has taken this log over")]
    Fenced,
}

/// How the disk stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Enough.
    #[default]
    Plenty,
    /// Less than the limit: nothing that makes the log grow for long should be taken.
    Low,
    /// No spare segment is left and none can be allocated: nothing should be appended.
    Full,
}

/// The disk in numbers.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomInfo {
    /// The state.
    pub room: Room,
    /// Bytes that surely fit without allocating anything.
    pub allocated_bytes: u64,
    /// Free bytes on the disk when it was last looked at.
    pub free_bytes: u64,
}

/// One segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Its first position.
    pub first: Position,
    /// Its last position; below `first` when it has no record.
    pub last: Position,
    /// Bytes in use.
    pub bytes: u64,
    /// Nothing is appended to it any more.
    pub sealed: bool,
}

/// The journal in numbers.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes in use in all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes written since the start.
    pub appended_bytes: u64,
    /// Batches written since the start.
    pub batches: u64,
    /// fdatasyncs of the log since the start.
    pub syncs: u64,
    /// Bytes of the newest snapshot.
    pub last_snapshot_bytes: u64,
    /// Bytes of log behind the newest snapshot.
    pub bytes_since_snapshot: u64,
}

/// A finished snapshot.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The last position in it.
    pub position: Position,
    /// Bytes of its file.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
}

/// Why a snapshot was not written. The former snapshots stand.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk is full. The log goes on.
    #[error("no room for a snapshot: {0}; free some space, it is tried again")]
    NoRoom(std::io::Error),
    /// The disk failed. When it was a write or an fsync, the log has ended with it.
    #[error("cannot write the snapshot: {0}")]
    Io(std::io::Error),
    /// The journal ended before the records that the snapshot covers were durable.
    #[error("the journal ended before the snapshot's records were durable")]
    Ended,
}

/// A log with one owner. Another implementation hands out its own [`Reader`], [`SnapshotWriter`] and [`Blobs`]: see
/// [`crate::Fetch`], [`crate::SnapshotSink`] and [`crate::BlobStore`].
pub trait Journal: Send {
    /// The position of the next record.
    fn next_position(&self) -> Position;

    /// Takes a batch whole; never waits for the disk. `sync` says that somebody waits for its fdatasync. Without it the
    /// batch is written at once and synced with the next one that asks, or when the log goes idle. Its first record gets
    /// [`Journal::next_position`]; [`Batch::expect_first`] has that checked. Whether it was fenced or failed comes as
    /// [`Progress::Failed`], and nothing of it or behind it was told as synced then.
    fn append(&mut self, batch: Batch, sync: bool);

    /// Batches that are not yet written, or not yet synced where that was asked for.
    fn in_flight(&self) -> usize;

    /// A handle for reading records back.
    fn reader(&self) -> Reader;

    /// A handle for blobs by digest, which a record names: put one, and append the record once it is there.
    fn blobs(&self) -> Blobs;

    /// How the disk stands.
    fn room(&self) -> RoomInfo;

    /// The segments, oldest first. The last one is being written. Costs a lock a segment: for once a second, not for each
    /// batch; so do [`Journal::stats`].
    fn segments(&self) -> Vec<SegmentInfo>;

    /// Forgets the sealed segments that lie wholly in this range. The caller says that nothing live is in it and that both
    /// kept snapshots are newer; a segment reaching to [`Journal::trimmable_before`] or behind it is kept all the same, and
    /// so is one that says where a cut segment before it ends.
    fn trim(&mut self, positions: RangeInclusive<Position>);

    /// The position of the older of the two kept snapshots; nothing at or behind it may be trimmed. None while there are
    /// fewer than two.
    fn trimmable_before(&self) -> Option<Position>;

    /// Begins a snapshot of the state as it is after the record at `at`. The state may run ahead of the disk, and even of
    /// [`Journal::append`]: the snapshot gets its name, and counts, only once the record at `at` is durable. The caller
    ///
    /// - takes the state in the same turn: it holds the effect of every record up to `at` and of none behind it. `at` is the
    ///   state machine's own position, so records that lie in a batch not yet appended are part of it;
    /// - goes on appending. [`SnapshotWriter::finish`] blocks until the record at `at` is durable, and has it synced if
    ///   nobody else does; on the thread that appends it would wait for itself;
    /// - writes one snapshot at a time, each at or behind the last one's position (checked: what lies before the older of
    ///   two may be trimmed);
    /// - passes the time of the state as `now_ms`: a restart's clock does not begin below it;
    /// - drops the writer to give up. No room, on the disk or under another name, means to try again when
    ///   [`Journal::snapshot_due`] says so; an error of a write or fsync is told as [`Progress::Failed`] too.
    ///
    /// After a restart it restores the chunks of [`crate::Recovery::snapshot`] first. The replay then begins with the record
    /// behind `at`, in the middle of a batch if need be.
    fn begin_snapshot(&mut self, at: Position, now_ms: u64) -> SnapshotWriter;

    /// Whether the log has grown enough for a snapshot. It doesn't know of one that is being written.
    fn snapshot_due(&self) -> bool;

    /// The journal in numbers.
    fn stats(&self) -> Stats;

    /// Writes and syncs what is pending and ends the threads.
    fn close(self: Box<Self>);
}
