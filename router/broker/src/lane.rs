//! Sequences in their order, made for the usual case: new ones come at the end, old ones leave at the front, few come back.
//! It knows nothing of messages; whether a sequence still counts, the caller checks when it takes one (lazy cleaning).

use std::collections::{BTreeSet, VecDeque};

use crate::ids::Sequence;

/// Sequences, lowest first. One may stand in it twice, or no longer count: harmless, since the taker checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane {
    fresh: Run,
    returned: BTreeSet<Sequence>,
}

/// Sequences of one piece of a [`Run`].
const PIECE: usize = 1024;

/// An ascending run in pieces: one long buffer stops the world when it grows to millions.
#[derive(Clone, Debug, Default)]
struct Run {
    /// None is empty.
    pieces: VecDeque<Vec<Sequence>>,
    /// How many of the first piece are gone; it is never all of them.
    gone: usize,
    len: usize,
}

impl Run {
    fn first(&self) -> Option<Sequence> {
        Some(self.pieces.front()?[self.gone])
    }

    fn last(&self) -> Option<Sequence> {
        self.pieces.back()?.last().copied()
    }

    fn push(&mut self, sequence: Sequence) {
        self.len += 1;
        match self.pieces.back_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(sequence),
            // A short run stays small: only the pieces after the first are made whole.
            Some(_) => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(sequence);
                self.pieces.push_back(piece);
            }
            None => self.pieces.push_back(vec![sequence]),
        }
    }

    fn pop(&mut self) -> Option<Sequence> {
        let piece = self.pieces.front_mut()?;
        let first = piece[self.gone];
        self.gone += 1;
        self.len -= 1;
        if self.gone == piece.len() {
            self.gone = 0;
            self.pieces.pop_front();
        }
        Some(first)
    }

    fn retain(&mut self, mut counts: impl FnMut(Sequence) -> bool) {
        let gone = std::mem::take(&mut self.gone);
        for (index, piece) in self.pieces.iter_mut().enumerate() {
            if index == 0 {
                piece.drain(..gone);
            }
            piece.retain(|sequence| counts(*sequence));
        }
        self.pieces.retain(|piece| !piece.is_empty());
        self.len = self.pieces.iter().map(Vec::len).sum();
    }
}

impl Lane {
    pub(crate) fn add(&mut self, sequence: Sequence) {
        match self.fresh.last() {
            Some(last) if last >= sequence => {
                self.returned.insert(sequence);
            }
            _ => self.fresh.push(sequence),
        }
    }

    pub(crate) fn first(&self) -> Option<Sequence> {
        match (self.fresh.first(), self.returned.first().copied()) {
            (Some(fresh), Some(returned)) => Some(fresh.min(returned)),
            (fresh, returned) => fresh.or(returned),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Sequence> {
        match (self.fresh.first(), self.returned.first()) {
            (Some(fresh), Some(returned)) if *returned < fresh => self.returned.pop_first(),
            (Some(_), _) => self.fresh.pop(),
            (None, _) => self.returned.pop_first(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.fresh.pieces.is_empty() && self.returned.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.fresh.len + self.returned.len()
    }

    /// Drops what no longer counts.
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Sequence) -> bool) {
        self.fresh.retain(&mut counts);
        self.returned.retain(|sequence| counts(*sequence));
    }
}

/// One lane a priority; the highest goes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes {
    lanes: [Lane; 10],
    /// Bit `n`: lane `n` is not empty.
    occupied: u16,
}

impl Lanes {
    pub(crate) fn add(&mut self, priority: u8, sequence: Sequence) {
        self.lanes[usize::from(priority)].add(sequence);
        self.occupied |= 1 << priority;
    }

    /// The next one and its lane.
    pub(crate) fn pop(&mut self) -> Option<(u8, Sequence)> {
        let priority = self.occupied.checked_ilog2()? as u8;
        let lane = &mut self.lanes[usize::from(priority)];
        let sequence = lane.pop().expect("the bit says that it is occupied");
        if lane.is_empty() {
            self.occupied &= !(1 << priority);
        }
        Some((priority, sequence))
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(Lane::len).sum()
    }

    /// Drops up to four from the front of a lane that no longer count: so a lane that nobody takes from doesn't keep what left
    /// its queue.
    pub(crate) fn trim(&mut self, priority: u8, counts: impl Fn(Sequence) -> bool) {
        let lane = &mut self.lanes[usize::from(priority)];
        for _ in 0..4 {
            match lane.first() {
                Some(first) if !counts(first) => lane.pop(),
                _ => break,
            };
        }
        if lane.is_empty() {
            self.occupied &= !(1 << priority);
        }
    }

    /// See [`Lane::retain`].
    pub(crate) fn retain(&mut self, mut counts: impl FnMut(Sequence) -> bool) {
        for (priority, lane) in self.lanes.iter_mut().enumerate() {
            lane.retain(&mut counts);
            if lane.is_empty() {
                self.occupied &= !(1 << priority);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_sequence_keeps_its_place() {
        let mut lane = Lane::default();
        for n in [3, 5, 9, 4] {
            lane.add(Sequence(n));
        }
        let order: Vec<u64> = std::iter::from_fn(|| lane.pop()).map(|sequence| sequence.0).collect();
        assert_eq!(order, [3, 4, 5, 9]);
    }

    #[test]
    fn a_long_run_survives_cleaning_in_its_middle() {
        let mut lane = Lane::default();
        (1..=5000).for_each(|n| lane.add(Sequence(n)));
        (1..=1500).for_each(|n| assert_eq!(lane.pop(), Some(Sequence(n))));
        lane.retain(|sequence| sequence.0 % 3 == 0);
        lane.add(Sequence(1));
        let order: Vec<u64> = std::iter::from_fn(|| lane.pop()).map(|sequence| sequence.0).collect();
        let expected: Vec<u64> = std::iter::once(1).chain((1501..=5000).filter(|n| n % 3 == 0)).collect();
        assert_eq!(order, expected);
        assert!(lane.is_empty());
    }

    #[test]
    fn the_highest_priority_goes_first() {
        let mut lanes = Lanes::default();
        for (priority, n) in [(4, 1), (9, 2), (0, 3), (4, 4)] {
            lanes.add(priority, Sequence(n));
        }
        let order: Vec<u64> = std::iter::from_fn(|| lanes.pop()).map(|(_, sequence)| sequence.0).collect();
        assert_eq!(order, [2, 1, 4, 3]);
        assert_eq!(lanes.len(), 0);
    }
}
