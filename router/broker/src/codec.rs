//! Records and snapshot items as bytes: a bincode head, then the body raw. The only file that names bincode's functions;
//! everything that it decodes is distrusted.

use std::ops::Range;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::ids::{Lease, Millis, Sequence};
use crate::message::{Fields, Message, Span};
use crate::record::{Move, Moves, Raw, Record};
use crate::states::StateEntry;

/// A head is decoded within this many bytes: the rules document is the largest.
const HEAD_LIMIT: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<HEAD_LIMIT>> =
    bincode::config::standard().with_limit::<HEAD_LIMIT>();

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The head doesn't decode.
    #[error("its head doesn't decode: {0}")]
    Head(String),
    /// A field lies outside the body.
    #[error("a field of its message lies outside the body of {len} bytes")]
    Span {
        /// The body's length.
        len: usize,
    },
    /// A record without a body has bytes behind its head.
    #[error("{0} bytes follow its head")]
    Trailing(usize),
}

impl Record {
    /// Appends the record's bytes.
    pub fn encode(&self, buf: &mut Vec<u8>) {
        encode(self, buf);
        if let Some(body) = self.body() {
            buf.extend_from_slice(body);
        }
    }

    /// Takes a record from bytes that nobody vouches for.
    pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
        let (mut record, used): (Record, usize) = decode(bytes)?;
        let rest = &bytes[used..];
        match &mut record {
            Record::Published { message, .. }
            | Record::Edited { message, .. }
            | Record::Stillborn { message, .. } => {
                check_spans(&message.fields, rest)?;
                message.body = Bytes::copy_from_slice(rest);
            }
            Record::Relocated { body, .. } => body.0 = Bytes::copy_from_slice(rest),
            _ if rest.is_empty() => {}
            _ => return Err(RecordError::Trailing(rest.len())),
        }
        Ok(record)
    }

    /// The block that this record carries, for whoever keeps it longer.
    pub fn into_body(self) -> Option<Bytes> {
        match self {
            Record::Published { message, .. }
            | Record::Edited { message, .. }
            | Record::Stillborn { message, .. } => Some(message.body),
            Record::Relocated { body, .. } => Some(body.0),
            _ => None,
        }
    }

    /// The block that this record carries.
    pub fn body(&self) -> Option<&Bytes> {
        match self {
            Record::Published { message, .. }
            | Record::Edited { message, .. }
            | Record::Stillborn { message, .. } => Some(&message.body),
            Record::Relocated { body, .. } => Some(&body.0),
            _ => None,
        }
    }
}

/// Where in an encoded record its message block lies; `None` for a record without one.
pub fn body_of(record: &[u8]) -> Result<Option<Range<usize>>, RecordError> {
    let (head, used): (Record, usize) = decode(record)?;
    Ok(head.body().map(|_| used..record.len()))
}

/// Appends a value's bytes.
pub(crate) fn encode<T: Encode>(value: &T, buf: &mut Vec<u8>) {
    bincode::encode_into_writer(value, Appender(buf), CONFIG).expect("writing to memory doesn't fail");
}

/// Takes a value from bytes, and says how many it took.
pub(crate) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), RecordError> {
    bincode::decode_from_slice(bytes, CONFIG).map_err(|error| RecordError::Head(error.to_string()))
}

/// Every field inside the body, and those that are text are text.
fn check_spans(fields: &Fields, body: &[u8]) -> Result<(), RecordError> {
    let take = |span: Span| {
        let start = span.start as usize;
        body.get(start..start + span.len as usize).ok_or(RecordError::Span { len: body.len() })
    };
    let text = |span: Span| {
        let bytes = take(span)?;
        std::str::from_utf8(bytes).map_err(|error| RecordError::Head(error.to_string()))
    };
    text(fields.topic)?;
    text(fields.id)?;
    fields.reply_to.map(text).transpose()?;
    fields.correlation_id.map(text).transpose()?;
    fields.key.map(take).transpose()?;
    Ok(())
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Only the fields: the block follows the head, raw.
impl Encode for Message {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.fields.encode(encoder)
    }
}

impl<C> Decode<C> for Message {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Message { body: Bytes::new(), fields: Fields::decode(decoder)? })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Message {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Message::decode(decoder)
    }
}

/// A message that lies within a record's head, whole: gathers and sagas hold theirs in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept(pub Message);

impl Encode for Kept {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (&self.0.fields, &self.0.body[..]).encode(encoder)
    }
}

impl<C> Decode<C> for Kept {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (fields, body) = <(Fields, Vec<u8>)>::decode(decoder)?;
        check_spans(&fields, &body).map_err(|_| DecodeError::Other("a field lies outside its message"))?;
        Ok(Kept(Message { body: Bytes::from(body), fields }))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Kept {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Kept::decode(decoder)
    }
}

/// Bytes within a record's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(pub Bytes);

impl Encode for Payload {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.0[..].encode(encoder)
    }
}

impl<C> Decode<C> for Payload {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Payload(Bytes::from(Vec::<u8>::decode(decoder)?)))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Payload {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Payload::decode(decoder)
    }
}

/// Nothing: the bytes follow the head.
impl Encode for Raw {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for Raw {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Raw(Bytes::new()))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Raw {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Raw::decode(decoder)
    }
}

impl Encode for StateEntry {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.expires_ms, &self.value[..]).encode(encoder)
    }
}

impl<C> Decode<C> for StateEntry {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (expires_ms, value) = <(Option<u64>, Vec<u8>)>::decode(decoder)?;
        Ok(StateEntry { value: Bytes::from(value), expires_ms })
    }
}

impl<'de, C> BorrowDecode<'de, C> for StateEntry {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        StateEntry::decode(decoder)
    }
}

impl Encode for Move {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match *self {
            Move::Delivered { sequence, lease } => (0u8, sequence, lease).encode(encoder),
            Move::Acked { sequence } => (1u8, sequence).encode(encoder),
            Move::Returned { sequence, not_before } => (2u8, sequence, not_before).encode(encoder),
            Move::Released { sequence } => (3u8, sequence).encode(encoder),
        }
    }
}

impl<C> Decode<C> for Move {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let kind = u8::decode(decoder)?;
        let sequence = Sequence::decode(decoder)?;
        Ok(match kind {
            0 => Move::Delivered { sequence, lease: Lease::decode(decoder)? },
            1 => Move::Acked { sequence },
            2 => Move::Returned { sequence, not_before: Millis::decode(decoder)? },
            3 => Move::Released { sequence },
            _ => return Err(DecodeError::Other("unknown kind of move")),
        })
    }
}

impl<'de, C> BorrowDecode<'de, C> for Move {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Move::decode(decoder)
    }
}

impl Encode for Moves {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        self.0.iter().try_for_each(|step| step.encode(encoder))
    }
}

impl<C> Decode<C> for Moves {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = u64::decode(decoder)?;
        // Grown as it is read: a length that lies ends with the input, not with the memory.
        let mut moves = SmallVec::new();
        for _ in 0..len {
            moves.push(Move::decode(decoder)?);
        }
        Ok(Moves(moves))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Moves {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Moves::decode(decoder)
    }
}
