//! The explicit operator command for a damaged journal: says what is lost, and goes on without it when told to. Damage that
//! the newest snapshot covers costs the records of the damaged batches only; damage behind it cuts the log there. Nothing is
//! deleted: what goes out of use is set aside below `lost/`.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::damage::{self, DamagedRange};
use crate::error::OpenError;
use crate::format::SegmentHeader;
use crate::journal::{Options, Position};
use crate::names;
use crate::open::{Recovery, failed, find};
use crate::replay::{Unverified, read_whole};
use crate::scan::{End, Fault, Scanned, scan};
use crate::snapshot_file::SnapshotHeader;
use crate::storage::Storage;

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    /// The segment.
    pub segment: u64,
    /// Where the damage begins in it.
    pub offset: u64,
    /// The records that are lost; none when only a header or footer is damaged.
    pub positions: Option<RangeInclusive<Position>>,
    /// What is wrong.
    pub what: String,
    /// The log ends before it: everything from there on is lost. Otherwise the newest snapshot covers it, and only reads of
    /// these records fail.
    pub ends_log: bool,
}

/// What is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Each damage, oldest first.
    pub lost: Vec<LostRange>,
    /// Names of the files that are (or would be) copied or moved below `lost/`.
    pub set_aside: Vec<String>,
    /// Whether it was carried out.
    pub applied: bool,
}

impl RepairReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.set_aside.is_empty()
    }

    /// How many records are lost, as far as headers tell.
    pub fn records_lost(&self) -> u64 {
        let count = |positions: &RangeInclusive<Position>| positions.end().0 + 1 - positions.start().0;
        self.lost.iter().filter_map(|lost| lost.positions.as_ref()).map(count).sum()
    }
}

/// Where the log is cut.
struct Cut {
    /// The last segment that stays, and how it ends.
    keeps: Option<(u64, Kept)>,
    next_batch: u64,
    next_position: u64,
}

enum Kept {
    Sealed,
    /// Ends behind the last kept batch, at this offset.
    At(u64),
}

struct Plan {
    report: RepairReport,
    snapshot: Option<SnapshotHeader>,
    damage: BTreeMap<u64, Vec<DamagedRange>>,
    /// Segments moved to `lost/`; oldest first.
    moved: Vec<u64>,
    /// Segments copied there before they are cut.
    copied: Vec<u64>,
    cut: Option<Cut>,
    next_batch: u64,
    next_position: u64,
    /// The last segment that is in order so far.
    kept: Option<(u64, Kept)>,
    synced: u64,
}

/// Reports what is lost in a damaged directory; with `apply`, makes it one that opens. A sound directory is left as it is.
pub fn repair(storage: Arc<dyn Storage>, options: Options, apply: bool) -> Result<RepairReport, OpenError> {
    let mut headless = BTreeMap::new();
    let recovery = find(Arc::clone(&storage), options, &mut |error| match error {
        OpenError::Corrupt(corruption) => {
            headless.insert(corruption.segment, corruption.what);
            Ok(())
        }
        error => Err(error),
    })?;
    let plan = Plan::make(&recovery, headless)?;
    let Plan { mut report, .. } = if apply && !plan.report.is_sound() {
        plan.carry_out(&recovery).map_err(failed(&*storage, "cannot repair", ""))?
    } else {
        plan
    };
    report.applied = apply && !report.is_sound();
    Ok(report)
}

impl Plan {
    fn make(recovery: &Recovery, mut headless: BTreeMap<u64, String>) -> Result<Plan, OpenError> {
        let snapshot = recovery.snapshot.as_ref().map(|snapshot| snapshot.header);
        let mut plan = Plan {
            report: RepairReport::default(),
            snapshot,
            damage: BTreeMap::new(),
            moved: Vec::new(),
            copied: Vec::new(),
            cut: None,
            next_batch: 1,
            next_position: 1,
            kept: None,
            synced: snapshot.map_or(0, |snapshot| snapshot.synced),
        };
        for error in recovery.damaged_snapshots() {
            if let OpenError::Corrupt(corruption) = error
                && let Some(name) = corruption.file.file_name().and_then(|name| name.to_str())
            {
                plan.report.set_aside.push(name.to_owned());
            }
        }
        for (index, segment) in recovery.segments.iter().enumerate() {
            let number = segment.header.number;
            let behind = headless.split_off(&number);
            for (number, what) in std::mem::replace(&mut headless, behind) {
                plan.without_header(number, what, Some(&segment.header));
            }
            let name = names::segment(number);
            let bytes =
                read_whole(&*segment.file).map_err(failed(&*recovery.storage, "cannot read", &name))?;
            plan.segment(segment, &bytes, recovery.segments.get(index + 1).map(|next| &next.header));
        }
        for (number, what) in headless {
            plan.without_header(number, what, None);
        }
        plan.end();
        let copied = plan.copied.iter().chain(&plan.moved).map(|number| names::segment(*number));
        plan.report.set_aside.extend(copied);
        Ok(plan)
    }

    /// The last position in the snapshot.
    fn covered(&self) -> u64 {
        self.snapshot.map_or(0, |snapshot| snapshot.position)
    }

    fn lose(&mut self, segment: u64, offset: u64, last: Option<u64>, what: &str, ends_log: bool) {
        let positions = last.filter(|last| *last >= self.next_position);
        let positions = positions.map(|last| Position(self.next_position)..=Position(last));
        self.report.lost.push(LostRange { segment, offset, positions, what: what.to_owned(), ends_log });
    }

    fn cut_here(&mut self) {
        self.cut = Some(Cut {
            keeps: self.kept.take(),
            next_batch: self.next_batch,
            next_position: self.next_position,
        });
    }

    /// A segment of which nothing can be used.
    fn without_header(&mut self, number: u64, what: String, next: Option<&SegmentHeader>) {
        let last = next.map(|next| next.first_position - 1);
        self.moved.push(number);
        if self.cut.is_some() {
            return;
        }
        let ends_log = last.is_none_or(|last| last > self.covered());
        self.lose(number, 0, last, &what, ends_log);
        if ends_log {
            self.cut_here();
        }
    }

    fn segment(&mut self, segment: &Unverified, bytes: &[u8], next: Option<&SegmentHeader>) {
        let Unverified { header, .. } = segment;
        let number = header.number;
        if self.cut.is_some() {
            let last = scan(bytes, header, segment.end, &segment.damage).last_position;
            // The cut's own entry grows by what comes behind it.
            if let Some(lost) = self.report.lost.last_mut().filter(|lost| lost.ends_log) {
                let first =
                    lost.positions.as_ref().map_or(Position(self.next_position), |known| *known.start());
                lost.positions = (Position(last) >= first).then_some(first..=Position(last));
            }
            self.moved.push(number);
            return;
        }
        let gap = header.first_position > self.covered().max(self.next_position - 1) + 1;
        if gap || header.first_position < self.next_position || header.first_batch < self.next_batch {
            let last = scan(bytes, header, segment.end, &segment.damage).last_position;
            self.lose(number, 0, Some(last), "the segments before this one are missing", true);
            self.moved.push(number);
            self.cut_here();
            return;
        }
        self.next_batch = header.first_batch;
        self.next_position = header.first_position;
        let mut given_up = segment.damage.clone();
        loop {
            let scanned = scan(bytes, header, segment.end, &given_up);
            self.next_batch = scanned.last_batch + 1;
            self.next_position = scanned.last_position + 1;
            if next.is_none() {
                self.synced = self.synced.max(scanned.synced);
            }
            let torn = |fault: &Fault| next.is_none() && fault.batch > self.synced;
            let Some(fault) = scanned.fault.as_ref().filter(|fault| !torn(fault)) else {
                let kept = if scanned.sealed { Kept::Sealed } else { Kept::At(scanned.end) };
                self.kept = Some((number, kept));
                break;
            };
            let Some(range) = self.can_give_up(segment, fault, &scanned, bytes, next) else {
                self.kept = Some((number, Kept::At(scanned.end)));
                let last = fault.last_position.max(Some(fault.seen_position));
                self.lose(number, fault.offset, last, fault.what, true);
                self.copied.push(number);
                self.cut_here();
                break;
            };
            self.lose(number, fault.offset, Some(range.last_position), fault.what, false);
            given_up.push(range);
        }
        if given_up.len() > segment.damage.len() {
            self.damage.insert(number, given_up);
        }
    }

    /// The bytes to be skipped, if the snapshot covers all records that were there.
    fn can_give_up(
        &self,
        segment: &Unverified,
        fault: &Fault,
        scanned: &Scanned,
        bytes: &[u8],
        next: Option<&SegmentHeader>,
    ) -> Option<DamagedRange> {
        let footer = segment.end == End::Sealed(Some(scanned.last_batch));
        let (to, next_batch, next_position) = match (fault.next, next) {
            _ if footer => (bytes.len() as u64, fault.batch, fault.first_position),
            (Some(landmark), _) => (landmark.offset, landmark.batch, landmark.first_position),
            (None, Some(next)) => (bytes.len() as u64, next.first_batch, next.first_position),
            (None, None) => return None,
        };
        let range = DamagedRange {
            from: fault.batch_offset,
            to,
            last_batch: next_batch - 1,
            first_position: fault.first_position,
            last_position: next_position - 1,
        };
        (footer || range.last_position <= self.covered()).then_some(range)
    }

    /// A log that ends before the snapshot goes on behind it.
    fn end(&mut self) {
        if self.cut.is_some() || self.next_position > self.covered() {
            return;
        }
        let number = self.kept.as_ref().map_or(0, |(number, _)| *number);
        let what = "the newest snapshot covers records that the log no longer has";
        self.lose(number, 0, Some(self.covered()), what, true);
        self.cut_here();
    }

    fn carry_out(self, recovery: &Recovery) -> io::Result<Plan> {
        let storage = &*recovery.storage;
        for (segment, ranges) in &self.damage {
            damage::write(storage, *segment, ranges)?;
        }
        for number in &self.copied {
            let file = storage.open(&names::segment(*number))?;
            let copy = storage.create(&aside(storage, &names::segment(*number)))?;
            copy.write_at(0, &read_whole(&*file)?)?;
            copy.sync()?;
        }
        storage.sync_dir()?;
        let segments: Vec<_> = self.moved.iter().map(|number| names::segment(*number)).collect();
        let kept_whole = |name: &&String| !segments.contains(name) && !self.is_copied(name);
        for name in self.report.set_aside.iter().filter(kept_whole) {
            storage.rename(name, &aside(storage, name))?;
        }
        storage.sync_dir()?;
        // The newest first: until the last of them is gone the log is as damaged as before, and a repair cut short by a
        // crash can be repeated.
        for name in segments.iter().rev() {
            storage.rename(name, &aside(storage, name))?;
            storage.sync_dir()?;
        }
        if let Some(cut) = &self.cut {
            self.go_on_behind(storage, cut)?;
        }
        Ok(self)
    }

    fn is_copied(&self, name: &str) -> bool {
        self.copied.iter().any(|number| names::segment(*number) == name)
    }

    /// Writes the segment that says where the log was cut, and where it goes on.
    fn go_on_behind(&self, storage: &dyn Storage, cut: &Cut) -> io::Result<()> {
        let highest = self.moved.iter().copied().max().unwrap_or(0);
        let kept = cut.keeps.as_ref().map_or(0, |(number, _)| *number);
        // Numbers and batches that were in use are not used again.
        let snapshot = self.snapshot.map_or(0, |snapshot| snapshot.batch.max(snapshot.synced));
        let header = SegmentHeader {
            number: highest.max(kept) + 1,
            salt: storage.random(),
            first_position: cut.next_position.max(self.covered() + 1),
            first_batch: cut.next_batch.max(snapshot + 1).max(self.synced + 1),
            previous: kept,
            previous_batch: cut.next_batch - 1,
            previous_sealed: matches!(cut.keeps, None | Some((_, Kept::Sealed))),
            synced: cut.next_batch - 1,
        };
        let name = names::segment(header.number);
        let unfinished = names::unfinished(&name);
        let file = storage.create(&unfinished)?;
        file.write_at(0, &header.encode())?;
        file.sync()?;
        storage.rename(&unfinished, &name)?;
        storage.sync_dir()?;
        if let Some((number, Kept::At(end))) = cut.keeps {
            storage.open(&names::segment(number))?.truncate(end)?;
        }
        Ok(())
    }
}

/// A name below `lost/` that is free.
fn aside(storage: &dyn Storage, name: &str) -> String {
    let mut free = format!("lost/{name}");
    let mut number = 1;
    while storage.open(&free).is_ok() {
        number += 1;
        free = format!("lost/{name}.{number}");
    }
    free
}
