//! The command line as a whole: what stands beside every command, and the list of commands. What a command takes is in its
//! own file.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::{
    bench, completions, consume, demo, dlq, gather, module, publish, queue, repair, request, respond, rules,
    saga, serve, subscribe, trace,
};

/// A durable message router over QUIC
#[derive(Parser, Debug)]
#[command(
    name = "chaski",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed (the last line on stderr begins `error: CODE:`), 2 wrong usage.\n\n\
                  Example:\n  chaski serve --dev &\n  chaski queue create hello\n  chaski publish hello 'the bridge is up'\n  \
                  chaski consume hello --count 1"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    // Before the connection's options, whose heading would be above it.
    /// JSON on stdout, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Where the router is, and who asks.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// Where the router is
    #[arg(
        long,
        global = true,
        env = "CHASKI_URL",
        default_value = "quic://127.0.0.1:7447",
        value_name = "URL"
    )]
    pub(crate) url: String,
    /// The certificate authority to trust (PEM); a router on loopback with `--dev` needs none
    #[arg(long, global = true, env = "CHASKI_CA", value_name = "FILE", value_parser = file())]
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate (PEM), where the router asks for one
    #[arg(long, global = true, env = "CHASKI_CERT", value_name = "FILE", value_parser = file())]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the client's certificate (PEM)
    #[arg(long, global = true, env = "CHASKI_KEY_FILE", value_name = "FILE", value_parser = file())]
    pub(crate) key_file: Option<PathBuf>,
    /// A file with the client's token, where the router asks for one
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A file's name; unlike clap's own parser it takes an empty one, since a variable may be set to nothing.
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Serve(serve::Args),
    /// Whether the router is ready, and what needs a look
    ///
    /// Exit code 0 when it is ready.
    #[command(after_help = "Example:\n  chaski status --json")]
    Status,
    Publish(publish::Args),
    Consume(consume::Args),
    Subscribe(subscribe::Args),
    Request(request::Args),
    Respond(respond::Args),
    Queue(queue::Args),
    Dlq(dlq::Args),
    Rules(rules::Args),
    Module(module::Args),
    Trace(trace::Args),
    Gather(gather::Args),
    Saga(saga::Args),
    Bench(bench::Args),
    Demo(demo::Args),
    Repair(repair::Args),
    Completions(completions::Args),
    /// Compiles a module for the router that starts this
    #[command(hide = true)]
    CompileModule,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let root = Cli::command();
        check_examples(&root, "chaski");
    }

    #[track_caller]
    fn check_examples(command: &clap::Command, path: &str) {
        if command.is_hide_set() {
            return;
        }
        let mut help = command.clone().render_long_help().to_string();
        help.push_str(&command.get_after_help().map(ToString::to_string).unwrap_or_default());
        assert!(help.contains("Example:"), "`{path} --help` has no example");
        for inner in command.get_subcommands() {
            check_examples(inner, &format!("{path} {}", inner.get_name()));
        }
    }

    #[test]
    fn serve_has_a_certificate_of_its_own_beside_the_client_s() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let cli = parse("chaski serve --cert s.pem --key s.key").expect("the documented form");
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        assert_eq!(args.cert, Some("s.pem".into()));
        assert!(parse("chaski serve").is_err(), "neither --dev nor a certificate");
        assert!(parse("chaski serve --dev --cert s.pem --key s.key").is_err());
        assert!(parse("chaski serve --cert s.pem").is_err(), "a certificate without its key");
        assert!(parse("chaski serve --dev --client-ca ca.pem").is_err());
    }

    #[test]
    fn filters_states_and_traces_are_asked_for_as_documented() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|_| ());
        for line in [
            "chaski consume q --filter a --filter b",
            "chaski subscribe p --filter a",
            "chaski rules apply r.toml --drop-queue q --drop-state a --drop-state b",
            "chaski rules rollback 3 --drop-state a",
            "chaski publish t x --trace",
            "chaski trace t x --key k -H a=b --priority 3",
            "chaski gather list",
            "chaski gather show q-1",
            "chaski saga list --state parked",
            "chaski saga show order/o-1",
            "chaski saga retry order/o-1",
            "chaski saga skip order/o-1 ship --payload p",
            "chaski saga skip order/o-1 ship",
            "chaski saga abort order/o-1 --no-compensation",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert!(parse("chaski consume q --peek --filter a").is_err(), "what is only looked at is not judged");
        assert!(parse("chaski publish --ndjson f --trace").is_err(), "a trace is of one message");
        assert!(parse("chaski saga list --state stuck").is_err(), "a saga is never in that state");
    }

    #[test]
    fn a_file_that_is_named_by_nothing_is_none() {
        let cli = Cli::try_parse_from(["chaski", "--ca", "", "status"]).expect("a valid line");
        let context = crate::context::Context::new(cli.connection, cli.json);
        assert_eq!((context.ca, context.cert, context.key_file), (None, None, None));
    }

    #[test]
    fn where_the_router_is_can_stand_on_either_side_of_the_command() {
        for line in ["chaski --url quic://r:1 --json status", "chaski status --json --url quic://r:1"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect("a valid line");
            assert_eq!((cli.connection.url.as_str(), cli.json), ("quic://r:1", true));
        }
    }
}
