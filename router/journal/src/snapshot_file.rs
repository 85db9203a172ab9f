//! The layout of a snapshot's file and reading it (FORMAT.md, Snapshots). A snapshot counts only when it is whole.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Corruption, OpenError};
use crate::format::{FORMAT_VERSION, u32_at, u64_at};
use crate::journal::Position;
use crate::storage::StorageFile;

const MAGIC: [u8; 8] = *b"CHASKISN";
pub(crate) const HEADER: usize = 64;
pub(crate) const CHUNK_HEADER: usize = 16;
pub(crate) const TRAILER: usize = 32;
const TRAILER_MAGIC: u32 = 0xC4A5_50E9;

/// The longest chunk.
pub(crate) const MAX_CHUNK: usize = (1 << 30) - 1;

/// What a snapshot stands for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    /// The last position in it.
    pub(crate) position: u64,
    /// The last batch written when it was begun: batch numbers up to here were in use.
    pub(crate) batch: u64,
    pub(crate) now_ms: u64,
    /// The last batch known to be durable when it was begun.
    pub(crate) synced: u64,
}

impl SnapshotHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let numbers = [self.position, self.batch, self.now_ms, self.synced];
        for (index, number) in numbers.into_iter().enumerate() {
            bytes[16 + index * 8..24 + index * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// The head of a chunk; its checksum begins with its number, so no chunk stands for another.
pub(crate) fn chunk_header(number: u64, bytes: &[u8]) -> [u8; CHUNK_HEADER] {
    let mut header = [0; CHUNK_HEADER];
    let length = u32::try_from(bytes.len()).expect("a chunk is below a gigabyte");
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&number.to_le_bytes());
    let crc = chunk_crc(&header, bytes);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header
}

fn chunk_crc(header: &[u8], bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..4]), &header[8..]);
    crc32c::crc32c_append(crc, bytes)
}

pub(crate) fn trailer(chunks: u64, bytes: u64) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..4].copy_from_slice(&TRAILER_MAGIC.to_le_bytes());
    trailer[8..16].copy_from_slice(&chunks.to_le_bytes());
    trailer[16..24].copy_from_slice(&bytes.to_le_bytes());
    let crc = crc32c::crc32c(&trailer[8..]);
    trailer[4..8].copy_from_slice(&crc.to_le_bytes());
    trailer
}

/// A snapshot's chunks, in order.
pub struct SnapshotReader {
    file: Arc<dyn StorageFile>,
    path: PathBuf,
    pub(crate) header: SnapshotHeader,
    len: u64,
    offset: u64,
    chunks: u64,
    bytes: u64,
    ended: bool,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader").field("path", &self.path).field("header", &self.header).finish()
    }
}

impl SnapshotReader {
    /// Reads the header.
    pub(crate) fn open(file: Arc<dyn StorageFile>, path: PathBuf) -> Result<SnapshotReader, OpenError> {
        let len = file.len().map_err(|error| cannot_read(&path, error))?;
        let mut header = [0; HEADER];
        let damaged = |what: &str| {
            let what = format!("the snapshot {what}");
            OpenError::Corrupt(Corruption {
                file: path.clone(),
                segment: 0,
                offset: 0,
                positions: None,
                what,
            })
        };
        if len < (HEADER + TRAILER) as u64 {
            return Err(damaged("is cut off"));
        }
        file.read_at(0, &mut header).map_err(|error| cannot_read(&path, error))?;
        if header[..8] != MAGIC || crc32c::crc32c(&header[..HEADER - 4]) != u32_at(&header, HEADER - 4) {
            return Err(damaged("header's checksum is wrong"));
        }
        let found = u32_at(&header, 8);
        if found > FORMAT_VERSION {
            return Err(OpenError::FormatNewer { file: path, found, supported: FORMAT_VERSION });
        }
        let header = SnapshotHeader {
            position: u64_at(&header, 16),
            batch: u64_at(&header, 24),
            now_ms: u64_at(&header, 32),
            synced: u64_at(&header, 40),
        };
        Ok(SnapshotReader {
            file,
            path,
            header,
            len,
            offset: HEADER as u64,
            chunks: 0,
            bytes: 0,
            ended: false,
        })
    }

    /// Reads it through once; the same reader then stands at its beginning.
    pub(crate) fn verify(mut self) -> Result<SnapshotReader, OpenError> {
        while self.next_chunk()?.is_some() {}
        let offset = HEADER as u64;
        Ok(SnapshotReader { offset, chunks: 0, bytes: 0, ended: false, ..self })
    }

    /// Another reader of the same file.
    pub(crate) fn again(&self) -> SnapshotReader {
        SnapshotReader { file: Arc::clone(&self.file), path: self.path.clone(), ..*self }
    }

    /// The last position in it.
    pub fn position(&self) -> Position {
        Position(self.header.position)
    }

    /// The time when it was begun: milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.header.now_ms
    }

    /// The last batch that had been written when it was begun. Its position may be of a later batch, since the state runs
    /// ahead of the disk.
    pub fn batch(&self) -> u64 {
        self.header.batch
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> u64 {
        self.len
    }

    fn damaged(&self, what: &str) -> OpenError {
        OpenError::Corrupt(Corruption {
            file: self.path.clone(),
            segment: 0,
            offset: self.offset,
            positions: None,
            what: format!("the snapshot's {what}"),
        })
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), OpenError> {
        self.file.read_at(offset, bytes).map_err(|error| cannot_read(&self.path, error))
    }

    fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, OpenError> {
        if self.ended {
            return Ok(None);
        }
        let left = self.len - self.offset;
        if left < CHUNK_HEADER as u64 {
            return Err(self.damaged("end is cut off"));
        }
        let mut header = [0; CHUNK_HEADER];
        self.read(self.offset, &mut header)?;
        if u32_at(&header, 0) == TRAILER_MAGIC {
            if left != TRAILER as u64 {
                return Err(self.damaged("end is not where it should be"));
            }
            let mut found = [0; TRAILER];
            self.read(self.offset, &mut found)?;
            if found != trailer(self.chunks, self.bytes) {
                return Err(self.damaged("end doesn't agree with what is before it"));
            }
            self.ended = true;
            return Ok(None);
        }
        let length = u32_at(&header, 0) as usize;
        if length > MAX_CHUNK || left < (CHUNK_HEADER + length) as u64 {
            return Err(self.damaged("chunk reaches behind the end of the file"));
        }
        let mut bytes = vec![0; length];
        self.read(self.offset + CHUNK_HEADER as u64, &mut bytes)?;
        if u64_at(&header, 8) != self.chunks || chunk_crc(&header, &bytes) != u32_at(&header, 4) {
            return Err(self.damaged("chunk's checksum is wrong"));
        }
        self.offset += (CHUNK_HEADER + length) as u64;
        self.chunks += 1;
        self.bytes += length as u64;
        Ok(Some(bytes))
    }
}

impl Iterator for SnapshotReader {
    type Item = Result<Vec<u8>, OpenError>;

    fn next(&mut self) -> Option<Result<Vec<u8>, OpenError>> {
        let next = self.next_chunk();
        self.ended |= next.is_err();
        next.transpose()
    }
}

fn cannot_read(path: &std::path::Path, error: io::Error) -> OpenError {
    OpenError::Io { what: "cannot read the snapshot", path: path.to_owned(), error }
}
