//! The key of stateless resets (RFC 9000, section 10.3), kept in the data directory. A router that comes back after a crash knows
//! nothing of its former connections; with the same key it can tell their clients so at the next packet, and they reconnect at
//! once instead of waiting for the idle timeout.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use quinn::EndpointConfig;
use ring::hmac;

/// Its file in the data directory.
const NAME: &str = "quic-reset.key";

const LENGTH: usize = 64;

/// 64 random bytes that outlive the process.
pub(crate) struct ResetKey {
    bytes: [u8; LENGTH],
    stored: bool,
}

impl ResetKey {
    /// The directory's key; a fresh one when it has none, or none that can be read. The recovery that follows says what is
    /// wrong with a directory.
    pub(crate) fn load(data: &Path) -> ResetKey {
        match fs::read(data.join(NAME)).ok().and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => ResetKey { bytes, stored: true },
            None => {
                let mut bytes = [0; LENGTH];
                let random = rustls::crypto::ring::default_provider().secure_random;
                random.fill(&mut bytes).expect("the operating system has random bytes");
                ResetKey { bytes, stored: false }
            }
        }
    }

    /// Keeps a fresh key; the directory is this router's by now.
    pub(crate) fn store(&self, data: &Path) -> io::Result<()> {
        if self.stored {
            return Ok(());
        }
        let temporary = data.join(format!("{NAME}.tmp"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&self.bytes)?;
        fs::rename(&temporary, data.join(NAME))
    }

    /// Resets made with the key; connection ids that a later process recognizes as its own.
    pub(super) fn endpoint_config(&self) -> EndpointConfig {
        let (for_tokens, for_ids) = self.bytes.split_at(LENGTH - 8);
        let key = hmac::Key::new(hmac::HMAC_SHA256, for_tokens);
        let ids = u64::from_le_bytes(for_ids.try_into().expect("8 bytes were split off"));
        let mut config = EndpointConfig::new(Arc::new(key));
        config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(ids)));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_outlives_the_process_and_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let first = ResetKey::load(directory.path());
        first.store(directory.path()).unwrap();
        let again = ResetKey::load(directory.path());
        assert!(again.stored && first.bytes == again.bytes);
        let mode = fs::metadata(directory.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(ResetKey::load(&directory.path().join("none")).bytes != first.bytes);
    }
}
