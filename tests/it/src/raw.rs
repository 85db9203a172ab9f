//! A client that speaks to the router in bytes of its own choosing: for what the SDK would never send.

use std::sync::Arc;

use bytes::BytesMut;
use chaski_protocol::frames::{Open, Opening};
use chaski_protocol::{Code, DecodeError, decode, encode_frame, next_frame};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::{Router, within};

/// One connection, after TLS and nothing else.
#[derive(Debug)]
pub struct Raw {
    /// QUIC's own.
    pub connection: Connection,
    /// QUIC's socket.
    pub endpoint: Endpoint,
    /// The stream that `Hello` went over; it stays open as long as the connection.
    pub control: Option<Stream>,
}

impl Raw {
    /// Connects with this ALPN name.
    pub async fn with_alpn(router: &Router, alpn: &[u8]) -> Result<Raw, quinn::ConnectionError> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(router.ca()).expect("the authority is there") {
            roots.add(certificate.expect("it is PEM")).expect("it is a certificate");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("TLS 1.3 is enough for QUIC");
        let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("there is a free port");
        let config = quinn::ClientConfig::new(Arc::new(tls));
        let connecting =
            endpoint.connect_with(config, router.address(), "localhost").expect("the address is valid");
        let connection = within("a handshake", connecting).await?;
        Ok(Raw { connection, endpoint, control: None })
    }

    /// Connects and says `Hello`.
    pub async fn hello(router: &Router) -> Raw {
        let mut raw =
            Raw::with_alpn(router, chaski_protocol::ALPN).await.expect("the router takes its own protocol");
        let hello = Open::Hello { version: chaski_protocol::VERSION, client: 7, sdk: "raw", token: None };
        let mut control = raw.open(&hello).await;
        control.opening(|opening| assert!(matches!(opening, Opening::Welcome { .. }), "{opening:?}")).await;
        raw.control = Some(control);
        raw
    }

    /// A stream that begins with this frame.
    pub async fn open(&self, open: &Open<'_>) -> Stream {
        let mut frame = Vec::new();
        encode_frame(open, &[], &mut frame);
        self.send(&frame).await
    }

    /// A stream that begins with these bytes.
    pub async fn send(&self, bytes: &[u8]) -> Stream {
        let (mut send, receive) =
            within("a stream", self.connection.open_bi()).await.expect("the connection is open");
        send.write_all(bytes).await.expect("the stream is open");
        Stream { send, receive, buffer: BytesMut::new() }
    }

    /// Waits until the router closes the connection; the code that it gives.
    pub async fn closed(&self) -> Option<Code> {
        match within("the close", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                Code::from_number(u32::try_from(close.error_code.into_inner()).expect("codes are small"))
            }
            other => panic!("closed as {other}"),
        }
    }
}

/// One stream in both directions.
#[derive(Debug)]
pub struct Stream {
    /// To the router.
    pub send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
}

impl Stream {
    /// The router's next frame.
    pub async fn frame(&mut self) -> Result<bytes::Bytes, DecodeError> {
        loop {
            if let Some(frame) = next_frame(&mut self.buffer, chaski_protocol::MAX_ADMIN_FRAME)? {
                return Ok(frame);
            }
            let chunk = within("a frame", self.receive.read_chunk(64 << 10, true)).await;
            match chunk {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) => panic!("the stream ended"),
                Err(error) => panic!("the stream broke: {error}"),
            }
        }
    }

    /// The router's first frame.
    pub async fn opening<T>(&mut self, look: impl FnOnce(Opening<'_>) -> T) -> T {
        let frame = self.frame().await.expect("the router sends frames");
        let (opening, _) = decode::<Opening<'_>>(&frame).expect("it is an opening");
        look(opening)
    }
}
