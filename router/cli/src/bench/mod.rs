//! `chaski bench`: what the router does on this machine, beside what nobody can beat. Each work is a file of its own and
//! answers a measurement; only this file knows them all.

mod backlog;
mod consume;
mod drain;
mod fanout;
mod filter;
mod floor;
mod gather;
mod hostile;
mod idle;
mod load;
mod publish;
mod relocation;
mod report;
mod request;
mod roundtrip;
mod routing;
mod rules;
mod saga;
mod target;
mod targets;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use chaski_protocol::Code;
use clap::Subcommand;

use crate::child::{self, Router, Setup};
use crate::context::Context;
use crate::failure::fail;
use load::Load;
use report::{Measurement, Report};
use target::Target;

/// Measures a router, and the machine that it runs on
///
/// Each work makes queues of its own (`bench.…`) and deletes them. With --json one object a line:
/// {work, per_second, p50_us, p99_us, p999_us}.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski bench publish --size 1024 --in-flight 1")]
pub(crate) struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand, Clone, Debug)]
enum Work {
    /// What nobody can beat here: one bare QUIC stream, and the disk. Needs no router
    #[command(after_help = "Example:\n  chaski bench floor --data /var/lib/chaski")]
    Floor(floor::Options),
    /// Publishes, each confirmed; --in-flight 1 is one at a time
    #[command(after_help = "Example:\n  chaski bench publish --count 1000000 --durability fsync")]
    Publish(Load),
    /// A backlog, fetched and acknowledged
    #[command(after_help = "Example:\n  chaski bench consume --consumers 2")]
    Consume(Load),
    /// Publish, consume and ack as one flow; latencies are from publish to delivery
    #[command(after_help = "Example:\n  chaski bench roundtrip --in-flight 1 --durability memory")]
    Roundtrip(Load),
    /// Requests and replies
    #[command(after_help = "Example:\n  chaski bench request --in-flight 1 --durability memory")]
    Request(Load),
    /// Requests scattered to many, answered once by the builtin `collect`
    #[command(after_help = "Example:\n  chaski bench gather --in-flight 1 --recipients 10")]
    Gather {
        #[command(flatten)]
        load: Load,
        /// Queues that each request goes to
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        recipients: u32,
        /// Nobody answers: what open gathers cost in memory. Starts a router of its own
        #[arg(long)]
        open: bool,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// Sagas of three steps, each completed at once
    #[command(after_help = "Example:\n  chaski bench saga --count 30000\n  chaski bench saga --waiting")]
    Saga {
        #[command(flatten)]
        load: Load,
        /// Nobody works for them: what waiting sagas cost in memory, and how late timeouts are. Starts a router of its own
        #[arg(long)]
        waiting: bool,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// Publishes through a module beside publishes past it, and what a new version costs. Starts a router of its own
    ///
    /// Two topics take turns in one run: one goes straight to its queue, the other through a route with the module. Then a module of
    /// 200 KiB is deployed until its first verdict, compiled and from the cache; and a module is swapped 100 times while publishes
    /// go on.
    #[command(
        after_help = "Example:\n  chaski bench filter --durability memory\n  chaski bench filter --module eu_only.wasm --params '{\"region\":\"eu\"}'"
    )]
    Filter {
        #[command(flatten)]
        options: filter::Options,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// Publishes on other routes beside modules that misbehave, and without. Starts a router of its own
    #[command(after_help = "Example:\n  chaski bench hostile --modules 100")]
    Hostile {
        #[command(flatten)]
        options: hostile::Options,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// One publish to many queues
    #[command(after_help = "Example:\n  chaski bench fanout --queues 100")]
    Fanout {
        #[command(flatten)]
        load: Load,
        /// Queues that take each message
        #[arg(long, default_value_t = 100)]
        queues: u32,
    },
    /// A publish among many queues and bindings, beside one with a single queue
    #[command(after_help = "Example:\n  chaski bench routing --queues 1000 --patterns 10")]
    Routing {
        #[command(flatten)]
        load: Load,
        /// Queues
        #[arg(long, default_value_t = 1_000)]
        queues: u32,
        /// Patterns that each queue binds to
        #[arg(long, default_value_t = 10)]
        patterns: u32,
    },
    /// Publishes while what lives in old segments is written again, beside publishes before
    #[command(after_help = "Example:\n  chaski bench relocation --count 2000000")]
    Relocation(Load),
    /// A large backlog: memory, other queues, restart. Starts a router of its own
    #[command(after_help = "Example:\n  chaski bench backlog --count 5000000")]
    Backlog {
        #[command(flatten)]
        load: Load,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// A router with nothing to do: processor and memory. Starts a router of its own
    #[command(after_help = "Example:\n  chaski bench idle")]
    Idle {
        /// Seconds to watch
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Where the router's temporary data directory is made
        #[arg(long, default_value = "./chaski-data")]
        data: PathBuf,
    },
    /// Everything, against routers of its own, and how it compares with the targets
    #[command(after_help = "Example:\n  chaski bench targets --data /var/lib/chaski")]
    Targets(targets::Options),
    /// The other end of the bare stream
    #[command(hide = true)]
    EchoServer,
    /// A command of this binary that ends with the process that started it
    #[command(hide = true)]
    Child {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Runs one work; on Ctrl-C its queues are deleted all the same.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let mut report = Report::new(context.json);
    let target = Target::named(context);
    match &args.work {
        Work::EchoServer => floor::serve().await,
        Work::Child { arguments } => child::replace_by(arguments).map(|never| match never {}),
        Work::Floor(options) => or_interrupt(floor::run(options, &mut report)).await.map(|_| ()),
        Work::Targets(options) => or_interrupt(targets::run(options, &mut report, context.json)).await,
        Work::Publish(load) => on_named(&target, &mut report, one(publish::run(&target, load))).await,
        Work::Consume(load) => on_named(&target, &mut report, one(consume::run(&target, load))).await,
        Work::Roundtrip(load) => on_named(&target, &mut report, one(roundtrip::run(&target, load))).await,
        Work::Request(load) => on_named(&target, &mut report, one(request::run(&target, load))).await,
        Work::Relocation(load) => on_named(&target, &mut report, one(relocation::run(&target, load))).await,
        Work::Fanout { load, queues } => {
            on_named(&target, &mut report, one(fanout::run(&target, load, *queues))).await
        }
        Work::Routing { load, queues, patterns } => {
            on_named(&target, &mut report, routing::run(&target, load, *queues, *patterns)).await
        }
        Work::Gather { load, recipients, open: true, data } => {
            let work =
                own(data, &mut report, async |router, _| gather::open(router, load, *recipients).await);
            or_interrupt(work).await
        }
        Work::Gather { load, recipients, .. } => {
            on_named(&target, &mut report, one(gather::run(&target, load, *recipients))).await
        }
        Work::Saga { load, waiting: true, data } => {
            let work =
                own(data, &mut report, async |router, report| saga::waiting(router, load, report).await);
            or_interrupt(work).await
        }
        Work::Saga { load, .. } => on_named(&target, &mut report, one(saga::run(&target, load))).await,
        Work::Filter { options, data } => {
            or_interrupt(filter::run(options, data, &mut report)).await.map(|_| ())
        }
        Work::Hostile { options, data } => {
            or_interrupt(own(data, &mut report, async |router, _| hostile::run(router, options).await)).await
        }
        Work::Backlog { load, data } => or_interrupt(own_backlog(load, data, &mut report)).await,
        Work::Idle { seconds, data } => or_interrupt(own_idle(*seconds, data, &mut report)).await,
    }
}

async fn one(work: impl Future<Output = anyhow::Result<Measurement>>) -> anyhow::Result<Vec<Measurement>> {
    Ok(vec![work.await?])
}

/// A work against the router that the user named. Its queues go, however it ends.
async fn on_named(
    target: &Target,
    report: &mut Report,
    work: impl Future<Output = anyhow::Result<Vec<Measurement>>>,
) -> anyhow::Result<()> {
    let found = or_interrupt(work).await;
    if found.is_err() {
        // The work's own error says more than one of this clean-up would.
        let _ = load::delete_queues(target).await;
    }
    found?.iter().try_for_each(|found| report.print(found))
}

async fn or_interrupt<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        ended = work => ended,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(fail(Code::ShuttingDown, "interrupted"))
        }
        _ = terminate.recv() => Err(fail(Code::ShuttingDown, "interrupted")),
    }
}

async fn own_backlog(load: &Load, data: &PathBuf, report: &mut Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(data)?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let (router, found) = backlog::run(router, load, load.count.unwrap_or(5_000_000), report).await?;
    router.stop().await?;
    found.iter().try_for_each(|found| report.print(found))
}

async fn own_idle(seconds: u64, data: &PathBuf, report: &mut Report) -> anyhow::Result<()> {
    own(data, report, async |router, _| idle::run(router, Duration::from_secs(seconds)).await).await
}

/// A work on a router of its own.
async fn own(
    data: &PathBuf,
    report: &mut Report,
    work: impl AsyncFnOnce(&Router, &mut Report) -> anyhow::Result<Measurement>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(data)?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let found = work(&router, report).await?;
    router.stop().await?;
    report.print(&found)
}
