//! How long a restart takes in the journal: writes a log of so many records, then opens, verifies and hands all of it out.
//! `cargo run --release -p chaski-journal --example replay DIR [RECORDS] [BYTES]`.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use chaski_journal::{Batch, DiskStorage, Journal, Options, open};

/// Records in a batch, as under load.
const BATCH: u64 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("name a directory that does not exist yet")?;
    let records: u64 = arguments.next().map_or(Ok(5_000_000), |number| number.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(320), |number| number.parse())?;

    let (tell, told) = channel();
    let recovery = open(Arc::new(DiskStorage::new(&path)?), Options::default())?;
    // The receiver is gone at the end.
    let mut journal = recovery.start(move |told| drop(tell.send(told)))?;
    let begun = Instant::now();
    for _ in 0..records / BATCH {
        let mut batch = Batch::new(1);
        for number in 0..BATCH {
            batch.push(|buffer| buffer.resize(buffer.len() + bytes, number as u8));
        }
        journal.append(batch, true);
        while journal.in_flight() > 1 {
            told.recv()?;
        }
    }
    println!("wrote {records} records of {bytes} B in {:.2} s", begun.elapsed().as_secs_f64());
    Box::new(journal).close();

    let (begun, worked) = (Instant::now(), processor_seconds().unwrap_or_default());
    let mut recovery = open(Arc::new(DiskStorage::new(&path)?), Options::default())?;
    let (mut count, mut total) = (0_u64, 0_u64);
    recovery.replay(&mut |batch| {
        for record in batch.records() {
            count += 1;
            total += record.len() as u64;
        }
        Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let rate = total as f64 / seconds / 1e6;
    let worked = processor_seconds().unwrap_or_default() - worked;
    println!(
        "verified and handed out {count} records in {seconds:.2} s ({worked:.2} s of processors), {rate:.0} MB/s of records"
    );
    let begun = Instant::now();
    let journal = recovery.start(|_| {})?;
    println!("started in {:.3} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let stats = (0..1000).map(|_| journal.stats().segments).max();
    println!("1000 times stats of {stats:?} segments: {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
    println!("{}", memory().unwrap_or_default());
    Ok(())
}

/// What this process has used of all processors, where the operating system says so.
fn processor_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    // A tick is 10 ms on every Linux.
    Some((ticks()? + ticks()?) / 100.0)
}

/// The largest memory that the process had, where the operating system says so.
fn memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find(|line| line.starts_with("VmHWM")).map(str::to_owned)
}
