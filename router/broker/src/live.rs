//! How many bytes of bodies still live in which stretch of the journal, so that old segments can be relocated and removed. An
//! index, rebuilt from the messages; it knows positions and lengths only.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::ids::Position;

/// Positions in one block.
const BLOCK: u64 = 256;

/// Live bytes by position. A range costs one step for each block that lives in it.
#[derive(Debug, Default)]
pub(crate) struct LiveBytes {
    blocks: BTreeMap<u64, Block>,
    total: u64,
}

#[derive(Debug)]
struct Block {
    bytes: u64,
    /// Length by place in the block; 0 is nothing, since no body is empty. Kept so that a range that begins or ends inside
    /// a block is exact: a segment may go only when it is.
    lens: Box<[u32; BLOCK as usize]>,
}

impl LiveBytes {
    /// A body lives at this position.
    pub(crate) fn add(&mut self, position: Position, len: u64) {
        let (block, place) = split(position);
        let block = self
            .blocks
            .entry(block)
            .or_insert_with(|| Block { bytes: 0, lens: Box::new([0; BLOCK as usize]) });
        block.bytes += len;
        block.lens[place] += len as u32;
        self.total += len;
    }

    /// It no longer does.
    pub(crate) fn remove(&mut self, position: Position, len: u64) {
        let (number, place) = split(position);
        let block = self.blocks.get_mut(&number).expect("a body that goes was added");
        assert!(u64::from(block.lens[place]) >= len, "more bytes go than live at position {position}");
        block.bytes -= len;
        block.lens[place] -= len as u32;
        if block.bytes == 0 {
            self.blocks.remove(&number);
        }
        self.total -= len;
    }

    /// Bytes that live in all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that live in this range, exactly.
    pub(crate) fn live_bytes(&self, positions: RangeInclusive<Position>) -> u64 {
        if positions.is_empty() {
            return 0;
        }
        let (first, from) = split(*positions.start());
        let (last, to) = split(*positions.end());
        self.blocks
            .range(first..=last)
            .map(|(number, block)| {
                let from = if *number == first { from } else { 0 };
                let to = if *number == last { to } else { BLOCK as usize - 1 };
                if (from, to) == (0, BLOCK as usize - 1) {
                    return block.bytes;
                }
                block.lens[from..=to].iter().map(|len| u64::from(*len)).sum()
            })
            .sum()
    }
}

fn split(position: Position) -> (u64, usize) {
    (position.0 / BLOCK, (position.0 % BLOCK) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn range_is_exact_inside_a_block() {
        let mut live = LiveBytes::default();
        for position in 1..=1_000 {
            live.add(Position(position), position);
        }
        assert_eq!(live.live_bytes(Position(300)..=Position(302)), 903);
        assert_eq!(live.live_bytes(Position(1)..=Position(1_000)), 500_500);
        assert_eq!(live.live_bytes(Position(255)..=Position(512)), (255 + 512) * 258 / 2);
        assert_eq!(live.live_bytes(Position(1_001)..=Position(u64::MAX)), 0);
        assert_eq!(live.live_bytes(Position(5)..=Position(4)), 0);
    }

    #[test]
    fn dead_blocks_leave_nothing() {
        let mut live = LiveBytes::default();
        for position in 1..=1_000 {
            live.add(Position(position), 256);
        }
        for position in 1..=1_000 {
            live.remove(Position(position), 256);
        }
        assert_eq!(live.total(), 0);
        assert!(live.blocks.is_empty());
    }

    proptest! {
        #[test]
        fn counts_like_a_map(
            steps in prop::collection::vec((0..2_000_u64, 1..500_u64, any::<bool>()), 0..200),
            range in (0..2_000_u64, 0..2_000_u64),
        ) {
            let mut live = LiveBytes::default();
            let mut model = BTreeMap::new();
            for (position, len, add) in steps {
                match model.remove(&position) {
                    Some(len) => live.remove(Position(position), len),
                    None if add => {
                        live.add(Position(position), len);
                        model.insert(position, len);
                    }
                    None => {}
                }
            }
            let (first, last) = (range.0.min(range.1), range.0.max(range.1));
            let expected: u64 = model.range(first..=last).map(|(_, len)| len).sum();
            prop_assert_eq!(live.live_bytes(Position(first)..=Position(last)), expected);
            prop_assert_eq!(live.total(), model.values().sum::<u64>());
        }
    }
}
