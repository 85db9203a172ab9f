//! The running journal: threads, progress, reading back, snapshots, trimming, the disk's room, and faults.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use chaski_journal::sim::{Operation, SimStorage};
use chaski_journal::{
    Batch, DiskStorage, Journal, LocalJournal, OpenError, Options, Position, Progress, ReadError, Reader,
    Room, SnapshotError, Step, Storage, open,
};
use common::{append, batch, read, record, recover, small, snapshot};

const FIRST: &str = "00000000000000000001.seg";

/// With threads; what it tells comes over a channel.
fn start(storage: Arc<dyn Storage>, options: Options) -> (LocalJournal, Receiver<Progress>) {
    let (tell, told) = channel();
    let recovery = open(storage, options).unwrap();
    // The receiver may be gone at the end of a test.
    let journal = recovery.start(move |progress| drop(tell.send(progress))).unwrap();
    (journal, told)
}

/// A journal that doesn't tell what it should must fail a test, not hang it.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait(told: &Receiver<Progress>, what: impl Fn(&Progress) -> bool) -> Progress {
    loop {
        let progress = told.recv_timeout(PATIENCE).expect("the journal tells until it ends");
        if what(&progress) {
            return progress;
        }
    }
}

fn wait_synced(told: &Receiver<Progress>, position: u64) {
    wait(told, |progress| matches!(progress, Progress::Synced { through, .. } if through.0 >= position));
}

/// Both, in either order.
fn wait_synced_and_room(told: &Receiver<Progress>, position: u64, wanted: Room) {
    let (mut synced, mut found) = (false, false);
    while !synced || !found {
        match told.recv_timeout(PATIENCE).expect("the journal tells until it ends") {
            Progress::Synced { through, .. } => synced |= through.0 >= position,
            Progress::Room(room) => found |= room == wanted,
            _ => {}
        }
    }
}

fn read_all(reader: &Reader, positions: Vec<Position>) -> Vec<Result<Vec<u8>, ReadError>> {
    let (done, found) = channel();
    reader.read(positions, move |found| {
        done.send(found.into_iter().map(|(_, bytes)| bytes.map(|bytes| bytes.to_vec())).collect()).unwrap();
    });
    found.recv().unwrap()
}

fn on_disk() -> (tempfile::TempDir, Arc<DiskStorage>) {
    let directory = tempfile::tempdir().unwrap();
    let storage = DiskStorage::new(directory.path().join("data")).unwrap();
    (directory, Arc::new(storage))
}

#[test]
fn batches_come_back_from_a_real_directory() {
    let (_directory, storage) = on_disk();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let (mut journal, told) = start(storage.clone(), options.clone());
    for _ in 0..200 {
        let batch = batch(&journal, 20, 77);
        journal.append(batch, true);
    }
    wait_synced(&told, 4000);
    assert_eq!(journal.in_flight(), 0);
    assert!(journal.segments().len() > 3);
    let found = read_all(&journal.reader(), (1..=4000).rev().map(Position).collect());
    assert!(found.into_iter().eq((1..=4000).rev().map(|position| Ok(record(position)))));
    drop(journal);

    let mut recovery = open(storage, options).unwrap();
    assert_eq!(common::replayed(&mut recovery).unwrap().len(), 4000);
    assert_eq!(recovery.last_now_ms(), 77);
    assert_eq!(recovery.last_position(), Position(4000));
    assert_eq!(recovery.cut(), None);
}

#[test]
fn batch_without_sync_is_told_as_written_and_synced_when_the_log_goes_quiet() {
    let (mut journal, told) = start(Arc::new(SimStorage::new(4096)), small());
    let batch = batch(&journal, 2, 1);
    journal.append(batch, false);
    let first = wait(&told, |progress| !matches!(progress, Progress::Room(_)));
    assert_eq!(first, Progress::Written { through: Position(2) });
    wait_synced(&told, 2);
}

#[test]
fn batches_that_wait_together_share_one_sync() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, told) = recover(&storage, small()).unwrap();
    let before = storage.operations().len();
    for sync in [true, true, false] {
        let batch = batch(&journal, 1, 1);
        journal.append(batch, sync);
    }
    assert_eq!(journal.in_flight(), 3);
    journal.step(Step::Write);
    assert_eq!(journal.in_flight(), 0);
    let (write, sync) = (Operation::Write, Operation::Sync);
    assert_eq!(storage.operations()[before..], [write, write, write, sync]);
    let told = told.lock().unwrap();
    assert_eq!(told[0], Progress::Written { through: Position(3) });
    assert!(matches!(told[1], Progress::Synced { through: Position(3), .. }));
    assert_eq!(told.len(), 2);
}

#[test]
fn quiet_log_writes_one_mark_and_then_nothing() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 1, true);
    let before = storage.operations().len();
    journal.step(Step::Quiet);
    journal.step(Step::Quiet);
    assert_eq!(storage.operations()[before..], [Operation::Write]);
    assert_eq!(journal.next_position(), Position(2), "a mark takes no position");
}

#[test]
fn second_opening_is_refused_with_the_holder() {
    let (_directory, storage) = on_disk();
    let (journal, _) = start(storage.clone(), small());
    let again = open(storage.clone(), small());
    match again.err().unwrap() {
        OpenError::Locked { pid, .. } => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("{other}"),
    }
    drop(journal);
    assert!(open(storage, small()).is_ok());
}

#[test]
fn read_only_directory_is_named() {
    let storage = SimStorage::new(4096);
    storage.set_read_only(true);
    let error = open(Arc::new(storage), small()).err().unwrap();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
}

#[test]
fn failed_sync_is_told_once_and_nothing_is_appended_after_it() {
    let storage = SimStorage::new(4096);
    let (mut journal, told) = start(Arc::new(storage.clone()), small());
    wait_for_spare(&journal);
    storage.fail_at(storage.operations().len() + 1, io::ErrorKind::Other);
    let first = batch(&journal, 1, 1);
    journal.append(first, true);
    let failed = wait(&told, |progress| matches!(progress, Progress::Failed(_)));
    assert!(format!("{failed:?}").contains("sync segment 1"), "{failed:?}");
    assert_eq!(journal.in_flight(), 0);
    let written = storage.operations().len();
    let second = batch(&journal, 1, 1);
    journal.append(second, true);
    Box::new(journal).close();
    assert_eq!(storage.operations().len(), written);
    assert!(!told.iter().any(|progress| !matches!(progress, Progress::Room(_))));
}

/// The keeper has done its first round, so that operations can be counted.
fn wait_for_spare(journal: &LocalJournal) {
    while journal.room().free_bytes == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn failed_write_is_fatal_too() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, told) = recover(&storage, small()).unwrap();
    storage.fail_at(storage.operations().len(), io::ErrorKind::StorageFull);
    append(&mut journal, 1, true);
    assert!(matches!(told.lock().unwrap().last(), Some(Progress::Failed(_))));
}

#[test]
fn disk_goes_low_then_full_then_has_room_again() {
    let storage = SimStorage::new(4096);
    let options = Options { low_disk_bytes: 3000, look_at_disk: Duration::from_millis(2), ..small() };
    let (mut journal, told) = start(Arc::new(storage.clone()), options);
    wait_for_spare(&journal);
    assert_eq!(journal.room().room, Room::Plenty);
    storage.set_capacity(Some(4000));
    wait(&told, |progress| *progress == Progress::Room(Room::Low));
    // Takes the spare, and no other can be made.
    storage.set_capacity(Some(2048));
    let batches: Vec<_> = (0..2).map(|_| Batch::new(1)).collect();
    for mut batch in batches {
        batch.push(|buffer| buffer.extend_from_slice(&[7; 700]));
        journal.append(batch, true);
    }
    wait_synced_and_room(&told, 2, Room::Full);
    assert!(journal.room().allocated_bytes < 1024);
    // What is appended all the same waits, and is not lost.
    let mut waiting = Batch::new(1);
    waiting.push(|buffer| buffer.extend_from_slice(&[8; 700]));
    journal.append(waiting, true);
    storage.set_capacity(None);
    wait_synced_and_room(&told, 3, Room::Plenty);
}

#[test]
fn batch_larger_than_a_segment_gets_one_of_its_own() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 1, true);
    let mut large = Batch::new(1);
    large.push(|buffer| buffer.extend_from_slice(&[9; 5000]));
    journal.append(large, true);
    journal.step(Step::Write);
    append(&mut journal, 1, true);
    assert_eq!(read(&mut journal, [2, 3])[0], Ok(vec![9; 5000]));
    drop(journal);
    let (_, records, _) = recover(&storage.crash(|_| false), small()).unwrap();
    assert_eq!(records, [record(1), vec![9; 5000], record(3)]);
}

#[test]
fn snapshot_bounds_the_replay_and_two_are_kept() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    assert!(!journal.snapshot_due());
    for at in [5, 10, 15] {
        append(&mut journal, 5, true);
        // Later ones only once the log has grown by twice the former.
        assert_eq!(journal.snapshot_due(), at == 5);
        snapshot(&mut journal, &(1..=at).map(record).collect::<Vec<_>>()).unwrap();
        assert!(!journal.snapshot_due());
    }
    assert_eq!(journal.trimmable_before(), Some(Position(10)));
    append(&mut journal, 3, true);
    drop(journal);
    let mut recovery = open(Arc::new(storage.crash(|_| false)), small()).unwrap();
    assert_eq!(recovery.snapshot().unwrap().position(), Position(15));
    let mut replayed = Vec::new();
    recovery
        .replay(&mut |batch| {
            replayed.extend(batch.records().map(<[u8]>::to_vec));
            Ok(())
        })
        .unwrap();
    assert_eq!(replayed, [record(16), record(17), record(18)]);
}

#[test]
fn snapshot_inside_a_batch_replays_the_rest_of_it() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 6, true);
    snapshot(&mut journal, &(1..=4).map(record).collect::<Vec<_>>()).unwrap();
    drop(journal);
    let (_, records, _) = recover(&storage.crash(|_| true), small()).unwrap();
    assert_eq!(records, (1..=6).map(record).collect::<Vec<_>>());
}

#[test]
fn snapshot_becomes_valid_only_after_the_records_that_it_covers() {
    let storage = SimStorage::new(4096);
    let options = Options { quiet: Duration::from_secs(3600), ..small() };
    let (mut journal, told) = start(Arc::new(storage.clone()), options);
    let covered = batch(&journal, 3, 1);
    // The state runs ahead of the log.
    let mut writer = journal.begin_snapshot(Position(3), 1);
    (1..=3).for_each(|position| writer.write_chunk(&record(position)).unwrap());
    let finished = std::thread::spawn(move || writer.finish());
    assert!(!storage.files().iter().any(|name| name.ends_with(".snapshot")));
    // Nobody asks for a sync but the snapshot.
    journal.append(covered, false);
    wait_synced(&told, 3);
    assert_eq!(finished.join().unwrap().unwrap().position, Position(3));
}

#[test]
fn snapshot_of_a_journal_that_ends_is_given_up() {
    let (mut journal, _, _) = recover(&SimStorage::new(4096), small()).unwrap();
    let writer = journal.begin_snapshot(Position(9), 1);
    drop(journal);
    assert!(matches!(writer.finish(), Err(SnapshotError::Ended)));
}

#[test]
fn snapshot_without_room_is_not_fatal_and_leaves_nothing() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 3, true);
    storage.set_capacity(Some(2100));
    let error = snapshot(&mut journal, &[vec![1; 5000], vec![2; 10], vec![3; 10]]).unwrap_err();
    assert!(matches!(error, SnapshotError::NoRoom(_)), "{error}");
    assert!(storage.files().iter().all(|name| !name.contains("snapshot")), "{:?}", storage.files());
    append(&mut journal, 1, true);
    assert_eq!(read(&mut journal, [4]), [Ok(record(4))]);
}

/// Segments 1.. full, two snapshots, and a recycled file in use.
fn recycled() -> (SimStorage, chaski_journal::SteppedJournal) {
    let storage = SimStorage::new(4096);
    let options = Options { spare_segments: 2, ..small() };
    let (mut journal, _, _) = recover(&storage, options).unwrap();
    while journal.segments().len() < 4 {
        append(&mut journal, 4, true);
    }
    let last = journal.next_position().0 - 1;
    for at in [last - 1, last] {
        snapshot(&mut journal, &(1..=at).map(record).collect::<Vec<_>>()).unwrap();
    }
    journal.trim(Position(1)..=Position(last));
    journal.step(Step::Keep);
    (storage, journal)
}

#[test]
fn trimmed_segments_are_recycled_and_their_old_content_is_never_read() {
    let (storage, mut journal) = recycled();
    let spares = || storage.files().into_iter().filter(|name| name.ends_with(".spare")).collect::<Vec<_>>();
    let old = |name: &String| storage.bytes(name).unwrap().starts_with(b"CHASKISG");
    assert!(spares().iter().any(old), "a spare has old content");
    let first = journal.segments()[0].number;
    assert!(first > 1 && storage.bytes(FIRST).is_none());
    assert!(read(&mut journal, [1])[0].as_ref().unwrap_err().contains("not in the journal"));
    // Until old content lies behind the log's end, and more than once.
    for _ in 0..12 {
        append(&mut journal, 3, true);
        let last = journal.next_position().0 - 1;
        let (_, records, _) = recover(&storage.crash(|_| true), small()).unwrap();
        assert_eq!(records.len() as u64, last);
    }
}

#[test]
fn segment_that_the_older_snapshot_needs_is_not_trimmed() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    while journal.segments().len() < 3 {
        append(&mut journal, 4, true);
    }
    let before = journal.segments();
    journal.trim(Position(1)..=Position(u64::MAX));
    assert_eq!(journal.segments(), before, "no snapshot");
    let last = journal.next_position().0 - 1;
    snapshot(&mut journal, &(1..=4).map(record).collect::<Vec<_>>()).unwrap();
    snapshot(&mut journal, &(1..=last).map(record).collect::<Vec<_>>()).unwrap();
    journal.trim(Position(1)..=Position(u64::MAX));
    assert_eq!(journal.segments(), before, "the older one stands at 4");
    snapshot(&mut journal, &(1..=last).map(record).collect::<Vec<_>>()).unwrap();
    assert_eq!(journal.trimmable_before(), Some(Position(4)), "the same position twice is one snapshot");
}

#[test]
fn log_with_a_trimmed_middle_recovers() {
    let (storage, mut journal) = recycled();
    append(&mut journal, 4, true);
    drop(journal);
    let (journal, records, _) = recover(&storage.crash(|_| false), small()).unwrap();
    assert_eq!(records.len() as u64, journal.next_position().0 - 1);
}

#[test]
fn backlog_is_read_a_few_megabytes_at_a_time() {
    let storage = SimStorage::new(4096);
    let options = Options { segment_bytes: 16 << 20, ..small() };
    let (mut journal, _, _) = recover(&storage, options).unwrap();
    for _ in 0..32 {
        let mut batch = Batch::new(1);
        (0..16).for_each(|_| batch.push(|buffer| buffer.resize(buffer.len() + (64 << 10), 7)));
        journal.append(batch, true);
        journal.step(Step::Write);
    }
    assert!(journal.segments().len() > 2);
    assert_eq!(read(&mut journal, 1..=512), vec![Ok(vec![7; 64 << 10]); 512]);
    let most = storage.largest_read();
    assert!((1 << 20..=4 << 20).contains(&most), "{most} bytes were read at once");
}

#[test]
fn reads_beyond_the_bound_are_answered_busy_and_closed_ones_too() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, Options { waiting_reads: 1, ..small() }).unwrap();
    append(&mut journal, 2, true);
    let (tell, told) = channel();
    for position in [1, 2] {
        let tell = tell.clone();
        journal.reader().read(vec![Position(position)], move |found| tell.send(found).unwrap());
    }
    assert_eq!(told.recv().unwrap(), [(Position(2), Err(ReadError::Busy))]);
    journal.step(Step::Read);
    assert!(told.recv().unwrap()[0].1.is_ok());

    let (journal, _) = start(Arc::new(SimStorage::new(4096)), small());
    let reader = journal.reader();
    drop(journal);
    assert_eq!(read_all(&reader, vec![Position(1)]), [Err(ReadError::Closed)]);
}

#[test]
fn record_that_rots_on_disk_is_not_handed_out() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 2, true);
    let mut bytes = storage.bytes(FIRST).unwrap();
    let needle = b"record 2 ";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[at + 3] ^= 1;
    storage.set_bytes(FIRST, bytes);
    let found = read(&mut journal, [1, 2, 3]);
    assert_eq!(found[0], Ok(record(1)));
    assert!(found[1].as_ref().unwrap_err().contains("damaged on disk"));
    assert!(found[2].as_ref().unwrap_err().contains("not in the journal"));
}

#[test]
fn closed_log_gives_back_its_allocation_and_restarts_add_little() {
    let (directory, storage) = on_disk();
    let options = Options { segment_bytes: 1 << 20, spare_segments: 1, ..Options::default() };
    for _ in 0..10 {
        let (mut journal, told) = start(storage.clone(), options.clone());
        let batch = batch(&journal, 1, 1);
        let position = journal.next_position().0;
        journal.append(batch, true);
        wait_synced(&told, position);
        Box::new(journal).close();
    }
    let sizes = std::fs::read_dir(directory.path().join("data")).unwrap();
    let sealed = sizes
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "seg"));
    assert!(sealed.map(|entry| entry.metadata().unwrap().len()).sum::<u64>() < 10_000);
}
