//! Why a data directory could not be opened: each says what happened, to which file, and what to do.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::journal::Position;

/// The journal can't be opened as it is.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("the data directory {} is in use by process {pid}; stop that one or name another directory", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// What the other process wrote into the lock file.
        pid: String,
    },
    /// The directory may not be written.
    #[error("the data directory {} cannot be written: {error}; give this user the right to write there", path.display())]
    ReadOnly {
        /// The directory or file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// A newer release wrote this.
    #[error("{} has format version {found}, this release knows up to {supported}; start the newer release again", file.display())]
    FormatNewer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this code reads.
        supported: u32,
    },
    /// Bytes that were durable are damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The state machine refused a record.
    #[error("record replay failed at batch {batch} of {}: {reason}", file.display())]
    Replay {
        /// The segment's file.
        file: PathBuf,
        /// The batch.
        batch: u64,
        /// What the callback said.
        reason: String,
    },
    /// The operating system failed.
    #[error("{what} {}: {error}", path.display())]
    Io {
        /// What was tried, as in "cannot read".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Damage that no power cut explains. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the journal is damaged: {}, segment {segment}, offset {offset}: {what}{}; nothing was changed; `chaski repair` reports \
     what is lost and, with --apply, goes on without it",
    file.display(),
    lost(positions)
)]
pub struct Corruption {
    /// The damaged file.
    pub file: PathBuf,
    /// The segment's number; 0 when it is a snapshot.
    pub segment: u64,
    /// The offset of the damaged header, record or footer in the file.
    pub offset: u64,
    /// The first and last position that the damage concerns, where known.
    pub positions: Option<RangeInclusive<Position>>,
    /// What is wrong there.
    pub what: String,
}

fn lost(positions: &Option<RangeInclusive<Position>>) -> String {
    match positions {
        Some(positions) => format!(" (records {} to {})", positions.start(), positions.end()),
        None => String::new(),
    }
}
