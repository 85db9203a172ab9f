//! Base64 as in RFC 4648, section 4, with padding. It knows nothing of what the bytes are.

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of these bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let three =
            group.iter().chain([&0; 2]).take(3).fold(0_usize, |three, byte| three << 8 | usize::from(*byte));
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(char::from(DIGITS[three >> (18 - 6 * digit) & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// The bytes of this text; `None` where it is not exactly what [`encode`] makes of some.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.as_bytes().chunks(4) {
        let padding = four.iter().rev().take_while(|digit| **digit == b'=').count();
        let digits = &four[..four.len() - padding];
        let value = |three: Option<usize>, digit: &u8| {
            Some(three? << 6 | DIGITS.iter().position(|known| known == digit)?)
        };
        let three = digits.iter().fold(Some(0), value)? << (6 * padding);
        let bytes = [three >> 16, three >> 8, three].map(|byte| (byte & 0xff) as u8);
        out.extend_from_slice(bytes.get(..3_usize.checked_sub(padding)?)?);
    }
    // Text that is cut, goes on behind its padding or has bits that no byte has is another text than this one's.
    (encode(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in vectors {
            assert_eq!(encode(plain.as_bytes()), coded);
            assert_eq!(decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn what_is_no_base64_is_none() {
        for text in ["Z", "Zg", "Zg=", "Zg===", "Zh==", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm-v", "é"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
