//! What keeps the journal short: snapshots, relocation and trimming. It decides when; the driver does it between batches, and
//! nothing here reads the disk on the driver's task.

use std::sync::Arc;

use bytes::Bytes;
use chaski_broker::{Broker, Millis, Position};
use chaski_journal::{Journal, SegmentInfo, SnapshotInfo};
use tokio::sync::mpsc;

use crate::shard::{Input, JournalInfo, Shared};
use crate::trimming::Trimming;

/// Segments are looked at this often.
const LOOK_EVERY_MS: u64 = 1000;

/// Bodies moved in one command (SEMANTICS, The journal).
const RELOCATE_BODIES: usize = 256;

/// How far a snapshot's thread stands back behind those that serve clients.
const SNAPSHOT_NICE: i32 = 10;

/// A segment with less than this share of live bytes is emptied.
const RELOCATE_BELOW_PERCENT: u64 = 25;

/// The keeper.
pub(crate) struct Upkeep {
    input: mpsc::WeakSender<Input>,
    next_look: Millis,
    snapshot_running: bool,
    /// The segment that is being emptied.
    relocating: Option<SegmentInfo>,
    trimming: Trimming,
}

impl Upkeep {
    /// Snapshots and relocated bodies come back through `input`. `started_at`: where the log stands.
    pub(crate) fn new(input: mpsc::WeakSender<Input>, started_at: Position) -> Upkeep {
        Upkeep {
            input,
            next_look: Millis(0),
            snapshot_running: false,
            relocating: None,
            trimming: Trimming::new(started_at),
        }
    }

    /// One look; cheap when nothing is due. `synced`: what is durable.
    pub(crate) fn look(
        &mut self,
        now: Millis,
        synced: Position,
        broker: &Broker,
        journal: &mut dyn Journal,
        shared: &Arc<Shared>,
    ) {
        if now < self.next_look {
            return;
        }
        self.next_look = now.after(LOOK_EVERY_MS);
        self.publish_info(journal, shared);
        if journal.snapshot_due() && !self.snapshot_running {
            self.begin_snapshot(now, broker, journal);
        }
        self.trim(synced, broker, journal, shared);
    }

    fn publish_info(&self, journal: &dyn Journal, shared: &Shared) {
        let stats = journal.stats();
        let info = JournalInfo {
            bytes: stats.bytes,
            segments: stats.segments,
            snapshot_bytes: stats.last_snapshot_bytes,
            free_bytes: journal.room().free_bytes,
        };
        *shared.journal.lock().expect("nobody panics with it") = info;
    }

    fn begin_snapshot(&mut self, now: Millis, broker: &Broker, journal: &mut dyn Journal) {
        let (at, snapshot) = (broker.position(), broker.snapshot());
        let mut writer = journal.begin_snapshot(chaski_journal::Position(at.0), now.0);
        let input = self.input.clone();
        self.snapshot_running = true;
        let write = move || {
            // On Linux niceness is a thread's own. Where it can't be set, publishes notice the snapshot a little more.
            let _ = rustix::process::nice(SNAPSHOT_NICE);
            let mut outcome = Ok(());
            for chunk in snapshot {
                outcome = writer.write_chunk(&chunk).map_err(|error| error.to_string());
                if outcome.is_err() {
                    break;
                }
            }
            let outcome = outcome.and_then(|()| writer.finish().map_err(|error| error.to_string()));
            if let Some(input) = input.upgrade() {
                let _ = input.blocking_send(Input::Snapshotted(outcome));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("chaski-snapshot".into()).spawn(write) {
            tracing::warn!(%error, "no thread for a snapshot; it is tried again");
            self.snapshot_running = false;
        }
    }

    /// A snapshot ended.
    pub(crate) fn snapshotted(&mut self, outcome: Result<SnapshotInfo, String>) {
        self.snapshot_running = false;
        match outcome {
            Ok(info) => tracing::info!(bytes = info.bytes, "snapshot written"),
            Err(error) => tracing::warn!(%error, "snapshot not written; it is tried again"),
        }
    }

    /// Bodies of the segment that is being emptied were written again, at `position` or later.
    pub(crate) fn relocated(&mut self, position: Position) {
        if let Some(segment) = self.relocating.take() {
            // The records come after `position`; one command's worth of room makes the comparison safe.
            let after = Position(position.0 + RELOCATE_BODIES as u64);
            self.trimming.relocated(segment.first.0, after);
        }
        self.next_look = Millis(0);
    }

    /// Lets go of segments without live bodies, and begins to empty one that has few.
    fn trim(&mut self, synced: Position, broker: &Broker, journal: &mut dyn Journal, shared: &Arc<Shared>) {
        let Some(before) = journal.trimmable_before() else { return };
        for segment in journal.segments() {
            if !segment.sealed || segment.last.0 >= before.0 {
                continue;
            }
            let first = segment.first.0;
            let range = Position(first)..=Position(segment.last.0);
            let live = broker.live_bytes(range.clone());
            if live == 0 {
                if self.trimming.may_go(first, broker.position(), synced, Position(before.0)) {
                    journal.trim(segment.first..=segment.last);
                }
            } else if live * 100 < segment.bytes * RELOCATE_BELOW_PERCENT && self.relocating.is_none() {
                let positions = broker.live_positions(range, RELOCATE_BODIES);
                self.relocating = Some(segment);
                self.relocate(positions, shared);
            }
        }
    }

    /// Reads bodies on the reader threads; they come back as an input.
    fn relocate(&self, positions: Vec<Position>, shared: &Arc<Shared>) {
        let input = self.input.clone();
        let wanted = positions.iter().map(|position| chaski_journal::Position(position.0)).collect();
        shared.reader.read(wanted, move |records| {
            let body = |record: Bytes| {
                let range = chaski_broker::body_of(&record).ok().flatten()?;
                Some(record.slice(range))
            };
            let bodies = records
                .into_iter()
                .filter_map(|(position, record)| Some((Position(position.0), body(record.ok()?)?)))
                .collect();
            if let Some(input) = input.upgrade() {
                let _ = input.blocking_send(Input::Relocate(bodies));
            }
        });
    }
}
