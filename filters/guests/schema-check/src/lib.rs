//! Rejects or drops messages whose JSON body doesn't match a JSON Schema.

use chaski_guest::prelude::*;

mod check;
mod schema;

use schema::Schema;

#[params]
struct Params {
    /// What a body must be.
    schema: Schema,
    /// Whether what doesn't match is rejected. Otherwise it is dropped.
    #[default(true)]
    reject: bool,
}

#[filter]
fn schema_check(payload: &[u8], params: &Params) -> Verdict {
    let violation = match serde_json::from_slice(payload) {
        Ok(body) => params.schema.violation(&body),
        Err(error) => Some(["the payload is no JSON: ", &error.to_string()].concat()),
    };
    match violation {
        None => Verdict::Pass,
        Some(violation) if params.reject => Verdict::Reject(violation),
        Some(_) => Verdict::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_match_is_rejected_with_its_reason_or_dropped() {
        let of = |reject| Params { schema: Schema::parse(r#"{ "type": "object" }"#).unwrap(), reject };
        let wrong = r#"the payload does not match the schema: at "" it must be an object"#;
        for (payload, reason) in [
            ("{}", None),
            ("[]", Some(wrong)),
            ("", Some("the payload is no JSON: EOF while parsing a value at line 1 column 0")),
        ] {
            let (rejected, dropped) = reason
                .map_or((Verdict::Pass, Verdict::Pass), |reason| (Verdict::reject(reason), Verdict::Drop));
            assert_eq!(schema_check(payload.as_bytes(), &of(true)), rejected);
            assert_eq!(schema_check(payload.as_bytes(), &of(false)), dropped);
        }
    }
}
