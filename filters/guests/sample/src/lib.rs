//! Passes a fixed share of the messages. A module has no randomness, so the id decides: the same message is always chosen alike.

use chaski_guest::prelude::*;

#[params]
struct Params {
    /// 0 to 1. Less than 0 counts as 0, more than 1 as 1.
    share: f64,
}

#[filter]
fn sample(id: &str, params: &Params) -> Verdict {
    // The upper 53 bits are as many as a floating-point number holds.
    let place = (mix(id) >> 11) as f64 / (1u64 << 53) as f64;
    Verdict::pass_if(place < params.share)
}

/// FNV-1a, and then the finalizer of MurmurHash3, which spreads ids that differ in their last digit only.
fn mix(id: &str) -> u64 {
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(share: f64) -> usize {
        (0..10_000).filter(|n| sample(&format!("order-{n}"), &Params { share }) == Verdict::Pass).count()
    }

    #[test]
    fn about_the_share_passes() {
        assert_eq!((passed(0.0), passed(1.0)), (0, 10_000));
        assert!((900..1_100).contains(&passed(0.1)), "{}", passed(0.1));
    }

    #[test]
    fn the_same_id_is_chosen_alike() {
        let params = Params { share: 0.5 };
        assert_eq!(sample("a", &params), sample("a", &params));
    }
}
