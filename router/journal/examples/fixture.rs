//! Writes the directory that `tests/fixture.rs` reads: small segments, a snapshot, batches behind it. Run once for a format
//! version; what it wrote is committed and never made again.

use std::sync::Arc;
use std::sync::mpsc::channel;

use chaski_journal::{Batch, DiskStorage, Journal, Options, Position, Progress, open};

fn record(position: u64) -> Vec<u8> {
    let mut bytes = format!("record {position} ").into_bytes();
    bytes.resize(bytes.len() + (position * 37 % 61) as usize, b'.');
    bytes
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a directory that does not exist yet")?;
    let options = Options { segment_bytes: 1024, spare_segments: 0, ..Options::default() };
    let (tell, told) = channel();
    // The receiver is gone at the end.
    let mut journal =
        open(Arc::new(DiskStorage::new(path)?), options)?.start(move |told| drop(tell.send(told)))?;
    for first in (1..=42).step_by(2) {
        let mut batch = Batch::new(1_700_000_000_000 + first);
        batch.push(|buffer| buffer.extend_from_slice(&record(first)));
        batch.push(|buffer| buffer.extend_from_slice(&record(first + 1)));
        journal.append(batch, true);
        let last = first + 1;
        told.iter().find(|told| matches!(told, Progress::Synced { through, .. } if through.0 >= last));
        if last == 20 {
            let mut snapshot = journal.begin_snapshot(Position(20), 1_700_000_000_020);
            for position in 1..=20 {
                snapshot.write_chunk(&record(position))?;
            }
            snapshot.finish()?;
        }
    }
    Box::new(journal).close();
    Ok(())
}
