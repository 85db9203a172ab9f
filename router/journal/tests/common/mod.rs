//! Shared by the journal's tests: small records that name their position, and a journal without threads.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod script;

use std::sync::{Arc, Mutex};

use chaski_journal::sim::SimStorage;
use chaski_journal::{Batch, Journal, OpenError, Options, Position, Progress, Step, SteppedJournal, open};

/// Segments of a kilobyte.
pub(crate) fn small() -> Options {
    Options {
        segment_bytes: 1024,
        spare_segments: 1,
        low_disk_bytes: 0,
        zero_ahead_bytes: 0,
        snapshot_min_bytes: 1,
        ..Options::default()
    }
}

/// What the record at a position holds.
pub(crate) fn record(position: u64) -> Vec<u8> {
    let mut bytes = format!("record {position} ").into_bytes();
    bytes.resize(bytes.len() + (position * 37 % 61) as usize, b'.');
    bytes
}

/// A batch of the next records.
pub(crate) fn batch(journal: &dyn Journal, records: u64, now_ms: u64) -> Batch {
    let mut batch = Batch::new(now_ms);
    let first = journal.next_position().0;
    for position in first..first + records {
        batch.push(|buffer| buffer.extend_from_slice(&record(position)));
    }
    batch
}

/// Appends and writes a batch of the next records.
pub(crate) fn append(journal: &mut SteppedJournal, records: u64, sync: bool) {
    let batch = batch(journal, records, 1000 + journal.next_position().0);
    journal.append(batch, sync);
    assert!(journal.step(Step::Write), "there is room");
}

/// What was told, in order.
pub(crate) type Told = Arc<Mutex<Vec<Progress>>>;

/// Opens, replays, starts. The records of snapshot and log, in order.
pub(crate) fn recover(
    storage: &SimStorage,
    options: Options,
) -> Result<(SteppedJournal, Vec<Vec<u8>>, Told), OpenError> {
    let mut recovery = open(Arc::new(storage.clone()), options)?;
    let records = replayed(&mut recovery)?;
    let told = Told::default();
    let sink = Arc::clone(&told);
    let journal = recovery.start_stepped(move |progress| sink.lock().unwrap().push(progress))?;
    Ok((journal, records, told))
}

/// The records of the snapshot and those of the log behind it.
pub(crate) fn replayed(recovery: &mut chaski_journal::Recovery) -> Result<Vec<Vec<u8>>, OpenError> {
    let mut records = Vec::new();
    if let Some(snapshot) = recovery.snapshot() {
        let position = snapshot.position();
        for chunk in snapshot {
            records.push(chunk?);
        }
        assert_eq!(records.len() as u64, position.0, "a chunk for each record");
    }
    recovery.replay(&mut |batch| {
        if batch.records().next().is_some() {
            assert_eq!(batch.first.0, records.len() as u64 + 1, "positions are dense");
        }
        records.extend(batch.records().map(<[u8]>::to_vec));
        Ok(())
    })?;
    Ok(records)
}

/// Writes a snapshot of the records so far: a chunk each.
pub(crate) fn snapshot(
    journal: &mut SteppedJournal,
    records: &[Vec<u8>],
) -> Result<(), chaski_journal::SnapshotError> {
    let mut writer = journal.begin_snapshot(Position(records.len() as u64), 5000);
    for record in records {
        writer.write_chunk(record)?;
    }
    writer.finish().map(|_| ())
}

/// Reads one record on this thread.
pub(crate) fn read(
    journal: &mut SteppedJournal,
    positions: impl IntoIterator<Item = u64>,
) -> Vec<Result<Vec<u8>, String>> {
    let answers = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&answers);
    let positions: Vec<_> = positions.into_iter().map(Position).collect();
    let asked = positions.clone();
    journal.reader().read(positions, move |found| {
        let order: Vec<_> = found.iter().map(|(position, _)| *position).collect();
        assert_eq!(order, asked, "answers come in the order asked");
        let plain = |bytes: Result<_, chaski_journal::ReadError>| {
            bytes.map(|bytes: bytes::Bytes| bytes.to_vec()).map_err(|error| error.to_string())
        };
        *sink.lock().unwrap() = found.into_iter().map(|(_, bytes)| plain(bytes)).collect();
    });
    journal.step(Step::Read);
    let mut answers = answers.lock().unwrap();
    std::mem::take(&mut *answers)
}
