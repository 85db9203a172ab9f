//! Segments allocated ahead, and the disk's room. A trimmed segment becomes a spare when nobody reads it any more, and is
//! unlinked otherwise. All of it happens away from the thread that appends.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::core::Core;
use crate::journal::{Failure, Position, Progress, Room, RoomInfo};
use crate::names;
use crate::segment::Segment;
use crate::storage::{Storage, StorageFile};

/// A file that a segment can be made of.
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) file: Arc<dyn StorageFile>,
    pub(crate) bytes: u64,
    /// Its blocks were written before, so that fdatasync needs no new extents.
    pub(crate) recycled: bool,
}

#[derive(Default)]
struct State {
    ready: Vec<Spare>,
    next_name: u64,
    trimmed: Vec<Arc<Segment>>,
    info: RoomInfo,
    stop: bool,
    /// Something is to be done before the next look.
    asked: bool,
}

/// The spares, shared by the log's writer (takes them) and the keeper (makes them).
pub(crate) struct Spares {
    state: Mutex<State>,
    moved: Condvar,
}

impl Spares {
    /// Takes over the spares found in the directory; new ones are numbered from `next_name`.
    pub(crate) fn new(ready: Vec<Spare>, next_name: u64) -> Spares {
        Spares { state: Mutex::new(State { ready, next_name, ..State::default() }), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics with the spares")
    }

    /// A file of at least `bytes`. Without a spare one is allocated here, so that a large batch finds its place too; no
    /// room is [`io::ErrorKind::StorageFull`].
    pub(crate) fn take(&self, storage: &dyn Storage, bytes: u64) -> io::Result<Spare> {
        let spare = self.lock().ready.pop();
        let spare = match spare {
            Some(spare) => spare,
            None => self.make(storage, bytes)?,
        };
        if spare.bytes < bytes {
            if let Err(error) = spare.file.allocate(bytes) {
                self.lock().ready.push(spare);
                return Err(error);
            }
            return Ok(Spare { bytes, recycled: false, ..spare });
        }
        Ok(spare)
    }

    /// A new file, allocated.
    fn make(&self, storage: &dyn Storage, bytes: u64) -> io::Result<Spare> {
        let name = self.fresh_name();
        let file = storage.create(&name)?;
        if let Err(error) = file.allocate(bytes) {
            // What was reserved so far is given back.
            let _ = storage.remove(&name);
            return Err(error);
        }
        Ok(Spare { name, file, bytes, recycled: false })
    }

    fn fresh_name(&self) -> String {
        let mut state = self.lock();
        state.next_name += 1;
        names::spare(state.next_name - 1)
    }

    fn add(&self, spare: Spare) {
        self.lock().ready.push(spare);
        self.moved.notify_all();
    }

    /// Hands trimmed segments to the keeper.
    pub(crate) fn trimmed(&self, segments: Vec<Arc<Segment>>) {
        self.lock().trimmed.extend(segments);
        self.ask();
    }

    /// The keeper has something to do.
    pub(crate) fn ask(&self) {
        self.lock().asked = true;
        self.moved.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.moved.notify_all();
    }

    /// Waits until the keeper may have found room, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let state = self.lock();
        if state.ready.is_empty() && !state.stop {
            let _ = self.moved.wait_timeout(state, at_most).expect("nothing panics with the spares");
        }
    }

    pub(crate) fn room(&self) -> RoomInfo {
        let state = self.lock();
        RoomInfo { allocated_bytes: state.ready.iter().map(|spare| spare.bytes).sum(), ..state.info }
    }
}

/// The keeper's loop, on a thread of its own, until stopped. `last`: what the first look found.
pub(crate) fn keep(core: &Core, mut last: Room) {
    loop {
        let mut state = core.spares.lock();
        if !state.asked && !state.stop {
            let every = core.options.look_at_disk;
            state = core.spares.moved.wait_timeout(state, every).expect("nothing panics with the spares").0;
        }
        state.asked = false;
        if state.stop {
            return;
        }
        drop(state);
        last = look(core, Some(last));
    }
}

/// One look: trimmed segments, missing spares, free space. Answers the room, told when it changed.
pub(crate) fn look(core: &Core, last: Option<Room>) -> Room {
    let trimmed = std::mem::take(&mut core.spares.lock().trimmed);
    let left = recycle(core, trimmed);
    if core.status().failure.is_some() {
        return last.unwrap_or_default();
    }
    if !left.is_empty() {
        // Before those that were trimmed meanwhile.
        core.spares.lock().trimmed.splice(..0, left);
    }
    let mut full = false;
    while core.spares.lock().ready.len() < core.options.spare_segments {
        match core.spares.make(&*core.storage, core.options.segment_bytes) {
            Ok(spare) => core.spares.add(spare),
            Err(_) => {
                full = core.spares.lock().ready.is_empty();
                break;
            }
        }
    }
    let free_bytes = core.storage.free_bytes().unwrap_or(0);
    let snapshot = core.status().snapshots.kept.last().map_or(0, |(_, bytes)| *bytes);
    let room = match free_bytes < core.options.low_disk_bytes.saturating_add(2 * snapshot) {
        _ if full => Room::Full,
        true => Room::Low,
        false => Room::Plenty,
    };
    core.spares.lock().info = RoomInfo { room, allocated_bytes: 0, free_bytes };
    if last.unwrap_or_default() != room {
        core.tell(Progress::Room(room));
    }
    room
}

/// Trimmed segments become spares where they can, and go otherwise: oldest first, since a segment that was cut must not
/// outlive its successor. Answers what could not be done.
fn recycle(core: &Core, trimmed: Vec<Arc<Segment>>) -> Vec<Arc<Segment>> {
    let mut left = trimmed.into_iter();
    while let Some(segment) = left.next() {
        if let Err(NotRecycled) = recycle_one(core, &segment) {
            return std::iter::once(segment).chain(left).collect();
        }
    }
    Vec::new()
}

/// Its name may be there still. It is tried again at the next look, if the log has not ended.
struct NotRecycled;

fn recycle_one(core: &Core, segment: &Arc<Segment>) -> Result<(), NotRecycled> {
    let storage = &*core.storage;
    let name = names::segment(segment.number);
    // With one owner left nobody reads it, and nobody can begin to: it is out of the table.
    let unread = Arc::strong_count(segment) == 1;
    let wanted = core.spares.lock().ready.len() < core.options.spare_segments;
    let fits = segment.capacity == core.options.segment_bytes;
    if unread && wanted && fits {
        let spare = core.spares.fresh_name();
        storage.rename(&name, &spare).map_err(|_| NotRecycled)?;
        // Before a byte of it changes the old name must be gone for good, or a crash could show the new bytes under it.
        if let Err(error) = storage.sync_dir() {
            core.fail(Failure::Io { what: "sync the directory".to_owned(), error: error.to_string() });
            return Err(NotRecycled);
        }
        let file = Arc::clone(&segment.file);
        core.spares.add(Spare { name: spare, file, bytes: segment.capacity, recycled: true });
    } else {
        storage.remove(&name).map_err(|_| NotRecycled)?;
    }
    if !segment.damage.is_empty() {
        // Last, since the segment can't be read without it. If it stays, the next start removes it.
        let _ = storage.remove(&names::damage(segment.number));
    }
    Ok(())
}

/// Removes sealed segments within `first..=last` from the log; those that must stay, stay.
pub(crate) fn trim(core: &Core, first: Position, last: Position) {
    let Some(before) = core.trimmable_before() else { return };
    let (kept, inside) = core.table.within(first.0, last.0);
    let mut gone = Vec::new();
    let mut predecessor_is_cut = kept.is_some_and(|segment| segment.cut);
    for segment in inside {
        let info = segment.info();
        // A cut segment's end stands in its successor's header.
        if info.sealed && info.last < before && !predecessor_is_cut {
            core.table.remove(segment.number);
            gone.push(segment);
            continue;
        }
        predecessor_is_cut = segment.cut;
    }
    if !gone.is_empty() {
        core.spares.trimmed(gone);
    }
}
