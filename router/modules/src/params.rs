//! Params: what the rules give a module, checked against what its `describe` names. It knows names and kinds, and not in
//! which document they stand.

use std::fmt;

use crate::digest::Digest;

/// One param, as the rules give it.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Its key below `params`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

/// A param's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// A list or a table, as JSON text.
    Json(String),
}

/// The kinds that a param can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number, whole or not.
    Number,
    /// True or false.
    Boolean,
    /// Anything.
    Json,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Text => "text",
            Kind::Integer => "an integer",
            Kind::Number => "a number",
            Kind::Boolean => "true or false",
            Kind::Json => "a list or table",
        })
    }
}

/// A param that a module understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// Its name.
    pub name: String,
    /// The kind of its value.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
}

/// What is wrong with one param. The router adds where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// The module doesn't know it.
    #[error("the module has no param `{name}`{}", hint(.nearest, .known))]
    Unknown {
        /// Its name.
        name: String,
        /// The nearest name that there is.
        nearest: Option<String>,
        /// All names that there are.
        known: Vec<String>,
    },
    /// The module needs it.
    #[error("the module needs the param `{name}`, {kind}, which is not given")]
    Missing {
        /// Its name.
        name: String,
        /// The kind of value that it takes.
        kind: Kind,
    },
    /// It is of another kind.
    #[error("the param `{name}` takes {wanted}, and was given {got}")]
    Kind {
        /// Its name.
        name: String,
        /// What it takes.
        wanted: Kind,
        /// What it got.
        got: Kind,
    },
    /// It is given twice.
    #[error("the param `{name}` is given twice")]
    Twice {
        /// Its name.
        name: String,
    },
}

impl ParamError {
    /// The param concerned.
    pub fn name(&self) -> &str {
        match self {
            ParamError::Unknown { name, .. }
            | ParamError::Missing { name, .. }
            | ParamError::Kind { name, .. }
            | ParamError::Twice { name } => name,
        }
    }
}

fn hint(nearest: &Option<String>, known: &[String]) -> String {
    match (nearest, known) {
        (Some(nearest), _) => format!(": did you mean `{nearest}`?"),
        (None, []) => ": it takes none".into(),
        (None, known) => format!(": it takes {}", known.join(", ")),
    }
}

/// The params as `configure` gets them, sorted by name, or everything that is wrong with them.
pub(crate) fn check(given: &[Param], specs: &[ParamSpec]) -> Result<Vec<Param>, Vec<ParamError>> {
    let (mut params, mut errors) = (Vec::new(), Vec::new());
    for (at, param) in given.iter().enumerate() {
        let name = param.name.clone();
        if given[..at].iter().any(|earlier| earlier.name == name) {
            errors.push(ParamError::Twice { name });
            continue;
        }
        let Some(spec) = specs.iter().find(|spec| spec.name == name) else {
            let known: Vec<_> = specs.iter().map(|spec| spec.name.clone()).collect();
            errors.push(ParamError::Unknown { nearest: nearest(&name, &known), name, known });
            continue;
        };
        match convert(&param.value, spec.kind) {
            Some(value) => params.push(Param { name, value }),
            None => errors.push(ParamError::Kind { name, wanted: spec.kind, got: kind(&param.value) }),
        }
    }
    for spec in specs.iter().filter(|spec| spec.required) {
        if !given.iter().any(|param| param.name == spec.name) {
            errors.push(ParamError::Missing { name: spec.name.clone(), kind: spec.kind });
        }
    }
    params.sort_by(|a, b| a.name.cmp(&b.name));
    if errors.is_empty() { Ok(params) } else { Err(errors) }
}

/// The digest of checked params, which with the binary's own names a version.
pub(crate) fn digest(params: &[Param]) -> Digest {
    let mut bytes = Vec::new();
    for Param { name, value } in params {
        let (tag, value) = match value {
            Value::Text(text) => (0, text.clone().into_bytes()),
            Value::Integer(number) => (1, number.to_le_bytes().to_vec()),
            Value::Number(number) => (2, number.to_bits().to_le_bytes().to_vec()),
            Value::Boolean(truth) => (3, vec![u8::from(*truth)]),
            Value::Json(text) => (4, text.clone().into_bytes()),
        };
        for part in [name.as_bytes(), &[tag], &value] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    Digest::of(&bytes)
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Text(_) => Kind::Text,
        Value::Integer(_) => Kind::Integer,
        Value::Number(_) => Kind::Number,
        Value::Boolean(_) => Kind::Boolean,
        Value::Json(_) => Kind::Json,
    }
}

/// The value as this kind, where it is one: an integer is a number, and a scalar is JSON too.
fn convert(value: &Value, wanted: Kind) -> Option<Value> {
    match (value, wanted) {
        (value, wanted) if kind(value) == wanted => Some(value.clone()),
        (Value::Integer(number), Kind::Number) => Some(Value::Number(*number as f64)),
        (Value::Text(text), Kind::Json) => {
            Some(Value::Json(serde_json::Value::from(text.as_str()).to_string()))
        }
        (Value::Integer(number), Kind::Json) => Some(Value::Json(number.to_string())),
        // JSON has no infinity, and no value that is no number.
        (Value::Number(number), Kind::Json) => {
            serde_json::Number::from_f64(*number).map(|number| Value::Json(number.to_string()))
        }
        (Value::Boolean(truth), Kind::Json) => Some(Value::Json(truth.to_string())),
        _ => None,
    }
}

fn nearest(name: &str, known: &[String]) -> Option<String> {
    let score = |candidate: &&String| (strsim::jaro_winkler(name, candidate) * 1000.0) as u32;
    known.iter().max_by_key(score).filter(|best| score(best) >= 750).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ParamSpec> {
        let spec = |name: &str, kind, required| ParamSpec { name: name.into(), kind, required };
        vec![
            spec("region", Kind::Text, true),
            spec("limit", Kind::Integer, false),
            spec("rate", Kind::Number, false),
            spec("table", Kind::Json, false),
        ]
    }

    fn param(name: &str, value: Value) -> Param {
        Param { name: name.into(), value }
    }

    #[track_caller]
    fn wrong(params: &[Param], sentence: &str) {
        let errors = check(params, &specs()).unwrap_err();
        assert_eq!(errors.iter().map(ParamError::to_string).collect::<Vec<_>>().join("; "), sentence);
    }

    #[test]
    fn wrong_params_are_named_with_what_there_is() {
        let region = param("region", Value::Text("eu".into()));
        let needs = "the module needs the param `region`, text, which is not given";
        wrong(&[], needs);
        let typo = param("regoin", Value::Text("eu".into()));
        wrong(&[typo], &format!("the module has no param `regoin`: did you mean `region`?; {needs}"));
        let unknown = "the module has no param `zzz`: it takes region, limit, rate, table";
        wrong(&[region.clone(), param("zzz", Value::Integer(1))], unknown);
        let kind = "the param `limit` takes an integer, and was given text";
        wrong(&[region.clone(), param("limit", Value::Text("1".into()))], kind);
        wrong(&[region.clone(), region], "the param `region` is given twice");
    }

    #[test]
    fn integers_are_numbers_and_scalars_are_json() {
        let given = [
            param("table", Value::Text("a\"b".into())),
            param("region", Value::Text("eu".into())),
            param("rate", Value::Integer(3)),
        ];
        let checked = check(&given, &specs()).unwrap();
        let wanted = [
            param("rate", Value::Number(3.0)),
            param("region", Value::Text("eu".into())),
            param("table", Value::Json("\"a\\\"b\"".into())),
        ];
        assert_eq!(checked, wanted);
        assert_ne!(digest(&checked), digest(&checked[1..]));
        let nan = param("table", Value::Number(f64::NAN));
        assert!(check(&[given[1].clone(), nan], &specs()).is_err());
    }
}
