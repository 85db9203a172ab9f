//! The fields of a message that a filter may declare. What it doesn't declare isn't copied. It knows names, no values.

use std::fmt;

use crate::bindings;

/// A field that a filter reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// The topic.
    Topic,
    /// The ordering key.
    Key,
    /// The message's id.
    Id,
    /// The value of one header.
    Header(String),
    /// All headers.
    Headers,
    /// The body.
    Payload,
    /// The priority.
    Priority,
    /// When the router took the message.
    Timestamp,
}

impl Field {
    pub(crate) fn from_wit(field: bindings::Field) -> Field {
        match field {
            bindings::Field::Topic => Field::Topic,
            bindings::Field::Key => Field::Key,
            bindings::Field::Id => Field::Id,
            bindings::Field::Header(name) => Field::Header(name),
            bindings::Field::Headers => Field::Headers,
            bindings::Field::Payload => Field::Payload,
            bindings::Field::Priority => Field::Priority,
            bindings::Field::Timestamp => Field::Timestamp,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Topic => f.write_str("topic"),
            Field::Key => f.write_str("key"),
            Field::Id => f.write_str("id"),
            Field::Header(name) => write!(f, "header:{name}"),
            Field::Headers => f.write_str("headers"),
            Field::Payload => f.write_str("payload"),
            Field::Priority => f.write_str("priority"),
            Field::Timestamp => f.write_str("timestamp"),
        }
    }
}

/// Fields as a list for people: `topic, header:region`.
pub(crate) fn list(fields: &[Field]) -> String {
    match fields {
        [] => "nothing".into(),
        fields => fields.iter().map(Field::to_string).collect::<Vec<_>>().join(", "),
    }
}
