//! Bare QUIC endpoints with the transport settings that router and client use. They know no frame of the protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, TransportConfig, VarInt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Protocol, Socket, Type};

/// The name in the certificate.
pub(super) const SERVER_NAME: &str = "localhost";

const ALPN: &[u8] = b"chaski-bench";

/// Bytes of each UDP socket buffer (DESIGN section 8: they end packet loss on loopback).
const SOCKET_BUFFER: usize = 4 << 20;

/// A listening endpoint on a free port of loopback, and its certificate.
pub(super) fn server() -> anyhow::Result<(Endpoint, Vec<u8>)> {
    let made = rcgen::generate_simple_self_signed(vec![SERVER_NAME.to_owned()])?;
    let certificate = made.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(certificate.clone())], key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    let endpoint =
        Endpoint::new(EndpointConfig::default(), Some(config), socket()?, Arc::new(quinn::TokioRuntime))?;
    Ok((endpoint, certificate))
}

/// A connection to [`server`] in another process.
pub(super) async fn connect(addr: SocketAddr, certificate: Vec<u8>) -> anyhow::Result<quinn::Connection> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(certificate))?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = transport();
    // The client's own setting; the router leaves it to path discovery.
    transport.initial_mtu(1452);
    config.transport_config(Arc::new(transport));
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket()?, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(config);
    Ok(endpoint.connect(addr, SERVER_NAME)?.await?)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(16))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .receive_window(VarInt::from_u32(64 << 20))
        .send_window(16 << 20)
        .max_idle_timeout(Some(quinn::IdleTimeout::from(VarInt::from_u32(30_000))))
        .datagram_receive_buffer_size(Some(1 << 20))
        .datagram_send_buffer_size(1 << 20)
        .keep_alive_interval(Some(Duration::from_secs(10)));
    transport
}

fn socket() -> anyhow::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // A system that allows less gives less: the same holds for router and client.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .context("no UDP socket on loopback; is networking off?")?;
    Ok(socket.into())
}
