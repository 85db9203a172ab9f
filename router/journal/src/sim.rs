//! A [`Storage`] that knows what is live from what is durable: for crash tests and simulators. A crash keeps what was synced
//! and any choice of the rest; faults are injected by the number of the operation. It must not know the journal's formats.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::storage::{FileInfo, LockError, Storage, StorageFile, StorageLock};

/// An operation that changes something, as a crash test counts them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes written.
    Write,
    /// A file synced.
    Sync,
    /// Space reserved.
    Allocate,
    /// A file cut.
    Truncate,
    /// A file made.
    Create,
    /// A file renamed.
    Rename,
    /// A file unlinked.
    Remove,
    /// The directory synced.
    SyncDir,
}

/// Something that a crash may lose or keep.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// A page of a file.
    Page {
        /// The file's number.
        file: u64,
        /// The page's number.
        page: usize,
    },
    /// A file's length.
    Length {
        /// The file's number.
        file: u64,
    },
    /// An entry of the directory. Entries reach the disk in order: when one is lost, so are all behind it.
    Entry {
        /// Its number since the directory was last synced.
        index: usize,
    },
}

/// What the disk pretends to do: planted bugs that a checker must catch.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Lies {
    /// Syncing a file does nothing.
    pub sync: bool,
    /// Syncing the directory does nothing.
    pub sync_dir: bool,
}

#[derive(Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    /// The number of the operation that last wrote it, which stands for a time.
    modified: u64,
}

impl Inode {
    /// The same file with these bytes, all durable.
    fn with_bytes(&self, bytes: Vec<u8>) -> Inode {
        Inode { live: bytes.clone(), durable: bytes, dirty: BTreeSet::new(), modified: self.modified }
    }
}

#[derive(Clone)]
enum Entry {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Default)]
struct Disk {
    page: usize,
    inodes: BTreeMap<u64, Inode>,
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    entries: Vec<Entry>,
    next_inode: u64,
    operations: Vec<Operation>,
    /// No operation from this one on has an effect: the power is out.
    dead_from: Option<usize>,
    fail_at: Option<(usize, io::ErrorKind)>,
    capacity: Option<u64>,
    read_only: bool,
    lies: Lies,
    locked: bool,
    random: u64,
    largest_read: usize,
}

/// The disk; clones are the same disk.
#[derive(Clone)]
pub struct SimStorage(Arc<Mutex<Disk>>);

impl SimStorage {
    /// An empty disk whose pages have so many bytes.
    pub fn new(page: usize) -> SimStorage {
        SimStorage(Arc::new(Mutex::new(Disk { page, ..Disk::default() })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("nothing panics with the disk")
    }

    /// The operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.disk().operations.clone()
    }

    /// The power fails before this operation (counted from 0): it and all later ones fail and change nothing.
    pub fn die_at(&self, operation: usize) {
        self.disk().dead_from = Some(operation);
    }

    /// This operation fails with this error and has no effect.
    pub fn fail_at(&self, operation: usize, error: io::ErrorKind) {
        self.disk().fail_at = Some((operation, error));
    }

    /// How many bytes all files may have; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// Whether nothing may be written.
    pub fn set_read_only(&self, read_only: bool) {
        self.disk().read_only = read_only;
    }

    /// The most bytes that were read at once.
    pub fn largest_read(&self) -> usize {
        self.disk().largest_read
    }

    /// What it pretends from now on.
    pub fn set_lies(&self, lies: Lies) {
        self.disk().lies = lies;
    }

    /// What a crash may lose now.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        let disk = self.disk();
        let mut unsynced: Vec<_> = (0..disk.entries.len()).map(|index| Unsynced::Entry { index }).collect();
        for (&file, inode) in &disk.inodes {
            if inode.live.len() != inode.durable.len() {
                unsynced.push(Unsynced::Length { file });
            }
            unsynced.extend(inode.dirty.iter().map(|&page| Unsynced::Page { file, page }));
        }
        unsynced
    }

    /// The disk after a power cut: what was synced, and what `keep` chooses of [`SimStorage::unsynced`].
    pub fn crash(&self, mut keep: impl FnMut(Unsynced) -> bool) -> SimStorage {
        let disk = self.disk();
        let mut names = disk.durable.clone();
        let mut kept = true;
        for (index, entry) in disk.entries.iter().enumerate() {
            // Asked for each, so that a choice by bits stays aligned.
            kept &= keep(Unsynced::Entry { index });
            if kept {
                apply(&mut names, entry);
            }
        }
        let mut inodes = BTreeMap::new();
        for (&file, inode) in &disk.inodes {
            let mut bytes = inode.durable.clone();
            if inode.live.len() != inode.durable.len() && keep(Unsynced::Length { file }) {
                bytes.resize(inode.live.len(), 0);
            }
            for &page in &inode.dirty {
                if !keep(Unsynced::Page { file, page }) {
                    continue;
                }
                let start = page * disk.page;
                let stop = (start + disk.page).min(inode.live.len()).min(bytes.len());
                if start < stop {
                    bytes[start..stop].copy_from_slice(&inode.live[start..stop]);
                }
            }
            if names.values().any(|named| *named == file) {
                inodes.insert(file, inode.with_bytes(bytes));
            }
        }
        let disk = Disk {
            page: disk.page,
            inodes,
            live: names.clone(),
            durable: names,
            next_inode: disk.next_inode,
            random: disk.random,
            ..Disk::default()
        };
        SimStorage(Arc::new(Mutex::new(disk)))
    }

    /// The disk after the process was killed and the operating system lives on: nothing is lost, and what was not durable
    /// is not durable still.
    pub fn killed(&self) -> SimStorage {
        let disk = self.disk();
        let disk = Disk {
            page: disk.page,
            inodes: disk.inodes.clone(),
            live: disk.live.clone(),
            durable: disk.durable.clone(),
            entries: disk.entries.clone(),
            next_inode: disk.next_inode,
            random: disk.random,
            ..Disk::default()
        };
        SimStorage(Arc::new(Mutex::new(disk)))
    }

    /// A file's bytes as they are now.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        let inode = disk.live.get(name)?;
        Some(disk.inodes[inode].live.clone())
    }

    /// Puts a file there, durable; for damaging one.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let fresh = disk.next_inode;
        let file = *disk.live.entry(name.to_owned()).or_insert(fresh);
        disk.next_inode += u64::from(file == fresh);
        disk.durable.insert(name.to_owned(), file);
        disk.inodes.insert(file, Inode::default().with_bytes(bytes));
    }

    /// All files, those in folders too.
    pub fn files(&self) -> Vec<String> {
        self.disk().live.keys().cloned().collect()
    }
}

fn apply(names: &mut BTreeMap<String, u64>, entry: &Entry) {
    match entry {
        Entry::Link(name, file) => {
            names.insert(name.clone(), *file);
        }
        Entry::Unlink(name) => {
            names.remove(name);
        }
        Entry::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
    }
}

impl Disk {
    /// Counts an operation; whether it may happen.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        let number = self.operations.len();
        if self.dead_from.is_some_and(|from| number >= from) {
            return Err(io::Error::other("the power is out"));
        }
        self.operations.push(operation);
        if let Some((at, kind)) = self.fail_at
            && at == number
        {
            return Err(kind.into());
        }
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }

    fn change(&mut self, entry: Entry) {
        apply(&mut self.live, &entry);
        self.entries.push(entry);
    }

    fn free(&self) -> u64 {
        let used: u64 = self.live.values().map(|file| self.inodes[file].live.len() as u64).sum();
        self.capacity.unwrap_or(1 << 50).saturating_sub(used)
    }

    fn grow(&mut self, file: u64, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.inodes[&file].live.len());
        if more as u64 > self.free() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inodes.get_mut(&file).expect("an open file");
        inode.live.resize(inode.live.len() + more, 0);
        Ok(())
    }
}

struct SimLock(SimStorage);

impl StorageLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

impl Storage for SimStorage {
    fn lock(&self, _name: &str) -> Result<Box<dyn StorageLock>, LockError> {
        let mut disk = self.disk();
        if disk.read_only {
            return Err(LockError::Io(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        if disk.locked {
            return Err(LockError::Held("1".to_owned()));
        }
        disk.locked = true;
        Ok(Box::new(SimLock(self.clone())))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().live.keys().filter(|name| !name.contains('/')).cloned().collect())
    }

    fn list_in(&self, folder: &str) -> io::Result<Vec<FileInfo>> {
        let disk = self.disk();
        let file = |(name, file): (&String, &u64)| {
            let name = name.strip_prefix(folder)?.strip_prefix('/')?.to_owned();
            let inode = &disk.inodes[file];
            let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(inode.modified);
            Some(FileInfo { name, bytes: inode.live.len() as u64, modified })
        };
        Ok(disk.live.iter().filter_map(file).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = *self.disk().live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { storage: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.disk();
        disk.begin(Operation::Create)?;
        let file = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(file, Inode::default());
        disk.change(Entry::Link(name.to_owned(), file));
        Ok(Arc::new(SimFile { storage: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::Rename)?;
        if !disk.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change(Entry::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::Remove)?;
        if !disk.live.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.change(Entry::Unlink(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.begin(Operation::SyncDir)?;
        if !disk.lies.sync_dir {
            disk.durable = disk.live.clone();
            disk.entries.clear();
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.disk().free())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("sim").join(name)
    }

    fn random(&self) -> u64 {
        let mut disk = self.disk();
        // SplitMix64: different each time, the same in each run.
        disk.random = disk.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = disk.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

struct SimFile {
    storage: SimStorage,
    file: u64,
}

impl StorageFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.begin(Operation::Write)?;
        let start = offset as usize;
        let stop = start + bytes.len();
        disk.grow(self.file, stop)?;
        let (page, now) = (disk.page, disk.operations.len() as u64);
        let inode = disk.inodes.get_mut(&self.file).expect("an open file");
        inode.live[start..stop].copy_from_slice(bytes);
        inode.dirty.extend(start / page..stop.div_ceil(page));
        inode.modified = now;
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.largest_read = disk.largest_read.max(bytes.len());
        let start = offset as usize;
        let live = &disk.inodes[&self.file].live;
        let from = live.get(start..start + bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.begin(Operation::Sync)?;
        if !disk.lies.sync {
            let inode = disk.inodes.get_mut(&self.file).expect("an open file");
            inode.durable = inode.live.clone();
            inode.dirty.clear();
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.begin(Operation::Allocate)?;
        disk.grow(self.file, len as usize)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.begin(Operation::Truncate)?;
        let page = disk.page;
        let inode = disk.inodes.get_mut(&self.file).expect("an open file");
        inode.live.truncate(len as usize);
        let pages = inode.live.len().div_ceil(page);
        inode.dirty.retain(|dirty| *dirty < pages);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.storage.disk().inodes[&self.file].live.len() as u64)
    }
}
