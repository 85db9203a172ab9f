//! The damage file beside a segment: which of its bytes an operator has given up. It is written by the explicit repair only;
//! opening accepts exactly these ranges, and reads in them answer that the record is lost.

use std::fmt::Write as _;
use std::io;

use crate::names;
use crate::storage::Storage;

const FIRST_LINE: &str = "chaski damage 1";

/// Bytes `from..to` of a segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedRange {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) last_batch: u64,
    /// The positions that were there; none when the last is below the first.
    pub(crate) first_position: u64,
    pub(crate) last_position: u64,
}

pub(crate) fn encode(ranges: &[DamagedRange]) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    for range in ranges {
        let DamagedRange { from, to, last_batch, first_position, last_position } = range;
        writeln!(text, "{from} {to} {last_batch} {first_position} {last_position}").expect("a string grows");
    }
    let crc = crc32c::crc32c(text.as_bytes());
    writeln!(text, "crc32c {crc:08x}").expect("a string grows");
    text
}

pub(crate) fn decode(text: &str) -> Option<Vec<DamagedRange>> {
    let (body, crc) = text.trim_end_matches('\n').rsplit_once('\n')?;
    let crc = u32::from_str_radix(crc.strip_prefix("crc32c ")?, 16).ok()?;
    if crc32c::crc32c_append(crc32c::crc32c(body.as_bytes()), b"\n") != crc {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    lines
        .map(|line| {
            let numbers: Vec<u64> =
                line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
            let [from, to, last_batch, first_position, last_position] = numbers[..] else { return None };
            Some(DamagedRange { from, to, last_batch, first_position, last_position })
        })
        .collect()
}

/// The ranges given up in a segment; `Ok(None)` when its damage file can't be understood.
pub(crate) fn read(storage: &dyn Storage, segment: u64) -> io::Result<Option<Vec<DamagedRange>>> {
    let file = storage.open(&names::damage(segment))?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(decode))
}

/// Writes the file under a temporary name and renames it.
pub(crate) fn write(storage: &dyn Storage, segment: u64, ranges: &[DamagedRange]) -> io::Result<()> {
    let name = names::damage(segment);
    let unfinished = names::unfinished(&name);
    let file = storage.create(&unfinished)?;
    file.write_at(0, encode(ranges).as_bytes())?;
    file.sync()?;
    storage.rename(&unfinished, &name)?;
    storage.sync_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_file_is_read_back_and_any_change_is_seen() {
        let range = DamagedRange { from: 128, to: 900, last_batch: 7, first_position: 3, last_position: 9 };
        let text = encode(&[range, DamagedRange { from: 1000, ..range }]);
        assert_eq!(decode(&text).map(|ranges| ranges.len()), Some(2));
        for at in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(decode(&changed), None, "byte {at}");
        }
    }
}
