//! UDP sockets, QUIC limits, and the race for the first address that answers. It knows nothing of frames.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::ConnectError;
use crate::options::Options;
use crate::tls;

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 7447;

/// Both socket buffers: they end packet loss on loopback (DESIGN section 8).
const SOCKET_BUFFER: usize = 4 << 20;

/// A datagram's buffers, each way: what is at most once may be dropped, and must not grow.
const DATAGRAM_BUFFER: usize = 1 << 20;

/// Where the router is, and the sockets to reach it by.
pub(crate) struct Transport {
    host: String,
    port: u16,
    config: ClientConfig,
    bind: Option<SocketAddr>,
    connect_timeout: Duration,
    /// One for each address family that was tried.
    endpoints: Mutex<Vec<(bool, Endpoint)>>,
}

impl Transport {
    pub(crate) fn new(url: &str, options: &Options) -> Result<Transport, ConnectError> {
        let (host, port) = parse_url(url)?;
        let mut config = ClientConfig::new(Arc::new(tls::client_config(options, &host)?));
        config.transport_config(Arc::new(limits()));
        Ok(Transport {
            host,
            port,
            config,
            bind: options.bind,
            connect_timeout: options.connect_timeout,
            endpoints: Mutex::new(Vec::new()),
        })
    }

    /// For people: `host:port`.
    pub(crate) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Connects to the first address of the host that answers.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let unreachable = |reason: String| ConnectError::Unreachable { address: self.address(), reason };
        let resolved = tokio::net::lookup_host((self.host.as_str(), self.port));
        let addresses: Vec<SocketAddr> =
            resolved.await.map_err(|error| unreachable(error.to_string()))?.collect();
        let mut last = unreachable("the name has no address".to_owned());
        let race = async {
            let mut attempts: FuturesUnordered<_> =
                addresses.iter().map(|address| self.connect_to(*address)).collect();
            while let Some(attempt) = attempts.next().await {
                match attempt {
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        let waited = self.connect_timeout;
        tokio::time::timeout(waited, race)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no answer within {waited:?}"))))
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let endpoint = self.endpoint(address.is_ipv6())?;
        let connecting =
            endpoint.connect_with(self.config.clone(), address, &self.host).map_err(|error| {
                ConnectError::Unreachable { address: self.address(), reason: error.to_string() }
            })?;
        connecting.await.map_err(|error| self.judge(error))
    }

    /// What a lost or refused connection means.
    pub(crate) fn judge(&self, error: ConnectionError) -> ConnectError {
        match error {
            ConnectionError::ApplicationClosed(closed) => {
                let number = u32::try_from(closed.error_code.into_inner()).unwrap_or(u32::MAX);
                let detail = String::from_utf8_lossy(&closed.reason);
                let refused = chaski_protocol::frames::Refused { code: number, detail: &detail };
                ConnectError::Refused(refused.to_refusal())
            }
            ConnectionError::TransportError(error) => ConnectError::Tls(self.tls_hint(&error.to_string())),
            ConnectionError::ConnectionClosed(closed) => {
                ConnectError::Tls(self.tls_hint(&closed.to_string()))
            }
            other => ConnectError::Unreachable { address: self.address(), reason: other.to_string() },
        }
    }

    fn tls_hint(&self, reason: &str) -> String {
        let address = self.address();
        let hint = if reason.contains("UnknownIssuer") || reason.contains("BadSignature") {
            "; its certificate is not of the CA that is trusted here: name the right one with `--ca`"
        } else if reason.contains("CertificateRequired") {
            "; it wants a client certificate: name yours with `--cert` and `--key-file`"
        } else {
            ""
        };
        format!("no trusted connection to {address}: {reason}{hint}")
    }

    fn endpoint(&self, v6: bool) -> Result<Endpoint, ConnectError> {
        let mut endpoints = self.endpoints.lock().expect("nobody panics with it");
        if let Some((_, endpoint)) = endpoints.iter().find(|(family, _)| *family == v6) {
            return Ok(endpoint.clone());
        }
        let make = || {
            let socket = self.socket(v6)?;
            Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))
        };
        let endpoint = make().map_err(|error| ConnectError::Socket(error.to_string()))?;
        endpoints.push((v6, endpoint.clone()));
        Ok(endpoint)
    }

    fn socket(&self, v6: bool) -> io::Result<UdpSocket> {
        let any: SocketAddr =
            if v6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        let address = self.bind.filter(|bind| bind.is_ipv6() == v6).unwrap_or(any);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        // A system that allows less gives less, and works.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }

    /// Moves to a new local port; QUIC migrates the connection.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        let endpoints = self.endpoints.lock().expect("nobody panics with it");
        endpoints.iter().try_for_each(|(v6, endpoint)| endpoint.rebind(self.socket(*v6)?))
    }

    pub(crate) fn local_addresses(&self) -> Vec<SocketAddr> {
        let endpoints = self.endpoints.lock().expect("nobody panics with it");
        endpoints.iter().filter_map(|(_, endpoint)| endpoint.local_addr().ok()).collect()
    }

    /// Waits until the peers know that connections were closed.
    pub(crate) async fn wait_idle(&self) {
        let endpoints = self.endpoints.lock().expect("nobody panics with it").clone();
        for (_, endpoint) in endpoints {
            endpoint.wait_idle().await;
        }
    }
}

/// Every QUIC limit, none left at a default that is unbounded.
fn limits() -> TransportConfig {
    let mut limits = TransportConfig::default();
    limits
        // A router opens no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .receive_window(VarInt::from_u32(64 << 20))
        .send_window(16 << 20)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(30_000))))
        .keep_alive_interval(Some(Duration::from_secs(10)))
        // Above 1452 black-hole detection falls back to 1200 (DESIGN section 8).
        .initial_mtu(1452)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER);
    limits
}

fn parse_url(url: &str) -> Result<(String, u16), ConnectError> {
    let bad = |reason: &str| ConnectError::BadUrl { url: url.to_owned(), reason: reason.to_owned() };
    let rest = url.strip_prefix("quic://").ok_or_else(|| bad("it doesn't begin with `quic://`"))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(|| bad("`[` without `]`"))?;
            host.parse::<Ipv6Addr>().map_err(|_| bad("what is in brackets is no IPv6 address"))?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or_else(|| bad("`:port` must follow `]`"))?)),
            }
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() || host.contains(['/', '@', '?', ' ']) {
        return Err(bad("it names no host"));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| bad("the port is no number"))?
        }
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_named() {
        for (url, host, port) in [
            ("quic://localhost", "localhost", 7447),
            ("quic://127.0.0.1:9/", "127.0.0.1", 9),
            ("quic://[::1]", "::1", 7447),
            ("quic://[::1]:65535", "::1", 65535),
        ] {
            assert_eq!(parse_url(url).expect(url), (host.to_owned(), port));
        }
        for url in [
            "",
            "localhost:7447",
            "http://x",
            "quic://",
            "quic://:1",
            "quic://a:b",
            "quic://a:0",
            "quic://[::1",
            "quic://a/b",
        ] {
            let error = parse_url(url).expect_err(url);
            assert!(matches!(error, ConnectError::BadUrl { .. }), "{url}: {error}");
        }
    }
}
