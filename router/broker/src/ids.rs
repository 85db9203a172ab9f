//! The numbers that name things. Newtypes, so that a lease is never taken for a sequence; nothing here has behaviour.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, bincode::Encode, bincode::Decode)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A message's number: one for the message, the same in every queue. From the shard's one counter, never used twice.
    Sequence(u64)
}
number! {
    /// A lease's number, from the same counter as [`Sequence`]; never used twice, whatever the durability.
    Lease(u64)
}
number! {
    /// The dense number of a journaled record, from 1. Position 0 is "before everything": always durable.
    Position(u64)
}
number! {
    /// A queue of this shard, for as long as it lives. A queue made again under the same name has another.
    QueueId(u32)
}
number! {
    /// One consume stream, named by the server.
    ConsumerId(u64)
}
number! {
    /// One client connection, named by the server. A lease token is valid on the connection that it was given to.
    ConnectionId(u64)
}
number! {
    /// One subscription, named by the server.
    SubscriptionId(u64)
}
number! {
    /// One publish stream, named by the server; confirms go back to it.
    PublisherId(u64)
}
number! {
    /// One administrative command in progress, named by the server; its answer carries it back.
    Ticket(u64)
}
number! {
    /// Work that the server has under way for one publish or transaction, named by the server.
    JobId(u64)
}
number! {
    /// A version of the rules document, from 1. Version 0 is the empty document of a new shard.
    RulesVersion(u64)
}
number! {
    /// A point in time: milliseconds since 1970, as SEMANTICS "Time" defines `now`.
    Millis(u64)
}

impl Millis {
    /// This time and `ms` milliseconds more.
    pub fn after(self, ms: u64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }
}
