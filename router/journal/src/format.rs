//! The layout of everything in a segment: constants, encoders, decoders (FORMAT.md has the prose). Decoding distrusts its
//! input and answers a sentence; nothing here does I/O.

/// The version that is written, and the newest that is read.
pub const FORMAT_VERSION: u32 = 1;

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"CHASKISG";

/// Bytes of a segment's header; the first batch follows.
pub(crate) const SEGMENT_HEADER: usize = 128;

/// First four bytes of a batch and of a footer: as a length they would exceed [`MAX_RECORD`], so a reader that walks from
/// one record to the next can tell them from a record.
pub(crate) const BATCH_MAGIC: u32 = 0xC4A5_B7E9;
pub(crate) const FOOTER_MAGIC: u32 = 0xC4A5_F0E9;

/// Bytes of a batch's header.
pub(crate) const BATCH_HEADER: usize = 64;

/// Bytes before a record's own.
pub(crate) const RECORD_HEADER: usize = 16;

/// The longest record.
pub(crate) const MAX_RECORD: usize = (1 << 30) - 1;

/// Bytes of a footer before its index.
pub(crate) const FOOTER_HEADER: usize = 96;

/// Bytes of an index entry.
pub(crate) const INDEX_ENTRY: usize = 16;

/// An index entry for at least every so many records …
pub(crate) const INDEX_RECORDS: u64 = 64;

/// … and every so many bytes.
pub(crate) const INDEX_BYTES: u64 = 16 << 10;

/// Reads a little-endian number; the caller has checked the bounds.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads a little-endian number; the caller has checked the bounds.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The head of a segment, written once before it is named.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) salt: u64,
    pub(crate) first_position: u64,
    pub(crate) first_batch: u64,
    /// The segment before it in the log; 0 for none.
    pub(crate) previous: u64,
    /// The last batch of `previous` that belongs to the log.
    pub(crate) previous_batch: u64,
    /// Whether `previous` ends in a footer.
    pub(crate) previous_sealed: bool,
    /// The highest batch known to be durable when this segment got its name.
    pub(crate) synced: u64,
}

/// Why a segment's header can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Newer(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut bytes, 8, FORMAT_VERSION);
        put_u32(&mut bytes, 12, u32::from(self.previous_sealed));
        let numbers = [
            self.number,
            self.salt,
            self.first_position,
            self.first_batch,
            self.previous,
            self.previous_batch,
            self.synced,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            put_u64(&mut bytes, 16 + index * 8, number);
        }
        let crc = crc32c::crc32c(&bytes[..SEGMENT_HEADER - 4]);
        put_u32(&mut bytes, SEGMENT_HEADER - 4, crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER) else {
            return Err(HeaderFault::Damaged("the file is shorter than a segment's header"));
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err(HeaderFault::Damaged("the file does not begin as a segment does"));
        }
        if crc32c::crc32c(&bytes[..SEGMENT_HEADER - 4]) != u32_at(bytes, SEGMENT_HEADER - 4) {
            return Err(HeaderFault::Damaged("the segment header's checksum is wrong"));
        }
        match u32_at(bytes, 8) {
            0 => return Err(HeaderFault::Damaged("no format has the version 0")),
            1..=FORMAT_VERSION => {}
            newer => return Err(HeaderFault::Newer(newer)),
        }
        Ok(SegmentHeader {
            previous_sealed: u32_at(bytes, 12) & 1 == 1,
            number: u64_at(bytes, 16),
            salt: u64_at(bytes, 24),
            first_position: u64_at(bytes, 32),
            first_batch: u64_at(bytes, 40),
            previous: u64_at(bytes, 48),
            previous_batch: u64_at(bytes, 56),
            synced: u64_at(bytes, 64),
        })
    }
}

/// The head of a batch.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) salt: u64,
    pub(crate) number: u64,
    /// The highest batch whose fdatasync had returned when this was written.
    pub(crate) synced: u64,
    pub(crate) now_ms: u64,
    pub(crate) first: u64,
    /// Bytes of all records behind the header.
    pub(crate) length: u64,
    pub(crate) count: u32,
}

impl BatchHeader {
    pub(crate) fn encode(&self) -> [u8; BATCH_HEADER] {
        let mut bytes = [0; BATCH_HEADER];
        put_u32(&mut bytes, 0, BATCH_MAGIC);
        let numbers = [self.salt, self.number, self.synced, self.now_ms, self.first, self.length];
        for (index, number) in numbers.into_iter().enumerate() {
            put_u64(&mut bytes, 8 + index * 8, number);
        }
        put_u32(&mut bytes, 56, self.count);
        let crc = crc32c::crc32c(&bytes[8..]);
        put_u32(&mut bytes, 4, crc);
        bytes
    }

    /// None unless these bytes begin with a whole header of the segment with this salt.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<BatchHeader> {
        let bytes = bytes.get(..BATCH_HEADER)?;
        if u32_at(bytes, 0) != BATCH_MAGIC || u64_at(bytes, 8) != salt {
            return None;
        }
        if crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        Some(BatchHeader {
            salt,
            number: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            now_ms: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            length: u64_at(bytes, 48),
            count: u32_at(bytes, 56),
        })
    }
}

/// Fills in checksum and position of the record at `at`; answers where the next one begins.
pub(crate) fn put_record_header(buffer: &mut [u8], at: usize, position: u64) -> usize {
    let end = at + RECORD_HEADER + u32_at(buffer, at) as usize;
    put_u64(buffer, at + 8, position);
    let crc = record_crc(&buffer[at..end]);
    put_u32(buffer, at + 4, crc);
    end
}

/// Over length, position and body.
fn record_crc(record: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&record[..4]);
    crc32c::crc32c_append(crc, &record[8..])
}

/// The length of the record's body if a record could begin here.
pub(crate) fn record_length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = u32_at(bytes.get(at..at + RECORD_HEADER)?, 0) as usize;
    let end = at.checked_add(RECORD_HEADER)?.checked_add(length)?;
    (length <= MAX_RECORD && end <= bytes.len()).then_some(length)
}

/// The body of the record at `at`, checked; `None` when it isn't the record at that position, whole.
pub(crate) fn record_at(bytes: &[u8], at: usize, position: u64) -> Option<&[u8]> {
    let length = record_length(bytes, at)?;
    let record = &bytes[at..at + RECORD_HEADER + length];
    if u64_at(record, 8) != position || record_crc(record) != u32_at(record, 4) {
        return None;
    }
    Some(&record[RECORD_HEADER..])
}

/// Where a record lies.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) position: u64,
    pub(crate) offset: u64,
}

/// Builds the sparse index, the same way when writing and when verifying.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub(crate) entries: Vec<IndexEntry>,
    /// The next record gets an entry: nobody can walk to it from the one before.
    gap: bool,
}

impl Index {
    /// Notes a record; most need no entry.
    pub(crate) fn note(&mut self, position: u64, offset: u64) {
        let gap = std::mem::take(&mut self.gap);
        if let Some(last) = self.entries.last()
            && !gap
            && position - last.position < INDEX_RECORDS
            && offset - last.offset < INDEX_BYTES
        {
            return;
        }
        self.entries.push(IndexEntry { position, offset });
    }

    /// Bytes follow that can't be walked over.
    pub(crate) fn gap(&mut self) {
        self.gap = true;
    }

    /// The last entry at or before a position, and where the next one begins.
    pub(crate) fn around(&self, position: u64) -> Option<(IndexEntry, Option<u64>)> {
        let behind = self.entries.partition_point(|entry| entry.position <= position);
        let entry = *self.entries.get(behind.checked_sub(1)?)?;
        Some((entry, self.entries.get(behind).map(|next| next.offset)))
    }
}

/// The end of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) salt: u64,
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
    pub(crate) first_batch: u64,
    /// The last batch; all were durable before the footer was written.
    pub(crate) last_batch: u64,
    pub(crate) now_ms: u64,
    pub(crate) records: u64,
    /// Where the footer begins.
    pub(crate) offset: u64,
    pub(crate) entries: Vec<IndexEntry>,
}

/// Bytes of a footer with so many entries.
pub(crate) fn footer_bytes(entries: usize) -> u64 {
    (FOOTER_HEADER + entries * INDEX_ENTRY) as u64
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FOOTER_HEADER + self.entries.len() * INDEX_ENTRY];
        put_u32(&mut bytes, 0, FOOTER_MAGIC);
        let numbers = [
            self.salt,
            self.first_position,
            self.last_position,
            self.first_batch,
            self.last_batch,
            self.now_ms,
            self.records,
            self.offset,
            self.entries.len() as u64,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            put_u64(&mut bytes, 8 + index * 8, number);
        }
        for (index, entry) in self.entries.iter().enumerate() {
            let at = FOOTER_HEADER + index * INDEX_ENTRY;
            put_u64(&mut bytes, at, entry.position);
            put_u64(&mut bytes, at + 8, entry.offset);
        }
        let crc = crc32c::crc32c(&bytes[8..]);
        put_u32(&mut bytes, 4, crc);
        bytes
    }

    /// None unless these bytes begin with a whole footer of the segment with this salt.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Footer> {
        let head = bytes.get(..FOOTER_HEADER)?;
        if u32_at(head, 0) != FOOTER_MAGIC || u64_at(head, 8) != salt {
            return None;
        }
        let count = usize::try_from(u64_at(head, 72)).ok()?;
        let end = count.checked_mul(INDEX_ENTRY)?.checked_add(FOOTER_HEADER)?;
        let bytes = bytes.get(..end)?;
        if crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        let entry = |index: usize| {
            let at = FOOTER_HEADER + index * INDEX_ENTRY;
            IndexEntry { position: u64_at(bytes, at), offset: u64_at(bytes, at + 8) }
        };
        Some(Footer {
            salt,
            first_position: u64_at(bytes, 16),
            last_position: u64_at(bytes, 24),
            first_batch: u64_at(bytes, 32),
            last_batch: u64_at(bytes, 40),
            now_ms: u64_at(bytes, 48),
            records: u64_at(bytes, 56),
            offset: u64_at(bytes, 64),
            entries: (0..count).map(entry).collect(),
        })
    }
}
