//! Who a client is: by the certificate that it showed, or by a token whose digest stands in the file of `serve --tokens`. It
//! must not know what a client may do, and it never keeps, logs or repeats a token.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chaski_protocol::{Code, Refusal, check_token};
use quinn::Connection;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;

use crate::start::StartError;

/// A token's name in bytes: it stands in the log and in the rules' history.
const MAX_NAME: usize = 64;

/// Lines of a tokens file.
const MAX_LINES: usize = 100_000;

/// Who a client is, as the rules' history names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Whoever reaches the router.
    Anybody,
    /// The name of its token.
    Token(Arc<str>),
    /// The SHA-256 of its certificate.
    Certificate([u8; 32]),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Anybody => f.write_str("client"),
            Identity::Token(name) => write!(f, "token {name}"),
            Identity::Certificate(digest) => {
                f.write_str("certificate sha256:")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// How clients prove who they are. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Doorkeeper {
    /// Names by the tokens' digests; `None` without `--tokens`.
    tokens: Option<Arc<BTreeMap<[u8; 32], Arc<str>>>>,
    /// Whether a client may show a certificate instead.
    certificates: bool,
}

impl Doorkeeper {
    /// Reads the file of tokens, if there is one.
    pub(crate) fn load(tokens: Option<&Path>, certificates: bool) -> Result<Doorkeeper, StartError> {
        let read = |path: &Path| {
            let bad = |detail: String| StartError::new(Code::BadRequest, detail);
            let text =
                std::fs::read_to_string(path).map_err(|error| bad(format!("{}: {error}", path.display())))?;
            parse(&text).map_err(|(line, what)| bad(format!("{}:{line}: {what}", path.display())))
        };
        Ok(Doorkeeper { tokens: tokens.map(read).transpose()?.map(Arc::new), certificates })
    }

    /// Who this is, or why it may not come in.
    pub(crate) fn identify(&self, connection: &Connection, token: Option<&str>) -> Result<Identity, Refusal> {
        self.judge(certificate(connection), token)
    }

    fn judge(&self, certificate: Option<[u8; 32]>, token: Option<&str>) -> Result<Identity, Refusal> {
        let refuse = |detail: &str| Err(Refusal::new(Code::Unauthenticated, detail));
        let Some(token) = token else {
            return match (certificate, &self.tokens) {
                (Some(digest), _) => Ok(Identity::Certificate(digest)),
                (None, None) => Ok(Identity::Anybody),
                (None, Some(_)) if self.certificates => refuse(
                    "this router asks for a token or a client certificate: name yours with `--token-file`, or with `--cert` \
                     and `--key-file`",
                ),
                (None, Some(_)) => {
                    refuse("this router asks for a token: name the file with yours with `--token-file`")
                }
            };
        };
        if let Err(error) = check_token(token) {
            return refuse(&error.to_string());
        }
        let Some(tokens) = &self.tokens else {
            return refuse(
                "this router knows no tokens: connect without one, or start the router with `--tokens FILE`, which has a line \
                 `NAME SHA256-OF-TOKEN` for each",
            );
        };
        // Looked up by its digest: how long that takes tells nothing about a token that is there.
        match tokens.get(&sha256(token.as_bytes())) {
            Some(name) => Ok(Identity::Token(Arc::clone(name))),
            None => refuse("the token is not one that this router knows"),
        }
    }
}

/// The digest of the certificate that TLS has verified.
fn certificate(connection: &Connection) -> Option<[u8; 32]> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Some(sha256(chain.first()?))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Names by digests; or the number of the line that is wrong, and what is wrong with it.
fn parse(text: &str) -> Result<BTreeMap<[u8; 32], Arc<str>>, (usize, String)> {
    let mut tokens = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: &str| (number, what.to_owned());
        if number > MAX_LINES {
            return Err(wrong("a tokens file has at most 100,000 lines"));
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(hex), None) = (words.next(), words.next(), words.next()) else {
            return Err(wrong("a line is `NAME SHA256-OF-TOKEN`"));
        };
        if name.len() > MAX_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("a name has at most 64 bytes of visible ASCII"));
        }
        let Some(digest) = from_hex(hex) else {
            return Err(wrong(
                "behind the name stands the token's SHA-256, 64 hexadecimal digits: `printf %s \"$TOKEN\" | sha256sum`",
            ));
        };
        if let Some(former) = tokens.insert(digest, Arc::from(name)) {
            return Err((number, format!("`{former}` has this token already")));
        }
    }
    if tokens.is_empty() {
        return Err((1, "there is no token in it, so that nobody could connect with one".to_owned()));
    }
    Ok(tokens)
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWORDFISH: &str = "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799";

    fn doorkeeper(tokens: Option<&str>, certificates: bool) -> Doorkeeper {
        Doorkeeper { tokens: tokens.map(|text| Arc::new(parse(text).unwrap())), certificates }
    }

    #[test]
    fn lines_are_names_and_digests() {
        let text = format!("# who\n\n  billing {SWORDFISH}  \r\nops\t{}\n", "AB".repeat(32));
        let names =
            |text: &str| parse(text).unwrap().into_values().map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&text), ["ops", "billing"]);
        let digest = &SWORDFISH;
        for (text, line, what) in [
            (format!("a {digest}\nb"), 2, "NAME SHA256"),
            (format!("a {digest} more"), 1, "NAME SHA256"),
            (format!("#\n\na {}", &digest[1..]), 3, "64 hexadecimal digits"),
            (format!("a +{}", &digest[1..]), 1, "64 hexadecimal digits"),
            (format!("a sha256:{digest}"), 1, "64 hexadecimal digits"),
            (format!("{} {digest}", "n".repeat(65)), 1, "at most 64 bytes"),
            (format!("né {digest}"), 1, "visible ASCII"),
            (format!("a {digest}\nb {}", digest.to_uppercase()), 2, "`a` has this token already"),
            ("# nobody\n".to_owned(), 1, "no token in it"),
        ] {
            let (number, found) = parse(&text).unwrap_err();
            assert!(number == line && found.contains(what), "{text:?}: {number}: {found}");
        }
    }

    #[test]
    fn one_name_may_have_two_tokens_while_one_replaces_the_other() {
        let tokens = parse(&format!("billing {SWORDFISH}\nbilling {}", "0".repeat(64))).unwrap();
        assert_eq!(tokens.len(), 2);
    }

    #[track_caller]
    fn refused(judged: Result<Identity, Refusal>, what: &str) {
        let refusal = judged.expect_err(what);
        assert_eq!(refusal.code, Code::Unauthenticated);
        assert!(refusal.detail.contains(what), "{}", refusal.detail);
        assert!(!refusal.detail.contains("swordfish"), "a token is never repeated: {}", refusal.detail);
    }

    #[test]
    fn a_client_is_known_by_a_token_or_a_certificate() {
        let billing = Identity::Token("billing".into());
        let shown = Some([7; 32]);
        let tokens = doorkeeper(Some(&format!("billing {SWORDFISH}")), false);
        assert_eq!(tokens.judge(None, Some("swordfish")), Ok(billing.clone()));
        refused(tokens.judge(None, Some("swordfish2")), "not one that this router knows");
        refused(tokens.judge(None, Some("")), "visible ASCII");
        refused(tokens.judge(None, None), "asks for a token: ");
        let both = doorkeeper(Some(&format!("billing {SWORDFISH}")), true);
        refused(both.judge(None, None), "a token or a client certificate");
        assert_eq!(both.judge(shown, None), Ok(Identity::Certificate([7; 32])));
        assert_eq!(both.judge(shown, Some("swordfish")), Ok(billing));
        refused(both.judge(shown, Some("swordfish2")), "not one that this router knows");
        let neither = doorkeeper(None, false);
        assert_eq!(neither.judge(None, None), Ok(Identity::Anybody));
        refused(neither.judge(None, Some("swordfish")), "this router knows no tokens");
        assert_eq!(doorkeeper(None, true).judge(shown, None), Ok(Identity::Certificate([7; 32])));
    }
}
