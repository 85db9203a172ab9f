//! Consumers and what they hold: volatile, empty after a start. It knows leases and credit, and nothing of messages but their
//! length.

use std::collections::{HashMap, VecDeque};

use crate::hash::Plain;
use crate::ids::{ConnectionId, ConsumerId, Lease, Millis, QueueId, Sequence};

/// One lease that a consumer holds.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Holding {
    pub(crate) lease: Lease,
    /// `Sequence(0)`: it ended, and only keeps its place in the line.
    pub(crate) sequence: Sequence,
    /// When it ends; `None` until it was sent.
    pub(crate) deadline: Option<Millis>,
}

/// One consumer.
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) connection: ConnectionId,
    pub(crate) queue: QueueId,
    pub(crate) credit: u32,
    /// Leases in force.
    pub(crate) held: u32,
    /// In order of lease numbers, so that one is found by halving.
    leases: VecDeque<Holding>,
    /// Deliveries that were not handed to its stream yet, and their lengths.
    pub(crate) unsent: VecDeque<(Lease, u32)>,
    pub(crate) unsent_bytes: u64,
    /// It stands in its queue's ring.
    pub(crate) in_ring: bool,
}

impl Consumer {
    pub(crate) fn new(id: ConsumerId, connection: ConnectionId, queue: QueueId, credit: u32) -> Consumer {
        Consumer {
            id,
            connection,
            queue,
            credit,
            held: 0,
            leases: VecDeque::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            in_ring: false,
        }
    }

    /// Takes a new lease, the highest so far.
    pub(crate) fn hold(&mut self, lease: Lease, sequence: Sequence, len: u32) {
        self.leases.push_back(Holding { lease, sequence, deadline: None });
        self.held += 1;
        self.unsent.push_back((lease, len));
        self.unsent_bytes += u64::from(len);
    }

    /// The lease, if it is in force.
    pub(crate) fn holding(&mut self, lease: Lease) -> Option<&mut Holding> {
        let place = self.leases.binary_search_by_key(&lease, |holding| holding.lease).ok()?;
        self.leases.get_mut(place).filter(|holding| holding.sequence.0 > 0)
    }

    /// Ends the lease, if it is in force for this message.
    pub(crate) fn drop_lease(&mut self, lease: Lease, sequence: Sequence) -> bool {
        match self.holding(lease) {
            Some(holding) if holding.sequence == sequence => holding.sequence = Sequence(0),
            _ => return false,
        }
        self.held -= 1;
        while self.leases.front().is_some_and(|holding| holding.sequence.0 == 0) {
            self.leases.pop_front();
        }
        // Behind one slow delivery the ended ones would pile up.
        if self.leases.len() > 2 * self.held as usize + 64 {
            self.leases.retain(|holding| holding.sequence.0 > 0);
        }
        true
    }

    /// The leases in force, oldest first.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = &Holding> {
        self.leases.iter().filter(|holding| holding.sequence.0 > 0)
    }
}

/// Every consumer, by slot and by name.
#[derive(Default)]
pub(crate) struct Consumers {
    slots: Vec<Option<Consumer>>,
    free: Vec<u32>,
    names: HashMap<ConsumerId, u32, Plain>,
}

impl Consumers {
    pub(crate) fn slot(&self, id: ConsumerId) -> Option<u32> {
        self.names.get(&id).copied()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Consumer> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// A consumer that is known to exist.
    pub(crate) fn consumer_mut(&mut self, slot: u32) -> &mut Consumer {
        self.get_mut(slot).expect("a queue's list names living consumers only")
    }

    pub(crate) fn insert(&mut self, consumer: Consumer) -> u32 {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        assert!(self.names.insert(consumer.id, slot).is_none(), "consumer {} is attached twice", consumer.id);
        if self.slots.len() == slot as usize {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(consumer);
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Consumer> {
        let consumer = self.slots.get_mut(slot as usize)?.take()?;
        self.names.remove(&consumer.id);
        self.free.push(slot);
        Some(consumer)
    }

    /// Their slots, in order.
    pub(crate) fn slots(&self, mut which: impl FnMut(&Consumer) -> bool) -> Vec<u32> {
        let living = self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)));
        living.filter(|(_, consumer)| which(consumer)).map(|(slot, _)| slot as u32).collect()
    }
}
