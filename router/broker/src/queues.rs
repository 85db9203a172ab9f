//! Every queue of the shard, by number and by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::QueueId;
use crate::queue::Queue;

/// The built-in dead-letter queue: its number, and the name that commands use for it.
pub(crate) const CHASKI: QueueId = QueueId(0);
/// The name of the built-in dead-letter queue, as consumers attach to it.
pub(crate) const CHASKI_DLQ: &str = "chaski.dlq";
/// A number beyond this in a journal or snapshot is a lie.
pub(crate) const MAX_QUEUE_ID: u32 = 1 << 24;

/// The queues. Numbers are never used twice, so the table has holes.
#[derive(Default)]
pub(crate) struct Queues {
    slots: Vec<Option<Box<Queue>>>,
    names: BTreeMap<Arc<str>, QueueId>,
}

impl Queues {
    pub(crate) fn get(&self, id: QueueId) -> Option<&Queue> {
        self.slots.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn get_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.slots.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// A queue that is known to exist.
    pub(crate) fn queue(&self, id: QueueId) -> &Queue {
        self.get(id).expect("the caller found this queue before")
    }

    /// See [`Queues::queue`].
    pub(crate) fn queue_mut(&mut self, id: QueueId) -> &mut Queue {
        self.get_mut(id).expect("the caller found this queue before")
    }

    pub(crate) fn id(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).copied()
    }

    pub(crate) fn insert(&mut self, queue: Queue) {
        let slot = queue.id.0 as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        assert!(self.slots[slot].is_none(), "queue number {slot} is used twice");
        self.names.insert(queue.name.clone(), queue.id);
        self.slots[slot] = Some(Box::new(queue));
    }

    pub(crate) fn remove(&mut self, id: QueueId) -> Option<Queue> {
        let queue = self.slots.get_mut(id.0 as usize)?.take()?;
        self.names.remove(&queue.name);
        Some(*queue)
    }

    /// In order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Queue> {
        self.slots.iter().flatten().map(Box::as_ref)
    }

    /// See [`Queues::iter`].
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.slots.iter_mut().flatten().map(Box::as_mut)
    }

    /// In order of their names.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = &Queue> {
        self.names.values().map(|id| self.queue(*id))
    }

    /// Numbers below this were used, though their queues may be gone.
    pub(crate) fn reserve(&mut self, next: u32) {
        if self.slots.len() < next as usize {
            self.slots.resize_with(next as usize, || None);
        }
    }

    /// Past the highest number ever used here.
    pub(crate) fn next_id(&self) -> QueueId {
        QueueId(self.slots.len() as u32)
    }
}
