//! Passes messages that meet a condition in the Common Expression Language.

use std::{collections::HashMap, sync::Arc};

use cel::{Context, Env, Program, Value};
use chaski_guest::{FromParam, ParamKind, ParamValue, prelude::*};

#[params]
struct Params {
    condition: Condition,
}

/// A condition, compiled once.
struct Condition {
    program: Program,
    env: Arc<Env>,
    names_body: bool,
}

const VARIABLES: [&str; 8] = ["topic", "key", "id", "headers", "priority", "timestamp", "now", "body"];

impl FromParam for Condition {
    const KIND: ParamKind = ParamKind::Text;

    fn from_param(value: ParamValue) -> Result<Self, String> {
        let ParamValue::Text(text) = value else {
            return Err("must be text".into());
        };
        let env = Arc::new(Env::stdlib());
        let program = env.compile(&text).map_err(|error| format!("can't be compiled: {error}"))?;
        let references = program.references();
        let names_body = references.has_variable("body");
        if !VARIABLES.iter().any(|name| references.has_variable(name)) {
            return Err(format!("names nothing of the message: {}", VARIABLES.join(", ")));
        }
        Ok(Self { program, env, names_body })
    }
}

#[filter]
#[allow(clippy::too_many_arguments)]
fn judge(
    topic: &str,
    key: Option<&str>,
    id: &str,
    headers: &Headers<'_>,
    priority: u8,
    timestamp: u64,
    payload: &[u8],
    now: u64,
    params: &Params,
) -> Verdict {
    let Condition { program, env, names_body } = &params.condition;
    let mut context = Context::with_env(env.clone());
    if *names_body {
        let body = serde_json::from_slice::<serde_json::Value>(payload).map_err(|error| error.to_string());
        let added = body
            .and_then(|body| context.add_variable("body", Signed(&body)).map_err(|error| error.to_string()));
        if let Err(error) = added {
            return Verdict::reject(format!("the payload is no JSON: {error}"));
        }
    }
    let headers: HashMap<String, Value> =
        headers.iter().map(|(name, value)| (name.into(), value.into())).collect();
    context.add_variable_from_value("headers", headers);
    context.add_variable_from_value("topic", topic);
    context.add_variable_from_value("key", key);
    context.add_variable_from_value("id", id);
    context.add_variable_from_value("priority", i64::from(priority));
    context.add_variable_from_value("timestamp", timestamp as i64);
    context.add_variable_from_value("now", now as i64);
    match program.execute(&context) {
        Ok(Value::Bool(holds)) => Verdict::pass_if(holds),
        Ok(other) => {
            Verdict::reject(format!("the condition answers {}, and not true or false", other.type_of()))
        }
        Err(error) => Verdict::reject(format!("the condition can't be evaluated: {error}")),
    }
}

/// JSON in which every whole number that fits is signed, since that is what a literal in CEL is.
struct Signed<'a>(&'a serde_json::Value);

impl serde::Serialize for Signed<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(number) => serializer.serialize_i64(number),
                None => number.serialize(serializer),
            },
            serde_json::Value::Array(items) => serializer.collect_seq(items.iter().map(Signed)),
            serde_json::Value::Object(fields) => {
                serializer.collect_map(fields.iter().map(|(name, value)| (name, Signed(value))))
            }
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(condition: &str) -> Result<Condition, String> {
        Condition::from_param(ParamValue::Text(condition.into()))
    }

    #[track_caller]
    fn check(condition: &str, body: &str, expected: Verdict) {
        let params = Params { condition: compile(condition).expect("it compiles") };
        let headers = Headers::from([("region", "eu")]);
        let verdict = judge("a.b", Some("k"), "i", &headers, 4, 1_000, body.as_bytes(), 2_000, &params);
        assert_eq!(verdict, expected, "{condition}");
    }

    #[test]
    fn conditions_see_the_message() {
        check("headers.region in ['eu', 'uk']", "", Verdict::Pass);
        check("'tenant' in headers", "", Verdict::Drop);
        check("topic.startsWith('a.') && key == 'k' && id == 'i'", "", Verdict::Pass);
        check("priority >= 5 || now - timestamp > 1000", "", Verdict::Drop);
    }

    #[test]
    fn conditions_see_the_body() {
        let body = r#"{"total": 120, "lines": [{"sku": "a"}], "rate": 0.5}"#;
        check("body.total == 120 && body.rate < 1.0", body, Verdict::Pass);
        check("body.lines.exists(line, line.sku == 'b')", body, Verdict::Drop);
        check("has(body.country)", body, Verdict::Drop);
    }

    #[test]
    fn what_cannot_be_evaluated_is_rejected() {
        for (condition, body) in [("body.total > 1", "{"), ("body.total > 1", "{}"), ("priority + 1", "")] {
            let params = Params { condition: compile(condition).expect("it compiles") };
            let verdict = judge("a", None, "i", &Headers::from([]), 4, 0, body.as_bytes(), 0, &params);
            assert!(matches!(verdict, Verdict::Reject(_)), "{condition}: {verdict:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(compile("body.total >").is_err());
        assert!(compile("1 == 1").is_err());
    }
}
