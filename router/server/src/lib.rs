//! The shell around broker and journal: QUIC sessions, the driver that joins them, rules, the admin address. Everything that
//! waits, reads a clock or touches a socket is here, and nothing that decides what becomes of a message.

mod admin;
mod bodies;
mod clock;
mod driver;
mod events;
mod held;
mod http;
mod identity;
mod mailboxes;
mod message;
mod metrics;
mod modules;
mod own;
mod progress;
mod render;
mod repair;
mod session;
mod shard;
mod start;
mod tls;
mod trimming;
mod upkeep;
mod verdicts;

pub mod module_test;
pub mod rules;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use chaski_protocol::Code;
use quinn::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The part of a compilation that runs in a process of its own: the binary calls it from a command of its own, first thing in `main`.
pub use chaski_modules::compile_child;
pub use driver::FatalError;
pub use repair::{Lost, Repair, repair};
pub use start::StartError;
pub use tls::TlsConfig;

use identity::Doorkeeper;
use session::Connections;
use shard::{Input, Shard};

/// How long clients have to take what is under way when the router stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The binary of a module that comes with the router.
pub fn builtin(name: &str) -> Option<&'static [u8]> {
    chaski_filters::builtin(name).map(|guest| guest.wasm)
}

/// What a router needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made when it is missing.
    pub data: PathBuf,
    /// A rules file to apply and watch.
    pub rules: Option<PathBuf>,
    /// The QUIC address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The admin HTTP address; port 0 takes a free one.
    pub admin: SocketAddr,
    /// Certificates.
    pub tls: TlsConfig,
    /// A file of the tokens' digests; with it a client must show one of them, or a certificate where `tls` takes some.
    pub tokens: Option<PathBuf>,
    /// Bytes of a journal segment. Default 64 MiB.
    pub segment_bytes: u64,
    /// Free bytes below which publishes are refused. Default 1 GiB.
    pub low_disk_bytes: u64,
    /// The program that compiles modules when it is called with the argument `compile-module`, see [`compile_child`]: this very build.
    /// `None` compiles in this process, without limits: for tests.
    pub module_compiler: Option<PathBuf>,
    /// A snapshot is taken once the journal has grown by this, or by twice the last snapshot if that is more. Default 256 MiB.
    pub snapshot_bytes: u64,
}

impl Config {
    /// A router for development on loopback, with the default ports.
    pub fn dev(data: impl Into<PathBuf>) -> Config {
        let options = chaski_journal::Options::default();
        Config {
            data: data.into(),
            rules: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 7447)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7448)),
            tls: TlsConfig::Dev,
            tokens: None,
            segment_bytes: options.segment_bytes,
            low_disk_bytes: options.low_disk_bytes,
            module_compiler: None,
            snapshot_bytes: options.snapshot_min_bytes,
        }
    }
}

/// A router that listens.
pub struct Server {
    endpoint: Endpoint,
    listen: SocketAddr,
    admin: SocketAddr,
    shard: Shard,
    connections: Connections,
    doorkeeper: Doorkeeper,
    driver: JoinHandle<Result<(), FatalError>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Recovers the data directory, applies the rules file, and listens.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        // Certificates and addresses first: they fail fast, and recovery can take seconds.
        let certificates = matches!(&config.tls, TlsConfig::Files { client_ca: Some(_), .. });
        let doorkeeper = Doorkeeper::load(config.tokens.as_deref(), certificates)?;
        let quic = tls::server_config(&config.tls, config.tokens.is_some(), config.listen)?;
        let reset = tls::ResetKey::load(&config.data);
        let endpoint = tls::endpoint(config.listen, quic, &reset)?;
        let taken = |error: std::io::Error| {
            let detail = format!("cannot listen on the admin address {}: {error}", config.admin);
            StartError::new(Code::BadRequest, detail)
        };
        let listen = endpoint.local_addr().map_err(taken)?;
        let http = TcpListener::bind(config.admin).await.map_err(taken)?;
        let admin = http.local_addr().map_err(taken)?;

        let options = chaski_journal::Options {
            segment_bytes: config.segment_bytes,
            low_disk_bytes: config.low_disk_bytes,
            snapshot_min_bytes: config.snapshot_bytes,
            ..Default::default()
        };
        let data = config.data.clone();
        let seed = uuid::Uuid::now_v7().as_u128() as u64;
        let compiler = config.module_compiler.clone();
        let recover = tokio::task::spawn_blocking(move || start::start(&data, options, seed, compiler));
        let start::Running { shard, driver } =
            recover.await.map_err(|error| StartError::new(Code::Internal, error.to_string()))??;

        if let Err(error) = reset.store(&config.data) {
            tracing::warn!(%error, "after a crash clients will find out late: the key of stateless resets is not kept");
        }

        let mut tasks = vec![tokio::spawn(modules::keep(shard.downgrade()))];
        if let Some(file) = config.rules {
            tasks.push(rules::watch::apply_and_watch(shard.clone(), file).await?);
        }
        let connections = Connections::default();
        tasks.push(tokio::spawn(http::serve(http, shard.clone(), connections.clone())));
        Ok(Server { endpoint, listen, admin, shard, connections, doorkeeper, driver, tasks })
    }

    /// The QUIC address that it listens on.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen
    }

    /// The admin HTTP address that it listens on.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Serves until `shutdown` is done, then stops in good order: leases are released, everything confirmed is on the disk.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), FatalError> {
        let Server { endpoint, shard, connections, doorkeeper, mut driver, tasks, .. } = self;
        tokio::pin!(shutdown);
        let handshakes = Arc::new(AtomicUsize::new(0));
        let ended = loop {
            tokio::select! {
                () = &mut shutdown => break None,
                ended = &mut driver => break Some(ended),
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => accept(&shard, &connections, &doorkeeper, &handshakes, incoming),
                    None => break None,
                },
            }
        };
        let outcome = match ended {
            Some(ended) => driver_end(ended),
            None => {
                shard.shared().notices.send_modify(|notices| notices.stopping = true);
                let (done, stopped) = oneshot::channel();
                if shard.send(Input::Stop(done)).await.is_ok() {
                    let _ = stopped.await;
                }
                driver_end(driver.await)
            }
        };
        connections.close_all(&Code::ShuttingDown.into());
        tasks.iter().for_each(JoinHandle::abort);
        endpoint.close(quinn::VarInt::from_u32(Code::ShuttingDown.number()), b"the router is stopping");
        let _ = tokio::time::timeout(DRAIN, endpoint.wait_idle()).await;
        outcome
    }
}

fn driver_end(ended: Result<Result<(), FatalError>, tokio::task::JoinError>) -> Result<(), FatalError> {
    match ended {
        Ok(outcome) => outcome,
        Err(panic) => Err(FatalError(format!("an inner invariant is broken: {panic}"))),
    }
}

fn accept(
    shard: &Shard,
    connections: &Connections,
    doorkeeper: &Doorkeeper,
    handshakes: &Arc<AtomicUsize>,
    incoming: quinn::Incoming,
) {
    if tls::should_retry(handshakes.load(Ordering::Relaxed)) && incoming.may_retry() {
        // It may be retried, so this does not fail.
        let _ = incoming.retry();
        return;
    }
    let (shard, connections, handshakes) = (shard.clone(), connections.clone(), Arc::clone(handshakes));
    let doorkeeper = doorkeeper.clone();
    handshakes.fetch_add(1, Ordering::Relaxed);
    tokio::spawn(async move {
        let outcome = incoming.await;
        handshakes.fetch_sub(1, Ordering::Relaxed);
        match outcome {
            Ok(connection) => session::serve(shard, connections, doorkeeper, connection).await,
            Err(error) => tracing::debug!(%error, "handshake failed"),
        }
    });
}
