//! Small edits of a document's text that keep the rest of it, comments and order included: what `queue create` and `queue delete` do.

use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, Value};

/// Why a document was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The queue is there.
    #[error("queue `{0}` is in the rules already")]
    Exists(String),
    /// The queue is not there.
    #[error("queue `{0}` is not in the rules")]
    Unknown(String),
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
    let queues = edited.entry("queue").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let inline = queues.is_inline_table();
    let queues =
        queues.as_table_like_mut().ok_or_else(|| EditError::Document("`queue` is no table".to_owned()))?;
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
    let item =
        if inline { Item::Value(Value::InlineTable(table.into_inline_table())) } else { Item::Table(table) };
    queues.insert(name, item);
    Ok(edited.to_string())
}

/// The document without the table `[queue.NAME]`.
pub fn delete_queue(document: &str, name: &str) -> Result<String, EditError> {
    let mut edited = parse(document)?;
    let removed =
        edited.get_mut("queue").and_then(Item::as_table_like_mut).and_then(|queues| queues.remove(name));
    match removed {
        Some(_) => Ok(edited.to_string()),
        None => Err(EditError::Unknown(name.to_owned())),
    }
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
