//! Splits a JSON array into one message for each entry.

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct Params {
    /// Where the array is. The whole body by default.
    #[default("")]
    pointer: String,
    /// Where, in an entry, the text is that becomes its key. Entries without it keep the message's key.
    key: Option<String>,
}

#[filter]
fn split(#[json] body: Value, params: &Params) -> Verdict {
    let Some(Value::Array(entries)) = body.pointer(&params.pointer) else {
        return Verdict::reject(format!("the payload has no array at \"{}\"", params.pointer));
    };
    Verdict::split(entries.iter().map(|entry| {
        let child = Message::new().payload(entry.to_string());
        match params.key.as_ref().and_then(|key| entry.pointer(key)?.as_str()) {
            Some(key) => child.key(key),
            None => child,
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_entry_becomes_a_message() {
        let params = Params { pointer: "/lines".into(), key: Some("/sku".into()) };
        let body = json!({ "lines": [{ "sku": "a" }, 2] });
        let first = Message::new().payload(r#"{"sku":"a"}"#).key("a");
        assert_eq!(split(body, &params), Verdict::split([first, Message::new().payload("2")]));
    }

    #[test]
    fn what_holds_no_array_is_rejected() {
        let params = Params { pointer: String::new(), key: None };
        assert!(matches!(split(json!({}), &params), Verdict::Reject(_)));
        assert_eq!(split(json!([]), &params), Verdict::split([]));
    }
}
