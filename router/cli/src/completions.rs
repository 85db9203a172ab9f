//! `chaski completions`: what a shell needs to complete the command line.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::out;

/// Prints completions for a shell
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  chaski completions bash > ~/.local/share/bash-completion/completions/chaski"
)]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "chaski", &mut script);
    out::bytes(&script)
}
