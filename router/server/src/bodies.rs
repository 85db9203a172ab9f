//! A bounded cache of recent bodies by position, so that a message that is consumed at once is never read from the disk.

use std::collections::VecDeque;

use bytes::Bytes;
use chaski_broker::Position;

/// Bytes of bodies kept.
const MAX_BYTES: usize = 48 << 20;

/// Positions kept, bodies or not: bounds the ring itself (32 bytes each).
const MAX_SLOTS: usize = 1 << 18;

/// The bodies of the latest positions.
#[derive(Default)]
pub(crate) struct RecentBodies {
    /// The position of the front slot.
    first: u64,
    slots: VecDeque<Option<Bytes>>,
    bytes: usize,
}

impl RecentBodies {
    /// Adds the record at `position`, the successor of the last one added.
    pub(crate) fn push(&mut self, position: Position, body: Option<Bytes>) {
        if self.slots.is_empty() {
            self.first = position.0;
        }
        assert_eq!(position.0, self.first + self.slots.len() as u64, "positions are dense");
        self.bytes += body.as_ref().map_or(0, Bytes::len);
        self.slots.push_back(body);
        while self.bytes > MAX_BYTES || self.slots.len() > MAX_SLOTS {
            let oldest = self.slots.pop_front().flatten();
            self.first += 1;
            self.bytes -= oldest.map_or(0, |body| body.len());
        }
    }

    /// The body at a position, if it is still here.
    pub(crate) fn get(&self, position: Position) -> Option<Bytes> {
        let slot = position.0.checked_sub(self.first)?;
        self.slots.get(usize::try_from(slot).ok()?)?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_bodies_go_first_and_gaps_are_misses() {
        let mut recent = RecentBodies::default();
        let body = Bytes::from(vec![1; 1 << 20]);
        for position in 10..110 {
            recent.push(Position(position), (position % 2 == 0).then(|| body.clone()));
        }
        assert_eq!(recent.get(Position(108)), Some(body));
        assert_eq!(recent.get(Position(109)), None);
        assert_eq!(recent.get(Position(12)), None);
        assert_eq!(recent.get(Position(5)), None);
        assert_eq!(recent.get(Position(1000)), None);
    }
}
