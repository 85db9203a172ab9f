//! The trait fits a log that somebody else keeps (DESIGN, section 9): a shared log in memory whose former owner is fenced,
//! implemented with the crate's public items only.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use chaski_journal::{
    Answers, Batch, BlobDigest, BlobError, BlobInfo, BlobStore, Blobs, Failure, Fetch, Journal, Position,
    Progress, ReadError, Reader, RoomInfo, SegmentInfo, SnapshotError, SnapshotInfo, SnapshotSink,
    SnapshotWriter, Stats,
};

/// What a replicated log would hold.
#[derive(Default)]
struct Log {
    records: Vec<Bytes>,
    trimmed: u64,
    snapshot: Option<(Position, Vec<Vec<u8>>)>,
    owner: u64,
    blobs: BTreeMap<BlobDigest, Bytes>,
}

type Shared = Arc<Mutex<Log>>;
type Tell = Box<dyn FnMut(Progress) + Send>;

struct Replicated {
    log: Shared,
    owner: u64,
    next: u64,
    tell: Tell,
}

impl Replicated {
    /// Takes the log over.
    fn open(log: &Shared, tell: Tell) -> Replicated {
        let mut shared = log.lock().unwrap();
        shared.owner += 1;
        let (owner, next) = (shared.owner, shared.records.len() as u64 + 1);
        drop(shared);
        Replicated { log: Arc::clone(log), owner, next, tell }
    }
}

struct Reads(Shared);

impl Fetch for Reads {
    fn fetch(&self, positions: Vec<Position>, done: Box<dyn FnOnce(Answers) + Send>) {
        let log = self.0.lock().unwrap();
        let find = |position: Position| {
            let record = log.records.get(position.0 as usize - 1).filter(|_| position.0 > log.trimmed);
            (position, record.cloned().ok_or(ReadError::Gone(position)))
        };
        let found = positions.into_iter().map(find).collect();
        drop(log);
        done(found);
    }
}

struct Kept {
    log: Shared,
    owner: u64,
}

impl Kept {
    fn owned(&self) -> Result<MutexGuard<'_, Log>, BlobError> {
        let log = self.log.lock().unwrap();
        if log.owner == self.owner { Ok(log) } else { Err(BlobError::Fenced) }
    }
}

impl BlobStore for Kept {
    fn put(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), BlobError> {
        self.owned()?.blobs.insert(digest, Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn get(&self, digest: BlobDigest) -> Result<Option<Bytes>, BlobError> {
        Ok(self.log.lock().unwrap().blobs.get(&digest).cloned())
    }

    fn list(&self) -> Result<Vec<BlobInfo>, BlobError> {
        let log = self.log.lock().unwrap();
        let info = |(digest, bytes): (&BlobDigest, &Bytes)| BlobInfo {
            digest: *digest,
            bytes: bytes.len() as u64,
            modified: SystemTime::UNIX_EPOCH,
        };
        Ok(log.blobs.iter().map(info).collect())
    }

    fn remove(&self, digest: BlobDigest) -> Result<(), BlobError> {
        self.owned()?.blobs.remove(&digest);
        Ok(())
    }
}

struct Chunks {
    log: Shared,
    at: Position,
    chunks: Vec<Vec<u8>>,
}

impl SnapshotSink for Chunks {
    fn position(&self) -> Position {
        self.at
    }

    fn write_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.chunks.push(chunk.to_vec());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<SnapshotInfo, SnapshotError> {
        let info = SnapshotInfo { position: self.at, bytes: 0, chunks: self.chunks.len() as u64 };
        self.log.lock().unwrap().snapshot = Some((self.at, self.chunks));
        Ok(info)
    }
}

impl Journal for Replicated {
    fn next_position(&self) -> Position {
        Position(self.next)
    }

    fn append(&mut self, batch: Batch, _sync: bool) {
        batch.check_first(Position(self.next));
        let mut log = self.log.lock().unwrap();
        if log.owner != self.owner {
            drop(log);
            return (self.tell)(Progress::Failed(Failure::Fenced));
        }
        log.records.extend(batch.records().map(Bytes::copy_from_slice));
        drop(log);
        self.next += batch.len() as u64;
        let through = Position(self.next - 1);
        (self.tell)(Progress::Synced { through, bytes: batch.bytes() as u64, fsync: Default::default() });
    }

    fn in_flight(&self) -> usize {
        0
    }

    fn reader(&self) -> Reader {
        Reader::new(Reads(Arc::clone(&self.log)))
    }

    fn blobs(&self) -> Blobs {
        Blobs::new(Kept { log: Arc::clone(&self.log), owner: self.owner })
    }

    fn room(&self) -> RoomInfo {
        RoomInfo::default()
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        Vec::new()
    }

    fn trim(&mut self, positions: RangeInclusive<Position>) {
        self.log.lock().unwrap().trimmed = positions.end().0;
    }

    fn trimmable_before(&self) -> Option<Position> {
        self.log.lock().unwrap().snapshot.as_ref().map(|(at, _)| *at)
    }

    fn begin_snapshot(&mut self, at: Position, _now_ms: u64) -> SnapshotWriter {
        SnapshotWriter::new(Chunks { log: Arc::clone(&self.log), at, chunks: Vec::new() })
    }

    fn snapshot_due(&self) -> bool {
        false
    }

    fn stats(&self) -> Stats {
        Stats::default()
    }

    fn close(self: Box<Self>) {}
}

/// An owner, and what it was told.
fn owner(log: &Shared) -> (Box<dyn Journal>, Arc<Mutex<Vec<Progress>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let journal = Replicated::open(log, Box::new(move |progress| sink.lock().unwrap().push(progress)));
    (Box::new(journal), told)
}

fn append(journal: &mut dyn Journal, record: &[u8]) {
    let mut batch = Batch::new(1);
    batch.push(|buffer| buffer.extend_from_slice(record));
    batch.expect_first(journal.next_position());
    journal.append(batch, true);
}

#[test]
fn former_owner_is_fenced_and_the_next_one_goes_on_where_the_log_ends() {
    let log = Shared::default();
    let (mut former, told) = owner(&log);
    append(&mut *former, b"one");
    let mut snapshot = former.begin_snapshot(Position(1), 1);
    snapshot.write_chunk(b"state after one").unwrap();
    assert_eq!(snapshot.finish().unwrap().position, Position(1));
    assert!(matches!(told.lock().unwrap()[..], [Progress::Synced { through: Position(1), .. }]));

    let (mut next, told_next) = owner(&log);
    append(&mut *former, b"too late");
    assert_eq!(told.lock().unwrap()[1], Progress::Failed(Failure::Fenced));
    append(&mut *next, b"two");
    assert!(matches!(told_next.lock().unwrap()[..], [Progress::Synced { through: Position(2), .. }]));
    let read = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&read);
    next.reader().read(vec![Position(2), Position(1)], move |found| *sink.lock().unwrap() = found);
    let expected = [(2, &b"two"[..]), (1, b"one")];
    let expected = expected.map(|(at, body)| (Position(at), Ok(Bytes::from_static(body))));
    assert_eq!(*read.lock().unwrap(), expected);
    next.trim(Position(1)..=next.trimmable_before().unwrap());
    next.reader().read(vec![Position(1)], |found| {
        assert_eq!(found[0].1, Err(ReadError::Gone(Position(1))));
    });
}

#[test]
fn next_owner_finds_the_blobs_and_the_former_one_puts_no_more() {
    let log = Shared::default();
    let (former, _) = owner(&log);
    let digest = former.blobs().put(b"a module").unwrap();
    assert_eq!(digest.to_string(), "sha256:f6c0d945dc8a9e01854484f4e9b123945919e553778d4386d1d939451c038a0c");
    let (next, _) = owner(&log);
    assert_eq!(next.blobs().get(digest), Ok(Some(Bytes::from_static(b"a module"))));
    assert_eq!(former.blobs().put(b"too late"), Err(BlobError::Fenced));
    next.blobs().remove(digest).unwrap();
    assert_eq!(next.blobs().list(), Ok(vec![]));
}

#[test]
#[should_panic(expected = "count records differently")]
fn owner_that_counts_differently_is_stopped() {
    let (mut journal, _) = owner(&Shared::default());
    let mut batch = Batch::new(1);
    batch.expect_first(Position(7));
    journal.append(batch, true);
}
