//! `chaski bench backlog`: millions of messages that nobody takes. What they cost in memory, what they cost others, whether
//! publishes stay even while tables grow and snapshots are written, and how long a restart takes.

use std::time::{Duration, Instant};

use super::load::{self, Durability, Load};
use super::report::{Latencies, Measurement, Report};
use super::target::Target;
use super::{roundtrip, usage};
use crate::child::Router;

/// How much of the backlog is published before its latencies are compared with those of the rest.
const FIRST_PART: u64 = 10;

/// Publishes `count` messages, restarts the router, and looks. Answers the restarted router.
pub(crate) async fn run(
    router: Router,
    load: &Load,
    count: u64,
    report: &mut Report,
) -> anyhow::Result<(Router, Vec<Measurement>)> {
    let target = Target::child(&router);
    let clients = load::connect_all(&target, load.producers()).await?;
    let queue = load::create_queue(&clients[0], "backlog", Durability::Fsync).await?;
    // Long enough for a second or two: a shorter flow says more about the moment, a snapshot for instance.
    let flow = Load { count: Some(400_000), durability: Some(Durability::Fsync), ..Load::default() };
    let without = median(&target, &flow).await?;

    report.say(&format!("publishing a backlog of {count} messages"));
    // A window that keeps the router busy without a queue of its own, so that a pause shows as a pause.
    let fill = Load { in_flight: Some(load.in_flight.unwrap_or(1_024)), ..load.clone() };
    let begun = Instant::now();
    let first = load::produce(&clients, &queue, &fill, (count / FIRST_PART).max(1)).await?;
    let rest = load::produce(&clients, &queue, &fill, count - (count / FIRST_PART).max(1)).await?;
    let elapsed = begun.elapsed();
    let resident = usage::resident(router.pid())?;
    let with = median(&target, &flow).await?;

    let mut all = Latencies::new();
    all.merge(&first);
    all.merge(&rest);
    let (restarted, ready) = restart(router, &queue, count).await?;
    let resident_after = usage::resident(restarted.pid())?;
    let mib = |bytes: u64| (bytes as f64 / f64::from(1 << 20)).round();
    let results = vec![
        Measurement::new("backlog-publish", count, elapsed, &all)
            .with("p99_growth", ratio(rest.at(0.99), first.at(0.99))),
        Measurement::new("backlog", count, elapsed, &Latencies::new())
            .with("messages", count)
            .with("resident_mib", mib(resident))
            .with("restart_ms", ready.as_millis() as u64)
            .with("resident_after_restart_mib", mib(resident_after))
            .with("others_ratio", ratio(with.per_second, without.per_second))
            .with("others_p99_ratio", ratio(with.p99_us, without.p99_us)),
    ];
    Ok((restarted, results))
}

/// The flow through another queue, the middle one of three runs: one alone says more about the machine's moment.
async fn median(target: &Target, flow: &Load) -> anyhow::Result<Measurement> {
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(roundtrip::run(target, flow).await?);
    }
    runs.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    Ok(runs.swap_remove(1))
}

fn ratio(one: f64, other: f64) -> f64 {
    if other > 0.0 { one / other } else { 0.0 }
}

/// Kills and starts it; answers how long it took until it was ready, with every message there.
async fn restart(router: Router, queue: &str, count: u64) -> anyhow::Result<(Router, Duration)> {
    let setup = router.kill().await?;
    let begun = Instant::now();
    let router = Router::start(setup).await?;
    let client = Target::child(&router).connect().await?;
    while !client.admin().status().await?.ready {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ready = begun.elapsed();
    let messages = client.admin().queue_show(queue).await?.messages;
    anyhow::ensure!(messages == count, "{messages} messages are there after the restart, of {count}");
    client.close().await;
    Ok((router, ready))
}
