//! `chaski serve`: the router in this process, its log, and where it listens.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use chaski_protocol::{Code, parse_size};
use chaski_server::{Config, Server, TlsConfig};
use clap::ValueEnum;
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use crate::context::Context;
use crate::failure::{fail, usage};
use crate::{out, stop};

/// Runs a router
///
/// It listens on loopback with certificates of its own (--dev), or wherever you say with yours (--cert, --key). Ctrl-C
/// and SIGTERM stop it in good order.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski serve --dev --data ./chaski-data --rules rules.toml\n  \
                        chaski serve --listen 0.0.0.0:7447 --cert router.pem --key router.key --client-ca clients.pem")]
#[command(group = clap::ArgGroup::new("certificates").required(true).args(["dev", "cert"]))]
pub(crate) struct Args {
    /// The data directory; made when it is missing
    #[arg(long, default_value = "./chaski-data", value_name = "DIR")]
    data: PathBuf,
    /// Rules to apply and watch
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// The QUIC address; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7447", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The address of /healthz, /readyz and /metrics; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:7448", value_name = "ADDRESS")]
    admin: SocketAddr,
    /// For development: certificates are made and trusted by themselves, on loopback only
    #[arg(long)]
    dev: bool,
    // The id is the client's `--cert`, which this one replaces below `serve`.
    /// The router's certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the router's certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Clients must show a certificate of this authority (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    client_ca: Option<PathBuf>,
    /// Clients must show a token of this file (or a certificate, with --client-ca): lines `NAME SHA256-OF-TOKEN`
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Free bytes on the disk below which publishes are refused
    #[arg(long, value_name = "SIZE", value_parser = size)]
    low_disk: Option<u64>,
    /// The size of a journal segment
    #[arg(long, value_name = "SIZE", value_parser = size)]
    segment_size: Option<u64>,
    /// How much the journal grows before a snapshot is taken (or twice the last snapshot, if that is more)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    snapshot_after: Option<u64>,
    /// What is logged: a level, or targets with levels (`info,chaski_server=debug`)
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// How it is logged, on stderr
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| error.to_string())
}

/// The line of `--json` that says where it listens.
#[derive(Serialize)]
struct Listening {
    event: &'static str,
    url: String,
    admin: String,
}

/// Serves until a signal.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    log(&args.log, args.log_format)?;
    let config = config(args);
    stop::with(async |mut stop| {
        let server = tokio::select! {
            started = Server::start(config) => started?,
            // Recovery can take seconds, and holds nothing that must be put away.
            () = stop.requested() => return Err(fail(Code::ShuttingDown, "stopped before it listened")),
        };
        let listening = Listening {
            event: "listening",
            url: format!("quic://{}", server.listen_addr()),
            admin: format!("http://{}", server.admin_addr()),
        };
        match args.log_format {
            LogFormat::Text => {
                out::note(format!("listening on {}, admin {}", listening.url, listening.admin))
            }
            LogFormat::Json => tracing::info!(url = listening.url, admin = listening.admin, "listening"),
        }
        if context.json {
            out::json(&listening)?;
        }
        server.run(async move { stop.requested().await }).await?;
        Ok(())
    })
    .await
}

fn config(args: &Args) -> Config {
    let mut config = Config::dev(&args.data);
    // Modules are compiled by this very program, in a process of their own.
    config.module_compiler = std::env::current_exe().ok();
    config.rules = args.rules.clone();
    config.listen = args.listen;
    config.admin = args.admin;
    config.tokens = args.tokens.clone();
    if let (false, Some(cert), Some(key)) = (args.dev, &args.cert, &args.key) {
        let (cert, key, client_ca) = (cert.clone(), key.clone(), args.client_ca.clone());
        config.tls = TlsConfig::Files { cert, key, client_ca };
    }
    if let Some(bytes) = args.low_disk {
        config.low_disk_bytes = bytes;
    }
    if let Some(bytes) = args.segment_size {
        config.segment_bytes = bytes;
    }
    if let Some(bytes) = args.snapshot_after {
        config.snapshot_bytes = bytes;
    }
    config
}

fn log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| usage(format!("--log `{filter}` is no filter: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// For commands that are no router: what the client library has to say, without times and names.
pub(crate) fn log_warnings(level: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}
