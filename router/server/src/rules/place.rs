//! Where a key of the document stands, so that what is found out later, by a module itself for instance, is told with its line.

use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike, Value};

/// The line of a key, from 1; of the nearest table around it where it isn't there. `["module", "eu-only", "params", "region"]`; an entry
/// of a list is named by its index, as `["saga", "order", "steps", "2"]`.
pub fn place(document: &str, path: &[&str]) -> usize {
    let Ok(parsed) = Document::parse(document) else { return 1 };
    let mut offset = 0;
    // The name of a table that only its children write is theirs, and has no place of its own in each parser.
    walk(parsed.as_table(), path, |key, value| {
        if let Some(span) = key.or(value) {
            offset = span.start;
        }
    });
    document.get(..offset).unwrap_or_default().matches('\n').count() + 1
}

/// Where a value begins, in bytes; the nearest table around it where it isn't there.
pub(super) fn value_offset(root: &Table, path: &[&str]) -> usize {
    let mut offset = 0;
    walk(root, path, |key, value| {
        if let Some(span) = value.or(key) {
            offset = span.start;
        }
    });
    offset
}

/// Calls `see` with the places of each key on the path and of what it leads to, as far as the path goes.
fn walk(root: &Table, path: &[&str], mut see: impl FnMut(Option<Range<usize>>, Option<Range<usize>>)) {
    let mut part = Part::Table(root);
    for key in path {
        let Some((name, value, inner)) = part.get(key) else { return };
        see(name, value);
        part = inner;
    }
}

/// What a path leads through.
enum Part<'d> {
    Table(&'d dyn TableLike),
    Item(&'d Item),
    Value(&'d Value),
}

/// The place of a key, that of its value, and the value.
type Found<'d> = (Option<Range<usize>>, Option<Range<usize>>, Part<'d>);

impl<'d> Part<'d> {
    fn get(&self, key: &str) -> Option<Found<'d>> {
        let in_table = |table: &'d dyn TableLike| -> Option<Found<'d>> {
            let (name, item) = table.get_key_value(key)?;
            Some((name.span(), item.span(), Part::Item(item)))
        };
        let in_value = |value: &'d Value| -> Option<Found<'d>> {
            match value {
                Value::InlineTable(table) => in_table(table),
                Value::Array(array) => {
                    let value = array.get(key.parse::<usize>().ok()?)?;
                    Some((None, value.span(), Part::Value(value)))
                }
                _ => None,
            }
        };
        match *self {
            Part::Table(table) => in_table(table),
            Part::Value(value) => in_value(value),
            Part::Item(Item::Table(table)) => in_table(table),
            Part::Item(Item::Value(value)) => in_value(value),
            Part::Item(Item::ArrayOfTables(tables)) => {
                let table = tables.get(key.parse().ok()?)?;
                Some((None, table.span(), Part::Table(table)))
            }
            Part::Item(Item::None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_key_is_found_or_what_is_nearest_around_it() {
        let document = "# ours\n[module.a]\nfile = \"a.wasm\"\n\n[module.b]\nbuiltin = \"cel\"\n[module.b.params]\ncondition = \"x\"\n";
        assert_eq!(place(document, &["module", "a"]), 2);
        assert_eq!(place(document, &["module", "a", "file"]), 3);
        assert_eq!(place(document, &["module", "a", "params", "region"]), 2);
        assert_eq!(place(document, &["module", "b", "params", "condition"]), 8);
        assert_eq!(place(document, &["module", "b", "params", "condition", "deeper"]), 8);
        assert_eq!(place(document, &["module", "b", "params", "other"]), 7);
        assert_eq!(place(document, &["route", "x"]), 1);
        assert_eq!(place("this is no TOML", &["module"]), 1);
        let steps = "[saga.a]\nsteps = [\n  { name = \"x\" },\n  { name = \"y\" },\n]\n[[saga.b.steps]]\n[[saga.b.steps]]\nname = \"z\"\n";
        assert_eq!(place(steps, &["saga", "a", "steps", "1", "name"]), 4);
        assert_eq!(place(steps, &["saga", "b", "steps", "1"]), 7);
        assert_eq!(place(steps, &["saga", "b", "steps", "1", "name"]), 8);
        assert_eq!(place("\nmodule.x = {\n  params = { y = 1 } }", &["module", "x", "params", "y"]), 3);
    }
}
