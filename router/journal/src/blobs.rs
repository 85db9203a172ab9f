//! Blobs by digest, beside the log: what records name and is too large for one, as a module's binary. It knows bytes and
//! their SHA-256, and must not know what they are for, nor when nobody needs them any more: its owner removes them.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::core::Core;
use crate::journal::Failure;
use crate::names;
use crate::storage::{Storage, no_room};

/// The SHA-256 of a blob's bytes, which is its name; written `sha256:` and 64 hexadecimal digits.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobDigest(pub [u8; 32]);

impl BlobDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> BlobDigest {
        BlobDigest(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", names::hex(&self.0))
    }
}

impl fmt::Debug for BlobDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A blob that is there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: BlobDigest,
    /// Its length.
    pub bytes: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// Why a blob can't be written, read or removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The disk is full. Nothing of the blob stays, and the log goes on.
    #[error("no room for {digest} ({bytes} bytes): {error}; free some space and try again")]
    NoRoom {
        /// The blob.
        digest: BlobDigest,
        /// Its length.
        bytes: u64,
        /// What the operating system said.
        error: String,
    },
    /// Its bytes on disk are not what was written.
    #[error(
        "{file} is damaged: its bytes are not those of {digest}; bring it back from a backup, or give the router the same \
         bytes once more"
    )]
    Damaged {
        /// The blob.
        digest: BlobDigest,
        /// Its file.
        file: String,
    },
    /// The operating system failed. When it was a write or an fsync, the log has ended with it.
    #[error("cannot {what} {file}: {error}")]
    Io {
        /// What was tried, as in "read".
        what: &'static str,
        /// The file or folder.
        file: String,
        /// What the operating system said.
        error: String,
    },
    /// The journal has ended: nothing is written or removed any more.
    #[error("the journal has ended")]
    Ended,
    /// Another owner has taken the log over.
    #[error("another router has taken this log over")]
    Fenced,
}

/// Keeps blobs; implemented by whoever implements [`crate::Journal`]. The calls are those of [`Blobs`].
pub trait BlobStore: Send + Sync {
    /// Keeps these bytes, of which `digest` is the digest.
    fn put(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), BlobError>;

    /// The bytes with this digest, verified; none if there is no such blob.
    fn get(&self, digest: BlobDigest) -> Result<Option<Bytes>, BlobError>;

    /// What is there.
    fn list(&self) -> Result<Vec<BlobInfo>, BlobError>;

    /// Forgets a blob; one that isn't there is none to forget.
    fn remove(&self, digest: BlobDigest) -> Result<(), BlobError>;
}

/// A handle for blobs; cheap to clone. Its calls block on the disk: never make them on a thread that must not wait.
#[derive(Clone)]
pub struct Blobs(Arc<dyn BlobStore>);

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").finish_non_exhaustive()
    }
}

impl Blobs {
    /// Keeps them there.
    pub fn new(store: impl BlobStore + 'static) -> Blobs {
        Blobs(Arc::new(store))
    }

    /// Keeps these bytes: they are durable when this returns. One that is there already is checked, and written again if it
    /// is damaged. Without room nothing of it stays.
    pub fn put(&self, bytes: &[u8]) -> Result<BlobDigest, BlobError> {
        let digest = BlobDigest::of(bytes);
        self.0.put(digest, bytes)?;
        Ok(digest)
    }

    /// The bytes with this digest, verified; none if there is no such blob. They are read whole.
    pub fn get(&self, digest: BlobDigest) -> Result<Option<Bytes>, BlobError> {
        self.0.get(digest)
    }

    /// What is there, by digest. Nothing is verified.
    pub fn list(&self) -> Result<Vec<BlobInfo>, BlobError> {
        let mut blobs = self.0.list()?;
        blobs.sort_unstable_by_key(|blob| blob.digest);
        Ok(blobs)
    }

    /// Forgets a blob; one that isn't there is none to forget. A power cut right after it may bring it back.
    pub fn remove(&self, digest: BlobDigest) -> Result<(), BlobError> {
        self.0.remove(digest)
    }
}

/// Blobs in the data directory. A handle that outlives the journal doesn't keep the directory locked.
pub(crate) struct LocalBlobs(Weak<Core>);

impl LocalBlobs {
    pub(crate) fn handle(core: &Arc<Core>) -> Blobs {
        Blobs::new(LocalBlobs(Arc::downgrade(core)))
    }

    fn core(&self) -> Result<Arc<Core>, BlobError> {
        self.0.upgrade().ok_or(BlobError::Ended)
    }
}

impl BlobStore for LocalBlobs {
    fn put(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), BlobError> {
        let core = self.core()?;
        // One at a time, so that what is there already has been made durable, and nobody else writes under its name.
        let _turn = core.blob_turn()?;
        let name = names::blob(&digest.0);
        match read(&*core.storage, digest) {
            // Found, it may still be without a durable name: a process that was killed leaves it so.
            Ok(Some(_)) => {}
            Ok(None) | Err(BlobError::Damaged { .. }) => write(&core, &name, digest, bytes)?,
            Err(error) => return Err(error),
        }
        core.storage.sync_dir().map_err(|error| broken(&core, "sync the directory of", &name, error))
    }

    fn get(&self, digest: BlobDigest) -> Result<Option<Bytes>, BlobError> {
        read(&*self.core()?.storage, digest)
    }

    fn list(&self) -> Result<Vec<BlobInfo>, BlobError> {
        let core = self.core()?;
        let files = core.storage.list_in(names::BLOBS);
        let files = files.map_err(|error| failed(&*core.storage, "list", names::BLOBS, &error))?;
        let blob = |file: crate::storage::FileInfo| {
            let digest = BlobDigest(names::parse_blob(&file.name)?);
            Some(BlobInfo { digest, bytes: file.bytes, modified: file.modified })
        };
        Ok(files.into_iter().filter_map(blob).collect())
    }

    fn remove(&self, digest: BlobDigest) -> Result<(), BlobError> {
        let core = self.core()?;
        let _turn = core.blob_turn()?;
        let name = names::blob(&digest.0);
        match core.storage.remove(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(&*core.storage, "remove", &name, &error))
            }
            _ => Ok(()),
        }
    }
}

fn read(storage: &dyn Storage, digest: BlobDigest) -> Result<Option<Bytes>, BlobError> {
    let name = names::blob(&digest.0);
    let bytes = storage.open(&name).and_then(|file| {
        let mut bytes = vec![0; file.len()? as usize];
        file.read_at(0, &mut bytes)?;
        Ok(bytes)
    });
    match bytes {
        Ok(bytes) if BlobDigest::of(&bytes) == digest => Ok(Some(bytes.into())),
        Ok(_) => Err(BlobError::Damaged { digest, file: storage.path(&name).display().to_string() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(storage, "read", &name, &error)),
    }
}

/// Writes it under a temporary name, syncs it, and gives it its name.
fn write(core: &Core, name: &str, digest: BlobDigest, bytes: &[u8]) -> Result<(), BlobError> {
    let unfinished = names::unfinished(name);
    let outcome = (|| {
        let storage = &*core.storage;
        let file = storage.create(&unfinished).map_err(|error| ("make", error))?;
        file.write_at(0, bytes).map_err(|error| ("write", error))?;
        file.sync().map_err(|error| ("sync", error))?;
        storage.rename(&unfinished, name).map_err(|error| ("rename", error))
    })();
    let Err((what, error)) = outcome else { return Ok(()) };
    // If it stays, the next start removes it.
    let _ = core.storage.remove(&unfinished);
    match what {
        _ if no_room(&error) => {
            Err(BlobError::NoRoom { digest, bytes: bytes.len() as u64, error: error.to_string() })
        }
        "write" | "sync" => Err(broken(core, what, &unfinished, error)),
        _ => Err(failed(&*core.storage, what, &unfinished, &error)),
    }
}

/// A disk that can't be written or synced can't be trusted with the log either.
fn broken(core: &Core, what: &'static str, name: &str, error: std::io::Error) -> BlobError {
    core.fail(Failure::Io { what: format!("{what} {name}"), error: error.to_string() });
    failed(&*core.storage, what, name, &error)
}

fn failed(storage: &dyn Storage, what: &'static str, name: &str, error: &std::io::Error) -> BlobError {
    BlobError::Io { what, file: storage.path(name).display().to_string(), error: error.to_string() }
}
