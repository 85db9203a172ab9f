//! A batch as columns: for each declared field all values end to end, where each ends, and which are absent. It copies from
//! any message that can be read, and must not know how one is stored.

use crate::bindings::Batch;
use crate::bindings::chaski::module::columns::Column;
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
pub(crate) struct Columns(Batch);

impl Default for Columns {
    fn default() -> Columns {
        Columns(Batch { count: 0, now: 0, columns: Vec::new() })
    }
}

/// A column's room that is kept from one call to the next. What a large batch took beyond it is given back.
const KEPT_BYTES: usize = 256 * 1024;

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
        let none = || Column { values: Vec::new(), ends: Vec::new(), absent: Vec::new() };
        self.0.columns.resize_with(fields.len(), none);
        for (column, field) in self.0.columns.iter_mut().zip(fields) {
            column.clear();
            column.fill(field, messages);
        }
        self.0.now = now_ms;
        self.0.count = self.trim(messages.len(), most_bytes) as u32;
        &self.0
    }

    /// What was laid out last.
    pub(crate) fn batch(&self) -> &Batch {
        &self.0
    }

    /// Keeps as many of the messages as have at most this many bytes in all, and at least one. Answers how many.
    fn trim(&mut self, count: usize, most_bytes: usize) -> usize {
        let columns = &mut self.0.columns;
        let bytes_of =
            |count: usize| columns.iter().map(|column| column.ends[count - 1] as usize).sum::<usize>();
        if count <= 1 || bytes_of(count) <= most_bytes {
            return count;
        }
        let kept = (1..count).rev().find(|&count| bytes_of(count) <= most_bytes).unwrap_or(1);
        for Column { values, ends, absent } in columns {
            values.truncate(ends[kept - 1] as usize);
            ends.truncate(kept);
            absent.truncate(kept);
        }
        kept
    }
}

impl Column {
    fn fill<M: Message>(&mut self, field: &Field, messages: &[M]) {
        match field {
            Field::Topic => self.fill_text(messages, |message| Some(message.topic())),
            Field::Key => self.fill_text(messages, |message| message.key()),
            Field::Id => self.fill_text(messages, |message| Some(message.id())),
            Field::Header(name) => self.fill_text(messages, |message| message.header(name)),
            Field::Headers => self.fill_each(messages, |message, values| {
                message.each_header(&mut |name, value| {
                    for text in [name, value] {
                        values.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        values.extend_from_slice(text.as_bytes());
                    }
                });
            }),
            Field::Payload => {
                self.fill_each(messages, |message, values| values.extend_from_slice(message.payload()))
            }
            Field::Priority => self.fill_each(messages, |message, values| values.push(message.priority())),
            Field::Timestamp => self.fill_each(messages, |message, values| {
                values.extend_from_slice(&message.timestamp_ms().to_le_bytes());
            }),
        }
    }

    fn clear(&mut self) {
        self.values.clear();
        self.values.shrink_to(KEPT_BYTES);
        self.ends.clear();
        self.absent.clear();
    }

    fn fill_text<M>(&mut self, messages: &[M], text: impl Fn(&M) -> Option<&str>) {
        for (at, message) in messages.iter().enumerate() {
            match text(message) {
                Some(text) => self.values.extend_from_slice(text.as_bytes()),
                None => {
                    // The list stays empty while no value is absent.
                    self.absent.resize(messages.len(), 0);
                    self.absent[at] = 1;
                }
            }
            self.ends.push(self.values.len() as u32);
        }
    }

    fn fill_each<M>(&mut self, messages: &[M], add: impl Fn(&M, &mut Vec<u8>)) {
        for message in messages {
            add(message, &mut self.values);
            self.ends.push(self.values.len() as u32);
        }
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

    fn laid_out(fields: &[Field], messages: &[Sample]) -> Vec<(Vec<u8>, Vec<u32>, Vec<u8>)> {
        let mut columns = Columns::default();
        columns.fill(fields, messages, 0, usize::MAX);
        columns.0.columns.into_iter().map(|column| (column.values, column.ends, column.absent)).collect()
    }

    #[test]
    fn only_declared_fields_are_copied_and_absent_is_not_empty() {
        let messages = [Sample(Some("a"), "xy"), Sample(None, ""), Sample(Some(""), "z")];
        assert_eq!(laid_out(&[], &messages), []);
        let [key, payload] = &laid_out(&[Field::Key, Field::Payload], &messages)[..] else { panic!() };
        assert_eq!(*key, (b"a".to_vec(), vec![1, 1, 1], vec![0, 1, 0]));
        assert_eq!(*payload, (b"xyz".to_vec(), vec![2, 2, 3], vec![]));
    }

    #[test]
    fn every_field_has_its_form() {
        let one = [Sample(None, "")];
        let column = |field| laid_out(&[field], &one).remove(0);
        assert_eq!(column(Field::Topic), (b"t".to_vec(), vec![1], vec![]));
        assert_eq!(column(Field::Id), (b"i".to_vec(), vec![1], vec![]));
        assert_eq!(column(Field::Header("h".into())), (b"v".to_vec(), vec![1], vec![]));
        assert_eq!(column(Field::Header("x".into())), (vec![], vec![0], vec![1]));
        assert_eq!(column(Field::Headers), (b"\x01\0\0\0h\x01\0\0\0v".to_vec(), vec![10], vec![]));
        assert_eq!(column(Field::Priority), (vec![4], vec![1], vec![]));
        assert_eq!(column(Field::Timestamp), (7_u64.to_le_bytes().to_vec(), vec![8], vec![]));
    }

    #[test]
    fn a_batch_is_cut_at_its_bytes_and_the_first_message_stays() {
        let messages = [Sample(None, "12345"), Sample(Some("k"), "1234"), Sample(None, "")];
        let trim = |most| {
            let mut columns = Columns::default();
            let batch = columns.fill(&[Field::Payload, Field::Key], &messages, 0, most);
            let kept = batch.count as usize;
            assert!(batch.columns.iter().all(|column| column.ends.len() == kept));
            kept
        };
        assert_eq!([10, 9, 5, 4, 0].map(trim), [3, 1, 1, 1, 1]);
    }
}
