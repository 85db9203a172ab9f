//! A short string that rarely allocates: up to 38 bytes (a UUID, most topics) live in place, longer ones share their buffer.

use std::fmt;

use bytes::Bytes;

/// What fits beside the length without making the type larger than a `Bytes` and a word.
const INLINE: usize = 38;

/// Immutable UTF-8.
#[derive(Clone)]
pub(crate) enum Text {
    Inline { length: u8, bytes: [u8; INLINE] },
    Shared(Bytes),
}

impl Text {
    pub(crate) fn new(text: &str) -> Text {
        Text::inline(text).unwrap_or_else(|| Text::Shared(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// A text that is a part of `buffer`: a long one is not copied.
    pub(crate) fn part_of(buffer: &Bytes, text: &str) -> Text {
        Text::inline(text).unwrap_or_else(|| Text::Shared(buffer.slice_ref(text.as_bytes())))
    }

    fn inline(text: &str) -> Option<Text> {
        let mut bytes = [0; INLINE];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Text::Inline { length: text.len() as u8, bytes })
    }

    pub(crate) fn as_str(&self) -> &str {
        let bytes = match self {
            Text::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Text::Shared(bytes) => bytes,
        };
        std::str::from_utf8(bytes).expect("a Text is made of a str")
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_texts_read_the_same() {
        for length in [0, 1, 37, 38, 39, 300] {
            let text = "ñ".repeat(length / 2) + &"x".repeat(length % 2);
            assert_eq!(Text::new(&text).as_str(), text);
            let buffer = Bytes::from(format!("<{text}>"));
            let part = std::str::from_utf8(&buffer[1..1 + length]).expect("cut at its ends");
            assert_eq!(Text::part_of(&buffer, part).as_str(), text);
        }
    }
}
