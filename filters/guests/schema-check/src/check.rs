//! Whether a value matches a schema, and if not, where and why: the first violation, with its JSON pointer (RFC 6901).

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::schema::{Combination, Counted, Rule, Schema, Side, TYPES};

impl Schema {
    /// The first violation, as a sentence.
    pub(crate) fn violation(&self, body: &Value) -> Option<String> {
        let mut at = String::new();
        let error = check(self, body, &mut at).err()?;
        Some(["the payload does not match the schema: at \"", &at, "\" it ", &error].concat())
    }

    fn matches(&self, value: &Value) -> bool {
        check(self, value, &mut String::new()).is_ok()
    }
}

/// Checks a value that lies at `at`. Where it is violated, `at` is left at the place.
fn check(schema: &Schema, value: &Value, at: &mut String) -> Result<(), String> {
    schema.0.iter().try_for_each(|rule| check_rule(rule, value, at))
}

fn check_rule(rule: &Rule, value: &Value, at: &mut String) -> Result<(), String> {
    match (rule, value) {
        (Rule::Never, _) => Err("must not be there".into()),
        (Rule::Type(types), value) => match types & types_of(value) {
            0 => Err(["must be ", &names(*types)].concat()),
            _ => Ok(()),
        },
        (Rule::Among(values), value) => match values.iter().any(|wanted| same(wanted, value)) {
            true => Ok(()),
            false => Err(["must be ", &joined(values.iter().map(Value::to_string))].concat()),
        },
        (Rule::Bound(side, bound), Value::Number(number)) => match is_on(*side, compare(number, bound)) {
            true => Ok(()),
            false => Err(["must be ", word(*side), &bound.to_string()].concat()),
        },
        (Rule::Length(Counted::Characters, side, bound), Value::String(text)) => {
            check_length(text.chars().count(), *side, *bound, " characters")
        }
        (Rule::Length(Counted::Items, side, bound), Value::Array(items)) => {
            check_length(items.len(), *side, *bound, " items")
        }
        (Rule::Required(names), Value::Object(fields)) => {
            match names.iter().find(|name| !fields.contains_key(*name)) {
                None => Ok(()),
                Some(name) => Err(["must have the property \"", name, "\""].concat()),
            }
        }
        (Rule::Properties(known, others), Value::Object(fields)) => {
            for (name, child) in fields {
                let known = known.iter().find(|(known, _)| known == name).map(|(_, schema)| schema);
                descend(known.unwrap_or(others), child, at, name)?;
            }
            Ok(())
        }
        (Rule::Items(schema), Value::Array(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| descend(schema, item, at, &index.to_string())),
        (Rule::Combined(how, schemas), value) => check_combined(*how, schemas, value, at),
        // A rule about another type than the value's asks for nothing.
        _ => Ok(()),
    }
}

/// Checks what lies one step below `at`.
fn descend(schema: &Schema, child: &Value, at: &mut String, step: &str) -> Result<(), String> {
    let before = at.len();
    at.push('/');
    for c in step.chars() {
        match c {
            '~' => at.push_str("~0"),
            '/' => at.push_str("~1"),
            c => at.push(c),
        }
    }
    check(schema, child, at)?;
    at.truncate(before);
    Ok(())
}

fn check_combined(
    how: Combination,
    schemas: &[Schema],
    value: &Value,
    at: &mut String,
) -> Result<(), String> {
    let matching = || schemas.iter().filter(|schema| schema.matches(value)).count();
    let (holds, error) = match how {
        Combination::All => return schemas.iter().try_for_each(|schema| check(schema, value, at)),
        Combination::Any => {
            (schemas.iter().any(|schema| schema.matches(value)), "must match one of the schemas of `anyOf`")
        }
        Combination::One => (matching() == 1, "must match exactly one of the schemas of `oneOf`"),
        Combination::Not => (matching() == 0, "must not match the schema of `not`"),
    };
    if holds { Ok(()) } else { Err(error.into()) }
}

fn check_length(length: usize, side: Side, bound: u64, unit: &str) -> Result<(), String> {
    match is_on(side, (length as u64).cmp(&bound)) {
        true => Ok(()),
        false => Err(["must have ", word(side), &bound.to_string(), unit].concat()),
    }
}

fn is_on(side: Side, ordering: Ordering) -> bool {
    match side {
        Side::AtLeast => ordering.is_ge(),
        Side::Above => ordering.is_gt(),
        Side::AtMost => ordering.is_le(),
        Side::Below => ordering.is_lt(),
    }
}

fn word(side: Side) -> &'static str {
    match side {
        Side::AtLeast => "at least ",
        Side::Above => "more than ",
        Side::AtMost => "at most ",
        Side::Below => "less than ",
    }
}

/// The types that a value has, as a set: a whole number is a number too, and 1.0 is one.
fn types_of(value: &Value) -> u8 {
    match value {
        Value::Null => 1,
        Value::Bool(_) => 1 << 1,
        Value::Object(_) => 1 << 2,
        Value::Array(_) => 1 << 3,
        Value::String(_) => 1 << 4,
        Value::Number(number)
            if whole(number).is_some() || number.as_f64().is_some_and(|n| n.fract() == 0.0) =>
        {
            3 << 5
        }
        Value::Number(_) => 1 << 5,
    }
}

fn names(types: u8) -> String {
    let chosen = TYPES.iter().enumerate().filter(|(index, _)| types & (1 << index) != 0);
    joined(chosen.map(|(_, (_, name))| (*name).to_owned()))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" or ")
}

/// Equality by value: 1 equals 1.0, at any depth.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare(left, right).is_eq(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|((name, left), (other, right))| name == other && same(left, right))
        }
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (left, right) => left.is_null() && right.is_null(),
    }
}

/// Compares by value. Whole numbers are compared as such, so that large ones stay exact.
fn compare(left: &Number, right: &Number) -> Ordering {
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        // JSON has no number that is none, so these are always ordered.
        _ => left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks bodies against a schema: those that match have no violation, the others that of the text.
    #[track_caller]
    fn check(schema: &str, cases: &[(&str, &str)]) {
        let schema = Schema::parse(schema).expect("it is a schema");
        for (body, wanted) in cases {
            let found = schema.violation(&serde_json::from_str(body).expect("it is JSON"));
            let found = found.unwrap_or_default();
            let found = found.strip_prefix("the payload does not match the schema: at ").unwrap_or(&found);
            assert_eq!(found, *wanted, "{body}");
        }
    }

    #[test]
    fn types_are_told_apart() {
        check(
            r#"{ "type": "integer" }"#,
            &[
                ("1", ""),
                ("-1.0", ""),
                ("1.5", r#""" it must be a whole number"#),
                (r#""1""#, r#""" it must be a whole number"#),
            ],
        );
        check(
            r#"{ "type": ["number", "null"] }"#,
            &[("1", ""), ("1.5", ""), ("null", ""), ("false", r#""" it must be null or a number"#)],
        );
        check(r#"{ "type": "boolean" }"#, &[("true", ""), ("{}", r#""" it must be true or false"#)]);
    }

    #[test]
    fn values_are_compared_by_value() {
        check(
            r#"{ "enum": ["a", 1, null] }"#,
            &[(r#""a""#, ""), ("1.0", ""), ("2", r#""" it must be "a" or 1 or null"#)],
        );
        check(
            r#"{ "const": { "a": [1, 2] } }"#,
            &[
                (r#"{ "a": [1.0, 2] }"#, ""),
                (r#"{ "a": [1] }"#, r#""" it must be {"a":[1,2]}"#),
                (r#"{ "b": [1, 2] }"#, r#""" it must be {"a":[1,2]}"#),
            ],
        );
    }

    #[test]
    fn numbers_have_bounds() {
        check(
            r#"{ "minimum": 0, "exclusiveMaximum": 10.5 }"#,
            &[
                ("0", ""),
                ("10.4", ""),
                ("-0.1", r#""" it must be at least 0"#),
                ("10.5", r#""" it must be less than 10.5"#),
                (r#""x""#, ""),
            ],
        );
        check(
            r#"{ "exclusiveMinimum": 0, "maximum": 9007199254740992 }"#,
            &[
                ("0", r#""" it must be more than 0"#),
                ("9007199254740992", ""),
                ("9007199254740993", r#""" it must be at most 9007199254740992"#),
            ],
        );
    }

    #[test]
    fn texts_and_arrays_have_lengths() {
        check(
            r#"{ "minLength": 2, "maxLength": 3, "minItems": 1, "maxItems": 2 }"#,
            &[
                (r#""ñandú""#, r#""" it must have at most 3 characters"#),
                (r#""ñañ""#, ""),
                (r#""ñ""#, r#""" it must have at least 2 characters"#),
                ("[]", r#""" it must have at least 1 items"#),
                ("[1, 2]", ""),
                ("[1, 2, 3]", r#""" it must have at most 2 items"#),
            ],
        );
    }

    #[test]
    fn properties_and_items_are_checked_at_their_place() {
        let schema = r#"{
            "required": ["lines"],
            "properties": {
                "lines": { "items": { "required": ["sku"], "properties": { "sku": { "type": "string" } } } },
                "a/b~c": { "type": "null" }
            },
            "additionalProperties": false
        }"#;
        check(
            schema,
            &[
                (r#"{ "lines": [{ "sku": "a", "more": 1 }] }"#, ""),
                ("{}", r#""" it must have the property "lines""#),
                (r#"{ "lines": [{ "sku": "a" }, {}] }"#, r#""/lines/1" it must have the property "sku""#),
                (r#"{ "lines": [{ "sku": 1 }] }"#, r#""/lines/0/sku" it must be a text"#),
                (r#"{ "lines": [], "more": 1 }"#, r#""/more" it must not be there"#),
                (r#"{ "lines": [], "a/b~c": 1 }"#, r#""/a~1b~0c" it must be null"#),
            ],
        );
        check(
            r#"{ "additionalProperties": { "type": "number" } }"#,
            &[(r#"{ "a": 1 }"#, ""), (r#"{ "a": "x" }"#, r#""/a" it must be a number"#)],
        );
    }

    #[test]
    fn schemas_combine() {
        check(
            r#"{ "allOf": [{ "minimum": 1 }, { "maximum": 2 }] }"#,
            &[("2", ""), ("3", r#""" it must be at most 2"#)],
        );
        let either = r#"[{ "type": "integer" }, { "minimum": 2 }]"#;
        check(
            &format!(r#"{{ "anyOf": {either} }}"#),
            &[("1", ""), ("3", ""), ("1.5", r#""" it must match one of the schemas of `anyOf`"#)],
        );
        check(
            &format!(r#"{{ "oneOf": {either} }}"#),
            &[("1", ""), ("2.5", ""), ("3", r#""" it must match exactly one of the schemas of `oneOf`"#)],
        );
        check(
            r#"{ "properties": { "a": { "not": { "type": "null" } } } }"#,
            &[(r#"{ "a": 1 }"#, ""), (r#"{ "a": null }"#, r#""/a" it must not match the schema of `not`"#)],
        );
    }

    #[test]
    fn the_place_of_a_violation_is_not_that_of_what_was_tried_before() {
        let schema = r#"{ "properties": {
            "a": { "anyOf": [{ "items": { "type": "null" } }, { "items": { "type": "number" } }] },
            "b": { "const": 1 }
        } }"#;
        check(schema, &[(r#"{ "a": [1], "b": 2 }"#, r#""/b" it must be 1"#)]);
    }

    #[test]
    fn true_and_false_are_schemas() {
        check("true", &[("1", "")]);
        check("false", &[("1", r#""" it must not be there"#)]);
    }
}
