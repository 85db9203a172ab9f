//! Removes or masks fields of JSON bodies.

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct Params {
    /// Pointers to what goes.
    #[json]
    #[default(Vec::new())]
    remove: Vec<String>,
    /// Pointers to what is replaced.
    #[json]
    #[default(Vec::new())]
    mask: Vec<String>,
    /// What it is replaced with.
    #[default("***")]
    with: String,
}

#[filter]
fn redact(#[json] body: Value, params: &Params) -> Verdict {
    let mut body = body;
    let mut changes = 0;
    for pointer in &params.mask {
        changes += edit(&mut body, &parts(pointer), Some(&params.with));
    }
    for pointer in &params.remove {
        changes += edit(&mut body, &parts(pointer), None);
    }
    if changes == 0 { Verdict::Pass } else { Verdict::transform(Message::new().payload(body.to_string())) }
}

/// A pointer's parts, unescaped.
fn parts(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect()
}

/// Masks or removes what the path leads to, and answers how many values that were.
fn edit(value: &mut Value, path: &[String], mask: Option<&str>) -> usize {
    let Some((part, rest)) = path.split_first() else {
        return 0;
    };
    let chosen = |name: &str| part == "*" || part == name;
    let mut changes = 0;
    match value {
        Value::Object(fields) if rest.is_empty() && mask.is_none() => {
            let before = fields.len();
            fields.retain(|name, _| !chosen(name));
            changes += before - fields.len();
        }
        Value::Array(items) if rest.is_empty() && mask.is_none() => {
            let (before, mut index) = (items.len(), 0usize);
            items.retain(|_| {
                index += 1;
                !chosen(&(index - 1).to_string())
            });
            changes += before - items.len();
        }
        Value::Object(fields) => {
            for (_, child) in fields.iter_mut().filter(|(name, _)| chosen(name)) {
                changes += descend(child, rest, mask);
            }
        }
        Value::Array(items) => {
            for (_, child) in items.iter_mut().enumerate().filter(|(index, _)| chosen(&index.to_string())) {
                changes += descend(child, rest, mask);
            }
        }
        _ => {}
    }
    changes
}

fn descend(child: &mut Value, rest: &[String], mask: Option<&str>) -> usize {
    match mask {
        Some(mask) if rest.is_empty() => {
            *child = mask.into();
            1
        }
        _ => edit(child, rest, mask),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(remove: &[&str], mask: &[&str], body: Value, expected: Option<&str>) {
        let own = |pointers: &[&str]| pointers.iter().map(|pointer| pointer.to_string()).collect();
        let params = Params { remove: own(remove), mask: own(mask), with: "***".into() };
        let expected =
            expected.map_or(Verdict::Pass, |body| Verdict::transform(Message::new().payload(body)));
        assert_eq!(redact(body, &params), expected);
    }

    #[test]
    fn fields_are_removed() {
        check(&["/card/cvc"], &[], json!({ "card": { "cvc": 1, "no": 2 } }), Some(r#"{"card":{"no":2}}"#));
        check(&["/a/0"], &[], json!({ "a": [1, 2] }), Some(r#"{"a":[2]}"#));
    }

    #[test]
    fn fields_are_masked_in_each_entry() {
        let body = json!({ "c": [{ "mail": "a" }, { "mail": "b" }] });
        check(&[], &["/c/*/mail"], body, Some(r#"{"c":[{"mail":"***"},{"mail":"***"}]}"#));
    }

    #[test]
    fn escaped_names_are_found() {
        check(&["/a~1b"], &[], json!({ "a/b": 1 }), Some("{}"));
    }

    #[test]
    fn what_is_not_there_is_left_alone() {
        check(&["/x/y"], &["/z"], json!({ "x": 1 }), None);
    }
}
