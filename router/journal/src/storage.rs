//! The file operations that the journal needs, and nothing else of an operating system: everything that a crash test must
//! see passes through here. Names are relative to the data directory; a name may begin with `lost/` or `blobs/`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// A lock that is held until it is dropped.
pub trait StorageLock: Send + Sync {}

/// Why the directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it; what its lock file says (its process id).
    #[error("held by {0}")]
    Held(String),
    /// The lock file can't be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name in the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// A directory of files.
pub trait Storage: Send + Sync + 'static {
    /// Locks the directory for this process through a file of this name, which then holds the process id.
    fn lock(&self, name: &str) -> Result<Box<dyn StorageLock>, LockError>;

    /// Names of the files in the directory itself, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The files of a folder below the directory, in no particular order; none if the folder isn't there.
    fn list_in(&self, folder: &str) -> io::Result<Vec<FileInfo>>;

    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Makes an empty file; one of that name is emptied. The folder is made when the name is below one; `blobs` and what is
    /// in it is for this user alone.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames, replacing atomically. The folder is made when `to` is below one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Unlinks; a handle that is open keeps working.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable, those below a folder too.
    fn sync_dir(&self) -> io::Result<()>;

    /// Bytes that an unprivileged process may still allocate.
    fn free_bytes(&self) -> io::Result<u64>;

    /// What a person calls this file; the directory itself for an empty name.
    fn path(&self, name: &str) -> PathBuf;

    /// 64 random bits, for a segment's salt.
    fn random(&self) -> u64;
}

/// One open file.
pub trait StorageFile: Send + Sync {
    /// Writes all of `bytes`, growing the file if need be.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `bytes`; an early end of the file is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// Contents and length are durable when this returns.
    fn sync(&self) -> io::Result<()>;

    /// Reserves disk space for the first `len` bytes and makes the file at least that long. No space is
    /// [`io::ErrorKind::StorageFull`].
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Bytes of the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Whether an error means that there is no room.
pub(crate) fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error means that nothing may be written.
pub(crate) fn read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}
