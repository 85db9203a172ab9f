//! `chaski bench floor`: what nobody can beat on this machine, in this run. No router takes part.

mod disk;
mod echo;
mod quic;
mod stream;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::report::{Measurement, Report};

pub(crate) use echo::serve;

/// What the floor is measured with.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The directory whose disk is measured
    #[arg(long, default_value = "./chaski-data")]
    pub(crate) data: PathBuf,
    /// Seconds for each of the measurements, roughly
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Round trips of the ping
    #[arg(long, default_value_t = 5_000)]
    pub(crate) pings: u64,
}

/// The floor's numbers, those that the targets are ratios to.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    /// Frames of 256 bytes a second over one stream.
    pub(crate) frames_256: f64,
    /// Frames of 1 KiB a second over one stream.
    pub(crate) frames_1024: f64,
    /// One small frame there and back at p50, in microseconds.
    pub(crate) ping_us: f64,
    /// Append of 4 KiB and fdatasync at p50, in microseconds.
    pub(crate) sync_4k_us: f64,
    /// Bytes a second in appends of 1 MiB, each synced.
    pub(crate) sync_1m_bytes: f64,
}

/// Measures and prints.
pub(crate) async fn run(options: &Options, report: &mut Report) -> anyhow::Result<Floor> {
    let echo = stream::Echo::start().await?;
    let mut print = |found: Measurement| report.print(&found).map(|()| found);
    let frames_256 = print(stream::frames(&echo, 256, options.seconds).await?)?;
    let frames_1024 = print(stream::frames(&echo, 1024, options.seconds).await?)?;
    let ping = print(stream::ping(&echo, options.pings.max(1)).await?)?;
    let sync_4k = print(appends(&options.data, 4 << 10, options.seconds).await?)?;
    print(appends(&options.data, 64 << 10, options.seconds).await?)?;
    let sync_1m = print(appends(&options.data, 1 << 20, options.seconds).await?)?;
    Ok(Floor {
        frames_256: frames_256.per_second,
        frames_1024: frames_1024.per_second,
        ping_us: ping.p50_us,
        sync_4k_us: sync_4k.p50_us,
        sync_1m_bytes: sync_1m.number("bytes_per_second"),
    })
}

async fn appends(data: &Path, size: usize, seconds: f64) -> anyhow::Result<Measurement> {
    let budget = Duration::try_from_secs_f64(seconds)?;
    let data = data.to_owned();
    // A directory that was not there is made for the measurement, and goes with it.
    tokio::task::spawn_blocking(move || {
        let made = !data.exists();
        std::fs::create_dir_all(&data)?;
        let found = disk::appends(&data, size, budget);
        if made {
            let _ = std::fs::remove_dir(&data);
        }
        found
    })
    .await?
}
