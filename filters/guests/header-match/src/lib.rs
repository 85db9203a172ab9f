//! Passes the messages whose headers meet conditions: equality, prefix, numeric range; all of them, or any.

use chaski_guest::prelude::*;

mod condition;
mod decimal;

use condition::Conditions;

#[params]
struct Params {
    /// Conditions of which every one must hold.
    all: Conditions,
    /// Conditions of which one must hold.
    any: Conditions,
}

impl Params {
    /// The headers that the conditions name.
    fn fields(&self) -> Result<Vec<String>, String> {
        let mut names: Vec<String> = Vec::new();
        for conditions in [&self.all, &self.any] {
            for condition in &conditions.0 {
                if !names.contains(&condition.name) {
                    names.push(condition.name.clone());
                }
            }
        }
        if names.is_empty() {
            return Err("header-match needs a condition in `all` or in `any`".into());
        }
        Ok(names)
    }
}

#[filter(reads = Params::fields)]
fn header_match(headers: &Headers<'_>, params: &Params) -> Verdict {
    for condition in &params.all.0 {
        if !condition.holds(headers.get(&condition.name)) {
            return Verdict::Drop;
        }
    }
    let any = &params.any.0;
    Verdict::pass_if(
        any.is_empty() || any.iter().any(|condition| condition.holds(headers.get(&condition.name))),
    )
}

#[cfg(test)]
mod tests {
    use chaski_guest::{FromParam, ParamValue};

    use super::*;

    fn conditions(text: Option<&str>) -> Conditions {
        text.map_or_else(Conditions::default, |text| {
            Conditions::from_param(ParamValue::Text(text.into())).expect("they are conditions")
        })
    }

    fn passes(all: Option<&str>, any: Option<&str>, headers: &[(&str, &str)]) -> bool {
        let params = Params { all: conditions(all), any: conditions(any) };
        header_match(&headers.iter().copied().collect(), &params) == Verdict::Pass
    }

    #[test]
    fn every_condition_of_all_must_hold() {
        let all = Some("region = eu; magnitude >= 4.5");
        assert!(passes(all, None, &[("region", "eu"), ("magnitude", "4.5")]));
        assert!(!passes(all, None, &[("region", "eu"), ("magnitude", "4.4")]));
        assert!(!passes(all, None, &[("magnitude", "5")]));
    }

    #[test]
    fn one_condition_of_any_suffices() {
        let any = Some("a = 1; b = 2");
        assert!(passes(None, any, &[("b", "2")]));
        assert!(!passes(None, any, &[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn both_lists_must_be_met() {
        assert!(passes(Some("a = 1"), Some("b = 1; b = 2"), &[("a", "1"), ("b", "2")]));
        assert!(!passes(Some("a = 1"), Some("b = 1; b = 2"), &[("a", "1")]));
        assert!(!passes(Some("a = 1"), Some("b = 1; b = 2"), &[("b", "1")]));
    }

    #[test]
    fn params_that_cannot_be_read_are_refused_with_a_sentence() {
        let refused =
            |text: &str| Conditions::from_param(ParamValue::Text(text.into())).err().expect("it is refused");
        assert!(refused("a = 1; region eu").starts_with("has \"region eu\": a condition is"));
        assert_eq!(refused(" ; "), "holds no condition");
        let nothing = Params { all: conditions(None), any: conditions(None) };
        assert!(nothing.fields().expect_err("it is refused").contains("needs a condition"));
    }
}
