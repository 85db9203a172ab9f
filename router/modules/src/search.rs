//! The search for the messages that make a batch fail: halving, left to right, within a bounded number of calls. It knows
//! ranges, and neither messages nor modules.

use std::ops::Range;

/// What one call over a range came to.
pub(crate) enum Step<V, E> {
    /// Verdicts on the first messages of the range, one each. Where they are fewer, the search ends behind them.
    Decided(Vec<V>),
    /// The call failed, with the first `count` messages of the range in it. Where that is fewer, the search ends behind them.
    Failed { count: usize, error: E },
    /// The call could not be made. The search ends before it.
    Stopped,
}

/// Decides the messages `0..count` by calls over ranges, each range behind the one decided before. The answer holds verdicts
/// of a first part of them: of all, unless calls ran out.
pub(crate) fn search<V, E>(
    count: usize,
    most_calls: u32,
    mut call: impl FnMut(Range<usize>) -> Step<V, E>,
) -> Vec<Result<V, E>> {
    let mut decided: Vec<Result<V, E>> = Vec::new();
    // The ranges still to be called, after `next` the leftmost last. Together they cover what is undecided.
    let (mut next, mut open) = ((count > 0).then_some(0..count), Vec::new());
    for _ in 0..most_calls {
        let Some(range) = next.take().or_else(|| open.pop()) else { break };
        debug_assert_eq!(range.start, decided.len(), "verdicts are found from left to right");
        let got = match call(range.clone()) {
            Step::Stopped => break,
            Step::Decided(verdicts) => {
                let got = verdicts.len();
                if decided.is_empty() {
                    // Nearly always the only call, whose list becomes the answer where it lies.
                    decided = verdicts.into_iter().map(Ok).collect();
                } else {
                    decided.extend(verdicts.into_iter().map(Ok));
                }
                got
            }
            Step::Failed { count: 1, error } => {
                decided.push(Err(error));
                1
            }
            Step::Failed { count, .. } => {
                if count < range.len() {
                    open.clear();
                }
                let end = range.start + count;
                let middle = range.start + count / 2;
                open.push(middle..end);
                open.push(range.start..middle);
                continue;
            }
        };
        if got < range.len() {
            break;
        }
    }
    decided
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::BATCH_CALLS;

    /// Runs a search over messages of which some are poison, with at most `fit` in a call.
    fn run(poison: &[bool], most_calls: u32, fit: usize) -> (Vec<Result<usize, usize>>, u32) {
        let mut calls = 0;
        let decided = search(poison.len(), most_calls, |range| {
            calls += 1;
            let count = range.len().min(fit);
            let range = range.start..range.start + count;
            match range.clone().find(|&at| poison[at]) {
                Some(error) => Step::Failed { count, error },
                None => Step::Decided(range.collect()),
            }
        });
        (decided, calls)
    }

    #[test]
    fn one_poison_message_of_128_costs_at_most_20_calls_wherever_it_is() {
        for at in 0..128 {
            let mut poison = [false; 128];
            poison[at] = true;
            let (decided, calls) = run(&poison, BATCH_CALLS, 128);
            assert_eq!(decided.len(), 128);
            assert!(calls <= 20, "{calls} calls");
            assert!((0..128).all(|index| decided[index] == if index == at { Err(at) } else { Ok(index) }));
        }
    }

    #[test]
    fn a_batch_of_poison_alone_ends_within_its_calls_and_gets_somewhere() {
        let (decided, calls) = run(&[true; 128], BATCH_CALLS, 128);
        assert_eq!(calls, 20);
        assert!(decided.len() >= 2, "{}", decided.len());
        assert!(decided.iter().all(Result::is_err));
    }

    #[test]
    fn a_call_that_cannot_be_made_ends_the_search_before_it() {
        let mut left = 2;
        let decided = search(8, 20, |range| {
            left -= 1;
            match left {
                1 => Step::Failed { count: range.len(), error: () },
                0 => Step::Decided(range.collect()),
                _ => Step::Stopped,
            }
        });
        assert_eq!(decided, (0..4).map(Ok).collect::<Vec<_>>());
    }

    proptest! {
        /// Searched again and again from where it ended, every message is judged once, as it would be alone.
        #[test]
        fn no_verdict_depends_on_the_batch(
            poison in prop::collection::vec(prop::bool::weighted(0.1), 0..300),
            fit in 1_usize..200,
        ) {
            let mut rest = &poison[..];
            while !rest.is_empty() {
                let batch = &rest[..rest.len().min(128)];
                let (decided, calls) = run(batch, BATCH_CALLS, fit);
                prop_assert!(!decided.is_empty() && calls <= BATCH_CALLS);
                for (index, verdict) in decided.iter().enumerate() {
                    prop_assert_eq!(*verdict, if batch[index] { Err(index) } else { Ok(index) });
                }
                rest = &rest[decided.len()..];
            }
        }
    }
}
