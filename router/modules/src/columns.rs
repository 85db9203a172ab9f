//! A batch as columns: for each declared field all values end to end, where each ends, and which are absent. It copies from
//! any message that can be read, and must not know how one is stored.

use crate::bindings::Batch;
use crate::field::Field;

/// A message, as far as a filter may read it.
pub trait Message {
    /// The topic.
    fn topic(&self) -> &str;
    /// The ordering key.
    fn key(&self) -> Option<&str>;
    /// The id.
    fn id(&self) -> &str;
    /// The value of one header.
    fn header(&self, name: &str) -> Option<&str>;
    /// Calls `each` with the name and value of every header, in the message's order.
    fn each_header(&self, each: &mut dyn FnMut(&str, &str));
    /// The body.
    fn payload(&self) -> &[u8];
    /// The priority, 0 to 9.
    fn priority(&self) -> u8;
    /// When the router took it, in milliseconds since 1970.
    fn timestamp_ms(&self) -> u64;
}

impl<M: Message + ?Sized> Message for &M {
    fn topic(&self) -> &str {
        (**self).topic()
    }
    fn key(&self) -> Option<&str> {
        (**self).key()
    }
    fn id(&self) -> &str {
        (**self).id()
    }
    fn header(&self, name: &str) -> Option<&str> {
        (**self).header(name)
    }
    fn each_header(&self, each: &mut dyn FnMut(&str, &str)) {
        (**self).each_header(each);
    }
    fn payload(&self) -> &[u8] {
        (**self).payload()
    }
    fn priority(&self) -> u8 {
        (**self).priority()
    }
    fn timestamp_ms(&self) -> u64 {
        (**self).timestamp_ms()
    }
}

/// The room in which batches are laid out. An instance keeps it, so that a call allocates next to nothing.
#[derive(Debug)]
pub(crate) struct Columns {
    batch: Batch,
    /// Where each value begins, and the last ends; copied before the values when all are there.
    offsets: Vec<u32>,
}

impl Default for Columns {
    fn default() -> Columns {
        Columns { batch: Batch { count: 0, now: 0, columns: Vec::new() }, offsets: Vec::new() }
    }
}

/// The room for values that is kept from one call to the next. What a large batch took beyond it is given back.
const KEPT_BYTES: usize = 256 * 1024;

/// Set in the offset of a value that is absent.
const ABSENT: u32 = 1 << 31;

impl Columns {
    /// Lays out these messages, one column for each field, or as many of them as have values of at most `most_bytes` in all, and at
    /// least one. Nothing when one alone takes more than `room`: no memory holds it, however often a module names a field.
    pub(crate) fn fill<M: Message>(
        &mut self,
        fields: &[Field],
        messages: &[M],
        now_ms: u64,
        most_bytes: usize,
        room: usize,
    ) -> Option<&Batch> {
        self.batch.now = now_ms;
        let mut count = messages.len();
        while !self.lay_out(fields, &messages[..count], room) {
            if count <= 1 {
                return None;
            }
            count /= 2;
        }
        if count > 1 && self.bytes_of(count) > most_bytes {
            let fitting = (1..count).rev().find(|&count| self.bytes_of(count) <= most_bytes);
            self.lay_out(fields, &messages[..fitting.unwrap_or(1)], room);
        }
        let (places, _) = self.batch.columns.as_chunks_mut();
        for (place, offset) in places.iter_mut().zip(&self.offsets) {
            *place = offset.to_le_bytes();
        }
        Some(&self.batch)
    }

    /// What was laid out last.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The bytes of the values of the first `count` messages.
    fn bytes_of(&self, count: usize) -> usize {
        let all = self.batch.count as usize;
        let begin = |value: usize| (self.offsets[value] & !ABSENT) as usize;
        let columns = (0..self.offsets.len() / all).map(|column| column * all);
        columns.map(|first| begin(first + count) - begin(first)).sum()
    }

    /// Room for the offsets, and behind it the values. Whether all of it fits into `room`.
    fn lay_out<M: Message>(&mut self, fields: &[Field], messages: &[M], room: usize) -> bool {
        let Columns { batch: Batch { count, columns, .. }, offsets } = self;
        *count = messages.len() as u32;
        columns.clear();
        columns.shrink_to(KEPT_BYTES);
        columns.resize(size_of::<u32>() * (fields.len() * messages.len() + 1), 0);
        offsets.clear();
        for field in fields {
            if self.batch.columns.len() > room {
                return false;
            }
            self.column(field, messages);
        }
        let bytes = self.batch.columns.len();
        assert!(bytes < ABSENT as usize, "a memory and one column more are smaller than that");
        self.offsets.push(bytes as u32);
        bytes <= room
    }

    fn column<M: Message>(&mut self, field: &Field, messages: &[M]) {
        match field {
            Field::Topic => self.texts(messages, |message| Some(message.topic())),
            Field::Key => self.texts(messages, |message| message.key()),
            Field::Id => self.texts(messages, |message| Some(message.id())),
            Field::Header(name) => self.texts(messages, |message| message.header(name)),
            Field::Headers => self.each(messages, |message, values| {
                message.each_header(&mut |name, value| {
                    for text in [name, value] {
                        values.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        values.extend_from_slice(text.as_bytes());
                    }
                });
            }),
            Field::Payload => {
                self.each(messages, |message, values| values.extend_from_slice(message.payload()));
            }
            Field::Priority => self.each(messages, |message, values| values.push(message.priority())),
            Field::Timestamp => self.each(messages, |message, values| {
                values.extend_from_slice(&message.timestamp_ms().to_le_bytes());
            }),
        }
    }

    fn texts<M>(&mut self, messages: &[M], text: impl Fn(&M) -> Option<&str>) {
        let Columns { batch: Batch { columns, .. }, offsets } = self;
        offsets.extend(messages.iter().map(|message| {
            let (text, begin) = (text(message), columns.len() as u32);
            columns.extend_from_slice(text.unwrap_or_default().as_bytes());
            if text.is_none() { begin | ABSENT } else { begin }
        }));
    }

    fn each<M>(&mut self, messages: &[M], add: impl Fn(&M, &mut Vec<u8>)) {
        let Columns { batch: Batch { columns, .. }, offsets } = self;
        offsets.extend(messages.iter().map(|message| {
            let begin = columns.len() as u32;
            add(message, columns);
            begin
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sample(Option<&'static str>, &'static str);

    impl Message for Sample {
        fn topic(&self) -> &str {
            "t"
        }
        fn key(&self) -> Option<&str> {
            self.0
        }
        fn id(&self) -> &str {
            "i"
        }
        fn header(&self, name: &str) -> Option<&str> {
            (name == "h").then_some("v")
        }
        fn each_header(&self, each: &mut dyn FnMut(&str, &str)) {
            each("h", "v");
        }
        fn payload(&self) -> &[u8] {
            self.1.as_bytes()
        }
        fn priority(&self) -> u8 {
            4
        }
        fn timestamp_ms(&self) -> u64 {
            7
        }
    }

    /// The values, and how many bytes of them come before each, those of absent ones with the mark.
    fn laid_out(fields: &[Field], messages: &[Sample]) -> (Vec<u8>, Vec<u32>) {
        let mut columns = Columns::default();
        columns.fill(fields, messages, 0, usize::MAX, usize::MAX).expect("there is room");
        let start = size_of::<u32>() * (fields.len() * messages.len() + 1);
        let offsets = columns.offsets.iter().map(|offset| offset - start as u32).collect();
        (columns.batch.columns.split_off(start), offsets)
    }

    #[test]
    fn only_declared_fields_are_copied_and_absent_is_not_empty() {
        let messages = [Sample(Some("a"), "xy"), Sample(None, ""), Sample(Some(""), "z")];
        assert_eq!(laid_out(&[], &messages), (vec![], vec![0]));
        let (values, offsets) = laid_out(&[Field::Key, Field::Payload], &messages);
        assert_eq!(values, b"axyz");
        assert_eq!(offsets, [0, 1 | ABSENT, 1, 1, 3, 3, 4]);
    }

    #[test]
    fn every_field_has_its_form() {
        let one = [Sample(None, "")];
        let column = |field| laid_out(&[field], &one);
        assert_eq!(column(Field::Topic), (b"t".to_vec(), vec![0, 1]));
        assert_eq!(column(Field::Id), (b"i".to_vec(), vec![0, 1]));
        assert_eq!(column(Field::Header("h".into())), (b"v".to_vec(), vec![0, 1]));
        assert_eq!(column(Field::Header("x".into())), (vec![], vec![ABSENT, 0]));
        assert_eq!(column(Field::Headers), (b"\x01\0\0\0h\x01\0\0\0v".to_vec(), vec![0, 10]));
        assert_eq!(column(Field::Priority), (vec![4], vec![0, 1]));
        assert_eq!(column(Field::Timestamp), (7_u64.to_le_bytes().to_vec(), vec![0, 8]));
    }

    #[test]
    fn a_batch_is_cut_at_its_bytes_and_the_first_message_stays() {
        let messages = [Sample(None, "12345"), Sample(Some("k"), "1234"), Sample(None, "")];
        let fields = [Field::Payload, Field::Key];
        let cut = |most, room| {
            let mut columns = Columns::default();
            let batch = columns.fill(&fields, &messages, 0, most, room)?;
            let kept = batch.count as usize;
            let mut alone = Columns::default();
            let whole = alone.fill(&fields, &messages[..kept], 0, usize::MAX, usize::MAX)?;
            assert_eq!(batch.columns, whole.columns);
            Some(kept)
        };
        let cut_at = |most| cut(most, usize::MAX);
        assert_eq!([10, 9, 5, 4, 0].map(cut_at), [3, 1, 1, 1, 1].map(Some));
        // The offsets of three messages take 28 bytes, those of one 12.
        let within = |room| cut(usize::MAX, room);
        assert_eq!([38, 37, 17, 16, 0].map(within), [Some(3), Some(1), Some(1), None, None]);
    }
}
