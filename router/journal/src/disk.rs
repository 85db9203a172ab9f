//! [`Storage`] on a real directory. It knows files, and nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::names::BLOBS;
use crate::storage::{FileInfo, LockError, Storage, StorageFile, StorageLock};

/// A directory of the file system.
#[derive(Debug)]
pub struct DiskStorage {
    path: PathBuf,
}

impl DiskStorage {
    /// Makes the directory if it is not there, durable with every directory above it that was missing. Raises this
    /// process's soft limit of open files to the hard one: each segment of the log is one.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<DiskStorage> {
        let path = path.into();
        let missing: Vec<_> = path.ancestors().take_while(|path| !path.is_dir()).collect();
        if !missing.is_empty() {
            std::fs::create_dir_all(&path)?;
        }
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        raise_open_files();
        Ok(DiskStorage { path })
    }
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, opening a file too many says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

struct DiskLock {
    /// The operating system releases the lock when it is closed.
    _file: File,
}

impl StorageLock for DiskLock {}

impl Storage for DiskStorage {
    fn lock(&self, name: &str) -> Result<Box<dyn StorageLock>, LockError> {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(self.path.join(name))?;
        if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(LockError::Io(error.into()));
            }
            let mut holder = String::new();
            // Who holds it is only for the sentence.
            let _ = file.take(32).read_to_string(&mut holder);
            return Err(LockError::Held(holder.trim().to_owned()));
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Box::new(DiskLock { _file: file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn list_in(&self, folder: &str) -> io::Result<Vec<FileInfo>> {
        let entries = match std::fs::read_dir(self.path.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let about = match entry.metadata() {
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                about => about?,
            };
            if about.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                files.push(FileInfo { name, bytes: about.len(), modified: about.modified()? });
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let path = self.path.join(name);
        make_parent(&path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        if Path::new(name).starts_with(BLOBS) {
            options.mode(0o600);
        }
        let file = options.open(path)?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let to = self.path.join(to);
        make_parent(&to)?;
        std::fs::rename(self.path.join(from), to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        for folder in ["lost", BLOBS] {
            let folder = self.path.join(folder);
            if folder.is_dir() {
                File::open(folder)?.sync_all()?;
            }
        }
        File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    fn random(&self) -> u64 {
        // The standard library's only source of randomness from the operating system.
        RandomState::new().build_hasher().finish()
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.is_dir() => {
            let mode = if parent.ends_with(BLOBS) { 0o700 } else { 0o777 };
            std::fs::DirBuilder::new().mode(mode).create(parent)
        }
        _ => Ok(()),
    }
}

struct DiskFile(File);

impl StorageFile for DiskFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // The file system can't reserve: zeros do it.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let zeros = vec![0; 1 << 20];
                let mut at = self.0.metadata()?.len();
                while at < len {
                    let step = (len - at).min(zeros.len() as u64);
                    self.0.write_all_at(&zeros[..step as usize], at)?;
                    at += step;
                }
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}
