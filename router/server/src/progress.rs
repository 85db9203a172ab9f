//! How far the journal is, told by its thread and read by the driver: a few numbers behind a lock, and a wake-up.

use std::sync::Mutex;
use std::time::Duration;

use chaski_broker::Position;
use chaski_journal::{Failure, Progress, Room};
use tokio::sync::Notify;

use crate::held::Marks;

/// What the journal told since it was last asked.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) marks: Marks,
    pub(crate) failed: Option<Failure>,
    pub(crate) room: Option<Room>,
    /// Bytes and duration of each fdatasync.
    pub(crate) syncs: Vec<(u64, Duration)>,
}

/// The meeting point.
#[derive(Debug)]
pub(crate) struct ProgressCell {
    told: Mutex<Told>,
    driver: Notify,
}

impl ProgressCell {
    /// `at`: what recovery found, all of it durable.
    pub(crate) fn new(at: Position) -> ProgressCell {
        let marks = Marks { written: at, synced: at };
        let told = Told { marks, failed: None, room: None, syncs: Vec::new() };
        ProgressCell { told: Mutex::new(told), driver: Notify::new() }
    }

    /// Called on the journal's threads.
    pub(crate) fn tell(&self, progress: Progress) {
        let mut told = self.told.lock().expect("nobody panics with it");
        match progress {
            Progress::Written { through } => told.marks.written = told.marks.written.max(Position(through.0)),
            Progress::Synced { through, bytes, fsync } => {
                let through = Position(through.0);
                told.marks.written = told.marks.written.max(through);
                told.marks.synced = told.marks.synced.max(through);
                // Bounded: nobody reads them while the driver is stuck.
                if told.syncs.len() < 1024 {
                    told.syncs.push((bytes, fsync));
                }
            }
            Progress::Failed(failure) => {
                told.failed.get_or_insert(failure);
            }
            Progress::Room(room) => told.room = Some(room),
        }
        drop(told);
        self.driver.notify_one();
    }

    /// Waits until something new was told.
    pub(crate) async fn changed(&self) {
        self.driver.notified().await;
    }

    /// How far the journal is, without taking anything.
    pub(crate) fn marks(&self) -> Marks {
        self.told.lock().expect("nobody panics with it").marks
    }

    /// What is new; `syncs` is handed over.
    pub(crate) fn take(&self, syncs: &mut Vec<(u64, Duration)>) -> (Marks, Option<Failure>, Option<Room>) {
        let mut told = self.told.lock().expect("nobody panics with it");
        syncs.append(&mut told.syncs);
        (told.marks, told.failed.take(), told.room.take())
    }
}
