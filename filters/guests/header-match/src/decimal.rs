//! Decimal numbers, exact, with at most 18 digits on either side of the point. Floating point would be a third of the binary.

const DIGITS: usize = 18;

/// A number in units of 10^-18.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decimal(i128);

impl Decimal {
    /// Reads `-12.5`, `+3`, `.5`. None for anything else, exponents included.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > DIGITS || fraction.len() > DIGITS {
            return None;
        }
        let padding = std::iter::repeat_n(b'0', DIGITS - fraction.len());
        let mut value = 0i128;
        for digit in whole.bytes().chain(fraction.bytes()).chain(padding) {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + i128::from(digit - b'0');
        }
        Some(Self(if negative { -value } else { value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        let number = |text| Decimal::parse(text).expect("it is a number");
        assert_eq!(number("1.50"), number("+1.5"));
        assert_eq!(number(".5"), number("0.5"));
        assert!(number("-2") < number("-1.999"));
        assert!(number("0.1") < number("0.100000000000000001"));
        assert!(number("999999999999999999.9") > number("10"));
    }

    #[test]
    fn nothing_else_is_a_number() {
        for text in ["", ".", "-", "1e3", "1 000", "0x10", "1.2.3", "many", "1000000000000000000"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
