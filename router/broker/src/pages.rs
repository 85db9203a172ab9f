//! A sorted map from sequence numbers to rows, in pages that a clone shares: a snapshot of millions of rows is a clone of a
//! few hundred pointers, and each later change copies the one page that it touches. It knows nothing of what a row means.
//!
//! Numbers mostly ascend and are sparse (a queue sees few of the shard's numbers), so a page holds a run of rows, not a range
//! of numbers: branches of leaves of rows, each found by the least number that may lie in it.

use std::collections::VecDeque;
use std::ops::RangeFrom;
use std::sync::Arc;

/// Rows in one leaf at most. A copied leaf is a few KiB; taking the first of a full one moves nothing.
const LEAF_ROWS: usize = 128;
/// Leaves in one branch at most, so that a clone of 5 million rows copies about 160 pointers.
const BRANCH_LEAVES: usize = 256;

/// The map. Cloning costs one pointer for each 32,768 rows.
#[derive(Debug)]
pub(crate) struct PageMap<T> {
    branches: Directory<Branch<T>>,
    len: usize,
}

type Branch<T> = Directory<Leaf<T>>;

/// In ascending order. A deque, since the oldest rows leave first.
type Leaf<T> = VecDeque<(u64, T)>;

/// Shared pages, and for each a number not above its first row's and above the last row's of the page before.
#[derive(Debug)]
struct Directory<P> {
    firsts: Vec<u64>,
    pages: Vec<Arc<P>>,
}

impl<P> Directory<P> {
    fn new() -> Directory<P> {
        Directory { firsts: Vec::new(), pages: Vec::new() }
    }

    /// Where the key is, if anywhere; 0 in an empty directory too.
    fn place(&self, key: u64) -> usize {
        match self.firsts.last() {
            Some(last) if *last > key => self.firsts.partition_point(|first| *first <= key).saturating_sub(1),
            _ => self.firsts.len().saturating_sub(1),
        }
    }

    fn add(&mut self, at: usize, first: u64, page: P) {
        self.firsts.insert(at, first);
        self.pages.insert(at, Arc::new(page));
    }

    fn drop_page(&mut self, at: usize) {
        self.firsts.remove(at);
        self.pages.remove(at);
    }
}

impl<P> Clone for Directory<P> {
    fn clone(&self) -> Directory<P> {
        Directory { firsts: self.firsts.clone(), pages: self.pages.clone() }
    }
}

impl<T> Clone for PageMap<T> {
    fn clone(&self) -> PageMap<T> {
        PageMap { branches: self.branches.clone(), len: self.len }
    }
}

impl<T> Default for PageMap<T> {
    fn default() -> PageMap<T> {
        PageMap { branches: Directory::new(), len: 0 }
    }
}

impl<T> PageMap<T> {
    /// Rows in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The row of this number.
    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let branch = self.branches.pages.get(self.branches.place(key))?;
        let leaf = &branch.pages[branch.place(key)];
        find(leaf, key).ok().map(|at| &leaf[at].1)
    }

    /// Whether there is a row of this number.
    pub(crate) fn contains(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// The row of the least number.
    pub(crate) fn first(&self) -> Option<(u64, &T)> {
        let (key, row) = self.branches.pages.first()?.pages.first()?.front()?;
        Some((*key, row))
    }

    /// Every row, ascending.
    pub(crate) fn iter(&self) -> Rows<'_, T> {
        self.range(0..)
    }

    /// Rows from this number on, ascending.
    pub(crate) fn range(&self, from: RangeFrom<u64>) -> Rows<'_, T> {
        let branch = self.branches.place(from.start);
        let (leaf, row) = match self.branches.pages.get(branch) {
            Some(page) => {
                let leaf = page.place(from.start);
                (leaf, find(&page.pages[leaf], from.start).unwrap_or_else(|at| at))
            }
            None => (0, 0),
        };
        Rows { map: self, branch, leaf, row }
    }
}

impl<T: Clone> PageMap<T> {
    /// The row of this number, to be changed.
    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let at = self.branches.place(key);
        let branch = Arc::make_mut(self.branches.pages.get_mut(at)?);
        let leaf = branch.place(key);
        let leaf = Arc::make_mut(&mut branch.pages[leaf]);
        let at = find(leaf, key).ok()?;
        Some(&mut leaf[at].1)
    }

    /// Puts a row in, and answers the one that it replaces.
    pub(crate) fn insert(&mut self, key: u64, row: T) -> Option<T> {
        let at = self.branches.place(key);
        let Some(branch) = self.branches.pages.get_mut(at) else {
            self.branches.add(0, key, Branch::of(key, Leaf::from([(key, row)])));
            self.len = 1;
            return None;
        };
        let branch = Arc::make_mut(branch);
        self.branches.firsts[at] = self.branches.firsts[at].min(key);
        let replaced = branch.insert(key, row);
        if branch.pages.len() > BRANCH_LEAVES {
            // The branch that grows at its end stays full; any other is halved.
            let keep = if at + 1 == self.branches.firsts.len() { BRANCH_LEAVES } else { BRANCH_LEAVES / 2 };
            let right =
                Directory { firsts: branch.firsts.split_off(keep), pages: branch.pages.split_off(keep) };
            self.branches.add(at + 1, right.firsts[0], right);
        }
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        let at = self.branches.place(key);
        let branch = self.branches.pages.get_mut(at)?;
        let leaf = branch.place(key);
        // Looked for before anything is copied.
        let row = find(&branch.pages[leaf], key).ok()?;
        let branch = Arc::make_mut(branch);
        let removed = branch.remove(leaf, row);
        if branch.pages.is_empty() {
            self.branches.drop_page(at);
        }
        self.len -= 1;
        Some(removed)
    }
}

impl<T: Clone> Branch<T> {
    fn of(first: u64, leaf: Leaf<T>) -> Branch<T> {
        Directory { firsts: vec![first], pages: vec![Arc::new(leaf)] }
    }

    /// May leave one leaf too many, which the caller splits off.
    fn insert(&mut self, key: u64, row: T) -> Option<T> {
        let at = self.place(key);
        let is_last = at + 1 == self.pages.len();
        let page = &mut self.pages[at];
        if is_last && page.len() >= LEAF_ROWS && page.back().is_some_and(|(last, _)| *last < key) {
            let mut leaf = Leaf::with_capacity(LEAF_ROWS);
            leaf.push_back((key, row));
            self.add(at + 1, key, leaf);
            return None;
        }
        self.firsts[at] = self.firsts[at].min(key);
        let leaf = Arc::make_mut(page);
        match find(leaf, key) {
            Ok(place) => return Some(std::mem::replace(&mut leaf[place].1, row)),
            Err(place) => leaf.insert(place, (key, row)),
        }
        if leaf.len() > LEAF_ROWS {
            let right = leaf.split_off(LEAF_ROWS / 2);
            self.add(at + 1, right[0].0, right);
        }
        None
    }

    fn remove(&mut self, at: usize, row: usize) -> T {
        let leaf = Arc::make_mut(&mut self.pages[at]);
        let (_, removed) = leaf.remove(row).expect("the row was found there");
        let left = leaf.len();
        if left == 0 {
            self.drop_page(at);
        } else if left < LEAF_ROWS / 4 {
            if self.fits_with_next(at) {
                self.join_next(at);
            } else if at > 0 && self.fits_with_next(at - 1) {
                self.join_next(at - 1);
            }
        }
        removed
    }

    /// Room is left, or the next insert would split what was joined.
    fn fits_with_next(&self, at: usize) -> bool {
        self.pages.get(at + 1).is_some_and(|next| self.pages[at].len() + next.len() <= LEAF_ROWS * 3 / 4)
    }

    fn join_next(&mut self, at: usize) {
        let next = self.pages.remove(at + 1);
        self.firsts.remove(at + 1);
        let leaf = Arc::make_mut(&mut self.pages[at]);
        match Arc::try_unwrap(next) {
            Ok(mut next) => leaf.append(&mut next),
            Err(shared) => leaf.extend(shared.iter().cloned()),
        }
    }
}

/// The row's place in the leaf, or where it would be. The oldest row is asked for most.
fn find<T>(leaf: &Leaf<T>, key: u64) -> Result<usize, usize> {
    match leaf.front() {
        Some((first, _)) if *first == key => Ok(0),
        _ => match leaf.back() {
            Some((last, _)) if *last < key => Err(leaf.len()),
            _ => leaf.binary_search_by_key(&key, |(other, _)| *other),
        },
    }
}

/// Rows in ascending order.
#[derive(Debug)]
pub(crate) struct Rows<'m, T> {
    map: &'m PageMap<T>,
    branch: usize,
    leaf: usize,
    row: usize,
}

impl<'m, T> Iterator for Rows<'m, T> {
    type Item = (u64, &'m T);

    fn next(&mut self) -> Option<(u64, &'m T)> {
        loop {
            let branch = self.map.branches.pages.get(self.branch)?;
            match branch.pages.get(self.leaf) {
                None => (self.branch, self.leaf, self.row) = (self.branch + 1, 0, 0),
                Some(leaf) => match leaf.get(self.row) {
                    None => (self.leaf, self.row) = (self.leaf + 1, 0),
                    Some((key, row)) => {
                        self.row += 1;
                        return Some((*key, row));
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn filled(numbers: impl IntoIterator<Item = u64>) -> PageMap<u64> {
        let mut map = PageMap::default();
        for number in numbers {
            map.insert(number, number * 10);
        }
        map
    }

    /// What the directories promise, and that no page is empty.
    fn check(map: &PageMap<u64>) {
        let mut last = None;
        for (branch, at) in map.branches.pages.iter().zip(&map.branches.firsts) {
            assert!(!branch.pages.is_empty() && branch.pages.len() <= BRANCH_LEAVES);
            for (leaf, first) in branch.pages.iter().zip(&branch.firsts) {
                assert!(!leaf.is_empty() && leaf.len() <= LEAF_ROWS);
                assert!(at <= first && first <= &leaf[0].0);
                assert!(last.is_none_or(|last| last < *first));
                for (key, _) in leaf.iter() {
                    assert!(last.is_none_or(|last| last < *key));
                    last = Some(*key);
                }
            }
        }
        assert_eq!(map.iter().count(), map.len());
    }

    #[test]
    fn ascending_rows_fill_every_page() {
        let map = filled((0..100_000).map(|number| number * 3));
        check(&map);
        assert_eq!(map.branches.pages.len(), 100_000_usize.div_ceil(LEAF_ROWS * BRANCH_LEAVES));
        assert_eq!(map.get(299_997), Some(&2_999_970));
        assert_eq!(map.get(299_998), None);
        assert_eq!(map.first(), Some((0, &0)));
        assert_eq!(map.iter().last().map(|(key, _)| key), Some(299_997));
        assert_eq!(map.range(150_001..).next().map(|(key, _)| key), Some(150_003));
    }

    #[test]
    fn clone_keeps_what_the_original_loses() {
        let mut map = filled(0..50_000);
        let kept = map.clone();
        for number in 0..50_000 {
            assert_eq!(map.remove(number), Some(number * 10));
        }
        assert!(map.is_empty() && map.branches.pages.is_empty());
        check(&kept);
        assert_eq!(kept.len(), 50_000);
    }

    #[test]
    fn sparse_pages_are_joined() {
        let mut map = filled(0..LEAF_ROWS as u64 * 64);
        for number in (0..LEAF_ROWS as u64 * 64).filter(|number| number % 64 != 0) {
            map.remove(number);
        }
        check(&map);
        assert_eq!(map.len(), 128);
        assert!(map.branches.pages[0].pages.len() <= 8, "{} leaves", map.branches.pages[0].pages.len());
    }

    #[test]
    fn descending_rows_split_branches() {
        let map = filled((0..80_000).rev());
        check(&map);
        assert_eq!(map.len(), 80_000);
        assert_eq!(map.range(40_000..).next(), Some((40_000, &400_000)));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64, u64),
        Insert(u64),
        Remove(u64),
        RemoveRun(u64, u64),
        Change(u64),
        Snapshot,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..400_u64, 1..5_u64).prop_map(|(count, stride)| Step::Append(count, stride)),
            (0..2_000_u64).prop_map(Step::Insert),
            (0..2_000_u64).prop_map(Step::Remove),
            (0..2_000_u64, 1..300_u64).prop_map(|(from, count)| Step::RemoveRun(from, count)),
            (0..2_000_u64).prop_map(Step::Change),
            Just(Step::Snapshot),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_btree_map(steps in prop::collection::vec(step(), 1..40)) {
            let mut map = PageMap::default();
            let mut model = BTreeMap::new();
            let mut kept: Vec<(PageMap<u64>, BTreeMap<u64, u64>)> = Vec::new();
            for (turn, step) in steps.into_iter().enumerate() {
                let turn = turn as u64;
                match step {
                    Step::Append(count, stride) => for _ in 0..count {
                        let key = model.last_key_value().map_or(0, |(key, _)| key + stride);
                        prop_assert_eq!(map.insert(key, turn), model.insert(key, turn));
                    },
                    Step::Insert(key) => prop_assert_eq!(map.insert(key, turn), model.insert(key, turn)),
                    Step::Remove(key) => prop_assert_eq!(map.remove(key), model.remove(&key)),
                    Step::RemoveRun(from, count) => for key in from..from + count {
                        prop_assert_eq!(map.remove(key), model.remove(&key));
                    },
                    Step::Change(key) => {
                        prop_assert_eq!(map.get(key), model.get(&key));
                        if let Some(row) = map.get_mut(key) {
                            *row += 1_000;
                            model.entry(key).and_modify(|row| *row += 1_000);
                        }
                    }
                    Step::Snapshot => kept.push((map.clone(), model.clone())),
                }
                check(&map);
            }
            kept.push((map, model));
            for (map, model) in &kept {
                prop_assert!(map.iter().map(|(key, row)| (key, *row)).eq(model.iter().map(|(key, row)| (*key, *row))));
                prop_assert!(map.range(777..).map(|(key, _)| key).eq(model.range(777..).map(|(key, _)| *key)));
            }
        }
    }
}
