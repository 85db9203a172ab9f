//! Verifies every segment and hands out the records behind the snapshot, in order. Segments are read and verified two at a
//! time, ahead of the callback.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::damage::DamagedRange;
use crate::format::{BatchHeader, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, u32_at};
use crate::journal::Position;
use crate::scan::{End, Scanned, batches, scan};
use crate::storage::StorageFile;

/// Threads that verify.
const VERIFIERS: usize = 2;

/// Segments verified ahead of the callback, which holds one more: bounds the memory.
const AHEAD: usize = 2;

/// A verified batch, or the part of it behind the snapshot.
#[derive(Clone, Debug)]
pub struct ReplayBatch<'a> {
    /// The batch's number.
    pub number: u64,
    /// Its time.
    pub now_ms: u64,
    /// The first record's position.
    pub first: Position,
    records: Records<'a>,
}

impl<'a> ReplayBatch<'a> {
    /// The batch, without its records up to `covered`.
    pub(crate) fn behind(header: &BatchHeader, bytes: &'a [u8], covered: u64) -> ReplayBatch<'a> {
        let mut records = Records::of(bytes);
        let mut first = header.first;
        while first <= covered && records.next().is_some() {
            first += 1;
        }
        ReplayBatch { number: header.number, now_ms: header.now_ms, first: Position(first), records }
    }

    /// The records, first to last.
    pub fn records(&self) -> Records<'a> {
        self.records.clone()
    }
}

/// The records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
}

impl<'a> Records<'a> {
    /// Of bytes in which each length is right.
    pub(crate) fn of(bytes: &'a [u8]) -> Records<'a> {
        Records { bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.bytes.is_empty() {
            return None;
        }
        let (record, rest) = self.bytes.split_at(RECORD_HEADER + u32_at(self.bytes, 0) as usize);
        self.bytes = rest;
        Some(&record[RECORD_HEADER..])
    }
}

/// What is to be verified.
#[derive(Clone)]
pub(crate) struct Unverified {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) end: End,
    pub(crate) damage: Vec<DamagedRange>,
}

/// A segment's bytes with what was found in them.
pub(crate) struct Verified {
    pub(crate) bytes: Vec<u8>,
    pub(crate) scanned: Scanned,
}

impl Verified {
    /// Its batches in order, those around given-up ranges left out.
    pub(crate) fn batches<'a>(
        &'a self,
        segment: &'a Unverified,
    ) -> impl Iterator<Item = (BatchHeader, &'a [u8])> + 'a {
        let mut starts = vec![SEGMENT_HEADER as u64];
        let mut ends = Vec::new();
        for range in &segment.damage {
            ends.push(range.from);
            starts.push(range.to);
        }
        ends.push(self.scanned.end);
        let salt = segment.header.salt;
        starts.into_iter().zip(ends).flat_map(move |(at, end)| batches(&self.bytes, salt, at, end))
    }
}

pub(crate) fn read_whole(file: &dyn StorageFile) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn verify(segment: &Unverified) -> io::Result<Verified> {
    let bytes = read_whole(&*segment.file)?;
    let scanned = scan(&bytes, &segment.header, segment.end, &segment.damage);
    Ok(Verified { bytes, scanned })
}

/// What verifiers and callback share.
struct Lane {
    /// The next segment that a verifier takes.
    taken: usize,
    /// How far the callback is.
    consumed: usize,
    done: Vec<Option<io::Result<Verified>>>,
    /// One side has ended early, by an error or a panic: the other must not wait for it.
    ended: bool,
}

/// Where they wait for each other.
struct Lanes {
    lane: Mutex<Lane>,
    moved: Condvar,
}

impl Lanes {
    fn lock(&self) -> MutexGuard<'_, Lane> {
        self.lane.lock().expect("nothing panics with the lane")
    }

    fn wait<'a>(&self, lane: MutexGuard<'a, Lane>) -> MutexGuard<'a, Lane> {
        self.moved.wait(lane).expect("nothing panics with the lane")
    }

    fn change(&self, change: impl FnOnce(&mut Lane)) {
        change(&mut self.lock());
        self.moved.notify_all();
    }

    /// Verifies the next segment, and the next, as far ahead as is allowed.
    fn verify(&self, segments: &[Unverified]) {
        loop {
            let mut lane = self.lock();
            while !lane.ended && lane.taken < segments.len() && lane.taken > lane.consumed + AHEAD {
                lane = self.wait(lane);
            }
            let index = lane.taken;
            if lane.ended || index >= segments.len() {
                return;
            }
            lane.taken += 1;
            drop(lane);
            let verified = verify(&segments[index]);
            self.change(|lane| lane.done[index] = Some(verified));
        }
    }

    /// Waits for a segment; the verifiers then go on.
    fn next(&self, index: usize) -> io::Result<Verified> {
        let mut lane = self.lock();
        let verified = loop {
            if let Some(verified) = lane.done[index].take() {
                break verified;
            }
            if lane.ended {
                drop(lane);
                panic!("a verifier panicked, so this segment would never come");
            }
            lane = self.wait(lane);
        };
        lane.consumed = index;
        drop(lane);
        self.moved.notify_all();
        verified
    }
}

/// Says that a side has ended when it is dropped, by a panic too.
struct Ends<'a> {
    lanes: &'a Lanes,
    /// Only a panic ends the whole: the other verifier may still be at work.
    if_panicking: bool,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if !self.if_panicking || std::thread::panicking() {
            self.lanes.change(|lane| lane.ended = true);
        }
    }
}

/// Verifies all segments and calls `each` with them in order, until it fails.
pub(crate) fn verify_all<E: Send>(
    segments: &[Unverified],
    mut each: impl FnMut(usize, io::Result<Verified>) -> Result<(), E>,
) -> Result<(), E> {
    if segments.len() < 2 {
        return segments.iter().enumerate().try_for_each(|(index, segment)| each(index, verify(segment)));
    }
    let done = segments.iter().map(|_| None).collect();
    let lane = Lane { taken: 0, consumed: 0, done, ended: false };
    let lanes = Lanes { lane: Mutex::new(lane), moved: Condvar::new() };
    std::thread::scope(|scope| {
        let _ends = Ends { lanes: &lanes, if_panicking: false };
        for _ in 0..VERIFIERS {
            scope.spawn(|| {
                let _ends = Ends { lanes: &lanes, if_panicking: true };
                lanes.verify(segments);
            });
        }
        (0..segments.len()).try_for_each(|index| each(index, lanes.next(index)))
    })
}
