//! Where the driver puts what sessions are to do: one mailbox a publish stream, consumer or subscription. It collects items and
//! sends them in one go, so that a session wakes once a batch. Never blocks: what may be in flight is bounded elsewhere
//! (in-flight publishes, credit and unsent bytes, subscription buffers).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use tokio::sync::mpsc::UnboundedSender;

/// Ids come from one counter, so they are their own hash.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        // The table takes its tag from the top bits; a multiplication fills them.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are u64")
    }
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// A map by id.
pub(crate) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

struct Mailbox<T> {
    sender: UnboundedSender<Vec<T>>,
    pending: Vec<T>,
    /// Items that were handed over last: the next have room for as many.
    last: usize,
}

/// Mailboxes of one kind.
pub(crate) struct Mailboxes<T> {
    boxes: IdMap<Mailbox<T>>,
    dirty: Vec<u64>,
}

impl<T> Default for Mailboxes<T> {
    fn default() -> Self {
        Mailboxes { boxes: IdMap::default(), dirty: Vec::new() }
    }
}

impl<T> Mailboxes<T> {
    /// A new recipient.
    pub(crate) fn open(&mut self, id: u64, sender: UnboundedSender<Vec<T>>) {
        let earlier = self.boxes.insert(id, Mailbox { sender, pending: Vec::new(), last: 0 });
        assert!(earlier.is_none(), "ids come from one counter");
    }

    /// The recipient is gone; what comes for it later is dropped.
    pub(crate) fn close(&mut self, id: u64) {
        self.boxes.remove(&id);
    }

    /// Puts an item into a mailbox, if it is still there.
    pub(crate) fn post(&mut self, id: u64, item: T) {
        if let Some(mailbox) = self.boxes.get_mut(&id) {
            if mailbox.pending.is_empty() {
                self.dirty.push(id);
                mailbox.pending.reserve(mailbox.last);
            }
            mailbox.pending.push(item);
        }
    }

    /// Whether anything was collected.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Hands over what was collected.
    pub(crate) fn flush(&mut self) {
        for id in self.dirty.drain(..) {
            if let Some(mailbox) = self.boxes.get_mut(&id) {
                let items = std::mem::take(&mut mailbox.pending);
                mailbox.last = items.len();
                // A closed receiver is a session that is just ending; it says so itself.
                let _ = mailbox.sender.send(items);
            }
        }
    }
}
