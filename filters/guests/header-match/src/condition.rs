//! Conditions on headers, as the params give them.

use chaski_guest::{FromParam, ParamKind, ParamValue};

use crate::decimal::Decimal;

/// How a value is compared.
#[derive(Clone, Copy)]
enum Test {
    Equal,
    NotEqual,
    Prefix,
    AtLeast,
    AtMost,
    Above,
    Below,
}

/// A header's name, and what its value must be.
pub(crate) struct Condition {
    pub(crate) name: String,
    test: Test,
    text: String,
    /// The text as a number, where the test compares numbers.
    number: Decimal,
}

/// Some conditions, parted by `;`.
#[derive(Default)]
pub(crate) struct Conditions(pub(crate) Vec<Condition>);

impl FromParam for Conditions {
    const KIND: ParamKind = ParamKind::Text;
    const REQUIRED: bool = false;

    fn from_param(value: ParamValue) -> Result<Self, String> {
        let ParamValue::Text(text) = value else {
            return Err("must be text".into());
        };
        let mut conditions = Vec::new();
        // A list of characters, since the search for a single one is a third of a KiB.
        for part in text.split([';']).map(trim).filter(|part| !part.is_empty()) {
            conditions.push(Condition::parse(part).ok_or_else(|| {
                let help = "\": a condition is NAME, one of = != ^= >= <= > <, and a value; the last four take a number";
                ["has \"", part, help].concat()
            })?);
        }
        if conditions.is_empty() {
            return Err("holds no condition".into());
        }
        Ok(Self(conditions))
    }

    fn absent() -> Option<Self> {
        Some(Self::default())
    }
}

impl Condition {
    /// Reads `NAME OPERATOR VALUE`.
    fn parse(text: &str) -> Option<Self> {
        let is_operator = |c: &u8| matches!(c, b'=' | b'!' | b'^' | b'>' | b'<');
        let (name, rest) = text.split_at_checked(text.bytes().position(|c| is_operator(&c))?)?;
        let (operator, value) = rest.split_at_checked(rest.bytes().take_while(is_operator).count())?;
        let (name, value) = (trim(name), trim(value));
        let test = match operator.as_bytes() {
            b"=" => Test::Equal,
            b"!=" => Test::NotEqual,
            b"^=" => Test::Prefix,
            b">=" => Test::AtLeast,
            b"<=" => Test::AtMost,
            b">" => Test::Above,
            b"<" => Test::Below,
            _ => return None,
        };
        let number = match test {
            Test::Equal | Test::NotEqual | Test::Prefix => Decimal::default(),
            _ => Decimal::parse(value)?,
        };
        (!name.is_empty()).then(|| Self { name: name.into(), test, text: value.into(), number })
    }

    /// Whether a header's value meets it. An absent header differs from every value and meets nothing else.
    pub(crate) fn holds(&self, value: Option<&str>) -> bool {
        let Some(value) = value else {
            return matches!(self.test, Test::NotEqual);
        };
        match self.test {
            Test::Equal => value == self.text,
            Test::NotEqual => value != self.text,
            Test::Prefix => value.starts_with(&self.text),
            test => {
                let Some(number) = Decimal::parse(trim(value)) else {
                    return false;
                };
                let ordering = number.cmp(&self.number);
                match test {
                    Test::AtLeast => ordering.is_ge(),
                    Test::AtMost => ordering.is_le(),
                    Test::Above => ordering.is_gt(),
                    _ => ordering.is_lt(),
                }
            }
        }
    }
}

/// One function for all callers, since it would be inlined into each.
#[inline(never)]
fn trim(text: &str) -> &str {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(condition: &str, value: Option<&str>, expected: bool) {
        let parsed = Condition::parse(condition).expect("it is a condition");
        assert_eq!(parsed.holds(value), expected, "{condition} of {value:?}");
    }

    #[test]
    fn each_operator_compares() {
        check("a = x y", Some("x y"), true);
        check("a=x", Some("X"), false);
        check("a != x", Some("y"), true);
        check("a ^= or", Some("orders"), true);
        check("a ^= or", Some("for"), false);
        check("a >= 4.5", Some("4.5"), true);
        check("a > 4.5", Some("4.5"), false);
        check("a <= -1", Some("-2"), true);
        check("a < 10", Some("9"), true);
    }

    #[test]
    fn what_is_absent_or_no_number_meets_only_inequality() {
        check("a = ", None, false);
        check("a = ", Some(""), true);
        check("a != x", None, true);
        check("a >= 1", None, false);
        check("a >= 1", Some("many"), false);
    }

    #[test]
    fn nonsense_is_refused() {
        for nonsense in ["a", "= x", "a == x", "a >= x", "a =< 1"] {
            assert!(Condition::parse(nonsense).is_none(), "{nonsense}");
        }
    }
}
