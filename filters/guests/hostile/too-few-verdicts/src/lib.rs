//! A filter that answers with one verdict too few: for the check of answers. Written against the bindings, since the SDK
//! counts right.

use chaski_guest::runtime::{Answer, Batch, Description, Field, Guest, Param, describe};

/// The module. It is public, since natively nothing exports it.
pub struct Module;

impl Guest for Module {
    fn describe() -> Description {
        describe::<()>("too-few-verdicts", "0.1.0", false)
    }

    fn configure(_: Vec<Param>) -> Result<Vec<Field>, String> {
        Ok(vec![Field::Id])
    }

    fn filter(batch: Batch) -> Answer {
        Answer { verdicts: vec![0; (batch.count as usize).saturating_sub(1)], edits: None }
    }
}

#[cfg(target_family = "wasm")]
chaski_guest::bindings::filter::__export_filter!(Module with_types_in chaski_guest::bindings::filter);
