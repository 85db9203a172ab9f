//! Answers back into the order of their frames: they become due out of order (a `memory` publish is done before the `fsync` one
//! ahead of it), and are sent in order, cumulatively.

use std::collections::VecDeque;

/// Answers from number `base` on; a hole is one that is not due yet.
pub(crate) struct Ring<T> {
    base: u64,
    answers: VecDeque<Option<T>>,
}

impl<T> Ring<T> {
    /// Frames are numbered from 1.
    pub(crate) fn new() -> Ring<T> {
        Ring { base: 1, answers: VecDeque::new() }
    }

    /// The answer of frame `number`, each exactly once.
    pub(crate) fn put(&mut self, number: u64, answer: T) {
        let index = usize::try_from(number.checked_sub(self.base).expect("a frame is answered once"))
            .expect("frames in flight are bounded");
        while self.answers.len() <= index {
            self.answers.push_back(None);
        }
        let earlier = self.answers[index].replace(answer);
        assert!(earlier.is_none(), "a frame is answered once");
    }

    /// The next answer in order, when it is due.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.answers.front()?.as_ref()?;
        self.base += 1;
        self.answers.pop_front().flatten()
    }

    /// The last number that `next` gave.
    pub(crate) fn through(&self) -> u64 {
        self.base - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_their_frames() {
        let mut ring = Ring::new();
        ring.put(2, "b");
        assert_eq!(ring.next(), None);
        ring.put(1, "a");
        assert_eq!((ring.next(), ring.next(), ring.next()), (Some("a"), Some("b"), None));
        assert_eq!(ring.through(), 2);
    }
}
