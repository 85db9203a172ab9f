//! What group commit costs on this machine's disk: latency of one batch at a time on segments that are only allocated,
//! zeroed ahead, or recycled, and throughput of large batches. `cargo run --release -p chaski-journal --example fsync DIR`.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use chaski_journal::{Batch, DiskStorage, Journal, LocalJournal, Options, Position, Progress, open};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn start(path: &str, options: Options) -> Outcome<(LocalJournal, Receiver<Progress>)> {
    let (tell, told) = channel();
    // The receiver is gone at the end.
    let journal =
        open(Arc::new(DiskStorage::new(path)?), options)?.start(move |told| drop(tell.send(told)))?;
    Ok((journal, told))
}

fn batch(bytes: usize, record: usize) -> Batch {
    let mut batch = Batch::new(1);
    while batch.bytes() < bytes {
        batch.push(|buffer| buffer.resize(buffer.len() + record, 7));
    }
    batch
}

/// One batch after the other, each waited for.
fn latency(journal: &mut LocalJournal, told: &Receiver<Progress>, name: &str, count: usize) {
    let mut times = Vec::with_capacity(count);
    let mut fsyncs = Vec::with_capacity(count);
    for _ in 0..count {
        let batch = batch(300, 256);
        let last = journal.next_position().0 + batch.len() as u64 - 1;
        let begun = Instant::now();
        journal.append(batch, true);
        let synced = told.iter().find_map(|told| match told {
            Progress::Synced { through, fsync, .. } if through.0 >= last => Some(fsync),
            _ => None,
        });
        times.push(begun.elapsed());
        fsyncs.extend(synced);
    }
    times.sort();
    fsyncs.sort();
    let at = |times: &[Duration], part: usize| times[times.len() * part / 1000].as_micros();
    println!(
        "{name}: p50 {} us, p99 {} us, p999 {} us; fdatasync alone p50 {} us",
        at(&times, 500),
        at(&times, 990),
        at(&times, 999),
        at(&fsyncs, 500)
    );
}

/// Two batches in flight, as the driver keeps them.
fn throughput(journal: &mut LocalJournal, told: &Receiver<Progress>, name: &str, bytes: usize, total: usize) {
    let begun = Instant::now();
    let mut records = 0;
    for _ in 0..total / bytes {
        let batch = batch(bytes, 300);
        records += batch.len();
        journal.append(batch, true);
        while journal.in_flight() >= 2 {
            let _ = told.recv();
        }
    }
    while journal.in_flight() > 0 {
        let _ = told.recv_timeout(Duration::from_millis(1));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = records as f64 / seconds / 1e3;
    println!("{name}: {:.0} MB/s, {rate:.0} thousand records of 300 B/s", total as f64 / seconds / 1e6);
}

fn main() -> Outcome<()> {
    let root = std::env::args().nth(1).ok_or("name a directory to write in")?;
    let defaults = Options::default();
    for (name, zero_ahead_bytes) in [("allocated only", 0), ("zeroed ahead", defaults.zero_ahead_bytes)] {
        let path = format!("{root}/{zero_ahead_bytes}");
        let (mut journal, told) = start(&path, Options { zero_ahead_bytes, ..Options::default() })?;
        latency(&mut journal, &told, name, 4000);
        throughput(&mut journal, &told, name, 256 << 10, 512 << 20);
        throughput(&mut journal, &told, name, 1 << 20, 512 << 20);
        Box::new(journal).close();
        let begun = Instant::now();
        let mut recovery = open(Arc::new(DiskStorage::new(&path)?), Options::default())?;
        let mut records = 0_u64;
        recovery.replay(&mut |batch| {
            records += batch.records().count() as u64;
            Ok(())
        })?;
        println!("  verified and replayed {records} records in {:.2} s", begun.elapsed().as_secs_f64());
        let mut journal = recovery.start(|_| {})?;
        for position in [records - 1, records] {
            journal.begin_snapshot(Position(position), 1).finish()?;
        }
        journal.trim(Position(1)..=Position(records));
        Box::new(journal).close();
        std::fs::remove_dir_all(&path)?;
    }
    let path = format!("{root}/recycled");
    let (mut journal, told) = start(&path, Options { segment_bytes: 8 << 20, ..Options::default() })?;
    for _ in 0..4 {
        throughput(&mut journal, &told, "filling", 1 << 20, 32 << 20);
        let last = journal.next_position().0 - 1;
        for position in [last - 1, last] {
            journal.begin_snapshot(Position(position), 1).finish()?;
        }
        journal.trim(Position(1)..=Position(last));
    }
    latency(&mut journal, &told, "recycled", 4000);
    Box::new(journal).close();
    std::fs::remove_dir_all(&path)?;
    Ok(())
}
