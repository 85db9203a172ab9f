//! `chaski respond`: answers the requests of a queue by running a command for each.

use chaski_protocol::MAX_CREDIT;

use crate::consume::{self, Flow, Task};
use crate::context::Context;

/// Answers requests: runs a command for each, and replies with what it prints
///
/// The command gets what it gets from `consume --exec`. Exit code 0 replies and acknowledges, 65 rejects the request with
/// the last line of its stderr, anything else gives it back for another attempt. A saga's step completes with what the
/// command prints, and fails with 65; CHASKI_HEADER_CHASKI_STEP and its like tell which step it is.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski respond price --exec 'jq .amount'")]
pub(crate) struct Args {
    /// The queue with the requests
    queue: String,
    /// The command (`sh -c CMD`)
    #[arg(long, value_name = "CMD")]
    exec: String,
    /// Commands that run at the same time
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CREDIT)))]
    credit: u32,
}

/// Answers until it is told to stop.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let flow = Flow { count: None, timeout: None, credit: args.credit, filters: Vec::new() };
    consume::serve(&args.queue, Task::Respond(args.exec.clone()), flow, context).await
}
