//! Real handshakes over loopback, with certificates that these tests make.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

fn loopback() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

fn serve(config: quinn::ServerConfig) -> Endpoint {
    endpoint(loopback(), config, &ResetKey::load(Path::new(""))).unwrap()
}

fn client(ca: &Path, alpn: &[u8], own: Option<(&Path, &Path)>) -> ClientConfig {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(authorities(ca).unwrap());
    let mut tls = match own {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            builder.with_client_auth_cert(certificates(cert).unwrap(), private_key(key).unwrap()).unwrap()
        }
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}

/// Connects and exchanges a stream, so that a refusal which comes after the client's last flight is seen too.
async fn shake(server: &Endpoint, config: ClientConfig, name: &str) -> Result<(), String> {
    let endpoint = Endpoint::client(loopback()).unwrap();
    let accept = async {
        let connection = server.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        let (mut send, _) = connection.accept_bi().await.map_err(|error| error.to_string())?;
        send.write_all(b"hello").await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        Ok::<Connection, String>(connection)
    };
    let connect = async {
        let connecting = endpoint.connect_with(config, server.local_addr().unwrap(), name).unwrap();
        let connection = connecting.await.map_err(|error| error.to_string())?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(b"x").await.map_err(|error| error.to_string())?;
        recv.read_to_end(16).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    accepted.map(|_| ()).and(connected)
}

#[tokio::test]
async fn a_client_that_trusts_the_dev_authority_connects_by_every_loopback_name() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("chaski/dev/ca.pem");
    let server = serve(server_config_with_dev_ca(&ca).unwrap());
    for name in ["localhost", "127.0.0.1", "::1"] {
        assert_eq!(shake(&server, client(&ca, ALPN, None), name).await, Ok(()), "{name}");
    }
    let key = fs::metadata(ca.with_file_name("ca-key.pem")).unwrap();
    assert_eq!(key.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_client_with_another_alpn_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let server = serve(server_config_with_dev_ca(&ca).unwrap());
    let refused = shake(&server, client(&ca, b"h3", None), "localhost").await.unwrap_err();
    assert!(refused.contains("known protocol"), "{refused}");
}

#[tokio::test]
async fn a_second_start_keeps_the_authority_and_makes_a_fresh_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    server_config_with_dev_ca(&ca).unwrap();
    let first = fs::read(&ca).unwrap();
    let server = serve(server_config_with_dev_ca(&ca).unwrap());
    assert_eq!(fs::read(&ca).unwrap(), first);
    assert_eq!(shake(&server, client(&ca, ALPN, None), "localhost").await, Ok(()));
}

#[tokio::test]
async fn a_certificate_of_a_lost_key_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    server_config_with_dev_ca(&ca).unwrap();
    let first = fs::read(&ca).unwrap();
    fs::remove_file(ca.with_file_name("ca-key.pem")).unwrap();
    let server = serve(server_config_with_dev_ca(&ca).unwrap());
    assert_ne!(fs::read(&ca).unwrap(), first);
    assert_eq!(shake(&server, client(&ca, ALPN, None), "localhost").await, Ok(()));
}

#[test]
fn starts_at_the_same_time_agree_on_one_authority() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let keys: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let start = || {
            server_config_with_dev_ca(&ca).unwrap();
            fs::read(ca.with_file_name("ca-key.pem")).unwrap()
        };
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]));
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn dev_refuses_an_address_that_others_can_reach() {
    let error = server_config(&TlsConfig::Dev, false, "0.0.0.0:7447".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("use --cert and --key"), "{error}");
}

/// An authority in `NAME.pem`, and a certificate of it for localhost in `NAME-leaf.pem` with its key beside it.
fn write_authority(directory: &Path, name: &str) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    fs::write(directory.join(format!("{name}.pem")), ca.pem()).unwrap();
    fs::write(directory.join(format!("{name}-leaf.pem")), leaf.pem()).unwrap();
    fs::write(directory.join(format!("{name}-leaf-key.pem")), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn mutual_tls_takes_only_clients_of_its_authority() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    for name in ["server", "clients", "strangers"] {
        write_authority(directory.path(), name);
    }
    let identity = TlsConfig::Files {
        cert: file("server-leaf.pem"),
        key: file("server-leaf-key.pem"),
        client_ca: Some(file("clients.pem")),
    };
    let server = serve(server_config(&identity, false, "0.0.0.0:0".parse().unwrap()).unwrap());
    let with = |name: &str| {
        let (cert, key) = (file(&format!("{name}-leaf.pem")), file(&format!("{name}-leaf-key.pem")));
        client(&file("server.pem"), ALPN, Some((&cert, &key)))
    };
    assert_eq!(shake(&server, with("clients"), "localhost").await, Ok(()));
    assert!(shake(&server, with("strangers"), "localhost").await.is_err());
    assert!(shake(&server, client(&file("server.pem"), ALPN, None), "localhost").await.is_err());

    // Where a token will do, no certificate is needed, and one of strangers is refused all the same.
    let server = serve(server_config(&identity, true, "0.0.0.0:0".parse().unwrap()).unwrap());
    assert_eq!(shake(&server, client(&file("server.pem"), ALPN, None), "localhost").await, Ok(()));
    assert_eq!(shake(&server, with("clients"), "localhost").await, Ok(()));
    assert!(shake(&server, with("strangers"), "localhost").await.is_err());
}

#[test]
fn a_file_that_is_no_certificate_is_named() {
    let directory = tempfile::tempdir().unwrap();
    write_authority(directory.path(), "a");
    let file = |name: &str| directory.path().join(name);
    let identity =
        |cert: &str, key: &str| TlsConfig::Files { cert: file(cert), key: file(key), client_ca: None };
    let error = |cert: &str, key: &str| {
        server_config(&identity(cert, key), false, loopback()).unwrap_err().to_string()
    };
    assert!(error("missing.pem", "a-leaf-key.pem").contains("missing.pem"));
    assert!(error("a-leaf-key.pem", "a-leaf-key.pem").contains("no certificate in it"));
    assert!(error("a-leaf.pem", "a-leaf.pem").contains("no private key"));
    write_authority(directory.path(), "b");
    assert!(error("a-leaf.pem", "b-leaf-key.pem").contains("cannot be used"));
}

#[test]
fn newcomers_prove_their_address_only_under_load() {
    assert!(!should_retry(0));
    assert!(should_retry(RETRY_FROM));
}
