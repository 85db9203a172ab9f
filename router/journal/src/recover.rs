//! Finishes recovery on disk, then starts the journal. A tail that was cut is never appended to again: what is whole behind
//! the last batch known to be durable is copied into a new segment, whose header says where the former one ends.

use std::io;
use std::sync::Arc;

use crate::core::{Core, Snapshots, Status};
use crate::error::OpenError;
use crate::format::{
    BATCH_HEADER, BatchHeader, Index, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, footer_bytes, u32_at,
};
use crate::journal::{Options, Position, Progress};
use crate::local::LocalJournal;
use crate::log::{Head, Log};
use crate::names;
use crate::open::{Found, Recovery, failed};
use crate::segment::{Segment, State};
use crate::spares::{Spare, Spares, look};
use crate::stepped::SteppedJournal;
use crate::storage::{Storage, no_room};

impl Recovery {
    /// Finishes recovery on disk and starts the threads. `progress` is called on them, and here once if the disk is low or
    /// full already: keep it short. Without a replay before, the log is verified here.
    pub fn start(
        self,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<LocalJournal, OpenError> {
        let storage = Arc::clone(&self.storage);
        let (core, log) = self.finish(Box::new(progress))?;
        LocalJournal::new(core, log).map_err(failed(&*storage, "cannot start a thread for", ""))
    }

    /// The same without threads: see [`SteppedJournal`].
    pub fn start_stepped(
        self,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<SteppedJournal, OpenError> {
        let (core, log) = self.finish(Box::new(progress))?;
        look(&core, None);
        Ok(SteppedJournal::new(core, log))
    }

    fn finish(
        mut self,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<(Arc<Core>, Log), OpenError> {
        if self.found.is_none() {
            self.replay(&mut |_| Ok(()))?;
        }
        let mut found = self.found.take().expect("replayed above");
        let storage = Arc::clone(&self.storage);
        let mut options = std::mem::take(&mut self.options);
        options.segment_bytes = options.segment_bytes.max(least_segment());
        let spares = self.whole_spares(&options);
        let tail = tail(&self, &mut found);
        let name = names::segment(tail.header.number);
        let sealed = found.last.as_ref().is_some_and(|last| last.scanned.sealed);
        if let Some(last) = self.segments.last().filter(|_| sealed) {
            // It may have been sealed by a process that was killed before it was synced.
            last.file.sync().map_err(failed(&*storage, "cannot sync", &name))?;
        }
        let spare = begin(&*storage, &spares, &options, &tail, &name).map_err(failed(
            &*storage,
            "cannot write",
            &name,
        ))?;
        self.clean(&tail, &mut found, sealed).map_err(failed(&*storage, "cannot clean up", ""))?;
        self.assemble(found, tail, spare, spares, options, progress)
    }

    /// The spares that are large enough. A crash while one was allocated may have left less: that is given back, so that a
    /// spare is room that surely exists.
    fn whole_spares(&mut self, options: &Options) -> Spares {
        let next_name = self.spares.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        let (whole, short): (Vec<_>, Vec<_>) = self
            .spares
            .drain(..)
            .map(|(_, spare)| spare)
            .partition(|spare| spare.bytes >= options.segment_bytes);
        self.leftovers.extend(short.into_iter().map(|spare| spare.name));
        Spares::new(whole, next_name)
    }

    /// Gives back what is no longer part of the log; the new segment is durable.
    fn clean(&mut self, tail: &Tail, found: &mut Found, sealed: bool) -> io::Result<()> {
        for name in &self.leftovers {
            self.storage.remove(name)?;
        }
        if let Some(last) = self.segments.last() {
            let number = last.header.number;
            if tail.header.previous != number {
                self.storage.remove(&names::segment(number))?;
                self.segments.pop();
                found.segments.pop();
            } else if !sealed {
                let kept = found.segments.last_mut().expect("one for each segment");
                kept.state.end = tail.kept_end;
                kept.state.last_position = tail.header.first_position - 1;
                kept.state.index.entries.retain(|entry| entry.position < tail.header.first_position);
                last.file.truncate(tail.kept_end)?;
            }
        }
        Ok(())
    }

    fn assemble(
        self,
        found: Found,
        tail: Tail,
        spare: Spare,
        spares: Spares,
        options: Options,
        progress: Box<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<(Arc<Core>, Log), OpenError> {
        let written = Position(found.next_position - 1);
        let mut kept = Vec::new();
        kept.extend(self.older);
        kept.extend(self.snapshot.as_ref().map(|snapshot| (snapshot.position(), snapshot.file_bytes())));
        let status = Status {
            written,
            written_batch: found.next_batch - 1,
            synced: written,
            synced_batch: found.next_batch - 1,
            snapshots: Snapshots { kept, bytes_before: found.bytes_since_snapshot, ..Snapshots::default() },
            ..Status::default()
        };
        let core = Arc::new(Core::new(self.storage, options, spares, status, progress, self.lock));
        // All but the last segment's successors are known; the last one's is the new segment.
        let mut cut: Vec<bool> =
            self.segments.iter().map(|segment| matches!(segment.end, crate::scan::End::After(_))).collect();
        if let Some(last) = cut.last_mut() {
            *last = !tail.header.previous_sealed;
        }
        for ((segment, found), cut) in self.segments.into_iter().zip(found.segments).zip(cut) {
            let mut kept = Segment::new(&segment.header, found.file_bytes, segment.file, found.state);
            kept.damage = segment.damage;
            kept.cut = cut;
            core.table.add(Arc::new(kept));
        }
        let state = State {
            index: tail.index,
            last_position: found.next_position - 1,
            end: tail.bytes.len() as u64,
            ..State::default()
        };
        let active = Arc::new(Segment::new(&tail.header, spare.bytes, spare.file, state));
        core.table.add(Arc::clone(&active));
        let head = Head {
            active,
            header: tail.header,
            offset: tail.bytes.len() as u64,
            next_batch: found.next_batch,
            next_position: found.next_position,
            now_ms: found.now_ms,
            records: found.next_position - tail.header.first_position,
            recycled: spare.recycled,
        };
        let log = Log::new(Arc::clone(&core), head);
        Ok((core, log))
    }
}

/// The new segment.
struct Tail {
    header: SegmentHeader,
    /// Header and copied batches.
    bytes: Vec<u8>,
    index: Index,
    /// Where the former segment ends.
    kept_end: u64,
}

/// Enough for a header, an empty batch and a footer.
fn least_segment() -> u64 {
    SEGMENT_HEADER as u64 + BATCH_HEADER as u64 + footer_bytes(1)
}

/// What the new segment begins with.
fn tail(recovery: &Recovery, found: &mut Found) -> Tail {
    let fresh = SegmentHeader {
        number: 1,
        salt: recovery.storage.random(),
        first_position: found.next_position,
        first_batch: found.next_batch,
        previous: 0,
        previous_batch: found.next_batch - 1,
        previous_sealed: true,
        synced: found.next_batch - 1,
    };
    let mut tail =
        Tail { header: fresh, bytes: vec![0; SEGMENT_HEADER], index: Index::default(), kept_end: 0 };
    if let (Some(segment), Some(verified)) = (recovery.segments.last(), &found.last) {
        let former = segment.header;
        let header = &mut tail.header;
        header.number = former.number + 1;
        header.previous = former.number;
        tail.kept_end = SEGMENT_HEADER as u64;
        if !verified.scanned.sealed {
            // What a snapshot calls durable may end before this segment begins.
            let synced = found.synced.clamp(former.first_batch - 1, verified.scanned.last_batch);
            header.previous_sealed = false;
            header.previous_batch = synced;
            header.first_batch = synced + 1;
            if synced < former.first_batch {
                header.previous = former.previous;
                header.previous_batch = former.previous_batch;
                header.previous_sealed = former.previous_sealed;
                header.first_position = former.first_position;
            }
            copy_tail(segment, verified, synced, &mut tail);
        }
    }
    let header = tail.header.encode();
    tail.bytes[..SEGMENT_HEADER].copy_from_slice(&header);
    tail
}

/// Copies the batches behind `synced` under the new segment's salt.
fn copy_tail(
    segment: &crate::replay::Unverified,
    verified: &crate::replay::Verified,
    synced: u64,
    tail: &mut Tail,
) {
    // An empty tail begins behind everything; a segment of which nothing stays begins where that one did.
    let mut first_position = None;
    for (header, records) in verified.batches(segment) {
        if header.number <= synced {
            tail.kept_end += (BATCH_HEADER + records.len()) as u64;
            continue;
        }
        first_position.get_or_insert(header.first);
        let copied = BatchHeader { salt: tail.header.salt, synced, ..header };
        tail.bytes.extend_from_slice(&copied.encode());
        let mut at = 0;
        for position in header.first..header.first + u64::from(header.count) {
            tail.index.note(position, (tail.bytes.len() + at) as u64);
            at += RECORD_HEADER + u32_at(records, at) as usize;
        }
        tail.bytes.extend_from_slice(records);
    }
    // Given-up ranges take room in the file too.
    tail.kept_end += segment.damage.iter().map(|range| range.to - range.from).sum::<u64>();
    if let Some(first) = first_position {
        tail.header.first_position = first;
    }
}

/// Writes the new segment under a spare's name and gives it its own. On a full disk it is as small as can be: the router
/// comes up, says so, and goes on when there is room.
fn begin(
    storage: &dyn Storage,
    spares: &Spares,
    options: &Options,
    tail: &Tail,
    name: &str,
) -> io::Result<Spare> {
    let used = tail.bytes.len() as u64;
    let least = used + footer_bytes(tail.index.entries.len());
    let spare = match spares.take(storage, options.segment_bytes.max(least)) {
        Err(error) if no_room(&error) => spares.take(storage, least)?,
        taken => taken?,
    };
    spare.file.write_at(0, &tail.bytes)?;
    spare.file.sync()?;
    storage.rename(&spare.name, name)?;
    storage.sync_dir()?;
    Ok(spare)
}
