//! Power cuts at every operation of a scripted history, with every choice of what the disk kept: what was told as synced is
//! there, nothing is invented, and what is behind it is a prefix. The checker itself must catch planted bugs.

mod common;

use chaski_journal::sim::{Lies, SimStorage};
use chaski_journal::{Journal, Options, Position, Progress, Step, SteppedJournal};
use common::{append, batch, read, record, recover, snapshot};

/// Pages so small that a batch has several.
const PAGE: usize = 128;

/// Up to so many unsynced things every subset is tried; a fixed sample beyond.
const EXHAUSTIVE: usize = 12;
const SAMPLED: u64 = 96;

fn options() -> Options {
    Options { zero_ahead_bytes: 256, ..common::small() }
}

/// What happened before the power went.
#[derive(Clone, Debug, Default)]
struct History {
    /// Records appended.
    appended: u64,
    /// Records told as durable.
    synced: u64,
    /// Records that may have been trimmed.
    trimmed: u64,
}

#[derive(Copy, Clone, Debug)]
enum Act {
    /// So many records, synced or not.
    Append(u64, bool),
    /// Two batches handed over before the disk gets to either.
    AppendTwo,
    Quiet,
    Keep,
    Snapshot,
    Trim,
    CleanRestart,
    /// The process dies and the operating system lives on.
    Kill,
}

/// Segments, rotations, marks, snapshots, trims with recycling, restarts of both kinds.
const SCRIPT: &[Act] = &[
    Act::Append(1, true),
    Act::Append(3, false),
    Act::AppendTwo,
    Act::Quiet,
    Act::Append(4, true),
    Act::Append(5, true),
    Act::Keep,
    Act::Snapshot,
    Act::Append(2, false),
    Act::Kill,
    Act::Append(6, true),
    Act::Append(6, false),
    Act::Snapshot,
    Act::Trim,
    Act::Keep,
    Act::AppendTwo,
    Act::Append(7, true),
    Act::Quiet,
    Act::CleanRestart,
    Act::Append(9, true),
    Act::Snapshot,
    Act::Trim,
    Act::Keep,
    Act::Append(4, true),
    Act::Append(2, false),
];

struct Runner {
    storage: SimStorage,
    history: History,
    journal: Option<SteppedJournal>,
    told: common::Told,
}

impl Runner {
    /// None when the power went.
    fn start(storage: &SimStorage, history: History) -> Option<Runner> {
        let (journal, records, told) = recover(storage, options()).ok()?;
        let appended = records.len() as u64;
        let history = History { appended, synced: appended, ..history };
        Some(Runner { storage: storage.clone(), history, journal: Some(journal), told })
    }

    fn journal(&mut self) -> &mut SteppedJournal {
        self.journal.as_mut().expect("running")
    }

    fn act(&mut self, act: Act) -> Option<()> {
        let history = self.history.clone();
        match act {
            Act::Append(records, sync) => {
                self.history.appended += records;
                append(self.journal(), records, sync);
            }
            Act::AppendTwo => {
                self.history.appended += 2;
                for sync in [false, true] {
                    let batch = batch(self.journal(), 1, 1);
                    self.journal().append(batch, sync);
                }
                self.journal().step(Step::Write);
            }
            Act::Quiet => drop(self.journal().step(Step::Quiet)),
            Act::Keep => drop(self.journal().step(Step::Keep)),
            Act::Snapshot => {
                // A snapshot waits for its records: nobody else syncs them here.
                self.journal().step(Step::Quiet);
                self.listen()?;
                let records: Vec<_> = (1..=history.appended).map(record).collect();
                snapshot(self.journal(), &records).ok()?;
            }
            Act::Trim => {
                let before = self.journal().trimmable_before();
                self.history.trimmed = before.map_or(0, |before| before.0 - 1);
                self.journal().trim(Position(1)..=Position(u64::MAX));
            }
            Act::CleanRestart => {
                Box::new(self.journal.take().expect("running")).close();
                self.listen()?;
                *self = Runner::start(&self.storage, self.history.clone())?;
            }
            Act::Kill => {
                self.journal = None;
                let kept = self.history.clone();
                *self = Runner::start(&self.storage, kept)?;
            }
        }
        self.listen()
    }

    /// Takes in what was told.
    fn listen(&mut self) -> Option<()> {
        for progress in self.told.lock().unwrap().drain(..) {
            match progress {
                Progress::Synced { through, .. } => self.history.synced = through.0,
                Progress::Failed(_) => return None,
                _ => {}
            }
        }
        Some(())
    }
}

/// Runs the script until it ends or the power goes.
fn run(storage: &SimStorage) -> History {
    let Some(mut runner) = Runner::start(storage, History::default()) else { return History::default() };
    for act in SCRIPT {
        let before = runner.history.clone();
        if runner.act(*act).is_none() {
            // A restart that the power cut short forgets nothing that was synced before.
            runner.history.synced = runner.history.synced.max(before.synced);
            runner.history.appended = runner.history.appended.max(before.appended);
            break;
        }
    }
    runner.journal = None;
    runner.history
}

#[test]
fn script_reaches_rotation_snapshots_recycling_and_holes() {
    let storage = SimStorage::new(PAGE);
    let history = run(&storage);
    let appended: u64 = SCRIPT
        .iter()
        .map(|act| match act {
            Act::Append(records, _) => *records,
            Act::AppendTwo => 2,
            _ => 0,
        })
        .sum();
    assert_eq!(history.appended, appended, "it ran to its end");
    assert!(history.synced < appended, "it ends with something to lose");
    assert!(history.trimmed > 10, "{history:?}");
    let names = storage.files();
    let count = |kind: &str| names.iter().filter(|name| name.ends_with(kind)).count();
    assert_eq!(count(".snapshot"), 2, "{names:?}");
    assert!(!names.contains(&"00000000000000000001.seg".to_owned()), "the first is trimmed: {names:?}");
    assert!(count(".seg") >= 3, "{names:?}");
    let most = |at| {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        run(&storage);
        storage.unsynced().len()
    };
    let choices: Vec<_> = (0..storage.operations().len()).map(most).collect();
    assert!(choices.iter().any(|count| (5..=EXHAUSTIVE).contains(count)), "{choices:?}");
}

/// A copy of a disk on which everything is durable.
fn copy(storage: &SimStorage) -> SimStorage {
    storage.crash(|_| true)
}

/// Each disk that a power cut may leave: all subsets of what was unsynced, or a sample.
fn outcomes(storage: &SimStorage, sampled: u64) -> impl Iterator<Item = (u64, SimStorage)> + '_ {
    let count = storage.unsynced().len();
    let exhaustive = count <= EXHAUSTIVE && 1 << count <= sampled.max(1 << EXHAUSTIVE);
    let choices = if exhaustive { 1 << count } else { sampled };
    (0..choices).map(move |choice| {
        let mut bits = match (exhaustive, choice) {
            (true, _) => choice,
            (false, 0) => 0,
            (false, 1) => u64::MAX,
            (false, _) => choice.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (choice << 7),
        };
        let disk = storage.crash(|_| {
            let keep = bits & 1 == 1;
            bits = bits.rotate_right(1);
            keep
        });
        (choice, disk)
    })
}

/// Recovers and compares; then appends, loses power again, and compares again.
fn check(disk: &SimStorage, history: &History) -> Result<u64, String> {
    let (mut journal, records, _) = recover(disk, options()).map_err(|error| error.to_string())?;
    let found = records.len() as u64;
    if found < history.synced {
        return Err(format!("lost: {} were synced, {found} are there", history.synced));
    }
    if found > history.appended {
        return Err(format!("invented: {} were appended, {found} are there", history.appended));
    }
    if let Some(position) = (1..=found).find(|position| records[*position as usize - 1] != record(*position))
    {
        return Err(format!("record {position} is another one"));
    }
    let kept = history.trimmed + 1..=found;
    for (position, body) in kept.clone().zip(read(&mut journal, kept)) {
        if body != Ok(record(position)) {
            return Err(format!("record {position} reads as {body:?}"));
        }
    }
    append(&mut journal, 3, true);
    drop(journal);
    let again = disk.crash(|_| false);
    let (_, records, _) = recover(&again, options()).map_err(|error| format!("after going on: {error}"))?;
    if records.len() as u64 != found + 3 {
        return Err(format!("after going on: {} records instead of {}", records.len(), found + 3));
    }
    Ok(found)
}

/// Every crash of the script with these lies; the first thing that is wrong.
fn crash_everywhere(lies: Lies) -> Result<usize, String> {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations();
    let mut checked = 0;
    for at in 0..=operations.len() {
        let storage = SimStorage::new(PAGE);
        storage.set_lies(lies);
        storage.die_at(at);
        let history = run(&storage);
        for (choice, disk) in outcomes(&storage, SAMPLED) {
            check(&disk, &history).map_err(|wrong| {
                format!("crash before operation {at} ({:?}), choice {choice}: {wrong}", operations.get(at))
            })?;
            checked += 1;
        }
    }
    Ok(checked)
}

#[test]
fn every_crash_keeps_what_was_synced_and_invents_nothing() {
    let checked = crash_everywhere(Lies::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(checked > 1000, "only {checked} crashes were tried");
}

#[test]
fn every_crash_during_recovery_keeps_what_was_synced() {
    let whole = SimStorage::new(PAGE);
    run(&whole);
    let operations = whole.operations().len();
    for at in (0..=operations).step_by(3) {
        let storage = SimStorage::new(PAGE);
        storage.die_at(at);
        let history = run(&storage);
        for pattern in [0, u64::MAX, 0x5555_5555_5555_5555] {
            let mut bits: u64 = pattern;
            let crashed = storage.crash(|_| {
                bits = bits.rotate_right(1);
                bits & 1 == 1
            });
            crash_recovery(&crashed, &history)
                .unwrap_or_else(|wrong| panic!("crash {at}, {pattern:x}: {wrong}"));
        }
    }
}

/// Crashes at each operation of one recovery.
fn crash_recovery(crashed: &SimStorage, history: &History) -> Result<(), String> {
    let whole = copy(crashed);
    drop(recover(&whole, options()).map_err(|error| error.to_string())?);
    for at in 0..=whole.operations().len() {
        let storage = copy(crashed);
        storage.die_at(at);
        let mut history = history.clone();
        if let Ok((_, records, _)) = recover(&storage, options()) {
            // Once it has started, all that it found is durable.
            history.synced = records.len() as u64;
        }
        for (choice, disk) in outcomes(&storage, 16) {
            check(&disk, &history)
                .map_err(|wrong| format!("recovery's operation {at}, choice {choice}: {wrong}"))?;
        }
    }
    Ok(())
}

#[test]
fn checker_catches_a_file_sync_that_does_nothing() {
    let wrong = crash_everywhere(Lies { sync: true, sync_dir: false }).expect_err("a planted bug");
    assert!(wrong.contains("crash before operation"), "{wrong}");
}

#[test]
fn checker_catches_a_directory_sync_that_does_nothing() {
    let wrong = crash_everywhere(Lies { sync: false, sync_dir: true }).expect_err("a planted bug");
    assert!(wrong.contains("lost"), "{wrong}");
}
