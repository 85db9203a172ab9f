//! What the data directory's disk does: appends to a file that was allocated ahead, each followed by fdatasync, as the
//! journal does it. It knows nothing of the journal's format.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::bench::report::{Latencies, Measurement};

/// Bytes of the file that is written: one journal segment.
const SEGMENT: u64 = 64 << 20;

/// Appends of `size` bytes with fdatasync after each, for about `budget`, at least 20 of them.
pub(super) fn appends(directory: &Path, size: usize, budget: Duration) -> anyhow::Result<Measurement> {
    let mut file = allocated(directory)?;
    let block: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let mut latencies = Latencies::new();
    let (mut offset, mut count, mut spent) = (0, 0u64, Duration::ZERO);
    while spent < budget || count < 20 {
        if offset + size as u64 > SEGMENT {
            // Outside the measured time: the journal has spare segments ready, too.
            file = allocated(directory)?;
            offset = 0;
        }
        let begun = Instant::now();
        file.write_all_at(&block, offset)?;
        file.sync_data()?;
        let took = begun.elapsed();
        latencies.record(took);
        spent += took;
        offset += size as u64;
        count += 1;
    }
    let bytes_per_second = (count as f64 * size as f64 / spent.as_secs_f64()).round();
    let name = chaski_protocol::format_size(size as u64);
    Ok(Measurement::new(format!("floor.fdatasync-{name}"), count, spent, &latencies)
        .with("bytes_per_second", bytes_per_second))
}

/// A file without a name in `directory`, with its blocks allocated.
fn allocated(directory: &Path) -> anyhow::Result<File> {
    let file = tempfile::tempfile_in(directory)
        .with_context(|| format!("cannot write into the data directory {}", directory.display()))?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT)
        .context("cannot allocate 64 MiB on the data directory's disk")?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_leave_nothing_behind() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let found = appends(directory.path(), 4096, Duration::ZERO).expect("a disk");
        assert!(found.per_second > 0.0 && found.number("bytes_per_second") > 0.0);
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }
}
