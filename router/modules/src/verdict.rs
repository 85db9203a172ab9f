//! What a filter says of a message, in types that cannot say anything wrong. It must not know how an answer crosses.

/// A filter's verdict on one message. Most are the first two, so the others are kept small: a batch is a list of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on as it is.
    Pass,
    /// It ends here.
    Drop,
    /// It goes to the dead letters.
    Reject {
        /// Why.
        reason: String,
    },
    /// It goes on changed.
    Transform(Box<Changes>),
    /// It goes to other topics, changed where there are changes; its chain ends.
    Route {
        /// The topics, at least one, in the module's order. Whether they are well formed the router checks.
        topics: Vec<String>,
        /// What is changed before.
        changes: Box<Changes>,
    },
    /// It ends, and its children go on in its place.
    Split(Vec<Child>),
}

/// One child of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Child {
    /// Where it is sent; nowhere else but on, when empty.
    pub topics: Vec<String>,
    /// What sets it apart from its parent.
    pub changes: Changes,
}

/// Changes of a message. `None` leaves as it is; `Some(None)` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The new body.
    pub payload: Option<Vec<u8>>,
    /// The new ordering key.
    pub key: Option<Option<String>>,
    /// Changes of headers, in order.
    pub headers: Vec<HeaderChange>,
    /// The new priority, 0 to 9.
    pub priority: Option<u8>,
    /// The new time to live.
    pub ttl_ms: Option<Option<u64>>,
    /// The new time before which it isn't delivered, in milliseconds since 1970.
    pub deliver_at_ms: Option<Option<u64>>,
}

/// A change of one header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderChange {
    /// It gets this value, whether it was there or not.
    Set {
        /// Its name: ASCII, not empty, without the prefix `chaski-`.
        name: String,
        /// Its value.
        value: String,
    },
    /// It goes, if it is there.
    Remove {
        /// Its name.
        name: String,
    },
}
