//! The segments in memory: where each position lies. Read by reader threads, changed by the log's writer and by trimming.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use crate::damage::DamagedRange;
use crate::format::{Index, IndexEntry, SEGMENT_HEADER, SegmentHeader};
use crate::journal::{Position, SegmentInfo};
use crate::storage::StorageFile;

/// One segment of the log.
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) first_position: u64,
    /// Bytes of the file: what an append may fill.
    pub(crate) capacity: u64,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) damage: Vec<DamagedRange>,
    /// It was cut: only its successor says where it ends.
    pub(crate) cut: bool,
    state: Mutex<State>,
}

/// What changes while it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) last_position: u64,
    /// Where the batches end.
    pub(crate) end: u64,
    /// Bytes of the footer behind them.
    pub(crate) footer: u64,
    pub(crate) sealed: bool,
}

impl Segment {
    /// A segment that holds nothing yet.
    pub(crate) fn fresh(header: &SegmentHeader, capacity: u64, file: Arc<dyn StorageFile>) -> Segment {
        let state = State {
            last_position: header.first_position - 1,
            end: SEGMENT_HEADER as u64,
            ..State::default()
        };
        Segment::new(header, capacity, file, state)
    }

    pub(crate) fn new(
        header: &SegmentHeader,
        capacity: u64,
        file: Arc<dyn StorageFile>,
        state: State,
    ) -> Segment {
        Segment {
            number: header.number,
            first_position: header.first_position,
            capacity,
            file,
            damage: Vec::new(),
            cut: false,
            state: Mutex::new(state),
        }
    }

    /// Looks at the changing part.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().expect("nothing panics with a segment"))
    }

    pub(crate) fn info(&self) -> SegmentInfo {
        self.with(|state| SegmentInfo {
            number: self.number,
            first: Position(self.first_position),
            last: Position(state.last_position),
            bytes: state.end + state.footer,
            sealed: state.sealed,
        })
    }

    /// The part of the file that surely holds a position: the entry to walk from and the end; None when it isn't here.
    pub(crate) fn locate(&self, position: u64) -> Option<(IndexEntry, u64)> {
        self.with(|state| {
            if position > state.last_position {
                return None;
            }
            let (entry, next) = state.index.around(position)?;
            Some((entry, next.unwrap_or(state.end)))
        })
    }

    pub(crate) fn is_given_up(&self, position: u64) -> bool {
        self.damage.iter().any(|range| (range.first_position..=range.last_position).contains(&position))
    }
}

/// All segments by number.
#[derive(Default)]
pub(crate) struct Table(RwLock<BTreeMap<u64, Arc<Segment>>>);

impl Table {
    pub(crate) fn add(&self, segment: Arc<Segment>) {
        self.0.write().expect("nothing panics with the table").insert(segment.number, segment);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.0.read().expect("nothing panics with the table").values().cloned().collect()
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Segment>> {
        self.0.write().expect("nothing panics with the table").remove(&number)
    }

    /// The segment that holds a position, if any does.
    pub(crate) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let table = self.0.read().expect("nothing panics with the table");
        // An empty segment has the first position of its successor, so the last that fits is the one.
        let mut fitting = table.values().rev().filter(|segment| segment.first_position <= position);
        let segment = fitting.next()?;
        (position <= segment.info().last.0).then(|| Arc::clone(segment))
    }
}
