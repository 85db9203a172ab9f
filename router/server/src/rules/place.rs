//! Where a key of the document stands, so that what is found out later, by a module itself for instance, is told with its line.

use toml_edit::{Document, TableLike};

/// The line of a key, from 1; of the nearest table around it where it isn't there. `["module", "eu-only", "params", "region"]`.
pub fn place(document: &str, path: &[&str]) -> usize {
    let Ok(parsed) = Document::parse(document) else { return 1 };
    let mut table: &dyn TableLike = parsed.as_table();
    let mut offset = 0;
    for key in path {
        let Some((name, item)) = table.get_key_value(key) else { break };
        // The name of a table that only its children write is theirs, and has no place of its own in each parser.
        if let Some(span) = name.span().or_else(|| item.span()) {
            offset = span.start;
        }
        let Some(inner) = item.as_table_like() else { break };
        table = inner;
    }
    document.get(..offset).unwrap_or_default().matches('\n').count() + 1
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
        assert_eq!(place("\nmodule.x = {\n  params = { y = 1 } }", &["module", "x", "params", "y"]), 3);
    }
}
