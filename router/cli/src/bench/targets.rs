//! `chaski bench targets`: the floor, every work against a router of its own, and how each compares with what it should
//! reach. The requirements are ratios to the floor of the same run, since machines differ from hour to hour.

use std::time::Duration;

use serde::Serialize;

use super::floor::{self, Floor};
use super::load::{Durability, Load};
use super::report::{Measurement, Report, grouped};
use super::target::Target;
use super::{
    backlog, consume, fanout, filter, gather, hostile, idle, publish, relocation, request, roundtrip,
    routing, saga,
};
use crate::child::{Router, Setup};

/// The durable bytes a second that a target may use, of those that the bare disk takes.
const DISK_SHARE: f64 = 0.6;

/// Those that a gather asks.
const RECIPIENTS: u32 = 10;

/// What the run is made of.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "targets")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) floor: floor::Options,
    /// Messages of the backlog; 0 leaves it out
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) backlog: u64,
    /// Messages of each of the other works, instead of what suits each
    #[arg(long)]
    pub(crate) count: Option<u64>,
}

/// One line of the closing table.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    target: &'static str,
    measured: f64,
    bound: Bound,
    required: f64,
    unit: &'static str,
    met: bool,
    /// How the requirement came about.
    because: String,
}

/// On which side of the requirement the measured value should be.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Bound {
    AtLeast,
    AtMost,
}

impl Line {
    fn at_least(
        target: &'static str,
        measured: f64,
        required: f64,
        unit: &'static str,
        because: String,
    ) -> Line {
        let met = measured >= required;
        Line { target, measured, bound: Bound::AtLeast, required, unit, met, because }
    }

    fn at_most(
        target: &'static str,
        measured: f64,
        required: f64,
        unit: &'static str,
        because: String,
    ) -> Line {
        let met = measured <= required;
        Line { target, measured, bound: Bound::AtMost, required, unit, met, because }
    }
}

/// Measures everything; prints the results as they come, the table at the end.
pub(crate) async fn run(options: &Options, report: &mut Report, json: bool) -> anyhow::Result<()> {
    report.say("the floor: one bare stream, and the disk");
    let floor = floor::run(&options.floor, report).await?;
    std::fs::create_dir_all(&options.floor.data)?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.floor.data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let mut lines = Vec::new();
    report.say("an idle router");
    let found = show(report, idle::run(&router, Duration::from_secs(10)).await?)?;
    lines.push(Line::at_most(
        "idle: processor",
        found.number("core_percent"),
        1.0,
        "% of a core",
        String::new(),
    ));
    lines.push(Line::at_most("idle: memory", found.number("resident_mib"), 60.0, "MiB", String::new()));
    report.say("throughput, latency, fan-out and routing");
    rates(options, &floor, &router, report, &mut lines).await?;
    latencies(options, &floor, &router, report, &mut lines).await?;
    shapes(options, &router, report, &mut lines).await?;
    filters(options, report, &mut lines).await?;
    harm(options, report, &mut lines).await?;
    steering(options, &floor, &router, report, &mut lines).await?;
    router.stop().await?;
    if options.backlog > 0 {
        large(options, report, &mut lines).await?;
        moved(options, report, &mut lines).await?;
    }
    print(&lines, json)
}

fn show(report: &mut Report, found: Measurement) -> anyhow::Result<Measurement> {
    report.print(&found)?;
    Ok(found)
}

async fn rates(
    options: &Options,
    floor: &Floor,
    router: &Router,
    report: &mut Report,
    lines: &mut Vec<Line>,
) -> anyhow::Result<()> {
    let target = Target::child(router);
    let load = Load { count: options.count, ..Load::default() };
    let found = show(report, publish::run(&target, &load).await?)?;
    lines.push(rate("publish 256 B", &found, 0.2, floor.frames_256, floor));
    let large = Load { size: Some(1024), ..load.clone() };
    let found = show(report, publish::run(&target, &large).await?)?;
    lines.push(rate("publish 1 KiB", &found, 0.25, floor.frames_1024, floor));
    let found = show(report, roundtrip::run(&target, &load).await?)?;
    lines.push(rate("publish, consume, ack", &found, 0.08, floor.frames_256, floor));
    show(report, consume::run(&target, &load).await?)?;
    show(report, request::run(&target, &Load { durability: Some(Durability::Memory), ..load }).await?)?;
    Ok(())
}

/// At least the smaller of a share of the bare frame rate and what the disk takes at this journal's bytes a message.
fn rate(target: &'static str, found: &Measurement, share: f64, frames: f64, floor: &Floor) -> Line {
    let journaled = found.number("journaled_per_message").max(1.0);
    let disk = DISK_SHARE * floor.sync_1m_bytes / journaled;
    let because = format!(
        "min({share} × {} bare frames/s, D = {} at {journaled:.0} B journaled a message)",
        grouped(frames.round()),
        grouped(disk.round())
    );
    Line::at_least(target, found.per_second, (share * frames).min(disk), "/s", because)
}

async fn latencies(
    options: &Options,
    floor: &Floor,
    router: &Router,
    report: &mut Report,
    lines: &mut Vec<Line>,
) -> anyhow::Result<()> {
    let target = Target::child(router);
    let count = options.count.map(|count| count.min(5_000));
    let one = Load { in_flight: Some(1), count, ..Load::default() };
    let memory = Load { durability: Some(Durability::Memory), ..one.clone() };
    let found = show(report, publish::run(&target, &one).await?)?;
    let because =
        format!("1.3 × ({:.0} µs ping + {:.0} µs fdatasync of 4 KiB)", floor.ping_us, floor.sync_4k_us);
    let limit = 1.3 * (floor.ping_us + floor.sync_4k_us);
    lines.push(Line::at_most("one publish at a time, p50", found.p50_us, limit, "µs", because));
    let found = show(report, roundtrip::run(&target, &memory).await?)?;
    let because = format!("1.7 × {:.0} µs ping", floor.ping_us);
    lines.push(Line::at_most("publish to delivery, p50", found.p50_us, 1.7 * floor.ping_us, "µs", because));
    let found = show(report, request::run(&target, &memory).await?)?;
    let because = format!("2.5 × {:.0} µs ping", floor.ping_us);
    lines.push(Line::at_most("request and reply, p50", found.p50_us, 2.5 * floor.ping_us, "µs", because));
    Ok(())
}

async fn shapes(
    options: &Options,
    router: &Router,
    report: &mut Report,
    lines: &mut Vec<Line>,
) -> anyhow::Result<()> {
    let target = Target::child(router);
    let load = Load { count: options.count.map(|count| count.min(2_000)), ..Load::default() };
    let found = show(report, fanout::run(&target, &load, 100).await?)?;
    let because = "bytes written by the router ÷ bytes of the bodies".to_owned();
    let written = found.number("written_per_body");
    lines.push(Line::at_most("fan-out to 100: body written", written, 2.0, "times", because));
    let load = Load { count: options.count, ..Load::default() };
    for found in routing::run(&target, &load, 1_000, 10).await? {
        let found = show(report, found)?;
        if found.more.contains_key("cost_ratio") {
            let because = "cost a publish ÷ cost with one queue".to_owned();
            let cost = found.number("cost_ratio");
            lines.push(Line::at_most("routing: 10,000 bindings", cost, 2.0, "times", because));
        }
    }
    Ok(())
}

/// On a router of its own, with rules of its own.
async fn filters(options: &Options, report: &mut Report, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    report.say("a module on the way of publishes, deploys and swaps");
    let load = Load { count: options.count, ..Load::default() };
    let filter = filter::Options { load, module: None, params: None, batch: None };
    for found in filter::run(&filter, &options.floor.data, report).await? {
        lines.extend(filtered(&found));
    }
    Ok(())
}

/// On another router of its own, with rules of its own.
async fn harm(options: &Options, report: &mut Report, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    report.say("a hundred hostile modules");
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.floor.data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let found = show(report, hostile::run(&router, &hostile::Options::default()).await?)?;
    router.stop().await?;
    let because = "worst of 5 other routes: p99 beside them ÷ p99 without".to_owned();
    let growth = found.number("p99_growth");
    lines.push(Line::at_most("hostile: publish p99 growth", growth, 2.0, "times", because));
    let because = "100 modules at work, of nine kinds".to_owned();
    let resident = found.number("resident_mib");
    lines.push(Line::at_most("hostile: memory", resident, 1_024.0, "MiB", because));
    Ok(())
}

/// What is required of a work of `bench filter`, if anything.
fn filtered(found: &Measurement) -> Option<Line> {
    let because = |text: &str| text.to_owned();
    Some(match found.work.as_str() {
        "publish-filtered" => {
            let because = because("through a filter on one header ÷ past it, the median of turns");
            Line::at_least("filter: publish 256 B", found.number("rate_ratio"), 0.9, "times", because)
        }
        "deploy-cold" => {
            let because = because("200 KiB, from the upload to the first verdict, p50");
            Line::at_most("filter: deploy", found.p50_us / 1_000.0, 300.0, "ms", because)
        }
        "deploy-cached" => {
            let because = because("the same with its code in the cache, p50");
            Line::at_most("filter: deploy, cached", found.p50_us / 1_000.0, 20.0, "ms", because)
        }
        "publish-while-swapping" => {
            let because = because("p99 during 100 swaps ÷ p99 without");
            Line::at_most("filter: publish p99 growth", found.number("p99_growth"), 2.0, "times", because)
        }
        _ => return None,
    })
}

/// Gathers and sagas. What many of them cost in memory is looked at on routers of their own.
async fn steering(
    options: &Options,
    floor: &Floor,
    router: &Router,
    report: &mut Report,
    lines: &mut Vec<Line>,
) -> anyhow::Result<()> {
    report.say("gathers and sagas");
    let target = Target::child(router);
    let load = Load { count: options.count, ..Load::default() };
    let one = Load { in_flight: Some(1), count: options.count.map(|count| count.min(2_000)), ..load.clone() };
    let found = show(report, gather::run(&target, &one, RECIPIENTS).await?)?;
    let because = format!("scattered to {RECIPIENTS}; 14 × {:.0} µs ping", floor.ping_us);
    lines.push(Line::at_most("gather, p50", found.p50_us, 14.0 * floor.ping_us, "µs", because));
    let found = show(report, gather::run(&target, &load, RECIPIENTS).await?)?;
    let because = format!("scattered to {RECIPIENTS}, memory");
    lines.push(Line::at_least("gathers", found.per_second, 5_000.0, "/s", because));
    let found = show(report, saga::run(&target, &load).await?)?;
    lines.push(Line::at_least("sagas", found.per_second, 3_000.0, "/s", "3 steps, fsync".to_owned()));

    std::fs::create_dir_all(&options.floor.data)?;
    let fresh = || tempfile::Builder::new().prefix("bench-").tempdir_in(&options.floor.data);
    let directory = fresh()?;
    let own = Router::start(Setup::new(directory.path())).await?;
    let found = show(report, gather::open(&own, &load, RECIPIENTS).await?)?;
    own.stop().await?;
    let because = format!("100,000 open, scattered to {RECIPIENTS}");
    lines.push(Line::at_most("gathers: memory", found.number("resident_mib"), 1_024.0, "MiB", because));
    let directory = fresh()?;
    let own = Router::start(Setup::new(directory.path())).await?;
    let found = saga::waiting(&own, &load, report).await?;
    let found = show(report, found)?;
    own.stop().await?;
    let because = "1,000,000 waiting".to_owned();
    let resident = found.number("resident_mib");
    lines.push(Line::at_most("sagas: memory", resident, 2_048.0, "MiB", because.clone()));
    let late = found.number("timeout_late_max_ms");
    lines.push(Line::at_most("sagas: a timeout is late by", late, 100.0, "ms", because));
    Ok(())
}

/// On a router of its own: otherwise the ids of earlier works would leave its dedup window meanwhile.
async fn large(options: &Options, report: &mut Report, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let count = options.backlog;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.floor.data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let (router, found) = backlog::run(router, &Load::default(), count, report).await?;
    for found in found {
        let found = show(report, found)?;
        if found.work == "backlog-publish" {
            let because = "p99 of the last nine tenths ÷ p99 of the first".to_owned();
            let growth = found.number("p99_growth");
            lines.push(Line::at_most("backlog: publish p99 growth", growth, 2.0, "times", because));
            continue;
        }
        let because = format!("{} messages of 256 B", grouped(count as f64));
        let resident = found.number("resident_mib");
        lines.push(Line::at_most("backlog: memory", resident, 1536.0, "MiB", because.clone()));
        let ready = found.number("restart_ms") / 1000.0;
        lines.push(Line::at_most("backlog: restart", ready, 10.0, "s", because));
        let because = "flow through another queue ÷ the same without the backlog".to_owned();
        let others = found.number("others_ratio");
        lines.push(Line::at_least("backlog: other queues", others, 0.9, "times", because));
    }
    router.stop().await?;
    Ok(())
}

/// On a router of its own: what others left in the journal would be moved as well.
async fn moved(options: &Options, report: &mut Report, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    report.say("old segments with little that lives");
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.floor.data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let load = Load { count: Some(options.backlog * 2 / 5), ..Load::default() };
    let found = show(report, relocation::run(&Target::child(&router), &load).await?)?;
    router.stop().await?;
    let because = "p99 while bodies are moved ÷ p99 before".to_owned();
    let growth = found.number("p99_growth");
    lines.push(Line::at_most("relocation: publish p99 growth", growth, 2.0, "times", because));
    Ok(())
}

fn print(lines: &[Line], json: bool) -> anyhow::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    if json {
        for line in lines {
            writeln!(out, "{}", serde_json::to_string(line)?)?;
        }
        return Ok(());
    }
    writeln!(out, "\n{:<30} {:>12}   {:>14}  {:>5}", "target", "measured", "required", "met")?;
    for line in lines {
        let bound = if line.bound == Bound::AtLeast { "≥" } else { "≤" };
        let met = if line.met { "yes" } else { "NO" };
        let number = |value: f64| if value < 100.0 { format!("{value:.2}") } else { grouped(value.round()) };
        let (measured, required) = (number(line.measured), number(line.required));
        writeln!(
            out,
            "{:<30} {measured:>12} {bound} {required:>14}  {met:>5}  {}  {}",
            line.target, line.unit, line.because
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Latencies;

    const FLOOR: Floor = Floor {
        frames_256: 2_400_000.0,
        frames_1024: 800_000.0,
        ping_us: 110.0,
        sync_4k_us: 400.0,
        sync_1m_bytes: 500e6,
    };

    fn found(per_second: u64, journaled: u64) -> Measurement {
        Measurement::new("publish", per_second, Duration::from_secs(1), &Latencies::new())
            .with("journaled_per_message", journaled)
    }

    #[test]
    fn a_filter_may_cost_a_tenth_and_a_deploy_a_moment() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_millis(25));
        let work = |name: &str| Measurement::new(name, 1, Duration::from_secs(1), &latencies);
        let met = |found: Measurement| filtered(&found).map(|line| line.met);
        assert_eq!(met(work("publish-filtered").with("rate_ratio", 0.9)), Some(true));
        assert_eq!(met(work("publish-filtered").with("rate_ratio", 0.89)), Some(false));
        assert_eq!(met(work("deploy-cold")), Some(true));
        assert_eq!(met(work("deploy-cached")), Some(false));
        assert_eq!(met(work("publish-while-swapping").with("p99_growth", 2.1)), Some(false));
        assert_eq!(met(work("publish-unfiltered")), None);
    }

    #[test]
    fn a_rate_is_held_against_the_smaller_of_network_and_disk() {
        let line = rate("publish 256 B", &found(500_000, 300), 0.2, FLOOR.frames_256, &FLOOR);
        assert!(line.met && line.required == 480_000.0, "the network is the smaller: {line:?}");
        let line = rate("publish 256 B", &found(400_000, 1000), 0.2, FLOOR.frames_256, &FLOOR);
        assert!(line.met && line.required == 300_000.0, "the disk is the smaller: {line:?}");
        let line = rate("publish 256 B", &found(299_999, 1000), 0.2, FLOOR.frames_256, &FLOOR);
        assert!(!line.met, "{line:?}");
    }
}
