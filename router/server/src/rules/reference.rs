//! RULES.md and the JSON Schema, both derived from the document's structs.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::shape::{SCHEMA, range_name, type_name};

const HEAD: &str = "\
# Rules: every key

One TOML document. Durations are strings with a unit (`ms`, `s`, `m`, `h`, `d`), sizes too (`B`, `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`,
`GB`); a bare number is refused. `chaski rules check FILE` finds every mistake with its line; `chaski rules schema` prints this as a JSON
Schema. This page is generated from the structs that the document is read into, and a test compares them.
";

/// The document's JSON Schema (draft 2020-12). Its formats (`duration`, `size`, `pattern`, `filter` …) are the router's own.
pub fn schema() -> Json {
    SCHEMA.clone()
}

/// The text of RULES.md.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    let properties = &SCHEMA["properties"];
    section(&mut page, "[limits]", &properties["limits"]);
    section(&mut page, "[modules]", &properties["modules"]);
    for table in ["module", "route", "queue", "scatter", "saga"] {
        let schema = &properties[table]["additionalProperties"];
        section(&mut page, &format!("[{table}.NAME]"), schema);
        for about in [&properties[table], schema] {
            let _ = writeln!(page, "\n{}", describe(about));
        }
    }
    page
}

fn section(page: &mut String, title: &str, schema: &Json) {
    let _ = write!(
        page,
        "\n## `{title}`\n\n| key | takes | default | what it does |\n| --- | --- | --- | --- |\n"
    );
    rows(page, "", schema);
}

fn rows(page: &mut String, prefix: &str, schema: &Json) {
    let mut properties: Vec<_> = schema["properties"].as_object().into_iter().flatten().collect();
    properties.sort_by_key(|(key, _)| *key);
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (key, schema) in properties {
        if schema["properties"].is_object() {
            rows(page, &format!("{prefix}{key}."), schema);
            continue;
        }
        let range = range_name(schema).map(|range| format!(", {range}")).unwrap_or_default();
        let default = match &schema["default"] {
            Json::Null if required.iter().any(|required| *required == key) => "required".to_owned(),
            Json::Null => "none".to_owned(),
            default => format!("`{}`", toml_text(default)),
        };
        let _ = writeln!(
            page,
            "| `{prefix}{key}` | {}{range} | {default} | {} |",
            type_name(schema),
            describe(schema)
        );
        if schema["items"]["properties"].is_object() {
            rows(page, &format!("{prefix}{key}[]."), &schema["items"]);
        }
    }
}

fn describe(schema: &Json) -> String {
    schema["description"].as_str().unwrap_or_default().replace('\n', " ")
}

fn toml_text(value: &Json) -> String {
    match value {
        Json::Object(table) if table.is_empty() => "{}".to_owned(),
        Json::Array(values) => format!("[{}]", values.iter().map(toml_text).collect::<Vec<_>>().join(", ")),
        // JSON's spelling of text, numbers and booleans is TOML's.
        value => value.to_string(),
    }
}
