//! A short string that rarely allocates: up to 38 bytes (a UUID, most topics) live in place, longer ones share their buffer.

use std::fmt;

use arrayvec::ArrayString;
use bytes::Bytes;

/// A UUID and most topics fit.
const INLINE: usize = 38;

/// Immutable UTF-8.
#[derive(Clone)]
pub(crate) enum Text {
    Inline(ArrayString<INLINE>),
    Shared(Bytes),
}

impl Text {
    pub(crate) fn new(text: &str) -> Text {
        ArrayString::from(text)
            .map_or_else(|_| Text::Shared(Bytes::copy_from_slice(text.as_bytes())), Text::Inline)
    }

    /// A text that is a part of `buffer`: a long one is not copied.
    pub(crate) fn part_of(buffer: &Bytes, text: &str) -> Text {
        ArrayString::from(text).map_or_else(|_| Text::Shared(buffer.slice_ref(text.as_bytes())), Text::Inline)
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Text::Inline(text) => text,
            Text::Shared(bytes) => std::str::from_utf8(bytes).expect("a Text is made of a str"),
        }
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
