//! The segments in memory: where each position lies. Read by reader threads, changed by the log's writer and by trimming.

use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

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

/// All segments, oldest first: numbers and first positions both rise.
#[derive(Default)]
pub(crate) struct Table(RwLock<Vec<Arc<Segment>>>);

impl Table {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Arc<Segment>>> {
        self.0.read().expect("nothing panics with the table")
    }

    /// Adds a segment behind the others.
    pub(crate) fn add(&self, segment: Arc<Segment>) {
        let mut table = self.0.write().expect("nothing panics with the table");
        assert!(
            table.last().is_none_or(|last| last.number < segment.number),
            "segments come in order, or positions would be looked for in the wrong one"
        );
        table.push(segment);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.read().clone()
    }

    /// The segment that is being written.
    pub(crate) fn last(&self) -> Option<Arc<Segment>> {
        self.read().last().cloned()
    }

    /// Those that lie in a range of positions whole, oldest first, and the one before the first of them.
    pub(crate) fn within(&self, first: u64, last: u64) -> (Option<Arc<Segment>>, Vec<Arc<Segment>>) {
        let table = self.read();
        let from = table.partition_point(|segment| segment.first_position < first);
        let to = table.partition_point(|segment| segment.first_position <= last.saturating_add(1));
        let before = from.checked_sub(1).map(|before| Arc::clone(&table[before]));
        let inside = table[from..to.max(from)].iter().filter(|segment| segment.info().last.0 <= last);
        (before, inside.cloned().collect())
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Segment>> {
        let mut table = self.0.write().expect("nothing panics with the table");
        let at = table.binary_search_by_key(&number, |segment| segment.number).ok()?;
        Some(table.remove(at))
    }

    /// The segment that holds a position, if any does.
    pub(crate) fn find(&self, position: u64) -> Option<Arc<Segment>> {
        let table = self.read();
        // An empty segment has the first position of its successor, so the last that fits is the one.
        let behind = table.partition_point(|segment| segment.first_position <= position);
        let segment = &table[behind.checked_sub(1)?];
        (position <= segment.info().last.0).then(|| Arc::clone(segment))
    }
}
