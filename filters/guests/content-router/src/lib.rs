//! Sends messages to topics by a header, or by a value in their JSON body.

use chaski_guest::prelude::*;
use serde_json::{Map, Value};

#[params]
struct Params {
    /// The header whose value is looked up.
    header: Option<String>,
    /// Where the value stands in the body.
    pointer: Option<String>,
    /// From a value to a topic, or to a list of topics.
    #[json]
    table: Map<String, Value>,
    /// The topic of what the table doesn't name.
    otherwise: Option<String>,
}

impl Params {
    /// The header, where there is one; and the check of what only this module knows.
    fn fields(&self) -> Result<Vec<String>, String> {
        if self.header.is_some() == self.pointer.is_some() {
            return Err("content-router needs one of `header` and `pointer`".into());
        }
        for (value, topics) in &self.table {
            if list(topics).is_none() {
                return Err(format!(
                    "the table's entry for \"{value}\" is neither a topic nor a list of topics"
                ));
            }
        }
        Ok(self.header.iter().cloned().collect())
    }
}

/// An entry's topics; none where it is no entry.
fn list(topics: &Value) -> Option<Vec<&str>> {
    match topics {
        Value::String(topic) => Some(vec![topic]),
        Value::Array(topics) => topics.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

#[filter(reads = Params::fields)]
fn content_router(headers: &Headers<'_>, payload: &[u8], params: &Params) -> Verdict {
    let value = match (&params.header, &params.pointer) {
        (Some(name), _) => headers.get(name).map(str::to_owned),
        (None, Some(pointer)) => match serde_json::from_slice::<Value>(payload) {
            Ok(body) => body.pointer(pointer).map(|found| match found {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
            Err(error) => return Verdict::reject(format!("the payload is no JSON: {error}")),
        },
        (None, None) => None,
    };
    match (value.and_then(|value| params.table.get(&value)).and_then(list), &params.otherwise) {
        (Some(topics), _) => Verdict::route(topics),
        (None, Some(otherwise)) => Verdict::route([otherwise]),
        (None, None) => Verdict::Pass,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(header: Option<&str>, pointer: Option<&str>, otherwise: Option<&str>) -> Params {
        let table =
            [("DE", json!("orders.eu")), ("PE", json!(["orders.sa", "audit"])), ("7", json!("seven"))];
        Params {
            header: header.map(Into::into),
            pointer: pointer.map(Into::into),
            table: table.into_iter().map(|(value, topics)| (value.into(), topics)).collect(),
            otherwise: otherwise.map(Into::into),
        }
    }

    #[test]
    fn a_header_chooses() {
        let params = params(Some("country"), None, Some("rest"));
        let judge = |country| content_router(&Headers::from([("country", country)]), b"", &params);
        assert_eq!(judge("DE"), Verdict::route(["orders.eu"]));
        assert_eq!(judge("PE"), Verdict::route(["orders.sa", "audit"]));
        assert_eq!(judge("FR"), Verdict::route(["rest"]));
    }

    #[test]
    fn a_value_in_the_body_chooses() {
        let params = params(None, Some("/a"), None);
        let judge = |body: &str| content_router(&Headers::from([]), body.as_bytes(), &params);
        assert_eq!(judge(r#"{"a":"DE"}"#), Verdict::route(["orders.eu"]));
        assert_eq!(judge(r#"{"a":7}"#), Verdict::route(["seven"]));
        assert_eq!(judge("{}"), Verdict::Pass);
        assert!(matches!(judge("{"), Verdict::Reject(_)));
    }

    #[test]
    fn a_wrong_table_is_refused() {
        assert!(params(None, None, None).fields().is_err());
        let mut wrong = params(Some("h"), None, None);
        wrong.table.insert("x".into(), json!(1));
        assert!(wrong.fields().expect_err("1 is no topic").contains("\"x\""));
    }
}
