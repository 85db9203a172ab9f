//! The queues that a message goes to: a short list that costs nothing to hand on.

use std::ops::Deref;
use std::sync::Arc;

use bincode::de::{BorrowDecode, BorrowDecoder, Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use crate::ids::QueueId;

/// Queues that are kept in place: a shared count, which session and driver both write for each message, is dearer than the copy.
const IN_PLACE: usize = 4;

/// The queues that a topic reaches under one rules version, resolved by the session. Cloning copies four numbers at most.
#[derive(Clone, Debug)]
pub struct Targets(List);

#[derive(Clone, Debug)]
enum List {
    InPlace(u8, [QueueId; IN_PLACE]),
    Shared(Arc<[QueueId]>),
}

impl Deref for Targets {
    type Target = [QueueId];

    fn deref(&self) -> &[QueueId] {
        match &self.0 {
            List::InPlace(len, ids) => &ids[..usize::from(*len)],
            List::Shared(ids) => ids,
        }
    }
}

impl From<&[QueueId]> for Targets {
    fn from(ids: &[QueueId]) -> Targets {
        if ids.len() > IN_PLACE {
            return Targets(List::Shared(Arc::from(ids)));
        }
        let mut place = [QueueId(0); IN_PLACE];
        place[..ids.len()].copy_from_slice(ids);
        Targets(List::InPlace(ids.len() as u8, place))
    }
}

impl<const N: usize> From<[QueueId; N]> for Targets {
    fn from(ids: [QueueId; N]) -> Targets {
        Targets::from(&ids[..])
    }
}

impl From<Vec<QueueId>> for Targets {
    fn from(ids: Vec<QueueId>) -> Targets {
        Targets::from(&ids[..])
    }
}

impl FromIterator<QueueId> for Targets {
    fn from_iter<I: IntoIterator<Item = QueueId>>(ids: I) -> Targets {
        Targets::from(&smallvec::SmallVec::<[QueueId; IN_PLACE]>::from_iter(ids)[..])
    }
}

impl PartialEq for Targets {
    fn eq(&self, other: &Targets) -> bool {
        **self == **other
    }
}

/// As any list.
impl Encode for Targets {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (**self).encode(encoder)
    }
}

impl<C> Decode<C> for Targets {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Targets::from(Vec::<QueueId>::decode(decoder)?))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Targets {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Targets::decode(decoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_any_length_is_what_it_was_made_of() {
        for len in 0..10 {
            let ids: Vec<QueueId> = (1..=len).map(QueueId).collect();
            let targets: Targets = ids.iter().copied().collect();
            assert_eq!(*targets, ids[..]);
            assert_eq!(targets.clone(), Targets::from(ids));
        }
    }
}
