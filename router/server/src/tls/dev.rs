//! `serve --dev`: one certificate authority a user, and a fresh server certificate at each start. Its key can vouch for loopback
//! names only, so that whoever steals it gains nothing elsewhere.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{TlsError, quic_config};

/// The authority and all that it signs are valid for so long.
const YEARS: i16 = 10;

/// What the server certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the user's authority lies: `${XDG_CONFIG_HOME:-~/.config}/chaski/dev/ca.pem`, its key beside it. `None` without a home.
pub(super) fn dev_ca_path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("chaski/dev/ca.pem"))
}

/// A configuration with a fresh certificate of the authority at `ca`, which is made when it isn't there.
pub(super) fn server_config_with_dev_ca(ca: &Path) -> Result<quinn::ServerConfig, TlsError> {
    let (authority, issuer) = authority(ca)?;
    let refused = |error: rcgen::Error| TlsError::Refused(error.to_string());
    let key = KeyPair::generate().map_err(refused)?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(refused)?;
    params.distinguished_name = common_name("chaski dev router");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params);
    let certificate = params.signed_by(&key, &issuer).map_err(refused)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    quic_config(vec![certificate.der().clone(), authority], key, None)
}

/// The authority, made when missing. Two routers may do this at once: the key is the truth and is linked into place by one of them,
/// and certificates made from the same key are as good as each other.
fn authority(ca: &Path) -> Result<(CertificateDer<'static>, Issuer<'static, KeyPair>), TlsError> {
    let directory = ca.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| TlsError::file(directory, error))?;
    let key_path = ca.with_file_name("ca-key.pem");
    let key = authority_key(&key_path)?;
    let certificate = match existing(ca, &key)? {
        Some(certificate) => certificate,
        None => {
            let params = authority_params();
            let made = params.self_signed(&key).map_err(|error| TlsError::Refused(error.to_string()))?;
            let temporary = write_temporary(ca, made.pem().as_bytes(), 0o644)?;
            fs::rename(&temporary, ca).map_err(|error| TlsError::file(ca, error))?;
            made.der().clone()
        }
    };
    Ok((certificate, Issuer::new(authority_params(), key)))
}

fn authority_key(path: &Path) -> Result<KeyPair, TlsError> {
    if !path.exists() {
        let key = KeyPair::generate().map_err(|error| TlsError::Refused(error.to_string()))?;
        let temporary = write_temporary(path, key.serialize_pem().as_bytes(), 0o600)?;
        // A link fails where another router's key already stands, and a rename would replace it.
        let linked = fs::hard_link(&temporary, path);
        let _ = fs::remove_file(&temporary);
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(TlsError::file(path, error));
            }
            _ => {}
        }
    }
    let pem = fs::read_to_string(path).map_err(|error| TlsError::file(path, error))?;
    KeyPair::from_pem(&pem).map_err(|error| {
        TlsError::content(
            path,
            format!("not the key of a development authority ({error}); delete it, and a new one is made"),
        )
    })
}

/// The certificate at `ca` if it belongs to this key; `None` when it must be made.
fn existing(ca: &Path, key: &KeyPair) -> Result<Option<CertificateDer<'static>>, TlsError> {
    let pem = match fs::read(ca) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TlsError::file(ca, error)),
    };
    let Ok(certificate) = CertificateDer::from_pem_slice(&pem) else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    let readable = roots.add(certificate.clone()).is_ok();
    let same_key =
        roots.roots.iter().any(|root| root.subject_public_key_info.ends_with(key.public_key_raw()));
    Ok((readable && same_key).then_some(certificate))
}

/// Constant but for the dates, so that the issuer can be named without parsing its certificate.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("chaski dev CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(
                std::net::Ipv6Addr::LOCALHOST.into(),
                128,
            )),
        ],
        excluded_subtrees: Vec::new(),
    });
    set_validity(&mut params);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// From yesterday, since clocks of one machine's containers differ, for ten years.
fn set_validity(params: &mut CertificateParams) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = |date: jiff::civil::Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(date.year().into(), month, day)
    };
    params.not_before = day(today.yesterday().unwrap_or(today));
    // The 29th of February has no tenth birthday; the 28th is one.
    let end = jiff::civil::Date::new(today.year() + YEARS, today.month(), today.day().min(28));
    params.not_after = day(end.unwrap_or(today));
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, TlsError> {
    let unique = uuid::Uuid::now_v7().simple();
    let temporary = path.with_extension(format!("{unique}.tmp"));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| TlsError::file(&temporary, error))?;
    Ok(temporary)
}
