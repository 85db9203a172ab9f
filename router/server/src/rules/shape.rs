//! Whether a document has the shape that its structs ask for: every key, type, unit, name and range, all errors at once, each at its
//! place. It walks TOML and JSON Schema side by side, so a new key needs nothing here.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use toml_edit::{Item, Table, TableLike, Value};

use super::document::Document;
use super::errors::{Collector, nearest};
use super::formats::{self, Names};

/// The document's JSON Schema, with everything in its place.
pub(super) static SCHEMA: LazyLock<Json> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Document>();
    schema.insert("title".to_owned(), "chaski rules".into());
    schema.to_value()
});

/// Checks the whole document.
pub(super) fn check(root: &Table, errors: &mut Collector<'_>) {
    Walk { errors, names: Names::of(root) }.table("", root, &SCHEMA);
}

/// What a key takes, in words; shared by errors and RULES.md.
pub(super) fn type_name(schema: &Json) -> String {
    if let Some(values) = words(schema) {
        return values.iter().map(|value| format!("`\"{value}\"`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(alternatives) = schema["oneOf"].as_array() {
        return alternatives.iter().map(type_name).collect::<Vec<_>>().join(" or ");
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), format) => formats::noun(format).to_owned(),
        (Some("integer"), _) => "a whole number".to_owned(),
        (Some("boolean"), _) => "`true` or `false`".to_owned(),
        (Some("array"), _) => format!("a list of {}s", type_name(&schema["items"]).trim_start_matches("a ")),
        _ => "a table".to_owned(),
    }
}

/// The range of a key, in words.
pub(super) fn range_name(schema: &Json) -> Option<String> {
    let bound = |key: &str| match &schema[key] {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        // schemars writes the bounds of `u64` itself, which say nothing.
        number => number.as_u64().filter(|number| *number > 0).map(|number| number.to_string()),
    };
    let least = bound("x-min").or_else(|| bound("minimum")).or_else(|| bound("minItems"));
    let most = bound("x-max").or_else(|| bound("maximum")).or_else(|| bound("maxItems"));
    match (least, most) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    }
}

/// The values of a key that takes one of a few words.
fn words(schema: &Json) -> Option<Vec<&str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    schema["enum"].as_array().map(|values| values.iter().filter_map(Json::as_str).collect())
}

struct Walk<'e, 's> {
    errors: &'e mut Collector<'s>,
    names: Names<'e>,
}

impl Walk<'_, '_> {
    fn table(&mut self, path: &str, table: &dyn TableLike, schema: &Json) {
        let known = schema["properties"].as_object();
        if let Some(most) = schema["maxProperties"].as_u64().filter(|most| table.len() as u64 > *most) {
            let offset = table.iter().next().map_or(0, |(key, _)| key_offset(table, key));
            self.errors.add(
                offset,
                format!("`{path}` has {} entries, where at most {most} are allowed", table.len()),
            );
        }
        for (key, item) in table.iter() {
            let inner = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            match known.and_then(|known| known.get(key)) {
                Some(schema) => self.item(&inner, item, schema),
                None if schema["additionalProperties"].is_object() => {
                    let format = schema["propertyNames"]["format"].as_str().unwrap_or_default();
                    if let Some(problem) = formats::name_problem(format, path, key) {
                        self.errors.add(key_offset(table, key), problem);
                    }
                    self.item(&inner, item, &schema["additionalProperties"]);
                }
                None => {
                    let names: Vec<&str> =
                        known.into_iter().flat_map(|known| known.keys()).map(String::as_str).collect();
                    let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                    let hint = nearest(key, &names);
                    self.errors.add(key_offset(table, key), format!("unknown key `{key}`{place}; {hint}"));
                }
            }
        }
    }

    fn item(&mut self, path: &str, item: &Item, schema: &Json) {
        let offset = item.span().map_or(0, |span| span.start);
        if schema["type"] == "object" {
            return match item.as_table_like() {
                Some(table) if schema["format"] == "params" => self.params(path, table),
                Some(table) => self.element(path, offset, table, schema),
                None => self.mismatch(path, offset, item.type_name(), schema),
            };
        }
        if let (Some(tables), "object") = (item.as_array_of_tables(), item_type(schema)) {
            self.count(path, offset, tables.len(), schema);
            for (index, table) in tables.iter().enumerate() {
                let offset = table.span().map_or(offset, |span| span.start);
                self.element(&format!("{path}[{index}]"), offset, table, &schema["items"]);
            }
            return;
        }
        match item.as_value() {
            Some(value) => self.value(path, value, schema),
            None => self.mismatch(path, offset, item.type_name(), schema),
        }
    }

    /// A table of which it is known that it stands in the right place.
    fn element(&mut self, path: &str, offset: usize, table: &dyn TableLike, schema: &Json) {
        self.presence(path, offset, table, schema);
        self.table(path, table, schema);
    }

    /// Keys that must be there, and keys that exclude each other.
    fn presence(&mut self, path: &str, offset: usize, table: &dyn TableLike, schema: &Json) {
        let keys = |list: &str| -> Vec<&str> {
            schema[list].as_array().into_iter().flatten().filter_map(Json::as_str).collect()
        };
        for missing in keys("required").into_iter().filter(|key| !table.contains_key(key)) {
            self.errors.add(offset, format!("`{path}` needs `{missing}`"));
        }
        for (list, one_is_needed) in [("x-at-most-one", false), ("x-exactly-one", true)] {
            let alternatives = keys(list);
            let listed = || alternatives.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let given: Vec<_> =
                table.iter().map(|(key, _)| key).filter(|key| alternatives.contains(key)).collect();
            for second in given.iter().skip(1) {
                let message =
                    format!("`{path}` has `{}` and `{second}`; it takes one of {}", given[0], listed());
                self.errors.add(key_offset(table, second), message);
            }
            if one_is_needed && given.is_empty() && !alternatives.is_empty() {
                self.errors.add(offset, format!("`{path}` needs one of {}", listed()));
            }
        }
    }

    /// Whether a list is as long as it may be.
    fn count(&mut self, path: &str, offset: usize, len: usize, schema: &Json) {
        let fits = |bound: &str, ok: fn(u64, u64) -> bool| {
            schema[bound].as_u64().is_none_or(|bound| ok(len as u64, bound))
        };
        if !fits("minItems", |len, least| len >= least) || !fits("maxItems", |len, most| len <= most) {
            let range = range_name(schema).unwrap_or_default();
            self.errors.add(offset, format!("`{path}` has {len} entries; it takes {range}"));
        }
    }

    /// Params are the module's business, as long as JSON has them too.
    fn params(&mut self, path: &str, table: &dyn TableLike) {
        for (key, item) in table.iter() {
            let inner = format!("{path}.{key}");
            match item {
                Item::Value(value) => self.param(&inner, value),
                Item::Table(table) => self.params(&inner, table),
                Item::ArrayOfTables(tables) => tables.iter().for_each(|table| self.params(&inner, table)),
                Item::None => {}
            }
        }
    }

    fn param(&mut self, path: &str, value: &Value) {
        let offset = value.span().map_or(0, |span| span.start);
        match value {
            Value::Datetime(_) => {
                self.errors.add(offset, format!("`{path}`: a param is no date; write it as a string"))
            }
            Value::Float(number) if !number.value().is_finite() => {
                self.errors.add(offset, format!("`{path}`: a param is a finite number"));
            }
            Value::Array(values) => values.iter().for_each(|value| self.param(path, value)),
            Value::InlineTable(table) => self.params(path, table),
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {}
        }
    }

    fn value(&mut self, path: &str, value: &Value, schema: &Json) {
        let offset = value.span().map_or(0, |span| span.start);
        if let Some(alternatives) = schema["oneOf"].as_array() {
            // The alternative of the same kind is the one that was meant.
            let kind = if value.is_str() { "string" } else { "integer" };
            let meant = alternatives.iter().find(|alternative| alternative["type"] == kind);
            return match (meant, value) {
                (Some(meant), Value::Integer(number)) => {
                    let word = alternatives.iter().find_map(|alternative| alternative["const"].as_str());
                    self.integer(path, offset, *number.value(), meant, word);
                }
                (Some(meant), Value::String(_)) => self.value(path, value, meant),
                _ => self.mismatch(path, offset, value.type_name(), schema),
            };
        }
        match (schema["type"].as_str(), value) {
            (Some("string"), Value::String(text)) => self.text(path, offset, text.value(), schema),
            (Some("integer"), Value::Integer(number)) => {
                self.integer(path, offset, *number.value(), schema, None)
            }
            (Some("boolean"), Value::Boolean(_)) => {}
            (Some("array"), Value::Array(array)) => {
                self.count(path, offset, array.len(), schema);
                for (index, value) in array.iter().enumerate() {
                    self.value(&format!("{path}[{index}]"), value, &schema["items"]);
                }
            }
            (Some("object"), Value::InlineTable(table)) => self.element(path, offset, table, schema),
            (_, value) => self.mismatch(path, offset, value.type_name(), schema),
        }
    }

    fn mismatch(&mut self, path: &str, offset: usize, found: &str, schema: &Json) {
        let example = match schema["examples"][0].as_str() {
            Some(example) if found == "integer" => format!(" with its unit, such as \"{example}\""),
            Some(example) => format!(", such as \"{example}\""),
            None => String::new(),
        };
        self.errors.add(
            offset,
            format!(
                "`{path}` takes {}{example}, and this is {found}",
                type_name(schema),
                found = article(found)
            ),
        );
    }

    fn text(&mut self, path: &str, offset: usize, text: &str, schema: &Json) {
        if let Some(words) = words(schema) {
            if !words.contains(&text) {
                self.errors.add(offset, format!("`{path}` cannot be \"{text}\"; {}", nearest(text, &words)));
            }
            return;
        }
        let format = schema["format"].as_str().unwrap_or_default();
        let bound = |key: &str| schema[key].as_str().and_then(|bound| formats::number(format, bound)?.ok());
        match formats::number(format, text) {
            None => {
                if let Some(problem) = formats::problem(format, text, &self.names) {
                    self.errors.add(offset, format!("`{path}`: {problem}"));
                } else if schema["minLength"].as_u64().is_some_and(|least| (text.len() as u64) < least) {
                    self.errors.add(offset, format!("`{path}` is empty"));
                }
            }
            Some(Err(error)) => self.errors.add(offset, format!("`{path}`: {error}")),
            Some(Ok(number)) => {
                if bound("x-min").is_some_and(|least| number < least)
                    || bound("x-max").is_some_and(|most| number > most)
                {
                    let range = range_name(schema).unwrap_or_default();
                    self.errors.add(offset, format!("`{path}` is \"{text}\"; it takes {range}"));
                }
            }
        }
    }

    /// `word`: what may stand there instead of a number.
    fn integer(&mut self, path: &str, offset: usize, number: i64, schema: &Json, word: Option<&str>) {
        let least = schema["minimum"].as_i64().unwrap_or(0);
        let most = schema["maximum"].as_u64().unwrap_or(u64::MAX);
        if number < least || u64::try_from(number).is_ok_and(|number| number > most) {
            let range = range_name(schema).unwrap_or_else(|| "0 or more".to_owned());
            let word = word.map(|word| format!(", or \"{word}\" written out")).unwrap_or_default();
            self.errors.add(offset, format!("`{path}` is {number}; it takes {range}{word}"));
        }
    }
}

/// What the entries of a list are.
fn item_type(schema: &Json) -> &str {
    schema["items"]["type"].as_str().unwrap_or_default()
}

fn key_offset(table: &dyn TableLike, key: &str) -> usize {
    table.get_key_value(key).and_then(|(key, _)| key.span()).map_or(0, |span| span.start)
}

fn article(kind: &str) -> String {
    match kind {
        "integer" | "array" | "array of tables" | "inline table" => format!("an {kind}"),
        "none" => "nothing".to_owned(),
        _ => format!("a {kind}"),
    }
}
