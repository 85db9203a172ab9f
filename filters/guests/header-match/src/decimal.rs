//! Decimal numbers, exact, with at most 18 digits on either side of the point. Floating point would be a third of the binary.

const DIGITS: usize = 18;

/// A number: its whole part, and what is left in units of 10^-18. Both have its sign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Decimal(i64, i64);

impl Decimal {
    /// Reads `-12.5`, `+3`, `.5`. None for anything else, exponents included.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once(['.']).unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (whole, mut fraction, places) = (number(whole)?, number(fraction)?, fraction.len());
        for _ in places..DIGITS {
            fraction *= 10;
        }
        Some(if negative { Self(-whole, -fraction) } else { Self(whole, fraction) })
    }
}

/// The number that these digits are; with none of them it is 0. Not inlined, for it is called twice.
#[inline(never)]
fn number(digits: &str) -> Option<i64> {
    if digits.len() > DIGITS {
        return None;
    }
    digits
        .bytes()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
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
        assert!(number("-0.5") < number("0") && number("-1.5") < number("-1"));
        assert_eq!(number("-0"), number("0"));
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
