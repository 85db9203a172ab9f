//! Any sequence of operations leaves the broker where the plain model is: the invariants of DESIGN section 11 after every
//! step, through crashes that lose the unsynced end, snapshots and changes of the rules.

mod filters;
#[path = "../harness/mod.rs"]
mod harness;
mod model;
mod operation;
mod run;
mod sagas;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use operation::operation;
use run::Run;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn broker_does_what_the_model_does(operations in prop::collection::vec(operation(), 1..160)) {
        let mut run = Run::new();
        for operation in &operations {
            run.step(operation);
        }
    }
}
