//! Frames, codec, error codes and limits: what server and client agree on. Pure: it never does I/O and knows no runtime.
//!
//! PROTOCOL.md is the specification; this crate is the one implementation of it that both sides share.

mod codec;
mod codes;
mod confirms;
mod limits;
mod message;
mod token;
mod topic;
mod units;

pub mod admin;
pub mod frames;

pub use codec::{DecodeError, decode, encode_frame, encode_frame_with, next_frame};
pub use codes::{Code, Refusal};
pub use limits::*;
pub use message::{Head, HeadError, check_message_id};
pub use token::{TokenError, check_token};
pub use topic::{
    Pattern, TopicError, check_pattern, check_publish_topic, check_topic, pattern_matches, shown,
};
pub use units::{UnitError, format_duration, format_size, parse_duration, parse_size};

/// The ALPN name of this version of the protocol.
pub const ALPN: &[u8] = b"chaski/1";

/// The version number in the first frame.
pub const VERSION: u32 = 1;
