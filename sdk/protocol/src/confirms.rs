//! The router's answers on a publish stream, run-length coded. `frames` exports them beside the other frames.
//!
//! A transaction's parts are runs again, but never hold a transaction: decoding says so by its types, so bytes from a peer
//! cannot nest deeper than that and exhaust the stack.

use bincode::de::Decoder;
use bincode::error::{AllowedEnumVariants, DecodeError};
use bincode::{Decode, Encode};

/// Cumulative confirms: the answers of the frames up to and including number `through` that were not answered before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PublishAnswer {
    /// The last frame that this answers.
    pub through: u64,
    /// The answers in the stream's order, run-length coded.
    pub runs: Vec<Run>,
}

/// Answers of `count` frames that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Run {
    /// How many, at least 1.
    pub count: u32,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of a frame on a publish stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub enum Outcome {
    /// A message was taken (or reached nobody, when all counts are zero). The n-th of the run has sequence
    /// `first + n × step`.
    Confirmed {
        /// The first one's sequence; none was stored when absent.
        first: Option<u64>,
        /// From one to the next.
        step: u64,
        /// The counts of each.
        counts: Counts,
    },
    /// The id was known; the sequences are the first copies'.
    Duplicate {
        /// The first one's sequence.
        first: Option<u64>,
        /// From one to the next.
        step: u64,
    },
    /// Refused, each for the same reason; nothing was stored.
    Refused {
        /// The code's number.
        code: u32,
        /// The sentence.
        detail: String,
    },
    /// A transaction is done; the parts' answers in order. Its count is 1.
    Transacted {
        /// Answers of its publishes: `Confirmed` and `Duplicate` only.
        parts: Vec<Run>,
    },
    /// A transaction was refused, since leases are lost. Its count is 1.
    LeaseLost {
        /// Indexes into its acks.
        acks: Vec<u32>,
    },
}

/// How many copies were taken or taken out.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Counts {
    /// Taken by queues and subscriptions.
    pub routed: u32,
    /// Dropped by filters.
    pub dropped: u32,
    /// Rejected by filters.
    pub rejected: u32,
}

impl<Context> Decode<Context> for Outcome {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Outcome, DecodeError> {
        Ok(match u32::decode(decoder)? {
            0 => Outcome::Confirmed {
                first: Decode::decode(decoder)?,
                step: Decode::decode(decoder)?,
                counts: Decode::decode(decoder)?,
            },
            1 => Outcome::Duplicate { first: Decode::decode(decoder)?, step: Decode::decode(decoder)? },
            2 => Outcome::Refused { code: Decode::decode(decoder)?, detail: Decode::decode(decoder)? },
            3 => {
                let parts: Vec<Part> = Decode::decode(decoder)?;
                Outcome::Transacted { parts: parts.into_iter().map(Run::from).collect() }
            }
            4 => Outcome::LeaseLost { acks: Decode::decode(decoder)? },
            found => {
                return Err(DecodeError::UnexpectedVariant {
                    found,
                    type_name: "Outcome",
                    allowed: &AllowedEnumVariants::Range { min: 0, max: 4 },
                });
            }
        })
    }
}

bincode::impl_borrow_decode!(Outcome);

/// A [`Run`] within a transaction, as it is decoded.
#[derive(Decode)]
struct Part {
    count: u32,
    outcome: PartOutcome,
}

/// The two outcomes that a part can have; their numbers are those of [`Outcome`].
#[derive(Decode)]
enum PartOutcome {
    Confirmed { first: Option<u64>, step: u64, counts: Counts },
    Duplicate { first: Option<u64>, step: u64 },
}

impl From<Part> for Run {
    fn from(Part { count, outcome }: Part) -> Run {
        let outcome = match outcome {
            PartOutcome::Confirmed { first, step, counts } => Outcome::Confirmed { first, step, counts },
            PartOutcome::Duplicate { first, step } => Outcome::Duplicate { first, step },
        };
        Run { count, outcome }
    }
}
