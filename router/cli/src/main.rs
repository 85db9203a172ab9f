//! The one binary: the router and every client command. Each command is a file of its own; this one takes the command line
//! apart, runs one command, and turns its end into an exit code. It knows nothing of what a command does.

mod args;
mod bench;
mod child;
mod cli;
mod completions;
mod consume;
mod context;
mod demo;
mod dlq;
mod exec;
mod failure;
mod gather;
mod human;
mod input;
mod message;
mod module;
mod out;
mod publish;
mod queue;
mod repair;
mod request;
mod respond;
mod rules;
mod saga;
mod serve;
mod status;
mod stop;
mod subscribe;
mod table;
mod trace;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};
use context::Context;

fn main() -> ExitCode {
    // Answers `--help` with exit code 0 and a usage error with 2, by itself.
    let Cli { command, connection, json } = Cli::parse();
    if let Command::CompileModule = command {
        // It limits its whole process, so nothing else is started before.
        return match chaski_server::compile_child(std::io::stdin().lock(), std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure::report(&error.into()),
        };
    }
    let context = Context::new(connection, json);
    if !matches!(command, Command::Serve(_)) {
        serve::log_warnings(if matches!(command, Command::Demo(_)) { "error" } else { "warn" });
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::report(&error.into()),
    };
    let ended = runtime.block_on(async {
        let ended = run(&command, &context).await;
        context.close().await;
        ended
    });
    // A read of stdin that nobody waits for any more must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

async fn run(command: &Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(args, context).await,
        Command::Status => status::run(context).await,
        Command::Publish(args) => publish::run(args, context).await,
        Command::Consume(args) => consume::run(args, context).await,
        Command::Subscribe(args) => subscribe::run(args, context).await,
        Command::Request(args) => request::run(args, context).await,
        Command::Respond(args) => respond::run(args, context).await,
        Command::Queue(args) => queue::run(args, context).await,
        Command::Dlq(args) => dlq::run(args, context).await,
        Command::Rules(args) => rules::run(args, context).await,
        Command::Module(args) => module::run(args, context).await,
        Command::Trace(args) => trace::run(args, context).await,
        Command::Gather(args) => gather::run(args, context).await,
        Command::Saga(args) => saga::run(args, context).await,
        Command::Bench(args) => bench::run(args, context).await,
        Command::Demo(args) => demo::run(args, context).await,
        Command::Repair(args) => repair::run(args, context).await,
        Command::Completions(args) => completions::run(args),
        Command::CompileModule => unreachable!("it is done before anything else starts"),
    }
}
