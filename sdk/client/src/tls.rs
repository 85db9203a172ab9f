//! Whom the client trusts, and who it is: rustls' configuration from PEM files or bytes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use chaski_protocol::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::ConnectError;
use crate::options::{Options, Pem};

/// The TLS half of a QUIC client's configuration: TLS 1.3 alone, ALPN `chaski/1`, no 0-RTT.
pub(crate) fn client_config(options: &Options, host: &str) -> Result<QuicClientConfig, ConnectError> {
    let roots = roots(options, host)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| ConnectError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert, "client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&read(key, "client key")?).map_err(|error| {
                let what = named(key, "client key");
                ConnectError::Certificate(format!("{what} is not a PEM key: {error}"))
            })?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                ConnectError::Certificate(format!("the client certificate and its key don't fit: {error}"))
            })?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| ConnectError::Tls(error.to_string()))
}

fn roots(options: &Options, host: &str) -> Result<RootCertStore, ConnectError> {
    let ca = match &options.ca {
        Some(ca) => ca.clone(),
        None => Pem::File(dev_ca(host)?),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&ca, "CA")? {
        roots.add(certificate).map_err(|error| {
            let what = named(&ca, "CA");
            ConnectError::Certificate(format!("{what} holds no usable certificate: {error}"))
        })?;
    }
    Ok(roots)
}

/// The CA of `chaski serve --dev`, trusted for loopback addresses only.
fn dev_ca(host: &str) -> Result<PathBuf, ConnectError> {
    let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !loopback {
        let detail =
            format!("no CA to trust `{host}` by: name its file with `--ca` or `ClientBuilder::ca_file`");
        return Err(ConnectError::Tls(detail));
    }
    let config = std::env::var_os("XDG_CONFIG_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))
        .ok_or_else(|| {
            ConnectError::Tls(
                "neither HOME nor XDG_CONFIG_HOME is set: name the CA's file with `--ca`".to_owned(),
            )
        })?;
    let path = config.join("chaski/dev/ca.pem");
    if path.is_file() {
        return Ok(path);
    }
    Err(ConnectError::Tls(format!(
        "no CA to trust the router by: `{}` is made by `chaski serve --dev`; for another router name its CA with `--ca`",
        path.display()
    )))
}

fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let bytes = read(pem, what)?;
    let what = named(pem, what);
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ConnectError::Certificate(format!("{what} is not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(ConnectError::Certificate(format!("{what} holds no certificate")));
    }
    Ok(certificates)
}

fn read(pem: &Pem, what: &str) -> Result<Vec<u8>, ConnectError> {
    match pem {
        Pem::Bytes(bytes) => Ok(bytes.clone()),
        Pem::File(path) => std::fs::read(path).map_err(|error| {
            ConnectError::Certificate(format!("{} cannot be read: {error}", named(pem, what)))
        }),
    }
}

/// For people: what it is, and where it lies.
fn named(pem: &Pem, what: &str) -> String {
    match pem {
        Pem::Bytes(_) => format!("the {what}"),
        Pem::File(path) => format!("the {what} `{}`", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use chaski_protocol::Code;

    use super::*;

    fn refused(options: Options, host: &str) -> ConnectError {
        client_config(&options, host).err().expect("it can't be used")
    }

    #[test]
    fn the_development_authority_is_for_loopback_alone() {
        for host in ["router.example.org", "10.0.0.1", "2001:db8::1", "localhost.example.org"] {
            let error = refused(Options::default(), host);
            assert_eq!(error.code(), Code::Unauthenticated);
            assert!(error.to_string().contains(&format!("no CA to trust `{host}` by")), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let file = |path: &str| Some(Pem::File(path.into()));
        let error = refused(Options { ca: file("/does/not/exist"), ..Options::default() }, "localhost");
        assert_eq!(error.code(), Code::BadRequest);
        assert!(error.to_string().starts_with("the CA `/does/not/exist` cannot be read: "), "{error}");
        let error = refused(Options { ca: file("/dev/null"), ..Options::default() }, "localhost");
        assert_eq!(error.to_string(), "the CA `/dev/null` holds no certificate");
    }

    #[test]
    fn certificates_of_any_authority_can_be_given_as_bytes() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let cert = Pem::Bytes(made.cert.pem().into_bytes());
        let key = Pem::Bytes(made.signing_key.serialize_pem().into_bytes());
        let options = Options { ca: Some(cert.clone()), identity: Some((cert, key)), ..Options::default() };
        assert!(client_config(&options, "router.example.org").is_ok());
        let (cert, _) = options.identity.expect("it was just given");
        let error = refused(
            Options {
                identity: Some((cert, Pem::Bytes(b"no key".to_vec()))),
                ca: options.ca,
                ..Options::default()
            },
            "localhost",
        );
        assert!(error.to_string().starts_with("the client key is not a PEM key: "), "{error}");
    }
}
