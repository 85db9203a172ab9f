//! The one place that configures and calls bincode (frames and heads only say how they are encoded): frames as length, header, rest.
//!
//! A frame is a u32 (little endian) length of what follows, a bincode header, and raw bytes that no codec touches.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{Buf, Bytes, BytesMut};

use crate::limits::MAX_HEADER;

/// bincode 2 "standard": little endian, variable integers; with a limit.
type Wire = Configuration<LittleEndian, Varint, Limit<MAX_HEADER>>;

fn wire() -> Wire {
    bincode::config::standard().with_limit::<MAX_HEADER>()
}

/// Most frames' length and header fit into this: room is made for them once.
const USUAL_HEADER: usize = 64;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A kind (of frame, outcome or verdict) that this version doesn't know.
    #[error("unknown frame kind {0}")]
    Unknown(u32),
    /// Not decodable, and why.
    #[error("the bytes cannot be decoded: {0}")]
    Bad(String),
    /// The length is beyond what this stream allows.
    #[error("a frame of {length} bytes, where at most {limit} are allowed")]
    TooLong {
        /// What the frame says.
        length: u32,
        /// What is allowed.
        limit: u32,
    },
}

impl DecodeError {
    /// The error code that a peer is told.
    pub fn code(&self) -> crate::Code {
        match self {
            DecodeError::Unknown(_) => crate::Code::UnknownFrame,
            DecodeError::Bad(_) | DecodeError::TooLong { .. } => crate::Code::BadFrame,
        }
    }
}

/// Decodes a header at the beginning of `bytes`; answers it and how many bytes it took.
pub fn decode<'a, T: bincode::BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<(T, usize), DecodeError> {
    bincode::borrow_decode_from_slice(bytes, wire()).map_err(|error| match error {
        bincode::error::DecodeError::UnexpectedVariant { found, type_name, .. } if !is_option(type_name) => {
            DecodeError::Unknown(found)
        }
        other => DecodeError::Bad(other.to_string()),
    })
}

/// Whether a type is an option: its tag of 0 or 1 belongs to a field, and another value is no newer kind of frame. bincode
/// names enums that derive their codec by their bare names, and an option by its whole type.
fn is_option(type_name: &str) -> bool {
    type_name.contains("Option<")
}

/// Appends a header to `out`. Encoding into memory cannot fail for the types of this crate.
pub(crate) fn encode<T: bincode::Encode>(header: &T, out: &mut Vec<u8>) {
    struct Append<'a>(&'a mut Vec<u8>);
    impl bincode::enc::write::Writer for Append<'_> {
        fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
    }
    bincode::encode_into_writer(header, Append(out), wire())
        .expect("memory takes everything, and nothing here is Fallible");
}

/// Appends one whole frame to `out`: length, header, then `rest`.
pub fn encode_frame<T: bincode::Encode>(header: &T, rest: &[&[u8]], out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(USUAL_HEADER + rest.iter().map(|bytes| bytes.len()).sum::<usize>());
    out.extend_from_slice(&[0; 4]);
    encode(header, out);
    for bytes in rest {
        out.extend_from_slice(bytes);
    }
    let length = u32::try_from(out.len() - start - 4).expect("limits keep a frame far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends one frame whose rest is what `rest` appends, followed by `tail` bytes that the caller sends right behind: so a
/// message needs no buffer of its own, and a large payload no copy.
pub fn encode_frame_with<T: bincode::Encode>(
    header: &T,
    tail: usize,
    out: &mut Vec<u8>,
    rest: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    encode(header, out);
    rest(out);
    let length = u32::try_from(out.len() - start - 4 + tail).expect("limits keep a frame far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes the next whole frame (without its length) off `buffer`; `None` when more bytes are needed. Copies nothing.
pub fn next_frame(buffer: &mut BytesMut, limit: u32) -> Result<Option<Bytes>, DecodeError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix);
    if length > limit {
        return Err(DecodeError::TooLong { length, limit });
    }
    if buffer.len() < 4 + length as usize {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length as usize).freeze()))
}
