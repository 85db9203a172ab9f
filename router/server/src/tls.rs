//! Who the router is to its clients: certificates, and every limit of QUIC. It knows files and sockets, and nothing of streams.

mod dev;
mod reset;

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chaski_protocol::{ALPN, Code};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, IdleTimeout, TokioRuntime, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::start::StartError;

use dev::{dev_ca_path, server_config_with_dev_ca};
pub(crate) use reset::ResetKey;

/// Streams that a client may have open at once; each is a publish, consume, subscribe or admin stream.
const MAX_STREAMS: u32 = 4096;

/// Bytes of one stream that may be under way to the router.
const STREAM_WINDOW: u32 = 8 << 20;

/// Bytes of one connection that may be under way to the router.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Bytes of one connection that may be under way to the client.
const SEND_WINDOW: u64 = 16 << 20;

/// Datagrams that wait to be read or sent, in bytes.
const DATAGRAM_BUFFER: usize = 1 << 20;

/// A connection on which nothing comes for so long is lost.
const IDLE: Duration = Duration::from_secs(30);

/// A quiet connection is asked this often whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Handshakes that wait to be accepted; beyond it they are refused.
const MAX_INCOMING: usize = 4096;

/// Bytes kept of one handshake before it is accepted, and of all.
const INCOMING_BUFFER: u64 = 64 << 10;
const INCOMING_BUFFERS: u64 = 16 << 20;

/// With this many handshakes under way, newcomers must first prove their address.
const RETRY_FROM: usize = 256;

/// What the operating system keeps of datagrams: 4 MiB end all loss on loopback (DESIGN section 8).
const SOCKET_BUFFER: usize = 4 << 20;

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsConfig {
    /// The user's own authority for development; loopback only.
    Dev,
    /// PEM files.
    Files {
        /// The certificate chain, the server's own first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
        /// Authorities of client certificates; with it every client must show one, or a token where the router knows some.
        client_ca: Option<PathBuf>,
    },
}

/// Why there is no TLS configuration. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `--dev` on an address that others can reach.
    #[error("--dev serves on loopback only, and {0} is not loopback: use --cert and --key there")]
    NotLoopback(SocketAddr),
    /// Neither XDG_CONFIG_HOME nor HOME is set.
    #[error(
        "--dev keeps its certificate authority below the home directory, and neither XDG_CONFIG_HOME nor HOME is set"
    )]
    NoHome,
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {detail}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The address can't be had.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The cryptography refuses.
    #[error("certificate and key cannot be used: {0}")]
    Refused(String),
}

impl TlsError {
    fn file(path: &Path, error: io::Error) -> TlsError {
        TlsError::File { path: path.to_owned(), error }
    }

    fn content(path: &Path, detail: impl Into<String>) -> TlsError {
        TlsError::Content { path: path.to_owned(), detail: detail.into() }
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> StartError {
        let code = match error {
            TlsError::NotLoopback(_) => Code::NotAllowed,
            TlsError::NoHome => Code::Internal,
            TlsError::File { .. }
            | TlsError::Listen { .. }
            | TlsError::Content { .. }
            | TlsError::Refused(_) => Code::BadRequest,
        };
        StartError::new(code, error.to_string())
    }
}

/// The configuration of an endpoint that will listen on `listen`.
/// A client that may come with a token needs no certificate.
pub(crate) fn server_config(
    config: &TlsConfig,
    tokens: bool,
    listen: SocketAddr,
) -> Result<quinn::ServerConfig, TlsError> {
    match config {
        TlsConfig::Dev if !listen.ip().is_loopback() => Err(TlsError::NotLoopback(listen)),
        TlsConfig::Dev => server_config_with_dev_ca(&dev_ca_path().ok_or(TlsError::NoHome)?),
        TlsConfig::Files { cert, key, client_ca } => {
            let chain = certificates(cert)?;
            let key = private_key(key)?;
            let clients = client_ca.as_deref().map(authorities).transpose()?;
            quic_config(chain, key, clients.map(|roots| (roots, tokens)))
        }
    }
}

/// An endpoint that listens.
pub(crate) fn endpoint(
    listen: SocketAddr,
    config: quinn::ServerConfig,
    reset: &ResetKey,
) -> Result<Endpoint, TlsError> {
    let cannot = |error| TlsError::Listen { listen, error };
    let socket = bind(listen).map_err(cannot)?;
    Endpoint::new(reset.endpoint_config(), Some(config), socket, Arc::new(TokioRuntime)).map_err(cannot)
}

/// A UDP socket with buffers that keep bursts.
fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may allow less; then bursts cost retransmissions, and nothing else.
    for outcome in [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)] {
        if let Err(error) = outcome {
            tracing::debug!(%error, "socket buffer not set");
        }
    }
    if socket.recv_buffer_size().is_ok_and(|size| size < SOCKET_BUFFER) {
        tracing::debug!(
            "the system caps socket buffers below 4 MiB: raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Whether a newcomer must first prove its address (a QUIC Retry), given how many handshakes are under way.
pub(crate) fn should_retry(open_handshakes: usize) -> bool {
    open_handshakes >= RETRY_FROM
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(path).map_err(|error| TlsError::file(path, error))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::content(path, format!("not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(TlsError::content(path, "no certificate in it: expected `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = fs::read(path).map_err(|error| TlsError::file(path, error))?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| TlsError::content(path, format!("no private key in PEM in it: {error}")))
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::content(path, format!("no authority: {error}")))?;
    }
    Ok(roots)
}

fn quic_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<(RootCertStore, bool)>,
) -> Result<quinn::ServerConfig, TlsError> {
    let refused = |error: &dyn std::fmt::Display| TlsError::Refused(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| refused(&error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((roots, optional)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(&error))?)
        }
    };
    let mut tls = builder.with_single_cert(chain, key).map_err(|error| refused(&error))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // A publish in 0-RTT data could be replayed by anybody who saw it.
    tls.max_early_data_size = 0;
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| refused(&error))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport()))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("30 s fits a QUIC varint")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    transport
}

#[cfg(test)]
mod tests;
