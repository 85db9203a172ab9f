//! A filter whose answer's lists contradict each other: for the check of answers. Written against the bindings, since the
//! SDK can't be brought to lie.

use chaski_guest::runtime::{Answer, Batch, Description, Edits, Field, Guest, Param, describe};

/// The module. It is public, since natively nothing exports it.
pub struct Module;

impl Guest for Module {
    fn describe() -> Description {
        describe::<()>("lie-about-lengths", "0.1.0", false)
    }

    fn configure(_: Vec<Param>) -> Result<Vec<Field>, String> {
        Ok(vec![Field::Id])
    }

    fn filter(batch: Batch) -> Answer {
        let edits =
            Edits { kinds: vec![3, 3], indexes: vec![0, 1_000_000], ends: vec![u32::MAX, 7], bytes: vec![1] };
        Answer { verdicts: vec![2; batch.count as usize], edits: Some(edits) }
    }
}

#[cfg(target_family = "wasm")]
chaski_guest::bindings::filter::__export_filter!(Module with_types_in chaski_guest::bindings::filter);
