//! Small edits of a document's text that keep the rest of it, comments and order included: what `queue create`, `queue delete` and
//! `module deploy` do.

use serde_json::Value as Json;
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::ModuleSource;

/// Why a document was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The queue is there.
    #[error("queue `{0}` is in the rules already")]
    Exists(String),
    /// The queue is not there.
    #[error("queue `{0}` is not in the rules")]
    Unknown(String),
    /// The queue is there because of another table.
    #[error("queue `{queue}` can't be deleted: `{by}` sends to it; take it out there first")]
    Needed {
        /// The queue.
        queue: String,
        /// The table of a scatter or saga.
        by: String,
    },
    /// A setting that can't be written.
    #[error("`{key}` cannot be set: {detail}")]
    Setting {
        /// The key, as given.
        key: String,
        /// Why.
        detail: String,
    },
    /// The document itself is no TOML.
    #[error("the current document cannot be edited: {0}")]
    Document(String),
}

/// The document with a table `[queue.NAME]` more. Values are TOML; what is no TOML value is taken as a string, so that
/// `ack_wait=30s` needs no quotes. `dead_letter.max_bytes` sets a key of the table inside.
pub fn create_queue(
    document: &str,
    name: &str,
    bind: &[String],
    set: &[(String, String)],
) -> Result<String, EditError> {
    let mut edited = parse(document)?;
    let (queues, inline) = tables(&mut edited, "queue")?;
    if queues.contains_key(name) {
        return Err(EditError::Exists(name.to_owned()));
    }
    let mut table = Table::new();
    if !bind.is_empty() {
        table.insert("bind", toml_edit::value(bind.iter().collect::<toml_edit::Array>()));
    }
    for (key, value) in set {
        setting(&mut table, key, value)?;
    }
    queues.insert(name, item(table, inline));
    Ok(edited.to_string())
}

/// The document without the table `[queue.NAME]`.
pub fn delete_queue(document: &str, name: &str) -> Result<String, EditError> {
    let mut edited = parse(document)?;
    if let Some(by) = super::sends_to(document, name) {
        return Err(EditError::Needed { queue: name.to_owned(), by });
    }
    let removed =
        edited.get_mut("queue").and_then(Item::as_table_like_mut).and_then(|queues| queues.remove(name));
    match removed {
        Some(_) => Ok(edited.to_string()),
        None => Err(EditError::Unknown(name.to_owned())),
    }
}

/// The document with this binary in `[module.NAME]`, a new table where there is none. Params that are given take the place of those
/// that are there; everything else of the module's table stays.
pub fn set_module(
    document: &str,
    name: &str,
    source: &ModuleSource,
    params: Option<&[(String, Json)]>,
) -> Result<String, EditError> {
    let mut edited = parse(document)?;
    let (modules, inline) = tables(&mut edited, "module")?;
    if !modules.contains_key(name) {
        modules.insert(name, item(Table::new(), inline));
    }
    let module = modules
        .get_mut(name)
        .and_then(Item::as_table_like_mut)
        .ok_or_else(|| EditError::Document(format!("`module.{name}` is no table")))?;
    let written = match source {
        ModuleSource::File(file) => Some(("file", file.clone())),
        ModuleSource::Digest(digest) => Some(("digest", chaski_modules::Digest(*digest).to_string())),
        ModuleSource::Builtin(builtin) => Some(("builtin", builtin.clone())),
        ModuleSource::Missing => None,
    };
    for key in ["file", "digest", "builtin"] {
        match &written {
            Some((kept, text)) if *kept == key => put(module, key, Value::from(text.as_str())),
            _ => drop(module.remove(key)),
        }
    }
    match params {
        Some([]) => drop(module.remove("params")),
        Some(params) => {
            let mut table = InlineTable::new();
            for (key, value) in params {
                table.insert(key, param(&format!("params.{key}"), value)?);
            }
            put(module, "params", Value::InlineTable(table));
        }
        None => {}
    }
    Ok(edited.to_string())
}

/// Sets a value, with the comment behind the one that was there.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key) {
        Some(Item::Value(there)) => {
            *value.decor_mut() = there.decor().clone();
            *there = value;
        }
        _ => drop(table.insert(key, Item::Value(value))),
    }
}

/// A param's value as TOML has it.
fn param(key: &str, value: &Json) -> Result<Value, EditError> {
    let refuse = |detail: &str| EditError::Setting { key: key.to_owned(), detail: detail.to_owned() };
    Ok(match value {
        Json::Null => return Err(refuse("a param is not null; leave it out")),
        Json::Bool(truth) => Value::from(*truth),
        Json::String(text) => Value::from(text.as_str()),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(real)) if !number.is_u64() => Value::from(real),
            _ => return Err(refuse("the number is too large")),
        },
        Json::Array(values) => {
            let values = values.iter().map(|value| param(key, value)).collect::<Result<_, _>>()?;
            Value::Array(values)
        }
        Json::Object(fields) => {
            let mut table = InlineTable::new();
            for (field, value) in fields {
                table.insert(field, param(&format!("{key}.{field}"), value)?);
            }
            Value::InlineTable(table)
        }
    })
}

/// The tables below `[KIND.…]`, and whether they are written inline. They are made where the document has none.
fn tables<'d>(document: &'d mut DocumentMut, kind: &str) -> Result<(&'d mut dyn TableLike, bool), EditError> {
    let tables = document.entry(kind).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let inline = tables.is_inline_table();
    let tables =
        tables.as_table_like_mut().ok_or_else(|| EditError::Document(format!("`{kind}` is no table")))?;
    Ok((tables, inline))
}

fn item(table: Table, inline: bool) -> Item {
    if inline { Item::Value(Value::InlineTable(table.into_inline_table())) } else { Item::Table(table) }
}

fn parse(document: &str) -> Result<DocumentMut, EditError> {
    document.parse().map_err(|error: toml_edit::TomlError| EditError::Document(error.message().to_owned()))
}

fn setting(table: &mut dyn TableLike, key: &str, text: &str) -> Result<(), EditError> {
    let refuse = |detail: &str| Err(EditError::Setting { key: key.to_owned(), detail: detail.to_owned() });
    let value = text.trim().parse().unwrap_or_else(|_| Value::from(text));
    let (table, last) = match key.split_once('.') {
        None => (table, key),
        Some((outer, inner)) => {
            let item =
                table.entry(outer).or_insert_with(|| Item::Value(Value::InlineTable(InlineTable::new())));
            let Some(nested) = item.as_table_like_mut() else {
                return refuse("it is a value, and a table at once");
            };
            (nested, inner)
        }
    };
    if last.is_empty() || last.contains('.') {
        return refuse("a key is one word, or two with a dot between them");
    }
    if table.insert(last, Item::Value(value)).is_some() {
        return refuse("it is given twice");
    }
    Ok(())
}
