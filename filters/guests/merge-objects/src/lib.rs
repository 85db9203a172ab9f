//! Answers one JSON object with the keys of all replies; of the same key in several the later reply's counts.

mod object;

use chaski_guest::prelude::*;

#[params]
struct MergeObjects;

#[aggregator]
impl Aggregator for MergeObjects {
    /// The merged object as JSON; empty before the first reply that is an object, which no JSON is.
    type State = String;

    fn begin(&self, _: &Request, _: &[String]) -> String {
        String::new()
    }

    fn reply(&self, merged: &mut String, reply: Reply) -> Flow {
        match object::read(&reply.payload) {
            Some(object) => {
                let mut all = object::read(merged.as_bytes()).unwrap_or_default();
                all.extend(object);
                *merged = object::write(&all);
            }
            None => log!(warn, "{} gave no JSON object", reply.recipient),
        }
        Flow::Continue
    }

    fn finish(&self, merged: String, _: End) -> Result<Response, String> {
        if merged.is_empty() {
            return Err("no reply is a JSON object".into());
        }
        Ok(Response::new(merged))
    }
}

#[cfg(test)]
mod tests {
    use chaski_guest::testing::{Gather, take_log};

    use super::*;

    #[track_caller]
    fn check(replies: &[&str], wanted: Result<&str, &str>) {
        let mut gather = Gather::begin(&MergeObjects, &Request::default(), &["a", "b", "c"]);
        for reply in replies {
            gather.reply("a", *reply);
        }
        assert_eq!(gather.finish(End::Settled), wanted.map(Response::new).map_err(str::to_owned));
    }

    #[test]
    fn later_keys_win_and_values_are_taken_whole() {
        check(&[r#"{"a": 1, "b": {"c": 2}}"#, r#"{"b": {"d": 3}}"#], Ok(r#"{"a":1,"b":{"d": 3}}"#));
        check(
            &[r#"{"z": 0.10}"#, r#"{"a": 123456789012345678901234567890}"#],
            Ok(r#"{"a":123456789012345678901234567890,"z":0.10}"#),
        );
    }

    #[test]
    fn what_is_no_object_is_left_out() {
        check(&["[1]", "{}", "no"], Ok("{}"));
        assert_eq!(take_log().len(), 2);
        check(&["[1]"], Err("no reply is a JSON object"));
    }
}
