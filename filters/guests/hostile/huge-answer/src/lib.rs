//! A filter whose answer is larger than what may cross the boundary: for that limit. Written against the bindings, so that
//! nothing else but the answer is large.

use chaski_guest::runtime::{Answer, Batch, Description, Edits, Field, Guest, Param, describe};

/// The module. It is public, since natively nothing exports it.
pub struct Module;

impl Guest for Module {
    fn describe() -> Description {
        describe::<()>("huge-answer", "0.1.0", false)
    }

    fn configure(_: Vec<Param>) -> Result<Vec<Field>, String> {
        Ok(vec![Field::Id])
    }

    fn filter(batch: Batch) -> Answer {
        let bytes = vec![1u8; 12 << 20];
        let edits = Edits { kinds: vec![3], indexes: vec![0], ends: vec![bytes.len() as u32], bytes };
        Answer { verdicts: vec![2; batch.count as usize], edits: Some(edits) }
    }
}

#[cfg(target_family = "wasm")]
chaski_guest::bindings::filter::__export_filter!(Module with_types_in chaski_guest::bindings::filter);
