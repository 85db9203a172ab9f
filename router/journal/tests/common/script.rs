//! A scripted history of a journal that a fault may cut short anywhere, and the check of what is left of it.

use std::collections::BTreeSet;

use chaski_journal::sim::SimStorage;
use chaski_journal::{Journal, Options, Position, Progress, Step, SteppedJournal};

use super::{Told, append, batch, read, record, recover, small, snapshot};

/// Pages so small that a batch has several.
pub(crate) const PAGE: usize = 128;

/// Up to so many unsynced things every subset is tried; a fixed sample beyond.
pub(crate) const EXHAUSTIVE: usize = 12;
pub(crate) const SAMPLED: u64 = 96;

pub(crate) fn options() -> Options {
    Options { zero_ahead_bytes: 256, ..small() }
}

/// What happened before the power went.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Records appended.
    pub(crate) appended: u64,
    /// Records told as written.
    pub(crate) written: u64,
    /// Records told as durable.
    pub(crate) synced: u64,
    /// Where each batch ends.
    pub(crate) ends: BTreeSet<u64>,
    /// Records that may have been trimmed.
    pub(crate) trimmed: u64,
}

#[derive(Copy, Clone, Debug)]
pub(crate) enum Act {
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
pub(crate) const SCRIPT: &[Act] = &[
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

pub(crate) struct Runner {
    pub(crate) storage: SimStorage,
    pub(crate) history: History,
    pub(crate) journal: Option<SteppedJournal>,
    pub(crate) told: Told,
}

impl Runner {
    /// None when the power went.
    pub(crate) fn start(storage: &SimStorage, history: History) -> Option<Runner> {
        let (journal, records, told) = recover(storage, options()).ok()?;
        let appended = records.len() as u64;
        let history = History { appended, written: appended, synced: appended, ..history };
        Some(Runner { storage: storage.clone(), history, journal: Some(journal), told })
    }

    fn journal(&mut self) -> &mut SteppedJournal {
        self.journal.as_mut().expect("running")
    }

    pub(crate) fn act(&mut self, act: Act) -> Option<()> {
        let history = self.history.clone();
        match act {
            Act::Append(records, sync) => {
                self.history.appended += records;
                self.history.ends.insert(self.history.appended);
                append(self.journal(), records, sync);
            }
            Act::AppendTwo => {
                self.history.appended += 2;
                self.history.ends.extend([self.history.appended - 1, self.history.appended]);
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
    pub(crate) fn listen(&mut self) -> Option<()> {
        for progress in self.told.lock().unwrap().drain(..) {
            match progress {
                Progress::Written { through } => self.history.written = through.0,
                Progress::Synced { through, .. } => {
                    self.history.synced = through.0;
                    self.history.written = self.history.written.max(through.0);
                }
                Progress::Failed(_) => return None,
                _ => {}
            }
        }
        Some(())
    }
}

/// Runs the script until it ends or the power goes.
pub(crate) fn run(storage: &SimStorage) -> History {
    let Some(mut runner) = Runner::start(storage, History::default()) else { return History::default() };
    for act in SCRIPT {
        let before = runner.history.clone();
        if runner.act(*act).is_none() {
            // A restart that the power cut short forgets nothing that was synced before.
            runner.history.synced = runner.history.synced.max(before.synced);
            runner.history.written = runner.history.written.max(before.written);
            runner.history.appended = runner.history.appended.max(before.appended);
            runner.history.ends.extend(before.ends);
            break;
        }
    }
    runner.journal = None;
    runner.history
}

/// A copy of a disk on which everything is durable.
pub(crate) fn copy(storage: &SimStorage) -> SimStorage {
    storage.crash(|_| true)
}

/// Each disk that a power cut may leave: all subsets of what was unsynced, or a sample.
pub(crate) fn outcomes(storage: &SimStorage, sampled: u64) -> impl Iterator<Item = (u64, SimStorage)> + '_ {
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
pub(crate) fn check(disk: &SimStorage, history: &History) -> Result<u64, String> {
    let (mut journal, records, _) = recover(disk, options()).map_err(|error| error.to_string())?;
    let found = records.len() as u64;
    if found < history.synced {
        return Err(format!("lost: {} were synced, {found} are there", history.synced));
    }
    if found > history.appended {
        return Err(format!("invented: {} were appended, {found} are there", history.appended));
    }
    if found > 0 && !history.ends.contains(&found) {
        return Err(format!("split: a batch was applied in part, up to record {found}"));
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
