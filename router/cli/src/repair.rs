//! `chaski repair`: the explicit operator command for a damaged journal. It says what is lost; it needs no running router.

use std::path::PathBuf;

use crate::context::Context;
use crate::out;

/// Says what is lost in a damaged journal, and with --apply goes on without it
///
/// The router must be stopped. Without --apply nothing is changed.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski repair --data ./chaski-data --apply")]
pub(crate) struct Args {
    /// The data directory
    #[arg(long, default_value = "./chaski-data", value_name = "DIR")]
    data: PathBuf,
    /// Cut out what is damaged
    #[arg(long)]
    apply: bool,
}

/// Looks, or repairs.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let Args { data, apply } = args.clone();
    let report = tokio::task::spawn_blocking(move || chaski_server::repair(&data, apply)).await??;
    if context.json { out::json(&report) } else { out::text(report.to_string()) }
}
