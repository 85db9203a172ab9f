//! Verifies a segment's bytes from its header to its end. It finds and names the first damage; whether that is a torn tail
//! or corruption is judged by who knows the whole log.

use std::io::BufRead;

use crate::damage::DamagedRange;
use crate::format::{
    BATCH_HEADER, BATCH_MAGIC, BatchHeader, FOOTER_MAGIC, Footer, Index, RECORD_HEADER, SEGMENT_HEADER,
    SegmentHeader, record_at, record_length, u32_at,
};

/// How a segment ends, as its successor says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a footer behind this batch (unknown where the successor is gone).
    Sealed(Option<u64>),
    /// Behind this batch; what follows is not part of the log.
    After(u64),
    /// Nobody says: it is the last one.
    Open,
}

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) index: Index,
    pub(crate) records: u64,
    /// The last position that is whole; `first_position - 1` when there is none.
    pub(crate) last_position: u64,
    /// The last batch that is whole; `first_batch - 1` when there is none.
    pub(crate) last_batch: u64,
    /// The last batch's time.
    pub(crate) now_ms: Option<u64>,
    /// Where the whole batches end.
    pub(crate) end: u64,
    /// It ends in a whole footer.
    pub(crate) sealed: bool,
    /// The highest batch that any header in it calls durable.
    pub(crate) synced: u64,
    pub(crate) fault: Option<Fault>,
}

/// The first damage.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Of the damaged header, record or footer.
    pub(crate) offset: u64,
    /// Of the batch that it is in.
    pub(crate) batch_offset: u64,
    /// The batch that is damaged, and its first position.
    pub(crate) batch: u64,
    pub(crate) first_position: u64,
    /// The last position of the damage, where a header tells.
    pub(crate) last_position: Option<u64>,
    pub(crate) what: &'static str,
    /// The next thing behind it that is whole.
    pub(crate) next: Option<Landmark>,
    /// Something was surely written here.
    pub(crate) written: bool,
    /// The highest position that a header behind the damage speaks of.
    pub(crate) seen_position: u64,
}

/// Something whole behind a damage.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Landmark {
    pub(crate) offset: u64,
    /// The batch that begins there, or the one after the last for a footer.
    pub(crate) batch: u64,
    pub(crate) first_position: u64,
}

/// Verifies all of it. `damage`: ranges that an operator has given up, in order.
pub(crate) fn scan(bytes: &[u8], header: &SegmentHeader, end: End, damage: &[DamagedRange]) -> Scanned {
    let mut scanned = Scanned {
        index: Index::default(),
        records: 0,
        last_position: header.first_position - 1,
        last_batch: header.first_batch - 1,
        now_ms: None,
        end: SEGMENT_HEADER as u64,
        sealed: false,
        synced: header.synced,
        fault: None,
    };
    loop {
        if end == End::After(scanned.last_batch) {
            break;
        }
        if let Some(given_up) = damage.iter().find(|range| range.from == scanned.end) {
            scanned.skip(given_up);
            if scanned.end >= bytes.len() as u64 {
                scanned.sealed = true;
                break;
            }
            continue;
        }
        match step(bytes, header, end, &mut scanned) {
            Ok(Go::On) => {}
            Ok(Go::Sealed) => {
                scanned.sealed = true;
                break;
            }
            Err(mut fault) => {
                look_behind(bytes, header, &mut fault, &mut scanned);
                scanned.fault = Some(fault);
                break;
            }
        }
    }
    scanned
}

enum Go {
    On,
    Sealed,
}

impl Scanned {
    fn skip(&mut self, range: &DamagedRange) {
        self.end = range.to;
        self.index.gap();
        self.last_batch = self.last_batch.max(range.last_batch);
        self.last_position = self.last_position.max(range.last_position);
    }

    fn fault(&self, offset: u64, what: &'static str) -> Fault {
        Fault {
            offset,
            batch_offset: self.end,
            batch: self.last_batch + 1,
            first_position: self.last_position + 1,
            last_position: None,
            what,
            next: None,
            written: false,
            seen_position: 0,
        }
    }
}

/// One batch, or the footer.
fn step(bytes: &[u8], header: &SegmentHeader, end: End, scanned: &mut Scanned) -> Result<Go, Fault> {
    let at = scanned.end as usize;
    let magic = bytes.get(at..at + 4).map(|magic| u32_at(magic, 0));
    let footer_expected = matches!(end, End::Sealed(Some(last)) if last == scanned.last_batch);
    if footer_expected || (magic == Some(FOOTER_MAGIC) && !matches!(end, End::After(_))) {
        return footer(bytes, header, at, scanned);
    }
    let Some(batch) = BatchHeader::decode(&bytes[at.min(bytes.len())..], header.salt) else {
        return Err(scanned.fault(at as u64, "no whole batch header is here"));
    };
    if batch.number != scanned.last_batch + 1 || batch.first != scanned.last_position + 1 {
        return Err(scanned.fault(at as u64, "the batch here is not the one that follows"));
    }
    let last_position = scanned.last_position + u64::from(batch.count);
    let damaged = |offset: usize, what| Fault {
        last_position: Some(last_position),
        written: true,
        ..scanned.fault(offset as u64, what)
    };
    let start = at + BATCH_HEADER;
    let stop = usize::try_from(batch.length).ok().and_then(|length| start.checked_add(length));
    let Some(records) = stop.and_then(|stop| bytes.get(..stop)) else {
        return Err(damaged(at, "the batch reaches behind the end of the file"));
    };
    let mut offset = start;
    for position in batch.first..=last_position {
        let Some(body) = record_at(records, offset, position) else {
            return Err(damaged(offset, "the record's checksum is wrong"));
        };
        offset += RECORD_HEADER + body.len();
    }
    if offset != records.len() {
        return Err(damaged(at, "the batch's records don't fill it"));
    }
    // Only a batch that is whole enters the index.
    let mut offset = start;
    for position in batch.first..=last_position {
        scanned.index.note(position, offset as u64);
        offset += RECORD_HEADER + u32_at(bytes, offset) as usize;
    }
    scanned.records += u64::from(batch.count);
    scanned.last_position = last_position;
    scanned.last_batch = batch.number;
    scanned.now_ms = Some(batch.now_ms);
    scanned.synced = scanned.synced.max(batch.synced);
    scanned.end = offset as u64;
    Ok(Go::On)
}

fn footer(bytes: &[u8], header: &SegmentHeader, at: usize, scanned: &mut Scanned) -> Result<Go, Fault> {
    let Some(footer) = Footer::decode(&bytes[at.min(bytes.len())..], header.salt) else {
        return Err(scanned.fault(at as u64, "no whole footer is here"));
    };
    let found = Footer {
        salt: header.salt,
        first_position: header.first_position,
        last_position: scanned.last_position,
        first_batch: header.first_batch,
        last_batch: scanned.last_batch,
        now_ms: footer.now_ms,
        records: scanned.records,
        offset: at as u64,
        entries: scanned.index.entries.clone(),
    };
    // After a repair the footer still speaks of what was given up.
    let given_up = scanned.records != footer.last_position + 1 - footer.first_position;
    let same_ends = footer.last_position == found.last_position && footer.last_batch == found.last_batch;
    if footer != found && !(given_up && same_ends && footer.offset == found.offset) {
        return Err(Fault {
            written: true,
            ..scanned.fault(at as u64, "the footer doesn't agree with what is before it")
        });
    }
    scanned.synced = scanned.synced.max(footer.last_batch);
    scanned.now_ms = scanned.now_ms.max(Some(footer.now_ms));
    Ok(Go::Sealed)
}

/// What whole headers behind the damage say: how far the log was durable, and where reading could go on.
fn look_behind(bytes: &[u8], header: &SegmentHeader, fault: &mut Fault, scanned: &mut Scanned) {
    // The damaged batch's own header may be whole, and is then a valid header as any other.
    let own = BatchHeader::decode(&bytes[(fault.batch_offset as usize).min(bytes.len())..], header.salt);
    if let Some(own) = own.filter(|own| own.number == fault.batch) {
        scanned.synced = scanned.synced.max(own.synced);
    }
    let first = BATCH_MAGIC.to_le_bytes()[0];
    let mut at = fault.batch_offset as usize + 1;
    while at < bytes.len() {
        let mut rest = &bytes[at..];
        // Skipping is the standard library's `memchr`.
        let skipped = rest.skip_until(first).expect("a slice can be read");
        if bytes[at + skipped - 1] != first {
            break;
        }
        let offset = at + skipped - 1;
        at = offset + 1;
        let found = if let Some(batch) = BatchHeader::decode(&bytes[offset..], header.salt) {
            if batch.number <= fault.batch {
                continue;
            }
            scanned.synced = scanned.synced.max(batch.synced);
            let last = (batch.first + u64::from(batch.count)).saturating_sub(1);
            fault.seen_position = fault.seen_position.max(last);
            Landmark { offset: offset as u64, batch: batch.number, first_position: batch.first }
        } else if let Some(footer) = Footer::decode(&bytes[offset..], header.salt) {
            if footer.offset != offset as u64 {
                continue;
            }
            scanned.synced = scanned.synced.max(footer.last_batch);
            fault.seen_position = fault.seen_position.max(footer.last_position);
            Landmark {
                offset: offset as u64,
                batch: footer.last_batch + 1,
                first_position: footer.last_position + 1,
            }
        } else {
            continue;
        };
        fault.written = true;
        fault.next.get_or_insert(found);
    }
    if let Some(next) = fault.next {
        let before = next.first_position - 1;
        fault.last_position = Some(fault.last_position.unwrap_or(0).max(before));
    }
}

/// The batches in bytes that were verified, from `at` to `end`: header and records' bytes.
pub(crate) fn batches(
    bytes: &[u8],
    salt: u64,
    at: u64,
    end: u64,
) -> impl Iterator<Item = (BatchHeader, &[u8])> + '_ {
    let mut at = at as usize;
    std::iter::from_fn(move || {
        if at >= end as usize {
            return None;
        }
        let header = BatchHeader::decode(&bytes[at..], salt)?;
        let start = at + BATCH_HEADER;
        at = start + header.length as usize;
        Some((header, &bytes[start..at]))
    })
}

/// Walks records in bytes that may hold batch headers between them, from a record's offset to the record at `wanted`;
/// `position` is the one at `at`. None when the bytes end before it.
pub(crate) fn find_record(bytes: &[u8], mut at: usize, mut position: u64, wanted: u64) -> Option<usize> {
    loop {
        while u32_at(bytes.get(at..at + 4)?, 0) == BATCH_MAGIC {
            at += BATCH_HEADER;
        }
        if position == wanted {
            return Some(at);
        }
        at += RECORD_HEADER + record_length(bytes, at)?;
        position += 1;
    }
}
