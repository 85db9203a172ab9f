//! Verifies every segment and hands out the records behind the snapshot, in order. Segments are read and verified two at a
//! time, ahead of the callback.

use std::sync::{Arc, Condvar, Mutex};

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
        let mut records = Records { bytes };
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
    /// Verified.
    bytes: &'a [u8],
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

pub(crate) fn read_whole(file: &dyn StorageFile) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(file.len()?).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; len];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn verify(segment: &Unverified) -> std::io::Result<Verified> {
    let bytes = read_whole(&*segment.file)?;
    let scanned = scan(&bytes, &segment.header, segment.end, &segment.damage);
    Ok(Verified { bytes, scanned })
}

struct Lane {
    /// The next segment that a verifier takes.
    taken: usize,
    /// How far the callback is.
    consumed: usize,
    done: Vec<Option<std::io::Result<Verified>>>,
}

/// Verifies all segments and calls `each` with them in order, until it fails.
pub(crate) fn verify_all<E: Send>(
    segments: &[Unverified],
    mut each: impl FnMut(usize, std::io::Result<Verified>) -> Result<(), E>,
) -> Result<(), E> {
    if segments.len() < 2 {
        return segments.iter().enumerate().try_for_each(|(index, segment)| each(index, verify(segment)));
    }
    let done = segments.iter().map(|_| None).collect();
    let lane = Mutex::new(Lane { taken: 0, consumed: 0, done });
    let moved = Condvar::new();
    let lock = || lane.lock().expect("nothing panics with the lane");
    let work = || {
        loop {
            let mut guard = lock();
            while guard.taken < segments.len() && guard.taken > guard.consumed + AHEAD {
                guard = moved.wait(guard).expect("nothing panics with the lane");
            }
            let index = guard.taken;
            if index >= segments.len() {
                return;
            }
            guard.taken += 1;
            drop(guard);
            let verified = verify(&segments[index]);
            lock().done[index] = Some(verified);
            moved.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..VERIFIERS {
            scope.spawn(work);
        }
        for index in 0..segments.len() {
            let mut guard = lock();
            let verified = loop {
                if let Some(verified) = guard.done[index].take() {
                    break verified;
                }
                guard = moved.wait(guard).expect("nothing panics with the lane");
            };
            guard.consumed = index;
            drop(guard);
            moved.notify_all();
            if let Err(error) = each(index, verified) {
                // The verifiers have nothing left to do.
                lock().taken = segments.len();
                moved.notify_all();
                return Err(error);
            }
        }
        Ok(())
    })
}
