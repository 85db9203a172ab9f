//! How long a failed message waits, and the seeded generator that spreads those waits. Drawn values go into records, so a
//! replay draws none.

/// A generator of numbers that look random: SplitMix64 (Steele, Lea, Flood, 2014). The seed is the caller's.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed yields the same numbers.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The time, a tenth more or less, so that what failed together doesn't return together.
    pub(crate) fn spread(&mut self, ms: u64) -> u64 {
        let tenth = ms / 10;
        (ms - tenth).saturating_add(self.draw() % (2 * tenth + 1))
    }
}

/// The wait after failed delivery number `attempt` (from 1): the last step repeats.
pub(crate) fn backoff_ms(steps: &[u64], attempt: u32) -> u64 {
    let step = (attempt.max(1) as usize - 1).min(steps.len().saturating_sub(1));
    steps.get(step).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_step_repeats() {
        let steps = [1_000, 5_000, 30_000];
        let waits: Vec<u64> = (0..=5).map(|attempt| backoff_ms(&steps, attempt)).collect();
        assert_eq!(waits, [1_000, 1_000, 5_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff_ms(&[], 3), 0);
    }

    #[test]
    fn spread_stays_within_a_tenth_and_reaches_both_ends() {
        let mut random = Random::new(7);
        let waits: Vec<u64> = (0..10_000).map(|_| random.spread(100)).collect();
        assert_eq!((waits.iter().min(), waits.iter().max()), (Some(&90), Some(&110)));
        assert_eq!(random.spread(0), 0);
        assert_eq!(random.spread(9), 9);
        assert!(random.spread(u64::MAX) >= u64::MAX / 10 * 9);
    }

    #[test]
    fn same_seed_draws_the_same_numbers() {
        let draw = |seed| {
            (0..4)
                .map({
                    let mut random = Random::new(seed);
                    move |_| random.draw()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(42), draw(42));
        assert_ne!(draw(42), draw(43));
    }
}
