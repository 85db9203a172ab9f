//! Compiled code on disk, in a folder that only the router's user may write. An entry is named by the binary's digest and the
//! engine's compatibility, carries its checksum, and is made again when it is damaged. It knows digests and bytes.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;

/// How an entry begins. Then come binary, compatibility and checksum, 32 bytes each, and the code.
const MAGIC: &[u8; 8] = b"chaskiK1";
const HEAD_BYTES: usize = 8 + 3 * 32;

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    compatibility: Digest,
    /// Numbers temporary files, so that two of one process never share one.
    next: AtomicU64,
}

/// Why a folder cannot be a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or looked at.
    #[error("the folder for compiled modules, {}, cannot be used: {error}", .folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody else could put code into it.
    #[error(
        "the folder for compiled modules, {}, must be a folder of the router's own user that nobody else can enter: \
         `chown` it to that user and `chmod 700` it, or name another",
        .folder.display()
    )]
    Unsafe {
        /// The folder.
        folder: PathBuf,
    },
}

impl Cache {
    /// Opens the cache in this folder, which is made if it isn't there, and must be the router's alone.
    pub(crate) fn open(folder: &Path, compatibility: Digest) -> Result<Cache, CacheError> {
        let fail = |error| CacheError::Io { folder: folder.into(), error };
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            _ => {}
        }
        // Not through a symbolic link: whoever made that could turn it elsewhere.
        let found = fs::symlink_metadata(folder).map_err(fail)?;
        let own = found.uid() == rustix::process::geteuid().as_raw();
        if !found.is_dir() || !own || found.mode() & 0o077 != 0 {
            return Err(CacheError::Unsafe { folder: folder.into() });
        }
        Ok(Cache { folder: folder.into(), compatibility, next: AtomicU64::new(0) })
    }

    /// The code of this binary, where it is there and whole.
    pub(crate) fn read(&self, binary: Digest) -> Option<Vec<u8>> {
        let mut entry = fs::read(self.path(binary)).ok()?;
        let head = self.head(binary, entry.get(HEAD_BYTES..)?);
        if entry[..HEAD_BYTES] != head {
            return None;
        }
        Some(entry.split_off(HEAD_BYTES))
    }

    /// Keeps the code of this binary. A reader sees the old entry or the new one.
    pub(crate) fn write(&self, binary: Digest, code: &[u8]) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{}.{}.{number}.new", binary.hex(), std::process::id()));
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).and_then(|mut file| {
                file.write_all(&self.head(binary, code))?;
                file.write_all(code)
            });
        written.and_then(|()| fs::rename(&path, self.path(binary))).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = fs::remove_file(&path);
        })
    }

    /// Removes all entries but these, and what a killed router left half-written.
    pub(crate) fn retain(&self, binaries: &[Digest]) -> io::Result<()> {
        let kept: Vec<_> = binaries.iter().map(|binary| self.path(*binary)).collect();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, binary: Digest) -> PathBuf {
        self.folder.join(format!("{}-{}.code", binary.hex(), &self.compatibility.hex()[..16]))
    }

    fn head(&self, binary: Digest, code: &[u8]) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        for (place, digest) in head[8..].chunks_mut(32).zip([binary, self.compatibility, Digest::of(code)]) {
            place.copy_from_slice(&digest.0);
        }
        head
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn open(folder: &Path) -> Cache {
        Cache::open(folder, Digest::of(b"engine")).unwrap()
    }

    #[test]
    fn damaged_and_foreign_entries_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("code");
        let cache = open(&folder);
        let binary = Digest::of(b"binary");
        assert_eq!(cache.read(binary), None);
        cache.write(binary, b"machine code").unwrap();
        assert_eq!(cache.read(binary).as_deref(), Some(&b"machine code"[..]));
        let whole = fs::read(cache.path(binary)).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(cache.path(binary), &damaged).unwrap();
            assert_eq!(cache.read(binary), None, "byte {at}");
            fs::write(cache.path(binary), &whole[..at]).unwrap();
            assert_eq!(cache.read(binary), None, "cut at {at}");
        }
        cache.write(binary, b"machine code").unwrap();
        let other = Cache::open(&folder, Digest::of(b"another engine")).unwrap();
        assert_eq!(other.read(binary), None);
        fs::rename(cache.path(binary), other.path(binary)).unwrap();
        assert_eq!(other.read(binary), None);
    }

    #[test]
    fn only_named_entries_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open(&folder.path().join("code"));
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        cache.write(one, b"1").unwrap();
        cache.write(two, b"2").unwrap();
        cache.retain(&[two]).unwrap();
        assert_eq!((cache.read(one), cache.read(two)), (None, Some(b"2".to_vec())));
    }

    #[test]
    fn a_folder_that_others_can_enter_or_a_link_to_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join("code");
        open(&code);
        assert_eq!(fs::metadata(&code).unwrap().mode() & 0o777, 0o700);
        let refused =
            |path: &Path| matches!(Cache::open(path, Digest::of(b"engine")), Err(CacheError::Unsafe { .. }));
        let link = folder.path().join("link");
        symlink(&code, &link).unwrap();
        assert!(refused(&link));
        for mode in [0o710, 0o701, 0o770, 0o777] {
            fs::set_permissions(&code, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refused(&code), "{mode:o}");
        }
    }
}
