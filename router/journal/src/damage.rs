//! The damage file beside a segment: which of its bytes an operator has given up. It is written by the explicit repair only;
//! opening accepts exactly these ranges, and reads in them answer that the record is lost.

use std::fmt::Write as _;
use std::io;

use crate::format::FORMAT_VERSION;
use crate::names;
use crate::storage::Storage;

/// The first line, before the version.
const FIRST_LINE: &str = "chaski damage ";

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
    let mut text = format!("{FIRST_LINE}{FORMAT_VERSION}\n");
    for range in ranges {
        let DamagedRange { from, to, last_batch, first_position, last_position } = range;
        writeln!(text, "{from} {to} {last_batch} {first_position} {last_position}").expect("a string grows");
    }
    let crc = crc32c::crc32c(text.as_bytes());
    writeln!(text, "crc32c {crc:08x}").expect("a string grows");
    text
}

/// Why a damage file can't be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DamageFault {
    Newer(u32),
    Damaged,
}

pub(crate) fn decode(text: &str) -> Result<Vec<DamagedRange>, DamageFault> {
    let body = checked(text).ok_or(DamageFault::Damaged)?;
    let mut lines = body.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(FIRST_LINE)?.parse().ok());
    match version {
        Some(1..=FORMAT_VERSION) => lines.map(range).collect::<Option<_>>().ok_or(DamageFault::Damaged),
        Some(newer) if newer > FORMAT_VERSION => Err(DamageFault::Newer(newer)),
        _ => Err(DamageFault::Damaged),
    }
}

/// What the checksum in the last line covers.
fn checked(text: &str) -> Option<&str> {
    let (body, crc) = text.trim_end_matches('\n').rsplit_once('\n')?;
    let crc = u32::from_str_radix(crc.strip_prefix("crc32c ")?, 16).ok()?;
    if crc32c::crc32c_append(crc32c::crc32c(body.as_bytes()), b"\n") != crc {
        return None;
    }
    Some(body)
}

fn range(line: &str) -> Option<DamagedRange> {
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [from, to, last_batch, first_position, last_position] = numbers[..] else { return None };
    Some(DamagedRange { from, to, last_batch, first_position, last_position })
}

/// The ranges given up in a segment.
pub(crate) fn read(
    storage: &dyn Storage,
    segment: u64,
) -> io::Result<Result<Vec<DamagedRange>, DamageFault>> {
    let file = storage.open(&names::damage(segment))?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    Ok(std::str::from_utf8(&bytes).map_err(|_| DamageFault::Damaged).and_then(decode))
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
        assert_eq!(decode(&text).map(|ranges| ranges.len()), Ok(2));
        for at in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(decode(&changed), Err(DamageFault::Damaged), "byte {at}");
        }
        let body = "chaski damage 2\nsomething else\n";
        let newer = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
        assert_eq!(decode(&newer), Err(DamageFault::Newer(2)));
    }
}
