//! Passes the messages whose JSON body meets a comparison at a JSON pointer (RFC 6901).

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct Params {
    /// Where to look, for example `/order/total`.
    pointer: String,
    /// The value that must be there. Numbers compare by value, so that 1 equals 1.0.
    #[json]
    #[default(None)]
    equals: Option<Value>,
    /// The least number that may be there.
    min: Option<f64>,
    /// The greatest number that may be there.
    max: Option<f64>,
}

#[filter]
fn json_match(#[json] body: Value, params: &Params) -> Verdict {
    let Some(found) = body.pointer(&params.pointer) else {
        return Verdict::Drop;
    };
    let equal = params.equals.as_ref().is_none_or(|wanted| same(found, wanted));
    let at_least = params.min.is_none_or(|min| found.as_f64().is_some_and(|number| number >= min));
    let at_most = params.max.is_none_or(|max| found.as_f64().is_some_and(|number| number <= max));
    Verdict::pass_if(equal && at_least && at_most)
}

/// Equality that doesn't tell 1 from 1.0. Whole numbers are compared as such, so that large ones stay exact.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() != right.is_f64() && left.as_f64() == right.as_f64())
        }
        _ => left == right,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(pointer: &str) -> Params {
        Params { pointer: pointer.into(), equals: None, min: None, max: None }
    }

    #[test]
    fn a_value_is_compared_where_the_pointer_leads() {
        let body = json!({ "order": { "lines": [{ "sku": "a/b" }], "total": 1.0 } });
        let equals =
            |pointer, wanted| json_match(body.clone(), &Params { equals: Some(wanted), ..params(pointer) });
        assert_eq!(equals("/order/lines/0/sku", json!("a/b")), Verdict::Pass);
        assert_eq!(equals("/order/lines/0/sku", json!("a")), Verdict::Drop);
        assert_eq!(equals("/order/total", json!(1)), Verdict::Pass);
        assert_eq!(equals("/order/lines/1/sku", json!("a/b")), Verdict::Drop);
    }

    #[test]
    fn large_whole_numbers_stay_exact() {
        let equals = Params { equals: Some(json!(9007199254740993u64)), ..params("") };
        assert_eq!(json_match(json!(9007199254740992u64), &equals), Verdict::Drop);
    }

    #[test]
    fn a_range_holds_its_ends_and_no_text() {
        let range = Params { min: Some(4.5), max: Some(6.0), ..params("/mag") };
        for (mag, verdict) in [
            (json!(4.5), Verdict::Pass),
            (json!(6), Verdict::Pass),
            (json!(4.49), Verdict::Drop),
            (json!(6.1), Verdict::Drop),
            (json!("5"), Verdict::Drop),
            (json!(null), Verdict::Drop),
        ] {
            assert_eq!(json_match(json!({ "mag": mag }), &range), verdict, "{mag}");
        }
    }

    #[test]
    fn without_a_comparison_presence_suffices() {
        assert_eq!(json_match(json!({ "a": null }), &params("/a")), Verdict::Pass);
        assert_eq!(json_match(json!({ "b": null }), &params("/a")), Verdict::Drop);
    }
}
