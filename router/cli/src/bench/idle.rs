//! `chaski bench idle`: what a router uses that has nothing to do.

use std::time::{Duration, Instant};

use super::report::{Latencies, Measurement};
use super::target::Target;
use super::usage;
use crate::child::Router;

/// How long a router may settle after its start.
const SETTLE: Duration = Duration::from_secs(2);

/// Watches a router with one idle connection for `window`.
pub(crate) async fn run(router: &Router, window: Duration) -> anyhow::Result<Measurement> {
    let client = Target::child(router).connect().await?;
    tokio::time::sleep(SETTLE).await;
    let (begun, before) = (Instant::now(), usage::processor_time(router.pid())?);
    tokio::time::sleep(window).await;
    let used = usage::processor_time(router.pid())?.saturating_sub(before);
    let elapsed = begun.elapsed();
    let resident = usage::resident(router.pid())?;
    client.close().await;
    Ok(Measurement::new("idle", 0, elapsed, &Latencies::new())
        .with("core_percent", 100.0 * used.as_secs_f64() / elapsed.as_secs_f64())
        .with("resident_mib", resident as f64 / f64::from(1 << 20)))
}
