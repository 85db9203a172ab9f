//! How a client is built: certificates, windows, patience. Every setting has a default that a first program can leave alone.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use chaski_protocol::{DEFAULT_CREDIT, MAX_CREDIT, MAX_IN_FLIGHT};

use crate::client::Client;
use crate::error::ConnectError;

/// A PEM document: where it lies, or itself.
#[derive(Clone, Debug)]
pub(crate) enum Pem {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// A bearer token, which no debug output shows.
#[derive(Clone)]
pub(crate) struct Token(pub(crate) String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// All settings of a client.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) ca: Option<Pem>,
    pub(crate) identity: Option<(Pem, Pem)>,
    pub(crate) token: Option<Token>,
    pub(crate) client_id: Option<u128>,
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) in_flight: u64,
    pub(crate) in_flight_bytes: usize,
    pub(crate) credit: u32,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) patience: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) retry_refusals: bool,
    pub(crate) drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ca: None,
            identity: None,
            token: None,
            client_id: None,
            bind: None,
            in_flight: 16_384,
            in_flight_bytes: 32 << 20,
            credit: DEFAULT_CREDIT,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            retry_refusals: true,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Settings of a client; [`connect`](ClientBuilder::connect) makes it.
///
/// ```no_run
/// # async fn example() -> Result<(), chaski_client::ConnectError> {
/// use chaski_client::Client;
///
/// let client = Client::builder()
///     .ca_file("/etc/chaski/ca.pem")
///     .identity_files("billing.pem", "billing.key")
///     .connect("quic://router.example.org:7447")
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    options: Options,
}

impl ClientBuilder {
    /// The CA whose routers are trusted: a PEM file. Without it a router on a loopback address is trusted by the CA that
    /// `chaski serve --dev` keeps.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> ClientBuilder {
        self.options.ca = Some(Pem::File(path.into()));
        self
    }

    /// The CA as PEM bytes.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> ClientBuilder {
        self.options.ca = Some(Pem::Bytes(pem.into()));
        self
    }

    /// The client's own certificate and key for mutual TLS: PEM files.
    pub fn identity_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> ClientBuilder {
        self.options.identity = Some((Pem::File(cert.into()), Pem::File(key.into())));
        self
    }

    /// The client's own certificate and key as PEM bytes.
    pub fn identity_pem(mut self, cert: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> ClientBuilder {
        self.options.identity = Some((Pem::Bytes(cert.into()), Pem::Bytes(key.into())));
        self
    }

    /// A bearer token, by which the router knows this client where it is started with `--tokens`: 1 to 4,096 bytes of visible
    /// ASCII, as they are, without white space around them. A router that knows no tokens refuses it.
    pub fn token(mut self, token: impl Into<String>) -> ClientBuilder {
        self.options.token = Some(Token(token.into()));
        self
    }

    /// The client instance, which names its inboxes. Random by default, and kept across reconnects; two clients must never
    /// share one.
    pub fn client_id(mut self, id: u128) -> ClientBuilder {
        self.options.client_id = Some(id);
        self
    }

    /// The local UDP address. By default a free port.
    pub fn bind(mut self, address: SocketAddr) -> ClientBuilder {
        self.options.bind = Some(address);
        self
    }

    /// Unconfirmed publishes at most; beyond it `publish` waits for room. 16,384 by default, 65,536 at most.
    pub fn in_flight(mut self, publishes: u32) -> ClientBuilder {
        self.options.in_flight = u64::from(publishes.clamp(1, MAX_IN_FLIGHT));
        self
    }

    /// Bytes of unconfirmed publishes at most (one message may be larger). 32 MiB by default.
    pub fn in_flight_bytes(mut self, bytes: usize) -> ClientBuilder {
        self.options.in_flight_bytes = bytes.max(1);
        self
    }

    /// The credit of consumers that name none: deliveries in flight. 64 by default.
    pub fn credit(mut self, credit: u32) -> ClientBuilder {
        self.options.credit = credit.clamp(1, MAX_CREDIT);
        self
    }

    /// How long a request that names no timeout waits for its reply. 30 s by default.
    pub fn request_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.options.request_timeout = timeout;
        self
    }

    /// How long one attempt to connect may take. 5 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.options.connect_timeout = timeout;
        self
    }

    /// How long a new consumer, subscription or administrative call waits for a connection that is being made again. 30 s by
    /// default. Publishes wait as long as the router's dedup window.
    pub fn patience(mut self, patience: Duration) -> ClientBuilder {
        self.options.patience = patience;
        self
    }

    /// The pause between attempts to reconnect: doubling from the first to the second, with jitter. 100 ms to 5 s by default.
    pub fn reconnect_backoff(mut self, first: Duration, longest: Duration) -> ClientBuilder {
        self.options.backoff = (first.max(Duration::from_millis(1)), longest.max(first));
        self
    }

    /// Whether `publish` and `commit` try again, within the dedup window, what the router refused with a retryable code
    /// (`busy`, `disk_low`, `disk_full`, `shutting_down`). True by default. `publish_pipelined` never does: a later message
    /// would overtake the one that is tried again.
    pub fn retry_refusals(mut self, retry: bool) -> ClientBuilder {
        self.options.retry_refusals = retry;
        self
    }

    /// How long [`Client::close`] waits for confirms. 10 s by default.
    pub fn drain_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.options.drain_timeout = timeout;
        self
    }

    /// Connects to `quic://host:port` (the port defaults to 7447). The first connection is tried once; a later loss is mended
    /// in the background.
    pub async fn connect(self, url: impl AsRef<str>) -> Result<Client, ConnectError> {
        Client::open(url.as_ref(), self.options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_no_debug_output() {
        let builder = Client::builder().token("swordfish");
        assert!(!format!("{builder:?}").contains("swordfish"));
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_sent_is_refused_before_anything_is() {
        for token in ["", "sword fish", "swordfish\n", &"t".repeat(4097)] {
            let error = Client::builder().token(token).ca_pem("").connect("quic://127.0.0.1:1").await;
            let error = error.map(|_| ()).expect_err("it cannot be sent");
            assert!(matches!(error, ConnectError::BadToken(_)), "{error}");
        }
    }
}
