//! Bearer tokens: who shows one that the router knows comes in, and the rules' history knows the name.

use chaski_client::Client;
use chaski_it::{Output, Router, Setup, within};
use chaski_protocol::Code;

use crate::certificates::{Authority, serve_with};

/// SHA-256 of `swordfish`.
const SWORDFISH: &str = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799";

/// A tokens file where `billing` may come with `swordfish`, and files with that token and another one.
fn tokens(setup: &Setup) -> String {
    let write = |name: &str, text: &str| {
        let path = setup.path(name);
        std::fs::write(&path, text).expect("the test's directory can be written");
        path.to_str().expect("a plain path").to_owned()
    };
    write("right.token", "swordfish\n");
    write("wrong.token", "sturgeon\n");
    write("tokens", &format!("# who may come\n\nbilling {SWORDFISH}\n"))
}

/// A development router that asks for tokens.
fn router() -> Router {
    let setup = Setup::default();
    let tokens = tokens(&setup);
    setup.arg("--tokens").arg(&tokens).rules("[queue.q]\n").start()
}

fn publish(router: &Router, extra: &[&str]) -> Output {
    router.cli(&[&["publish", "q", "x"], extra].concat())
}

#[track_caller]
fn refused(output: &Output, what: &str) {
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.error().starts_with("error: unauthenticated: "), "{}", output.error());
    assert!(output.error().contains(what), "{}", output.error());
}

/// The author of the newest version of the rules, of a command that made one.
fn author(router: &Router, extra: &[&str]) -> String {
    router.cli(&[&["queue", "create", "made"], extra].concat()).ok();
    let history = router.cli(&[&["rules", "history", "--json"], extra].concat()).ok().json();
    let newest = history.iter().max_by_key(|entry| entry["version"].as_u64()).expect("there are versions");
    newest["author"].as_str().expect("a text").to_owned()
}

#[test]
fn a_token_that_the_router_knows_opens_the_door_and_no_other() {
    let router = router();
    publish(&router, &["--token-file", "right.token"]).ok();
    refused(&publish(&router, &["--token-file", "wrong.token"]), "not one that this router knows");
    refused(&publish(&router, &[]), "asks for a token: ");
    let missing = publish(&router, &["--token-file", "nowhere.token"]);
    assert!(missing.code == 1 && missing.error().contains("nowhere.token"), "{}", missing.error());
    let show = ["queue", "show", "q", "--token-file", "right.token"];
    assert_eq!(router.one(&show)["ready"], 1, "nothing came in beside it");
    assert!(!router.log().join("\n").contains("swordfish"), "a token is never logged");
}

#[test]
fn a_token_at_a_router_that_knows_none_is_refused() {
    let setup = Setup::default();
    tokens(&setup);
    let router = setup.rules("[queue.q]\n").start();
    let output = publish(&router, &["--token-file", "right.token"]);
    refused(&output, "this router knows no tokens");
    assert!(output.error().contains("--tokens FILE"), "{}", output.error());
    publish(&router, &[]).ok();
}

#[test]
fn mutual_tls_and_tokens_stand_side_by_side() {
    let setup = Setup::default();
    let tokens = tokens(&setup);
    let (authority, router) = serve_with(setup.arg("--tokens").arg(&tokens), true);
    let (cert, key) = authority.issue("client", &["anyone"], rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let certificate = ["--ca", authority.ca(), "--cert", &cert, "--key-file", &key];
    let token = ["--ca", authority.ca(), "--token-file", "right.token"];
    publish(&router, &certificate).ok();
    publish(&router, &token).ok();
    refused(&publish(&router, &["--ca", authority.ca()]), "a token or a client certificate");
    let wrong = [&certificate[..], &["--token-file", "wrong.token"]].concat();
    refused(&publish(&router, &wrong), "not one that this router knows");
    let stranger = Authority::new(router.setup(), "stranger");
    let (cert, key) = stranger.issue("strange", &["anyone"], rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    let strange = ["--ca", authority.ca(), "--cert", &cert, "--key-file", &key];
    assert_eq!(publish(&router, &strange).code, 1, "a certificate of strangers is worse than none");

    let by_certificate = author(&router, &certificate);
    assert!(by_certificate.starts_with("queue create, certificate sha256:"), "{by_certificate}");
    let (_, digest) = by_certificate.split_once("sha256:").expect("just seen");
    assert_eq!(digest.split(' ').next().map(str::len), Some(64), "{by_certificate}");
}

#[test]
fn history_names_the_token_of_who_changed_the_rules() {
    let by_token = author(&router(), &["--token-file", "right.token"]);
    assert!(by_token.starts_with("queue create, token billing at 127.0.0.1:"), "{by_token}");
    let by_anybody = author(&Router::start(), &[]);
    assert!(by_anybody.starts_with("queue create, client 127.0.0.1:"), "{by_anybody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_of_the_client_library_is_kept_across_reconnects() {
    let router = router();
    let builder = || Client::builder().ca_file(router.ca());
    let error = within("a refusal", builder().token("sturgeon").connect(&router.url())).await;
    assert_eq!(error.map(|_| ()).expect_err("it is not known").code(), Code::Unauthenticated);
    let client = within("a connection", builder().token("swordfish").connect(&router.url())).await;
    let client = client.expect("the router knows it");
    let _again = router.kill().start();
    let sent = within("a publish", client.publish(chaski_client::Message::new("q", "after"))).await;
    assert_eq!(sent.expect("it is connected again").routed, 1);
}

#[test]
fn a_tokens_file_that_is_wrong_stops_the_start_and_names_its_line() {
    for (text, place, what) in [
        (format!("billing {SWORDFISH}\n\nops swordfish\n"), "tokens:3:", "64 hexadecimal digits"),
        (format!("billing {SWORDFISH}\nops {SWORDFISH}\n"), "tokens:2:", "`billing` has this token already"),
        ("# nobody yet\n".to_owned(), "tokens:1:", "no token in it"),
    ] {
        let setup = Setup::default();
        let path = setup.path("tokens");
        std::fs::write(&path, text).expect("the test's directory can be written");
        let output = setup.arg("--tokens").arg(path.to_str().expect("a plain path")).try_start();
        let output = output.expect_err("it must not start");
        assert_eq!(output.code, 1);
        assert!(output.error().contains(place) && output.error().contains(what), "{}", output.error());
    }
    let output = Setup::default().arg("--tokens").arg("nowhere").try_start().expect_err("it must not start");
    assert!(output.error().contains("nowhere"), "{}", output.error());
}
