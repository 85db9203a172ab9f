//! A disk that fails instead of losing power: an error of a write or fsync ends the log at once and is never retried,
//! whoever met it; what was told before stays true.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use chaski_journal::sim::{Operation, SimStorage};
use chaski_journal::{Journal, Position, Progress, Room, SnapshotError, Step, open, repair};
use common::script::{PAGE, Runner, SCRIPT, check, copy, outcomes, run};
use common::{append, read, record, recover, small, snapshot};

const FIRST: &str = "00000000000000000001.seg";

/// Waits, but not forever, until the journal tells that it has failed.
fn wait_failed(told: &Receiver<Progress>) -> Progress {
    loop {
        let progress = told.recv_timeout(Duration::from_secs(60)).expect("the failure is told");
        if matches!(progress, Progress::Failed(_)) {
            return progress;
        }
    }
}

/// What the script does with these operations failing; whether it came to its end.
fn run_failing(storage: &SimStorage) -> (common::script::History, bool) {
    let Some(mut runner) = Runner::start(storage, Default::default()) else {
        return (Default::default(), false);
    };
    for act in SCRIPT {
        let before = runner.history.clone();
        if runner.act(*act).is_none() {
            runner.history.synced = runner.history.synced.max(before.synced);
            runner.history.appended = runner.history.appended.max(before.appended);
            return (runner.history.clone(), false);
        }
    }
    (runner.history.clone(), true)
}

#[test]
fn every_failed_write_or_sync_ends_the_log_and_is_never_retried() {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations();
    for (at, operation) in operations.iter().enumerate() {
        let storage = SimStorage::new(PAGE);
        storage.fail_at(at, ErrorKind::Other);
        let (history, ended) = run_failing(&storage);
        let wrong = |what: &str| format!("operation {at} ({operation:?}) failed: {what}");
        if matches!(operation, Operation::Write | Operation::Sync | Operation::SyncDir) {
            assert!(!ended, "{}", wrong("the log went on"));
            let later = &storage.operations()[at + 1..];
            let harmless = |operation: &&Operation| matches!(operation, Operation::Remove);
            assert_eq!(
                later.iter().find(|operation| !harmless(operation)),
                None,
                "{}",
                wrong("and more came")
            );
        }
        for (choice, disk) in outcomes(&storage, 16) {
            check(&disk, &history)
                .unwrap_or_else(|error| panic!("{}", wrong(&format!("choice {choice}: {error}"))));
        }
    }
}

#[test]
fn snapshot_that_cannot_be_synced_ends_the_log() {
    for (wanted, what) in [
        (Operation::Write, "write the snapshot"),
        (Operation::Sync, "sync the snapshot"),
        (Operation::SyncDir, "sync the directory"),
    ] {
        let storage = SimStorage::new(4096);
        let (mut journal, _, told) = recover(&storage, small()).unwrap();
        append(&mut journal, 3, true);
        let before = storage.operations().len();
        let records: Vec<_> = (1..=3).map(record).collect();
        let spare = copy(&storage);
        let (mut probe, _, _) = recover(&spare, small()).unwrap();
        let base = spare.operations().len();
        snapshot(&mut probe, &records).unwrap();
        let offset = spare.operations()[base..].iter().position(|operation| *operation == wanted).unwrap();
        storage.fail_at(before + offset, ErrorKind::Other);
        let error = snapshot(&mut journal, &records).unwrap_err();
        assert!(matches!(error, SnapshotError::Io(_)), "{error}");
        let told = told.lock().unwrap();
        let Some(Progress::Failed(failure)) = told.last() else { panic!("{wanted:?}: {told:?}") };
        assert!(failure.to_string().contains(what), "{failure}");
        drop(told);
        let after = storage.operations().len();
        append(&mut journal, 1, true);
        Box::new(journal).close();
        assert_eq!(storage.operations().len(), after, "nothing is written any more");
    }
}

#[test]
fn threads_stop_when_a_snapshot_meets_a_failing_disk() {
    let storage = SimStorage::new(4096);
    let (tell, told) = std::sync::mpsc::channel();
    let recovery = open(Arc::new(storage.clone()), small()).unwrap();
    let mut journal = recovery.start(move |progress| drop(tell.send(progress))).unwrap();
    while journal.room().free_bytes == 0 {
        std::thread::yield_now();
    }
    storage.fail_at(storage.operations().len() + 1, ErrorKind::Other);
    assert!(journal.begin_snapshot(Position(0), 1).finish().is_err());
    wait_failed(&told);
    let after = storage.operations().iter().filter(|operation| **operation == Operation::Write).count();
    let batch = common::batch(&journal, 1, 1);
    journal.append(batch, true);
    Box::new(journal).close();
    let writes = storage.operations().iter().filter(|operation| **operation == Operation::Write).count();
    assert_eq!(writes, after, "nothing is written any more, not even a footer");
}

#[test]
fn start_on_a_full_disk_comes_up_and_goes_on_when_there_is_room() {
    let storage = SimStorage::new(4096);
    let options = || chaski_journal::Options { spare_segments: 0, ..small() };
    let (mut journal, _, _) = recover(&storage, options()).unwrap();
    append(&mut journal, 3, true);
    journal.step(Step::Quiet);
    drop(journal);
    let storage = copy(&storage);
    let used: usize = storage.files().iter().map(|name| storage.bytes(name).unwrap().len()).sum();
    storage.set_capacity(Some(used as u64 + 320));
    let (mut journal, records, told) = recover(&storage, small()).unwrap();
    assert_eq!(records.len(), 3);
    assert!(told.lock().unwrap().contains(&Progress::Room(Room::Full)), "{told:?}");
    assert_eq!(read(&mut journal, [2]), [Ok(record(2))]);
    let batch = common::batch(&journal, 2, 1);
    journal.append(batch, true);
    assert!(!journal.step(Step::Write), "there is no room");
    storage.set_capacity(None);
    assert!(journal.step(Step::Write));
    drop(journal);
    let (_, records, _) = recover(&storage.crash(|_| false), small()).unwrap();
    assert_eq!(records.len(), 5);
}

#[test]
fn spare_that_is_too_short_is_given_back() {
    let storage = SimStorage::new(4096);
    let short = "00000000000000000007.spare";
    storage.set_bytes(short, vec![0; 100]);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    assert!(storage.bytes(short).is_none());
    assert!(storage.files().contains(&"00000000000000000009.spare".to_owned()), "{:?}", storage.files());
    append(&mut journal, 1, true);
}

/// A journal whose first segment was repaired, and can be trimmed.
fn repaired() -> SimStorage {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    (0..6).for_each(|_| append(&mut journal, 4, true));
    snapshot(&mut journal, &(1..=20).map(record).collect::<Vec<_>>()).unwrap();
    snapshot(&mut journal, &(1..=24).map(record).collect::<Vec<_>>()).unwrap();
    Box::new(journal).close();
    let storage = copy(&storage);
    let mut bytes = storage.bytes(FIRST).unwrap();
    bytes[250] ^= 1;
    storage.set_bytes(FIRST, bytes);
    let report = repair(Arc::new(storage.clone()), small(), true).unwrap();
    assert!(!report.lost[0].ends_log);
    storage
}

#[test]
fn crash_while_a_repaired_segment_is_trimmed_leaves_a_log_that_opens() {
    let storage = repaired();
    let trimmed = |storage: &SimStorage| {
        let (mut journal, ..) = recover(storage, small()).ok()?;
        journal.trim(Position(1)..=Position(u64::MAX));
        journal.step(Step::Keep);
        Some(())
    };
    let whole = copy(&storage);
    trimmed(&whole).unwrap();
    assert!(
        whole.files().iter().all(|name| name != FIRST && !name.ends_with(".damage")),
        "{:?}",
        whole.files()
    );
    for at in 0..=whole.operations().len() {
        let storage = copy(&storage);
        storage.die_at(at);
        trimmed(&storage);
        for (choice, disk) in outcomes(&storage, 16) {
            let (_, records, _) = recover(&disk, small())
                .unwrap_or_else(|error| panic!("crash {at}, choice {choice}: {error}"));
            assert_eq!(records.len(), 24);
        }
    }
}

#[test]
fn repair_cut_short_by_a_crash_can_be_repeated() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    (0..3).for_each(|_| append(&mut journal, 4, true));
    snapshot(&mut journal, &(1..=8).map(record).collect::<Vec<_>>()).unwrap();
    (0..8).for_each(|_| append(&mut journal, 4, true));
    Box::new(journal).close();
    let storage = copy(&storage);
    // One damage that the snapshot covers, one behind it.
    let names: Vec<_> = storage.files().into_iter().filter(|name| name.ends_with(".seg")).collect();
    for name in [&names[0], &names[names.len() - 3]] {
        let mut bytes = storage.bytes(name).unwrap();
        bytes[300] ^= 1;
        storage.set_bytes(name, bytes);
    }
    let whole = copy(&storage);
    let report = repair(Arc::new(whole.clone()), small(), true).unwrap();
    assert_eq!(report.lost.iter().map(|lost| lost.ends_log).collect::<Vec<_>>(), [false, true]);
    let (_, kept, _) = recover(&copy(&whole), small()).unwrap();
    for (choice, disk) in outcomes(&whole, 16) {
        let (_, records, _) =
            recover(&disk, small()).unwrap_or_else(|error| panic!("a finished repair, {choice}: {error}"));
        assert_eq!(records, kept, "a finished repair is durable");
    }
    for at in 0..=whole.operations().len() {
        let storage = copy(&storage);
        storage.die_at(at);
        let _ = repair(Arc::new(storage.clone()), small(), true);
        for (choice, disk) in outcomes(&storage, 16) {
            let wrong = format!("crash {at}, choice {choice}");
            repair(Arc::new(disk.clone()), small(), true).unwrap_or_else(|error| panic!("{wrong}: {error}"));
            let (_, records, _) = recover(&disk, small()).unwrap_or_else(|error| panic!("{wrong}: {error}"));
            assert_eq!(records, kept, "{wrong}");
        }
    }
}

#[test]
fn successor_of_a_cut_segment_stays_as_long_as_that() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    append(&mut journal, 2, true);
    append(&mut journal, 2, false);
    drop(journal);
    // The first segment is cut behind position 2; the second begins with 3.
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    (0..6).for_each(|_| append(&mut journal, 4, true));
    let last = journal.next_position().0 - 1;
    for at in [last - 1, last] {
        snapshot(&mut journal, &(1..=at).map(record).collect::<Vec<_>>()).unwrap();
    }
    let before = journal.segments();
    assert!(before[1].last < Position(last - 1));
    journal.trim(before[1].first..=before[1].last);
    assert_eq!(journal.segments(), before, "its header says where the first ends");
    journal.trim(Position(1)..=before[1].last);
    journal.step(Step::Keep);
    assert_eq!(journal.segments(), before[2..]);
    drop(journal);
    let (_, records, _) = recover(&storage.crash(|_| true), small()).unwrap();
    assert_eq!(records.len() as u64, last);
}

#[test]
fn state_machine_that_panics_in_the_replay_is_not_waited_for() {
    let storage = SimStorage::new(4096);
    let (mut journal, _, _) = recover(&storage, small()).unwrap();
    (0..40).for_each(|_| append(&mut journal, 4, true));
    drop(journal);
    let (tell, told) = std::sync::mpsc::channel();
    let replay = std::thread::spawn(move || {
        // Dropped by the panic; without it the test would wait in vain.
        let _tell: std::sync::mpsc::Sender<()> = tell;
        let mut recovery = open(Arc::new(storage), small()).unwrap();
        recovery.replay(&mut |_| panic!("a planted one"))
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
    assert!(replay.join().is_err());
}

#[test]
fn callback_that_panics_ends_the_journal_instead_of_leaving_it_mute() {
    let recovery = open(Arc::new(SimStorage::new(4096)), small()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let journal = recovery.start(move |progress| match progress {
        Progress::Synced { .. } => panic!("a planted one"),
        progress => drop(tell.send(progress)),
    });
    let mut journal = journal.unwrap();
    let batch = common::batch(&journal, 1, 1);
    journal.append(batch, true);
    let failed = wait_failed(&told);
    assert!(format!("{failed:?}").contains("panicked"), "{failed:?}");
    assert_eq!(journal.in_flight(), 0);
}
