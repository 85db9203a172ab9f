//! The journal: the append-only log that is the truth. Batches of records go to segments, one fdatasync for each group;
//! recovery tells a torn tail from corruption; snapshots bound what is replayed; blobs by digest lie beside them. It sees
//! bytes and must not know what a queue is. Every byte on disk is specified in FORMAT.md, and all I/O goes through
//! [`Storage`].
//!
//! ```
//! use std::sync::Arc;
//! use chaski_journal::{Batch, Journal, Options, Position, open, sim::SimStorage};
//!
//! let storage = SimStorage::new(4096);
//! let recovery = open(Arc::new(storage.clone()), Options::default())?;
//! let (told, progress) = std::sync::mpsc::channel();
//! let mut journal = recovery.start(move |event| { let _ = told.send(event); })?;
//! let mut batch = Batch::new(1_700_000_000_000);
//! batch.push(|buffer| buffer.extend_from_slice(b"a fact"));
//! journal.append(batch, true);
//! while !matches!(progress.recv()?, chaski_journal::Progress::Synced { through: Position(1), .. }) {}
//! Box::new(journal).close();
//!
//! let mut recovery = open(Arc::new(storage), Options::default())?;
//! recovery.replay(&mut |batch| {
//!     assert_eq!(batch.records().collect::<Vec<_>>(), [b"a fact"]);
//!     Ok(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod blobs;
mod core;
mod damage;
mod disk;
mod error;
mod format;
mod journal;
mod local;
mod log;
mod names;
mod open;
mod reader;
mod recover;
mod repair;
mod replay;
mod scan;
mod segment;
pub mod sim;
mod snapshot;
mod snapshot_file;
mod spares;
mod stepped;
mod storage;

pub use batch::Batch;
pub use blobs::{BlobDigest, BlobError, BlobInfo, BlobStore, Blobs};
pub use disk::DiskStorage;
pub use error::{Corruption, OpenError};
pub use format::FORMAT_VERSION;
pub use journal::{
    Failure, Journal, Options, Position, Progress, Room, RoomInfo, SegmentInfo, SnapshotError, SnapshotInfo,
    Stats,
};
pub use local::LocalJournal;
pub use open::{CutTail, Recovery, open};
pub use reader::{Answers, Fetch, ReadError, Reader};
pub use repair::{LostRange, RepairReport, repair};
pub use replay::{Records, ReplayBatch};
pub use snapshot::{SnapshotSink, SnapshotWriter};
pub use snapshot_file::SnapshotReader;
pub use stepped::{Step, SteppedJournal};
pub use storage::{FileInfo, LockError, Storage, StorageFile, StorageLock};
