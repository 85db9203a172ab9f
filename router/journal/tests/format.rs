//! FORMAT.md and the code say the same: the page's tables decode what the code writes, its checksum ranges give the checksums,
//! its worked examples are what comes out, and its constants are the code's.

#[allow(
    dead_code,
    unreachable_pub,
    reason = "the code's own constants and decoders, of which a part is compared"
)]
#[path = "../src/format.rs"]
mod format;
#[allow(dead_code, reason = "as above")]
#[path = "../src/names.rs"]
mod names;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use chaski_journal::sim::SimStorage;
use chaski_journal::{Batch, Journal, Options, Position, Step, open, repair};

const PAGE: &str = include_str!("../FORMAT.md");
const SNAPSHOT: &str = "00000000000000000002.snapshot";

/// The log of the worked examples, closed in good order.
fn example() -> SimStorage {
    let storage = SimStorage::new(4096);
    let options = Options { segment_bytes: 1024, spare_segments: 0, ..Options::default() };
    let mut journal =
        Box::new(open(Arc::new(storage.clone()), options).unwrap().start_stepped(|_| {}).unwrap());
    let mut batch = Batch::new(1_700_000_000_000);
    batch.push(|buffer| buffer.extend_from_slice(b"order"));
    batch.push(|buffer| buffer.extend_from_slice(b"payment!"));
    journal.append(batch, true);
    journal.step(Step::Write);
    journal.step(Step::Quiet);
    let mut snapshot = journal.begin_snapshot(Position(2), 1_700_000_000_001);
    snapshot.write_chunk(b"queues").unwrap();
    snapshot.write_chunk(b"messages").unwrap();
    snapshot.finish().unwrap();
    journal.close();
    storage
}

/// A field of one of the page's tables.
struct Field {
    offset: usize,
    /// None: as many as the field `length` says.
    bytes: Option<usize>,
    name: String,
    says: String,
}

/// The rows of the first table below a heading.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let (_, below) = PAGE.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("no {heading:?}"));
    let lines =
        below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

fn fields(heading: &str) -> Vec<Field> {
    let field = |row: Vec<String>| Field {
        offset: row[0].parse().unwrap(),
        bytes: row[1].parse().ok(),
        name: row[2].trim_matches('`').to_owned(),
        says: row[3].clone(),
    };
    let fields: Vec<_> = rows(heading).into_iter().map(field).collect();
    let mut end = 0;
    for field in &fields {
        assert_eq!(field.offset, end, "{heading}: {} follows the field before", field.name);
        end += field.bytes.unwrap_or(0);
    }
    fields
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Decodes by the page alone.
struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    text: String,
}

impl Decoder<'_> {
    /// Takes a structure; its numbers by name.
    fn take(&mut self, name: &str, heading: &str) -> BTreeMap<String, u64> {
        let begin = self.at;
        let mut found = BTreeMap::new();
        writeln!(self.text, "{name} at {begin}").unwrap();
        for field in fields(heading) {
            let length = field.bytes.unwrap_or_else(|| found["length"] as usize);
            let bytes = &self.bytes[begin + field.offset..][..length];
            self.at = begin + field.offset + length;
            if field.name == "zero" {
                assert!(bytes.iter().all(|byte| *byte == 0), "{name}");
                continue;
            }
            let value = number(&bytes[..length.min(8)]);
            let shown = match field.name.as_str() {
                "magic" if length == 8 => {
                    assert_eq!(format!("`{}`", std::str::from_utf8(bytes).unwrap()), field.says);
                    format!("{:?}", std::str::from_utf8(bytes).unwrap())
                }
                "magic" => {
                    assert_eq!(format!("0x{value:08X}"), field.says);
                    format!("0x{value:08X}")
                }
                "crc" => format!("0x{value:08X}"),
                "salt" => format!("0x{value:016X}"),
                "body" => format!("{:?}", std::str::from_utf8(bytes).unwrap()),
                _ => value.to_string(),
            };
            writeln!(self.text, "{:>6}  {:<16}{shown}", begin + field.offset, field.name).unwrap();
            found.insert(field.name, value);
        }
        found
    }

    /// The checksum of what was taken last, from the ranges that the page names.
    fn check(&self, structure: &str, begin: usize) {
        let rows = rows("## Checksums");
        let row = rows.iter().find(|row| row[0] == structure).unwrap_or_else(|| panic!("{structure}"));
        let bytes = &self.bytes[begin..self.at];
        let crc = row[2].split(", ").fold(0, |crc, range| {
            let (from, to) = range.split_once("..").unwrap();
            let to = if to == "end" { bytes.len() } else { to.parse().unwrap() };
            crc32c::crc32c_append(crc, &bytes[from.parse().unwrap()..to])
        });
        let at: usize = row[1].parse().unwrap();
        assert_eq!(number(&bytes[at..at + 4]), u64::from(crc), "{structure}");
    }
}

fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if (32..127).contains(byte) { char::from(*byte) } else { '.' };
        let shown: String = bytes.iter().map(shown).collect();
        writeln!(text, "{:08x}  {:<47}  |{shown}|", line * 16, hex.join(" ")).unwrap();
    }
    text
}

/// The page has this block, word for word.
#[track_caller]
fn page_has(language: &str, block: &str) {
    let block = format!("```{language}\n{block}```\n");
    assert!(PAGE.contains(&block), "FORMAT.md does not have\n{block}");
}

#[test]
fn worked_segment_is_what_is_written_and_the_tables_decode_it() {
    let bytes = example().bytes(&names::segment(1)).unwrap();
    page_has("hexdump", &dump(&bytes));
    let mut page = Decoder { bytes: &bytes, at: 0, text: String::new() };

    let found = page.take("segment header", "### Segment header");
    page.check("segment header", 0);
    assert_eq!(page.at, format::SEGMENT_HEADER);
    let code = format::SegmentHeader::decode(&bytes).unwrap();
    let salt = code.salt;
    let expected = [
        ("version", u64::from(format::FORMAT_VERSION)),
        ("flags", u64::from(code.previous_sealed)),
        ("number", code.number),
        ("salt", code.salt),
        ("first_position", code.first_position),
        ("first_batch", code.first_batch),
        ("previous", code.previous),
        ("previous_batch", code.previous_batch),
        ("synced", code.synced),
    ];
    compare(&found, &expected);

    for (records, synced) in [(2, 0), (0, 1)] {
        let begin = page.at;
        let found = page.take("batch header", "### Batch header");
        page.check("batch header", begin);
        assert_eq!(page.at - begin, format::BATCH_HEADER);
        let code = format::BatchHeader::decode(&bytes[begin..], salt).unwrap();
        assert_eq!((code.count, code.synced), (records, synced));
        let expected = [
            ("salt", code.salt),
            ("number", code.number),
            ("synced", code.synced),
            ("now_ms", code.now_ms),
            ("first", code.first),
            ("length", code.length),
            ("count", u64::from(code.count)),
        ];
        compare(&found, &expected);
        for position in code.first..code.first + u64::from(records) {
            let begin = page.at;
            let found = page.take("record", "### Record");
            page.check("record", begin);
            let body = format::record_at(&bytes, begin, position).unwrap();
            assert_eq!(page.at, begin + format::RECORD_HEADER + body.len());
            compare(&found, &[("position", position), ("length", body.len() as u64)]);
        }
    }

    let begin = page.at;
    let found = page.take("footer", "### Footer");
    let code = format::Footer::decode(&bytes[begin..], salt).unwrap();
    assert_eq!(page.at - begin, format::FOOTER_HEADER);
    let expected = [
        ("salt", code.salt),
        ("first_position", code.first_position),
        ("last_position", code.last_position),
        ("first_batch", code.first_batch),
        ("last_batch", code.last_batch),
        ("now_ms", code.now_ms),
        ("records", code.records),
        ("offset", code.offset),
        ("entries", code.entries.len() as u64),
    ];
    compare(&found, &expected);
    for entry in &code.entries {
        let begin = page.at;
        let found = page.take("index entry", "The index, 16 bytes an entry");
        assert_eq!(page.at - begin, format::INDEX_ENTRY);
        compare(&found, &[("position", entry.position), ("offset", entry.offset)]);
    }
    page.check("footer", begin);
    assert_eq!(page.at, bytes.len(), "nothing is behind the footer");
    page_has("text", &page.text);
}

#[track_caller]
fn compare(page: &BTreeMap<String, u64>, code: &[(&str, u64)]) {
    for (name, value) in code {
        assert_eq!(page.get(*name), Some(value), "{name}");
    }
    let known = |name: &&String| {
        code.iter().any(|(known, _)| known == name) || ["magic", "crc", "body"].contains(&name.as_str())
    };
    assert_eq!(
        page.keys().find(|name| !known(name)),
        None,
        "the page has a field that the code doesn't know"
    );
}

#[test]
fn worked_snapshot_is_what_is_written_and_the_tables_decode_it() {
    let storage = example();
    let bytes = storage.bytes(SNAPSHOT).unwrap();
    page_has("hexdump", &dump(&bytes));
    let mut page = Decoder { bytes: &bytes, at: 0, text: String::new() };
    let found = page.take("snapshot header", "### Snapshot header");
    page.check("snapshot header", 0);
    let mut recovery = open(Arc::new(storage), Options::default()).unwrap();
    let snapshot = recovery.snapshot().unwrap();
    let expected = [
        ("version", u64::from(format::FORMAT_VERSION)),
        ("position", snapshot.position().0),
        ("batch", snapshot.batch()),
        ("now_ms", snapshot.now_ms()),
        // The first batch; the mark behind it is written and not synced.
        ("synced", 1),
    ];
    compare(&found, &expected);
    let (mut chunks, mut content) = (0, 0);
    for chunk in snapshot {
        let begin = page.at;
        let found = page.take("chunk", "### Chunk");
        page.check("chunk", begin);
        let chunk = chunk.unwrap();
        compare(&found, &[("length", chunk.len() as u64), ("number", chunks)]);
        chunks += 1;
        content += chunk.len() as u64;
    }
    let begin = page.at;
    let found = page.take("trailer", "### Trailer");
    page.check("trailer", begin);
    compare(&found, &[("chunks", chunks), ("bytes", content)]);
    assert_eq!(page.at, bytes.len(), "nothing is behind the trailer");
    page_has("text", &page.text);
}

#[test]
fn worked_damage_file_is_what_a_repair_writes() {
    let storage = example();
    let mut bytes = storage.bytes(&names::segment(1)).unwrap();
    bytes[210] ^= 1;
    storage.set_bytes(&names::segment(1), bytes);
    assert!(repair(Arc::new(storage.clone()), Options::default(), true).unwrap().applied);
    let text = String::from_utf8(storage.bytes(&names::damage(1)).unwrap()).unwrap();
    page_has("text", &text);
}

#[test]
fn sizes_limits_and_intervals_are_those_of_the_code() {
    assert!(PAGE.starts_with(&format!("# The journal on disk, format version {}\n", format::FORMAT_VERSION)));
    let sizes = [
        ("Segment header", format::SEGMENT_HEADER),
        ("Batch header", format::BATCH_HEADER),
        ("Record", format::RECORD_HEADER),
        ("Footer", format::FOOTER_HEADER),
    ];
    for (name, bytes) in sizes {
        assert!(PAGE.contains(&format!("\n### {name}: {bytes} bytes")), "{name}");
    }
    let longest = format!("at most {}", format::MAX_RECORD);
    assert_eq!(PAGE.matches(&longest).count(), 2, "records and chunks");
    let index = format!("{} positions or {} bytes behind", format::INDEX_RECORDS, format::INDEX_BYTES);
    assert!(PAGE.contains(&index), "{index}");
    assert!(u64::from(format::BATCH_MAGIC.min(format::FOOTER_MAGIC)) > format::MAX_RECORD as u64);
    let mebibytes = Options::default().segment_bytes >> 20;
    assert!(PAGE.contains(&format!("A file is {mebibytes} MiB long")));
}

#[test]
fn names_are_those_of_the_code() {
    let named: Vec<_> = rows("## Files").into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    // The first N or P of a name stands for the number.
    let named: Vec<_> =
        named.iter().map(|name| name.replacen(['N', 'P'], &format!("{:020}", 7), 1)).collect();
    let code = [
        names::LOCK.to_owned(),
        names::segment(7),
        names::damage(7),
        names::snapshot(7),
        names::spare(7),
        format!("{}/D", names::BLOBS),
        names::unfinished("*"),
        "lost/".to_owned(),
    ];
    assert_eq!(named, code);
    let digest: [u8; 32] = std::array::from_fn(|at| at as u8 * 8);
    let hex = "0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8";
    assert_eq!(names::blob(&digest), format!("{}/{hex}", names::BLOBS));
    assert_eq!(names::parse_blob(hex), Some(digest));
    for other in [
        "",
        &hex[1..],
        &hex.to_uppercase(),
        &format!("{hex}0"),
        &hex.replacen("00", "+0", 1),
        &"é".repeat(32),
    ] {
        assert_eq!(names::parse_blob(other), None, "{other}");
    }
}
