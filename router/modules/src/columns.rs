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
    /// Lays out these messages, one column for each field, or as many of them as have at most `most_bytes` in all, and at
    /// least one.
    pub(crate) fn fill<M: Message>(
        &mut self,
        fields: &[Field],
        messages: &[M],
        now_ms: u64,
        most_bytes: usize,
    ) -> &Batch {
        self.batch.now = now_ms;
        self.lay_out(fields, messages);
        if self.batch.columns.len() > most_bytes && messages.len() > 1 {
            let fitting = (1..messages.len()).rev().find(|&count| self.bytes_of(count) <= most_bytes);
            self.lay_out(fields, &messages[..fitting.unwrap_or(1)]);
        }
        let (places, _) = self.batch.columns.as_chunks_mut();
        for (place, offset) in places.iter_mut().zip(&self.offsets) {
            *place = offset.to_le_bytes();
        }
        &self.batch
    }

    /// What was laid out last.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The bytes that the batch would have with its first `count` messages alone.
    fn bytes_of(&self, count: usize) -> usize {
        let all = self.batch.count as usize;
        let begin = |value: usize| (self.offsets[value] & !ABSENT) as usize;
        let values = (0..self.offsets.len() / all).map(|column| column * all);
        let bytes: usize =
            values.map(|first| begin(first + count) - begin(first) + count * size_of::<u32>()).sum();
        bytes + size_of::<u32>()
    }

    /// Room for the offsets, and behind it the values.
    fn lay_out<M: Message>(&mut self, fields: &[Field], messages: &[M]) {
        let Columns { batch: Batch { count, columns, .. }, offsets } = self;
        *count = messages.len() as u32;
        columns.clear();
        columns.shrink_to(KEPT_BYTES);
        columns.resize(size_of::<u32>() * (fields.len() * messages.len() + 1), 0);
        offsets.clear();
        for field in fields {
            self.column(field, messages);
        }
        self.offsets.push(self.batch.columns.len() as u32);
        assert!(self.batch.columns.len() < ABSENT as usize, "a message is smaller than the largest size");
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
        columns.fill(fields, messages, 0, usize::MAX);
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
        let cut = |most| {
            let mut columns = Columns::default();
            let batch = columns.fill(&fields, &messages, 0, most);
            let kept = batch.count as usize;
            let whole = Columns::default().fill(&fields, &messages[..kept], 0, usize::MAX).columns.clone();
            assert_eq!(batch.columns, whole);
            kept
        };
        assert_eq!([10 + 28, 9 + 28, 10 + 20, 9 + 20, 0].map(cut), [3, 2, 2, 1, 1]);
    }
}
