//! A schema, read once: a list of rules, one for each keyword. It refuses what it doesn't know, since a keyword that is passed
//! over would let pass what it was written against. It checks nothing itself.

use chaski_guest::{FromParam, ParamKind, ParamValue};
use serde_json::{Map, Number, Value};

/// The keywords that check something, in the order in which they are checked.
const KEYWORDS: [&str; 19] = [
    "type",
    "enum",
    "const",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
];

/// Keywords that say something to people and check nothing.
const REMARKS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// The types, with what one of them is called in a sentence. A set of them is a number with a bit for each.
pub(crate) const TYPES: [(&str, &str); 7] = [
    ("null", "null"),
    ("boolean", "true or false"),
    ("object", "an object"),
    ("array", "an array"),
    ("string", "a text"),
    ("number", "a number"),
    ("integer", "a whole number"),
];

/// A schema. Without rules it takes everything.
pub(crate) struct Schema(pub(crate) Vec<Rule>);

/// What one keyword asks for.
pub(crate) enum Rule {
    /// The schema `false`.
    Never,
    Type(u8),
    Among(Vec<Value>),
    Bound(Side, Number),
    Length(Counted, Side, u64),
    Required(Vec<String>),
    /// `properties` and, for all others, `additionalProperties`.
    Properties(Vec<(String, Schema)>, Schema),
    Items(Schema),
    Combined(Combination, Vec<Schema>),
}

/// Which side of a bound is allowed.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    AtLeast,
    Above,
    AtMost,
    Below,
}

/// What a length counts.
#[derive(Clone, Copy)]
pub(crate) enum Counted {
    Characters,
    Items,
}

/// How schemas are combined.
#[derive(Clone, Copy)]
pub(crate) enum Combination {
    All,
    Any,
    One,
    Not,
}

impl FromParam for Schema {
    const KIND: ParamKind = ParamKind::Json;

    fn from_param(value: ParamValue) -> Result<Self, String> {
        match value {
            ParamValue::Json(text) => Self::parse(&text),
            _ => Err("must be a table".into()),
        }
    }
}

impl Schema {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|_| "is no JSON")?;
        Self::read(value, "")
    }

    /// Reads the schema that stands at a place in the whole. An error names the place.
    fn read(value: Value, at: &str) -> Result<Self, String> {
        let mut table = match value {
            Value::Bool(true) => return Ok(Self(Vec::new())),
            Value::Bool(false) => return Ok(Self(vec![Rule::Never])),
            Value::Object(table) => table,
            _ => return Err(sentence(at, "must be a schema: a table, true or false")),
        };
        if let Some(unknown) = table.keys().map(|name| &**name).find(|name| !is_known(name)) {
            return Err(refusal(at, unknown));
        }
        let mut rules = Vec::new();
        for keyword in KEYWORDS {
            if let Some(value) = take(&mut table, keyword) {
                rules.push(rule(&mut table, keyword, value, &[at, "/", keyword].concat())?);
            }
        }
        Ok(Self(rules))
    }
}

/// Takes a keyword's value out, and leaves a schema that takes everything in its place.
fn take(table: &mut Map<String, Value>, keyword: &str) -> Option<Value> {
    table.get_mut(keyword).map(|value| std::mem::replace(value, Value::Bool(true)))
}

fn is_known(name: &str) -> bool {
    KEYWORDS.contains(&name) || REMARKS.contains(&name)
}

fn refusal(at: &str, keyword: &str) -> String {
    if keyword == "$ref" {
        return sentence(
            at,
            "has the keyword `$ref`, which is not followed: write the schema out in its place",
        );
    }
    let known = KEYWORDS.join(", ");
    sentence(
        at,
        &["has the keyword `", keyword, "`, which is not supported; those that are: ", &known].concat(),
    )
}

fn sentence(at: &str, error: &str) -> String {
    ["at \"", at, "\" ", error].concat()
}

/// What a keyword asks for. `properties` takes `additionalProperties` out of the table, since they are one rule.
fn rule(table: &mut Map<String, Value>, keyword: &str, value: Value, at: &str) -> Result<Rule, String> {
    Ok(match keyword {
        "type" => Rule::Type(types(&value).ok_or_else(|| {
            let names = TYPES.map(|(name, _)| name).join(", ");
            sentence(at, &["must be one of, or a list of: ", &names].concat())
        })?),
        "enum" => Rule::Among(list(value, at)?),
        "const" => Rule::Among(vec![value]),
        "minimum" => bound(Side::AtLeast, value, at)?,
        "exclusiveMinimum" => bound(Side::Above, value, at)?,
        "maximum" => bound(Side::AtMost, value, at)?,
        "exclusiveMaximum" => bound(Side::Below, value, at)?,
        "minLength" => length(Counted::Characters, Side::AtLeast, &value, at)?,
        "maxLength" => length(Counted::Characters, Side::AtMost, &value, at)?,
        "minItems" => length(Counted::Items, Side::AtLeast, &value, at)?,
        "maxItems" => length(Counted::Items, Side::AtMost, &value, at)?,
        "required" => {
            let mut names = Vec::new();
            for name in list(value, at)? {
                match name {
                    Value::String(name) => names.push(name),
                    _ => return Err(sentence(at, "must be a list of names")),
                }
            }
            Rule::Required(names)
        }
        "properties" => {
            let Value::Object(known) = value else {
                return Err(sentence(at, "must be a table of schemas"));
            };
            let mut schemas = Vec::new();
            for (name, schema) in known {
                let schema = Schema::read(schema, &[at, "/", &name].concat())?;
                schemas.push((name, schema));
            }
            let others = take(table, "additionalProperties").unwrap_or(Value::Bool(true));
            Rule::Properties(schemas, others_schema(others, at.strip_suffix("/properties").unwrap_or(at))?)
        }
        "additionalProperties" => Rule::Properties(Vec::new(), Schema::read(value, at)?),
        "items" => Rule::Items(Schema::read(value, at)?),
        "allOf" => combined(Combination::All, value, at)?,
        "anyOf" => combined(Combination::Any, value, at)?,
        "oneOf" => combined(Combination::One, value, at)?,
        _ => Rule::Combined(Combination::Not, vec![Schema::read(value, at)?]),
    })
}

fn others_schema(value: Value, parent: &str) -> Result<Schema, String> {
    Schema::read(value, &[parent, "/additionalProperties"].concat())
}

fn list(value: Value, at: &str) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) => Ok(list),
        _ => Err(sentence(at, "must be a list")),
    }
}

fn bound(side: Side, value: Value, at: &str) -> Result<Rule, String> {
    match value {
        Value::Number(number) => Ok(Rule::Bound(side, number)),
        _ => Err(sentence(at, "must be a number")),
    }
}

fn length(counted: Counted, side: Side, value: &Value, at: &str) -> Result<Rule, String> {
    match value.as_u64() {
        Some(number) => Ok(Rule::Length(counted, side, number)),
        None => Err(sentence(at, "must be a whole number that is not negative")),
    }
}

fn combined(how: Combination, value: Value, at: &str) -> Result<Rule, String> {
    let mut schemas = Vec::new();
    for schema in list(value, at)? {
        let index = schemas.len().to_string();
        schemas.push(Schema::read(schema, &[at, "/", &index].concat())?);
    }
    match schemas.is_empty() {
        true => Err(sentence(at, "must hold a schema")),
        false => Ok(Rule::Combined(how, schemas)),
    }
}

/// The set of types that a name or a list of names means.
fn types(value: &Value) -> Option<u8> {
    let bit = |value: &Value| {
        let name = value.as_str()?;
        TYPES.iter().position(|(known, _)| *known == name).map(|index| 1 << index)
    };
    match value {
        Value::Array(names) if !names.is_empty() => {
            names.iter().try_fold(0, |set, name| Some(set | bit(name)?))
        }
        name => bit(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(schema: &str, wanted: &str) {
        let error = Schema::parse(schema).err().expect("it is refused");
        assert!(error.starts_with(wanted), "{error}");
    }

    #[test]
    fn a_keyword_that_is_not_supported_is_refused_by_its_name_and_place() {
        refused(
            r#"{ "properties": { "sku": { "pattern": "^[A-Z]+$" } } }"#,
            r#"at "/properties/sku" has the keyword `pattern`, which is not supported; those that are: type, enum,"#,
        );
        refused(r#"{ "uniqueItems": true }"#, r#"at "" has the keyword `uniqueItems`"#);
        refused(
            r##"{ "items": { "$ref": "#/$defs/a" } }"##,
            r#"at "/items" has the keyword `$ref`, which is not followed"#,
        );
        refused(r#"{ "anyOf": [{ "format": "date" }] }"#, r#"at "/anyOf/0" has the keyword `format`"#);
    }

    #[test]
    fn what_a_keyword_cannot_be_is_refused() {
        refused("3", r#"at "" must be a schema"#);
        refused(r#"{ "type": "text" }"#, r#"at "/type" must be one of, or a list of: null, boolean,"#);
        refused(r#"{ "type": [] }"#, r#"at "/type" must be"#);
        refused(r#"{ "exclusiveMinimum": true }"#, r#"at "/exclusiveMinimum" must be a number"#);
        refused(r#"{ "maxItems": -1 }"#, r#"at "/maxItems" must be a whole number"#);
        refused(r#"{ "required": [1] }"#, r#"at "/required" must be a list of names"#);
        refused(r#"{ "properties": [] }"#, r#"at "/properties" must be a table"#);
        refused(r#"{ "additionalProperties": 1 }"#, r#"at "/additionalProperties" must be a schema"#);
        refused(r#"{ "items": [{}] }"#, r#"at "/items" must be a schema"#);
        refused(r#"{ "oneOf": [] }"#, r#"at "/oneOf" must hold a schema"#);
        refused(r#"{ "enum": 1 }"#, r#"at "/enum" must be a list"#);
    }

    #[test]
    fn remarks_are_taken_and_check_nothing() {
        let schema = Schema::parse(r#"{ "$schema": "x", "title": "an order", "default": {} }"#);
        assert!(schema.is_ok_and(|schema| schema.0.is_empty()));
    }

    #[test]
    fn only_a_table_is_a_schema_of_the_rules() {
        assert_eq!(
            Schema::from_param(ParamValue::Text("{}".into())).err().as_deref(),
            Some("must be a table")
        );
        assert!(Schema::from_param(ParamValue::Json("{}".into())).is_ok());
    }
}
