//! Damage: each flipped byte of a closed segment is named, a torn tail is not corruption, a repair says what is lost and
//! loses no more.

mod common;

use std::sync::Arc;

use chaski_journal::sim::SimStorage;
use chaski_journal::{Batch, Corruption, Journal, OpenError, Position, open, repair};
use common::{append, read, record, recover, small, snapshot};

const FIRST: &str = "00000000000000000001.seg";

fn verify(storage: &SimStorage) -> Result<u64, OpenError> {
    let mut recovery = open(Arc::new(storage.clone()), small())?;
    Ok(common::replayed(&mut recovery)?.len() as u64)
}

fn corruption(storage: &SimStorage) -> Corruption {
    match verify(storage) {
        Err(OpenError::Corrupt(corruption)) => corruption,
        other => panic!("expected corruption, got {other:?}"),
    }
}

fn copy(storage: &SimStorage) -> SimStorage {
    storage.crash(|_| true)
}

fn flip(storage: &SimStorage, name: &str, offset: usize) -> SimStorage {
    let damaged = copy(storage);
    let mut bytes = damaged.bytes(name).unwrap();
    bytes[offset] ^= 0x10;
    damaged.set_bytes(name, bytes);
    damaged
}

/// A log of several segments, closed in good order. The bytes of each, footer included.
fn closed() -> (SimStorage, Vec<(String, usize)>) {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    for records in [3, 1, 4, 2, 6, 5, 3, 5, 8] {
        append(&mut journal, records, true);
    }
    Box::new(journal).close();
    let (journal, _, _) = recover(&storage, small()).unwrap();
    let segments = journal.segments();
    assert!(segments.len() >= 4, "{segments:?}");
    let closed = segments.iter().filter(|segment| segment.sealed);
    let names =
        closed.map(|segment| (format!("{:020}.seg", segment.number), segment.bytes as usize)).collect();
    drop(journal);
    (copy(&storage), names)
}

#[test]
fn every_flipped_byte_of_a_closed_segment_is_named() {
    let (storage, segments) = closed();
    for (name, bytes) in &segments {
        for offset in 0..*bytes {
            let damage = corruption(&flip(&storage, name, offset));
            assert_eq!(damage.file.file_name().unwrap().to_str(), Some(name.as_str()), "byte {offset}");
            assert_eq!(format!("{:020}.seg", damage.segment), *name, "byte {offset}");
            assert!(damage.offset <= offset as u64, "byte {offset} is named as {}", damage.offset);
            assert!(offset as u64 - damage.offset < 400, "byte {offset} is named as {}", damage.offset);
        }
    }
}

#[test]
fn damaged_record_is_named_with_its_positions() {
    let (storage, segments) = closed();
    let (name, _) = &segments[0];
    let bytes = storage.bytes(name).unwrap();
    let needle = b"record 4 ";
    let offset = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    let damage = corruption(&flip(&storage, name, offset));
    assert_eq!(damage.offset, offset as u64 - 16, "the record's header");
    assert_eq!(damage.positions, Some(Position(4)..=Position(4)));
    assert_eq!(
        damage.to_string(),
        "the journal is damaged: sim/00000000000000000001.seg, segment 1, offset 431: the record's checksum is wrong \
         (records 4 to 4); nothing was changed; `chaski repair` reports what is lost and, with --apply, goes on without it"
    );
}

#[test]
fn shortened_closed_segment_is_named() {
    let (storage, segments) = closed();
    let (name, bytes) = &segments[0];
    for len in (0..*bytes).step_by(7) {
        let damaged = copy(&storage);
        let mut cut = damaged.bytes(name).unwrap();
        cut.truncate(len);
        damaged.set_bytes(name, cut);
        assert_eq!(corruption(&damaged).segment, 1, "cut to {len}");
    }
}

#[test]
fn missing_segment_is_named() {
    let (storage, segments) = closed();
    let damaged = storage.crash(|_| true);
    chaski_journal::Storage::remove(&damaged, &segments[1].0).unwrap();
    let damage = corruption(&damaged);
    assert!(damage.what.contains("missing"), "{damage}");
    assert!(damage.positions.is_some());
}

/// One segment whose last two batches are not known to be durable.
fn open_tail() -> SimStorage {
    let storage = SimStorage::new(4096);
    let options = chaski_journal::Options { segment_bytes: 4096, ..small() };
    let (mut journal, _, _) = recover(&storage, options).unwrap();
    append(&mut journal, 2, true);
    append(&mut journal, 2, true);
    append(&mut journal, 2, true);
    append(&mut journal, 2, false);
    drop(journal);
    copy(&storage)
}

fn offset_of(storage: &SimStorage, position: u64) -> usize {
    let bytes = storage.bytes(FIRST).unwrap();
    let needle = format!("record {position} ");
    bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap()
}

#[test]
fn damage_behind_the_last_synced_batch_is_a_torn_tail() {
    let storage = open_tail();
    let damaged = flip(&storage, FIRST, offset_of(&storage, 8));
    let mut recovery = open(Arc::new(damaged.clone()), small()).unwrap();
    let records = common::replayed(&mut recovery).unwrap();
    assert_eq!(records.len(), 6);
    let cut = recovery.cut().unwrap();
    assert_eq!((cut.segment, cut.first, cut.last), (1, Position(7), Some(Position(8))));
}

#[test]
fn damage_before_the_last_synced_batch_is_corruption() {
    let storage = open_tail();
    // The fourth batch's header says that the third is durable.
    for position in 1..=6 {
        let damage = corruption(&flip(&storage, FIRST, offset_of(&storage, position)));
        assert_eq!(damage.segment, 1);
        assert!(damage.positions.unwrap().contains(&Position(position)));
    }
}

#[test]
fn header_behind_a_hole_still_says_what_was_durable() {
    let storage = open_tail();
    // The third batch's own header is damaged, so its length can't be followed: the fourth is found all the same.
    let header = offset_of(&storage, 5) - 16 - 64;
    let damage = corruption(&flip(&storage, FIRST, header + 20));
    assert_eq!(damage.offset, header as u64);
    assert_eq!(damage.positions, Some(Position(5)..=Position(6)));
}

#[test]
fn mark_of_a_quiet_log_makes_its_last_batch_provably_durable() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 2, true);
    journal.step(chaski_journal::Step::Quiet);
    drop(journal);
    let storage = copy(&storage);
    let damage = corruption(&flip(&storage, FIRST, offset_of(&storage, 2)));
    assert_eq!(damage.positions, Some(Position(1)..=Position(2)));
}

#[test]
fn tail_that_was_cut_is_not_read_again() {
    let storage = open_tail();
    let (journal, records, _) = recover(&storage, small()).unwrap();
    assert_eq!(records.len(), 8);
    drop(journal);
    let storage = copy(&storage);
    // What the recovery copied is in the second segment; the first ends behind batch 3.
    let mut bytes = storage.bytes(FIRST).unwrap();
    bytes.extend_from_slice(&[0xEE; 500]);
    storage.set_bytes(FIRST, bytes);
    assert_eq!(verify(&storage).unwrap(), 8);
}

#[test]
fn message_that_holds_another_segment_is_no_landmark_behind_a_torn_tail() {
    // A segment with later batches and another salt, as a backup sent through the router would be.
    let (other, segments) = closed();
    let foreign = other.bytes(&segments.last().unwrap().0).unwrap();
    let storage = SimStorage::new(4096);
    let options = chaski_journal::Options { segment_bytes: 4096, ..small() };
    let (mut journal, _, _) = recover(&storage, options).unwrap();
    append(&mut journal, 2, true);
    let tail = journal.segments()[0].bytes as usize;
    let mut batch = Batch::new(1);
    batch.push(|buffer| buffer.extend_from_slice(&foreign));
    journal.append(batch, false);
    journal.step(chaski_journal::Step::Write);
    drop(journal);
    // The batch's own header is torn, so it is looked for what is behind it.
    let torn = flip(&copy(&storage), FIRST, tail + 20);
    assert_eq!(verify(&torn).unwrap(), 2);
}

#[test]
fn newer_format_is_refused_with_both_versions() {
    let (storage, segments) = closed();
    let name = &segments[0].0;
    let mut bytes = storage.bytes(name).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    storage.set_bytes(name, bytes);
    let Err(error) = verify(&storage) else { panic!("a newer format was read") };
    assert!(matches!(error, OpenError::FormatNewer { found: 2, supported: 1, .. }), "{error}");
}

#[test]
fn newer_snapshot_and_damage_file_are_refused_too() {
    let storage = with_snapshot();
    let name = "00000000000000000020.snapshot";
    let mut bytes = storage.bytes(name).unwrap();
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    let newer = copy(&storage);
    newer.set_bytes(name, bytes);
    assert!(matches!(verify(&newer), Err(OpenError::FormatNewer { found: 2, .. })));
    let body = "chaski damage 2\nwhatever\n";
    let text = format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()));
    storage.set_bytes("00000000000000000001.damage", text.into_bytes());
    let error = verify(&storage).unwrap_err();
    assert!(matches!(error, OpenError::FormatNewer { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("00000000000000000001.damage"), "{error}");
}

#[test]
fn nothing_is_changed_when_opening_fails() {
    let (storage, segments) = closed();
    let damaged = flip(&storage, &segments[1].0, 200);
    let before = damaged.operations().len();
    let recovery = open(Arc::new(damaged.clone()), small()).unwrap();
    assert!(recovery.start(|_| {}).is_err());
    assert_eq!(damaged.operations().len(), before);
}

/// A log with a snapshot at 20, and what follows.
fn with_snapshot() -> SimStorage {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    for _ in 0..4 {
        append(&mut journal, 5, true);
    }
    let records: Vec<_> = (1..=20).map(record).collect();
    snapshot(&mut journal, &records).unwrap();
    for _ in 0..4 {
        append(&mut journal, 5, true);
    }
    Box::new(journal).close();
    copy(&storage)
}

fn place(storage: &SimStorage, position: u64) -> (String, usize) {
    let needle = format!("record {position} ");
    let found = storage.files().into_iter().filter(|name| name.ends_with(".seg")).find_map(|name| {
        let bytes = storage.bytes(&name).unwrap();
        let offset = bytes.windows(needle.len()).position(|window| window == needle.as_bytes())?;
        Some((name, offset))
    });
    found.unwrap()
}

#[test]
fn repair_of_a_sound_journal_changes_nothing() {
    let storage = with_snapshot();
    let report = repair(Arc::new(storage.clone()), small(), true).unwrap();
    assert!(report.is_sound() && !report.applied);
    assert_eq!(storage.operations(), []);
    // A torn tail is not damage.
    let torn = open_tail();
    let torn = flip(&torn, FIRST, offset_of(&torn, 8));
    assert!(repair(Arc::new(torn), small(), true).unwrap().is_sound());
}

#[test]
fn damage_that_the_snapshot_covers_costs_its_batch_only() {
    let storage = with_snapshot();
    let (name, offset) = place(&storage, 3);
    let damaged = flip(&storage, &name, offset);
    assert!(verify(&damaged).is_err());
    let report = repair(Arc::new(damaged.clone()), small(), false).unwrap();
    assert_eq!(damaged.operations(), [], "only a report");
    assert!(!report.applied);
    let report = repair(Arc::new(damaged.clone()), small(), true).unwrap();
    assert_eq!(report.lost.len(), 1);
    assert_eq!(report.lost[0].positions, Some(Position(1)..=Position(5)));
    assert_eq!(report.records_lost(), 5);
    assert!(!report.lost[0].ends_log);
    let (mut journal, records, _) = recover(&damaged, small()).unwrap();
    assert_eq!(records.len(), 40);
    let found = read(&mut journal, [5, 6, 1, 40]);
    assert!(found[0].as_ref().unwrap_err().contains("lost to damage"), "{found:?}");
    assert_eq!(found[1], Ok(record(6)));
    assert_eq!(found[3], Ok(record(40)));
}

#[test]
fn damage_behind_the_snapshot_cuts_the_log_before_it() {
    let storage = with_snapshot();
    let (name, offset) = place(&storage, 28);
    let damaged = flip(&storage, &name, offset);
    let original = damaged.bytes(&name).unwrap();
    let report = repair(Arc::new(damaged.clone()), small(), true).unwrap();
    let lost = report.lost.last().unwrap();
    assert!(lost.ends_log);
    assert_eq!(lost.positions, Some(Position(26)..=Position(40)));
    assert_eq!(damaged.bytes(&format!("lost/{name}")), Some(original), "set aside as it was");
    let (mut journal, records, _) = recover(&damaged, small()).unwrap();
    assert_eq!(records, (1..=25).map(record).collect::<Vec<_>>());
    append(&mut journal, 2, true);
    drop(journal);
    let (_, records, _) = recover(&damaged.crash(|_| false), small()).unwrap();
    assert_eq!(records, (1..=27).map(record).collect::<Vec<_>>());
}

#[test]
fn every_damage_can_be_repaired_and_loses_nothing_before_it() {
    let storage = with_snapshot();
    let names: Vec<_> = storage.files().into_iter().filter(|name| name.ends_with(".seg")).collect();
    let last = names.last().unwrap().clone();
    for name in names {
        let bytes = storage.bytes(&name).unwrap().len();
        for offset in (0..bytes).step_by(5) {
            let damaged = flip(&storage, &name, offset);
            let broken = verify(&damaged).is_err();
            let report = repair(Arc::new(damaged.clone()), small(), true).unwrap();
            assert_eq!(report.is_sound(), !broken, "{name} {offset}");
            let (mut journal, records, _) = recover(&damaged, small())
                .unwrap_or_else(|error| panic!("{name} {offset}: {error}\n{report:#?}"));
            let whole: Vec<_> = (1..=records.len() as u64).map(record).collect();
            assert!(records.len() >= 20 && records == whole, "{name} {offset}");
            if broken && name != last && records.len() < 40 {
                let lost = report.lost.last().unwrap();
                assert!(lost.ends_log, "{name} {offset}");
                let expected = Position(records.len() as u64 + 1)..=Position(40);
                assert_eq!(lost.positions.clone().unwrap(), expected, "{name} {offset}");
            }
            append(&mut journal, 1, true);
            drop(journal);
            let again = repair(Arc::new(damaged.crash(|_| false)), small(), true).unwrap();
            assert!(again.is_sound(), "{name} {offset}: {again:?}");
        }
    }
}

#[test]
fn repair_without_a_log_goes_on_behind_the_snapshot() {
    let storage = with_snapshot();
    for name in storage.files().into_iter().filter(|name| name.ends_with(".seg")) {
        chaski_journal::Storage::remove(&storage, &name).unwrap();
    }
    assert!(matches!(verify(&storage), Err(OpenError::Corrupt(_))));
    let report = repair(Arc::new(storage.clone()), small(), true).unwrap();
    assert!(report.lost[0].ends_log);
    let (mut journal, records, _) = recover(&storage, small()).unwrap();
    assert_eq!(records.len(), 20);
    append(&mut journal, 1, true);
    drop(journal);
    assert_eq!(verify(&storage.crash(|_| false)).unwrap(), 21);
}

#[test]
fn damaged_snapshot_gives_way_to_the_older_one() {
    let storage = with_snapshot();
    let (mut journal, records, _) = recover(&storage, small()).unwrap();
    snapshot(&mut journal, &records).unwrap();
    drop(journal);
    let storage = copy(&storage);
    let name = "00000000000000000040.snapshot";
    let bytes = storage.bytes(name).unwrap().len();
    for offset in 0..bytes {
        let damaged = flip(&storage, name, offset);
        let mut recovery = open(Arc::new(damaged), small()).unwrap();
        assert_eq!(recovery.damaged_snapshots().len(), 1, "byte {offset}");
        assert_eq!(recovery.snapshot().unwrap().position(), Position(20));
        assert_eq!(common::replayed(&mut recovery).unwrap().len(), 40);
    }
}

#[test]
fn content_that_looks_like_a_batch_is_not_one() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 2, true);
    let inside = storage.bytes(FIRST).unwrap()[128..400].to_vec();
    let mut batch = Batch::new(1);
    batch.push(|buffer| buffer.extend_from_slice(&inside));
    journal.append(batch, true);
    journal.step(chaski_journal::Step::Write);
    let found = read(&mut journal, [3, 1]);
    assert_eq!(found[0], Ok(inside.clone()));
    drop(journal);
    let mut recovery = open(Arc::new(copy(&storage)), small()).unwrap();
    assert_eq!(common::replayed(&mut recovery).unwrap().last(), Some(&inside));
}
