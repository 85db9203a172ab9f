//! When a segment without live bodies may go. It knows positions, and nothing of disks, snapshots or messages.
//!
//! The broker runs ahead of the disk: what settled the last message of a segment must be durable before the segment goes, or a
//! power cut would bring back a message without its body. And both kept snapshots must be newer than the last relocation out
//! of it (SEMANTICS, The journal), or the older one would name a body where it no longer is.

use std::collections::BTreeMap;

use chaski_broker::Position;

/// What is known of the segments that wait to go, each by its first position.
pub(crate) struct Trimming {
    /// Where the log stood at the start: bodies may have left any segment before it shortly before.
    started_at: Position,
    /// Where the log stood when a body last left it.
    relocated_at: BTreeMap<u64, Position>,
    /// Where the log stood when it was first seen without live bodies.
    emptied_at: BTreeMap<u64, Position>,
}

impl Trimming {
    /// `started_at`: where the log stands.
    pub(crate) fn new(started_at: Position) -> Trimming {
        Trimming { started_at, relocated_at: BTreeMap::new(), emptied_at: BTreeMap::new() }
    }

    /// Bodies of the segment that begins with `first` were written again, before `after`.
    pub(crate) fn relocated(&mut self, first: u64, after: Position) {
        self.relocated_at.insert(first, after);
    }

    /// Whether the segment that begins with `first`, in which nothing is live, may go. `now`: where the broker stands;
    /// `synced`: what is durable; `older`: the position of the older kept snapshot. A segment that may is forgotten here.
    pub(crate) fn may_go(&mut self, first: u64, now: Position, synced: Position, older: Position) -> bool {
        let emptied = *self.emptied_at.entry(first).or_insert(now);
        let unknown = if first <= self.started_at.0 { self.started_at } else { Position(0) };
        let moved = self.relocated_at.get(&first).copied().unwrap_or(unknown);
        let may = emptied <= synced && moved < older;
        if may {
            self.emptied_at.remove(&first);
            self.relocated_at.remove(&first);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for the segment that begins with 100.
    fn asked(trimming: &mut Trimming, now: u64, synced: u64, older: u64) -> bool {
        trimming.may_go(100, Position(now), Position(synced), Position(older))
    }

    #[test]
    fn segment_stays_until_what_emptied_it_is_durable() {
        let mut trimming = Trimming::new(Position(0));
        assert!(!asked(&mut trimming, 500, 499, 1000), "a power cut would bring the message back");
        // The log goes on; what counts is where it stood when the segment was first seen empty.
        assert!(!asked(&mut trimming, 900, 499, 1000));
        assert!(asked(&mut trimming, 900, 500, 1000));
    }

    #[test]
    fn segment_stays_until_both_snapshots_are_newer_than_its_relocation() {
        let mut trimming = Trimming::new(Position(0));
        trimming.relocated(100, Position(600));
        assert!(!asked(&mut trimming, 700, 700, 599));
        assert!(!asked(&mut trimming, 700, 700, 600), "the snapshot at 600 may hold the old place");
        assert!(asked(&mut trimming, 700, 700, 601));
    }

    #[test]
    fn last_relocation_counts_and_each_segment_for_itself() {
        let mut trimming = Trimming::new(Position(0));
        trimming.relocated(100, Position(600));
        trimming.relocated(100, Position(800));
        trimming.relocated(200, Position(300));
        assert!(!asked(&mut trimming, 900, 900, 700));
        assert!(trimming.may_go(200, Position(900), Position(900), Position(700)));
        assert!(asked(&mut trimming, 900, 900, 801));
    }

    #[test]
    fn segment_from_before_the_start_may_have_been_relocated_just_then() {
        let mut trimming = Trimming::new(Position(400));
        assert!(!asked(&mut trimming, 700, 700, 400));
        assert!(asked(&mut trimming, 700, 700, 401));
        // One that was begun later, and from which nothing was moved, waits for no snapshot.
        let mut trimming = Trimming::new(Position(99));
        assert!(asked(&mut trimming, 700, 700, 1));
    }

    #[test]
    fn nothing_is_kept_of_a_segment_that_went() {
        let mut trimming = Trimming::new(Position(0));
        trimming.relocated(100, Position(600));
        assert!(asked(&mut trimming, 700, 700, 701));
        assert!(trimming.relocated_at.is_empty() && trimming.emptied_at.is_empty());
    }
}
