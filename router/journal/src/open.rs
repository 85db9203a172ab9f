//! Opening a data directory: finds out what is there and verifies it, and changes nothing on disk but the lock file. What
//! recovery changes is in `recover`.

use std::io;
use std::sync::Arc;

use crate::damage::{self, DamageFault, DamagedRange};
use crate::error::{Corruption, OpenError};
use crate::format::{FORMAT_VERSION, HeaderFault, SEGMENT_HEADER, SegmentHeader};
use crate::journal::{Options, Position};
use crate::names::{self, Name};
use crate::replay::{ReplayBatch, Unverified, Verified, verify_all};
use crate::scan::{End, Fault};
use crate::snapshot_file::SnapshotReader;
use crate::spares::Spare;
use crate::storage::{LockError, Storage, StorageLock, read_only};

/// What a torn tail lost: batches that were written and never known to be durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The segment.
    pub segment: u64,
    /// Where the log ends in it.
    pub offset: u64,
    /// The first record that is not there.
    pub first: Position,
    /// The last one that was surely begun, where a header tells.
    pub last: Option<Position>,
}

/// A directory that was opened: replay it, then start it.
pub struct Recovery {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) lock: Box<dyn StorageLock>,
    /// The log's segments, oldest first.
    pub(crate) segments: Vec<Unverified>,
    /// Files that are not part of the log any more.
    pub(crate) leftovers: Vec<String>,
    pub(crate) spares: Vec<(u64, Spare)>,
    /// The newest whole one.
    pub(crate) snapshot: Option<SnapshotReader>,
    /// Position and bytes of an older one.
    pub(crate) older: Option<(Position, u64)>,
    damaged_snapshots: Vec<OpenError>,
    pub(crate) found: Option<Found>,
}

/// What verifying found.
pub(crate) struct Found {
    pub(crate) segments: Vec<FoundSegment>,
    /// The last segment's bytes, for copying what is behind `synced`.
    pub(crate) last: Option<Verified>,
    /// The highest batch that is known to be durable.
    pub(crate) synced: u64,
    pub(crate) next_batch: u64,
    pub(crate) next_position: u64,
    pub(crate) now_ms: u64,
    pub(crate) bytes_since_snapshot: u64,
    pub(crate) cut: Option<CutTail>,
}

/// A verified segment without its bytes.
pub(crate) struct FoundSegment {
    pub(crate) state: crate::segment::State,
    pub(crate) file_bytes: u64,
}

/// Locks the directory and finds snapshots and segments. Segments are verified by [`Recovery::replay`].
pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Recovery, OpenError> {
    find(storage, options, &mut Err)
}

/// The same; `damaged` hears of a segment whose header or damage file can't be used, and whether to go on without.
pub(crate) fn find(
    storage: Arc<dyn Storage>,
    options: Options,
    damaged_segment: &mut dyn FnMut(OpenError) -> Result<(), OpenError>,
) -> Result<Recovery, OpenError> {
    let lock = storage.lock(names::LOCK).map_err(|error| match error {
        LockError::Held(pid) => OpenError::Locked { path: storage.path(""), pid },
        LockError::Io(error) if read_only(&error) => OpenError::ReadOnly { path: storage.path(""), error },
        LockError::Io(error) => failed(&*storage, "cannot lock", names::LOCK)(error),
    })?;
    let mut recovery = Recovery {
        storage: Arc::clone(&storage),
        options,
        lock,
        segments: Vec::new(),
        leftovers: Vec::new(),
        spares: Vec::new(),
        snapshot: None,
        older: None,
        damaged_snapshots: Vec::new(),
        found: None,
    };
    let mut segments = Vec::new();
    let mut snapshots = Vec::new();
    let mut damaged = Vec::new();
    for name in storage.list().map_err(failed(&*storage, "cannot list", ""))? {
        match names::parse(&name) {
            Name::Segment(number) => segments.push(number),
            Name::Snapshot(position) => snapshots.push(position),
            Name::Damage(number) => damaged.push(number),
            Name::Spare(number) => {
                let read = || {
                    let file = storage.open(&name)?;
                    Ok(Spare { bytes: file.len()?, name: name.clone(), file, recycled: false })
                };
                recovery.spares.push((number, read().map_err(failed(&*storage, "cannot open", &name))?));
            }
            Name::Unfinished => recovery.leftovers.push(name),
            Name::Other => {}
        }
    }
    for file in storage.list_in(names::BLOBS).map_err(failed(&*storage, "cannot list", names::BLOBS))? {
        if names::parse(&file.name) == Name::Unfinished {
            recovery.leftovers.push(format!("{}/{}", names::BLOBS, file.name));
        }
    }
    snapshots.sort_unstable();
    segments.sort_unstable();
    recovery.find_snapshots(&snapshots)?;
    recovery.find_segments(&segments, &damaged, damaged_segment)?;
    for number in damaged {
        if !segments.contains(&number) {
            recovery.leftovers.push(names::damage(number));
        }
    }
    Ok(recovery)
}

/// An I/O error with its file.
pub(crate) fn failed<'a>(
    storage: &'a dyn Storage,
    what: &'static str,
    name: &'a str,
) -> impl Fn(io::Error) -> OpenError + 'a {
    move |error| {
        let path = storage.path(name);
        if read_only(&error) {
            OpenError::ReadOnly { path, error }
        } else {
            OpenError::Io { what, path, error }
        }
    }
}

impl Recovery {
    /// The newest snapshot that is whole.
    fn find_snapshots(&mut self, positions: &[u64]) -> Result<(), OpenError> {
        for &position in positions.iter().rev() {
            let name = names::snapshot(position);
            if self.older.is_some() {
                self.leftovers.push(name);
                continue;
            }
            let file = self.storage.open(&name).map_err(failed(&*self.storage, "cannot open", &name))?;
            let reader = SnapshotReader::open(file, self.storage.path(&name));
            let reader = reader.and_then(|reader| match self.snapshot {
                None => reader.verify(),
                Some(_) => Ok(reader),
            });
            match reader {
                Ok(reader) if self.snapshot.is_some() => {
                    self.older = Some((reader.position(), reader.file_bytes()));
                }
                Ok(reader) => self.snapshot = Some(reader),
                Err(error @ OpenError::Corrupt(_)) => self.damaged_snapshots.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn find_segments(
        &mut self,
        numbers: &[u64],
        damaged: &[u64],
        damaged_segment: &mut dyn FnMut(OpenError) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut found = Vec::new();
        for &number in numbers {
            match self.read_header(number, damaged) {
                Ok(segment) => found.push(segment),
                Err(error @ OpenError::Corrupt(_)) => damaged_segment(error)?,
                Err(error) => return Err(error),
            }
        }
        let mut successor: Option<SegmentHeader> = None;
        for mut segment in found.into_iter().rev() {
            let header = segment.header;
            segment.end = match successor {
                None => End::Open,
                // A recovery that kept nothing of a segment names the one before it as its own predecessor.
                Some(next) if header.number > next.previous => {
                    self.leftovers.push(names::segment(header.number));
                    continue;
                }
                Some(next) if header.number < next.previous => End::Sealed(None),
                Some(next) if next.previous_sealed => End::Sealed(Some(next.previous_batch)),
                Some(next) => End::After(next.previous_batch),
            };
            successor = Some(header);
            self.segments.push(segment);
        }
        self.segments.reverse();
        Ok(())
    }

    fn read_header(&self, number: u64, damaged: &[u64]) -> Result<Unverified, OpenError> {
        let name = names::segment(number);
        let fails = failed(&*self.storage, "cannot read", &name);
        let file = self.storage.open(&name).map_err(&fails)?;
        let mut bytes = vec![0; SEGMENT_HEADER.min(file.len().map_err(&fails)? as usize)];
        file.read_at(0, &mut bytes).map_err(&fails)?;
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) if header.number == number && header.first_position > 0 && header.first_batch > 0 => {
                header
            }
            Ok(_) => return Err(self.corrupt(number, 0, None, "the file's name and its header disagree")),
            Err(HeaderFault::Damaged(what)) => return Err(self.corrupt(number, 0, None, what)),
            Err(HeaderFault::Newer(found)) => {
                let file = self.storage.path(&name);
                return Err(OpenError::FormatNewer { file, found, supported: FORMAT_VERSION });
            }
        };
        let mut damage = Vec::new();
        if damaged.contains(&number) {
            damage = match damage::read(&*self.storage, number).map_err(fails)? {
                Ok(ranges) => ranges,
                Err(DamageFault::Damaged) => {
                    let what = "the segment's damage file can't be understood";
                    return Err(self.corrupt(number, 0, None, what));
                }
                Err(DamageFault::Newer(found)) => {
                    let file = self.storage.path(&names::damage(number));
                    return Err(OpenError::FormatNewer { file, found, supported: FORMAT_VERSION });
                }
            };
        }
        Ok(Unverified { header, file, end: End::Open, damage })
    }

    /// The newest snapshot that is whole, if there is one: restore all of its chunks before the replay, which begins behind
    /// [`SnapshotReader::position`]. It was read through when the directory was opened; a chunk that can't be read now is an
    /// error all the same.
    pub fn snapshot(&mut self) -> Option<SnapshotReader> {
        self.snapshot.as_ref().map(SnapshotReader::again)
    }

    /// Snapshots that were passed over because they are damaged; an older one and the log make up for them.
    pub fn damaged_snapshots(&self) -> &[OpenError] {
        &self.damaged_snapshots
    }

    /// Verifies every segment and hands out each batch behind the snapshot (all without one), in order.
    pub fn replay(
        &mut self,
        each: &mut dyn FnMut(ReplayBatch<'_>) -> Result<(), String>,
    ) -> Result<(), OpenError> {
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.header);
        let segments = std::mem::take(&mut self.segments);
        let mut found = Found {
            segments: Vec::new(),
            last: None,
            synced: snapshot.map_or(0, |snapshot| snapshot.synced),
            next_batch: 1,
            next_position: 1,
            now_ms: snapshot.map_or(0, |snapshot| snapshot.now_ms),
            bytes_since_snapshot: 0,
            cut: None,
        };
        let mut covered = snapshot.map_or(0, |snapshot| snapshot.position);
        let outcome: Result<(), OpenError> = verify_all(&segments, |index, verified| {
            let segment = &segments[index];
            let name = names::segment(segment.header.number);
            let verified = verified.map_err(failed(&*self.storage, "cannot read", &name))?;
            let last = index + 1 == segments.len();
            self.judge(segment, &verified, last, covered, &mut found)?;
            for (header, records) in verified.batches(segment) {
                found.now_ms = found.now_ms.max(header.now_ms);
                if header.first + u64::from(header.count) > covered + 1 {
                    found.bytes_since_snapshot += header.length;
                    let batch = ReplayBatch::behind(&header, records, covered);
                    each(batch).map_err(|reason| OpenError::Replay {
                        file: self.storage.path(&name),
                        batch: header.number,
                        reason,
                    })?;
                }
            }
            covered = covered.max(verified.scanned.last_position);
            found.add(verified, last);
            Ok(())
        });
        self.segments = segments;
        outcome?;
        let snapshot = snapshot.map_or(0, |snapshot| snapshot.position);
        if found.next_position <= snapshot {
            let number = self.segments.last().map_or(0, |segment| segment.header.number);
            let offset = found.segments.last().map_or(0, |segment| segment.state.end);
            let positions = Some((found.next_position, snapshot));
            let what = "the newest snapshot covers records that the log no longer has";
            return Err(self.corrupt(number, offset, positions, what));
        }
        self.found = Some(found);
        Ok(())
    }

    /// Whether what was found in a segment, and what came before, is a log; notes a torn tail.
    fn judge(
        &self,
        segment: &Unverified,
        verified: &Verified,
        last: bool,
        covered: u64,
        found: &mut Found,
    ) -> Result<(), OpenError> {
        let Unverified { header, .. } = segment;
        let number = header.number;
        let gap = header.first_position > covered + 1;
        let torn_apart = header.first_position < found.next_position || header.first_batch < found.next_batch;
        if gap || torn_apart {
            let positions = gap.then(|| (covered + 1, header.first_position - 1));
            return Err(self.corrupt(number, 0, positions, "the segments before this one are missing"));
        }
        let scanned = &verified.scanned;
        let uncovered = |range: &&DamagedRange| {
            range.first_position <= range.last_position && range.last_position > covered
        };
        if let Some(range) = segment.damage.iter().find(uncovered) {
            let positions = Some((range.first_position.max(covered + 1), range.last_position));
            let what = "records given up by a repair are not in the snapshot either";
            return Err(self.corrupt(number, range.from, positions, what));
        }
        if last {
            found.synced = found.synced.max(scanned.synced);
        }
        let Some(fault) = &scanned.fault else { return Ok(()) };
        if !last || fault.batch <= found.synced {
            let positions = fault.last_position.map(|last| (fault.first_position, last));
            return Err(self.corrupt(number, fault.offset, positions, fault.what));
        }
        if fault.written {
            found.cut = Some(cut(number, fault));
        }
        Ok(())
    }

    pub(crate) fn corrupt(
        &self,
        segment: u64,
        offset: u64,
        positions: Option<(u64, u64)>,
        what: &str,
    ) -> OpenError {
        OpenError::Corrupt(Corruption {
            file: self.storage.path(&names::segment(segment)),
            segment,
            offset,
            positions: positions
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| Position(first)..=Position(last)),
            what: what.to_owned(),
        })
    }

    /// What a torn tail lost, for the log; known after the replay.
    pub fn cut(&self) -> Option<CutTail> {
        self.found.as_ref().and_then(|found| found.cut.clone())
    }

    /// The last time in snapshot and log, which the router's clock must not fall behind; whole after the replay.
    pub fn last_now_ms(&self) -> u64 {
        let snapshot = self.snapshot.as_ref().map_or(0, SnapshotReader::now_ms);
        self.found.as_ref().map_or(snapshot, |found| found.now_ms)
    }

    /// The last position in snapshot and log; whole after the replay.
    pub fn last_position(&self) -> Position {
        let snapshot = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.header.position);
        Position(self.found.as_ref().map_or(snapshot, |found| found.next_position - 1))
    }
}

impl Found {
    fn add(&mut self, verified: Verified, last: bool) {
        let scanned = &verified.scanned;
        self.next_batch = scanned.last_batch + 1;
        self.next_position = scanned.last_position + 1;
        self.now_ms = self.now_ms.max(scanned.now_ms.unwrap_or(0));
        let file_bytes = verified.bytes.len() as u64;
        let footer =
            if scanned.sealed { crate::format::footer_bytes(scanned.index.entries.len()) } else { 0 };
        let state = crate::segment::State {
            index: scanned.index.clone(),
            last_position: scanned.last_position,
            end: scanned.end,
            footer,
            sealed: true,
        };
        self.segments.push(FoundSegment { state, file_bytes });
        if last {
            self.last = Some(verified);
        }
    }
}

fn cut(segment: u64, fault: &Fault) -> CutTail {
    let last = fault.last_position.unwrap_or(0).max(fault.seen_position);
    CutTail {
        segment,
        offset: fault.batch_offset,
        first: Position(fault.first_position),
        last: (last >= fault.first_position).then_some(Position(last)),
    }
}
