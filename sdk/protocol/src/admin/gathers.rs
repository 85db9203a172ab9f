//! Answers about gathers: what a scatter asked, and who has answered.

use serde::{Deserialize, Serialize};

/// One gather.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatherView {
    /// The id of the message that began it.
    pub id: String,
    /// Its scatter.
    pub scatter: String,
    /// Its number, after which a page goes on; in lists alone.
    pub sequence: Option<u64>,
    /// `open`, `finishing`, `answered` or `failed`.
    pub state: String,
    /// When it began.
    pub began_at: String,
    /// Milliseconds until its time is over; 0 once it has ended.
    pub left_ms: u64,
    /// Those that it asked, in order.
    pub recipients: Vec<RecipientView>,
}

/// One that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientView {
    /// The queue's name, or the subscription's pattern.
    pub name: String,
    /// `asked`, `answered`, `failed` or `silent`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it answered or failed.
    pub at: Option<String>,
}
