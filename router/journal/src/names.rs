//! Names of the files in a data directory (FORMAT.md, Files).

/// Held by the process that has the directory open.
pub(crate) const LOCK: &str = "LOCK";

/// The folder of blobs.
pub(crate) const BLOBS: &str = "blobs";

/// What ends in this was never finished.
const UNFINISHED: &str = ".tmp";

pub(crate) fn segment(number: u64) -> String {
    format!("{number:020}.seg")
}

pub(crate) fn damage(number: u64) -> String {
    format!("{number:020}.damage")
}

pub(crate) fn snapshot(position: u64) -> String {
    format!("{position:020}.snapshot")
}

pub(crate) fn spare(number: u64) -> String {
    format!("{number:020}.spare")
}

/// A blob's file, named for its digest.
pub(crate) fn blob(digest: &[u8; 32]) -> String {
    format!("{BLOBS}/{}", hex(digest))
}

pub(crate) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest that a name in the folder of blobs stands for; none for a file that is not ours.
pub(crate) fn parse_blob(name: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(name.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    // Only as it is written: no capitals, no signs, nothing behind it.
    (hex(&digest) == name).then_some(digest)
}

pub(crate) fn unfinished(name: &str) -> String {
    format!("{name}{UNFINISHED}")
}

/// What a name in the directory stands for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Damage(u64),
    Snapshot(u64),
    Spare(u64),
    Unfinished,
    /// Not ours: left alone.
    Other,
}

pub(crate) fn parse(name: &str) -> Name {
    if name.ends_with(UNFINISHED) {
        return Name::Unfinished;
    }
    let Some((digits, kind)) = name.split_once('.') else { return Name::Other };
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Name::Other;
    }
    let Ok(number) = digits.parse() else { return Name::Other };
    match kind {
        "seg" => Name::Segment(number),
        "damage" => Name::Damage(number),
        "snapshot" => Name::Snapshot(number),
        "spare" => Name::Spare(number),
        _ => Name::Other,
    }
}
