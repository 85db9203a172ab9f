//! A batch under construction: the bytes as they will lie in the file, so that a record is copied once. Positions, checksums
//! and the header's numbers are filled in when it is written.

use std::sync::Mutex;

use crate::format::{BATCH_HEADER, BatchHeader, MAX_RECORD, RECORD_HEADER, put_record_header};
use crate::journal::Position;
use crate::replay::Records;

/// Buffers kept for reuse, and the largest that is: fresh megabytes cost a page fault each 4 KiB.
const POOLED: usize = 4;
const POOLED_BYTES: usize = 2 << 20;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// One batch: applied whole or not at all.
#[derive(Debug)]
pub struct Batch {
    now_ms: u64,
    /// Where the owner counts its first record.
    expected: Option<Position>,
    records: u32,
    buffer: Vec<u8>,
}

impl Batch {
    /// An empty batch of this time (milliseconds since 1970).
    pub fn new(now_ms: u64) -> Batch {
        let pooled = POOL.lock().expect("nothing panics with the pool").pop();
        let mut buffer = pooled.unwrap_or_default();
        buffer.resize(BATCH_HEADER, 0);
        Batch { now_ms, expected: None, records: 0, buffer }
    }

    /// The batch's time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Sets the time.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Says at which position the owner counts the first record of this batch, so that the journal can check it.
    pub fn expect_first(&mut self, first: Position) {
        self.expected = Some(first);
    }

    /// The first record gets this position. An owner that counts otherwise would from now on ask for other bodies than it
    /// wrote, and after a restart rebuild another state: better none.
    ///
    /// # Panics
    ///
    /// When [`Batch::expect_first`] said another position.
    pub fn check_first(&self, first: Position) {
        if let Some(expected) = self.expected {
            assert_eq!(expected, first, "the journal and its owner count records differently");
        }
    }

    /// The records, first to last.
    pub fn records(&self) -> Records<'_> {
        Records::of(&self.buffer[BATCH_HEADER..])
    }

    /// Adds a record: `encode` appends its bytes.
    pub fn push(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; RECORD_HEADER]);
        encode(&mut self.buffer);
        let length =
            self.buffer.len().checked_sub(start + RECORD_HEADER).expect("a record's encoder only appends");
        assert!(
            length <= MAX_RECORD,
            "a record of {length} bytes; the limits of messages keep them far below"
        );
        let length = u32::try_from(length).expect("checked above");
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.records += 1;
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.records as usize
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes that it takes in the file.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Fills in what only the writer knows; answers the file's bytes.
    pub(crate) fn seal(&mut self, salt: u64, number: u64, synced: u64, first: Position) -> &[u8] {
        let mut at = BATCH_HEADER;
        let mut position = first.0;
        while at < self.buffer.len() {
            at = put_record_header(&mut self.buffer, at, position);
            position += 1;
        }
        debug_assert_eq!(position, first.0 + u64::from(self.records));
        let header = BatchHeader {
            salt,
            number,
            synced,
            now_ms: self.now_ms,
            first: first.0,
            length: (self.buffer.len() - BATCH_HEADER) as u64,
            count: self.records,
        };
        self.buffer[..BATCH_HEADER].copy_from_slice(&header.encode());
        &self.buffer
    }

    /// Each record's position and offset in the batch.
    pub(crate) fn offsets(&self, first: Position) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = BATCH_HEADER;
        (first.0..).map_while(move |position| {
            let length: [u8; 4] = self.buffer.get(at..at + 4)?.try_into().ok()?;
            let offset = at as u64;
            at += RECORD_HEADER + u32::from_le_bytes(length) as usize;
            Some((position, offset))
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.buffer.capacity() > POOLED_BYTES {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut pool = POOL.lock().expect("nothing panics with the pool");
        if pool.len() < POOLED {
            pool.push(buffer);
        }
    }
}
