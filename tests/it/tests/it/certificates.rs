//! Certificates: `serve` outside `--dev`, with and without mutual TLS.

use std::path::PathBuf;

use chaski_it::{Router, Setup, run};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// An authority, and what it signed, as files.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    setup: Setup,
    ca: PathBuf,
}

impl Authority {
    pub(crate) fn new(setup: &Setup, name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.self_signed(&key).expect("it signs itself");
        let ca = setup.path(&format!("{name}.pem"));
        std::fs::write(&ca, certificate.pem()).expect("the test's directory can be written");
        Authority { issuer: Issuer::new(params, key), setup: setup.clone(), ca }
    }

    pub(crate) fn issue(
        &self,
        name: &str,
        hosts: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("the names are valid");
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority signs");
        let write = |suffix: &str, text: String| {
            let path = self.setup.path(&format!("{name}.{suffix}"));
            std::fs::write(&path, text).expect("the test's directory can be written");
            path.to_str().expect("a plain path").to_owned()
        };
        (write("pem", certificate.pem()), write("key", key.serialize_pem()))
    }

    pub(crate) fn ca(&self) -> &str {
        self.ca.to_str().expect("a plain path")
    }
}

fn serve(with_clients: bool) -> (Authority, Router) {
    serve_with(Setup::default(), with_clients)
}

/// A router with a certificate of an authority of its own, which may be that of its clients too.
pub(crate) fn serve_with(setup: Setup, with_clients: bool) -> (Authority, Router) {
    let authority = Authority::new(&setup, "authority");
    let (cert, key) =
        authority.issue("router", &["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let mut arguments = vec!["--cert", &cert, "--key", &key];
    if with_clients {
        arguments.extend(["--client-ca", authority.ca()]);
    }
    let router = setup.tls(&arguments).rules("[queue.q]\n").start();
    (authority, router)
}

#[test]
fn a_router_with_its_own_certificate_is_trusted_by_its_authority_alone() {
    let (authority, router) = serve(false);
    router.cli(&["publish", "q", "x", "--ca", authority.ca()]).ok();
    let stranger = Authority::new(router.setup(), "stranger");
    let output = router.cli(&["publish", "q", "x", "--ca", stranger.ca()]);
    assert_eq!(output.code, 1);
    assert!(output.error().to_lowercase().contains("certificate"), "{}", output.error());
}

#[test]
fn mutual_tls_lets_in_who_shows_a_certificate_of_the_authority() {
    let (authority, router) = serve(true);
    let (cert, key) = authority.issue("client", &["anyone"], ExtendedKeyUsagePurpose::ClientAuth);
    router.cli(&["publish", "q", "x", "--ca", authority.ca(), "--cert", &cert, "--key-file", &key]).ok();
    let mut command = router.setup().command(&["queue", "show", "q", "--json"]);
    command.env("CHASKI_URL", router.url()).env("CHASKI_CA", authority.ca());
    command.env("CHASKI_CERT", &cert).env("CHASKI_KEY_FILE", &key);
    assert_eq!(run(command, b"").ok().one()["ready"], 1);

    // Without one, or with one of another authority, nobody gets in.
    let output = router.cli(&["publish", "q", "x", "--ca", authority.ca()]);
    assert_eq!(output.code, 1);
    assert!(output.error().to_lowercase().contains("certificate"), "{}", output.error());
    let stranger = Authority::new(router.setup(), "stranger");
    let (cert, key) = stranger.issue("strange", &["anyone"], ExtendedKeyUsagePurpose::ClientAuth);
    let output =
        router.cli(&["publish", "q", "x", "--ca", authority.ca(), "--cert", &cert, "--key-file", &key]);
    assert_eq!(output.code, 1);
}

#[test]
fn a_missing_certificate_stops_the_start_and_is_named() {
    let output = Setup::default().tls(&["--cert", "nowhere.pem", "--key", "nowhere.key"]).try_start();
    let output = output.expect_err("it must not start");
    assert_eq!(output.code, 1);
    assert!(output.error().contains("nowhere.pem"), "{}", output.error());
}
