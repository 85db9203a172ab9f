//! Answers the whole reply that has the least number at a place of its JSON body.

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct LowestQuote {
    /// Where the number stands, for example `/price`.
    pointer: String,
}

impl LowestQuote {
    fn number(&self, payload: &[u8]) -> Option<f64> {
        serde_json::from_slice::<Value>(payload).ok()?.pointer(&self.pointer)?.as_f64()
    }
}

#[aggregator]
impl Aggregator for LowestQuote {
    /// The best reply's body; empty before the first, which no JSON is.
    type State = Vec<u8>;

    fn begin(&self, _: &Request, _: &[String]) -> Vec<u8> {
        Vec::new()
    }

    fn reply(&self, best: &mut Vec<u8>, reply: Reply) -> Flow {
        match (self.number(&reply.payload), self.number(best)) {
            (None, _) => log!(warn, "{} gave no number at `{}`", reply.recipient, self.pointer),
            (Some(new), Some(least)) if new >= least => {}
            (Some(_), _) => *best = reply.payload,
        }
        Flow::Continue
    }

    fn finish(&self, best: Vec<u8>, _: End) -> Result<Response, String> {
        if best.is_empty() {
            return Err(format!("no reply has a number at `{}`", self.pointer));
        }
        Ok(Response::new(best))
    }
}

#[cfg(test)]
mod tests {
    use chaski_guest::testing::{Gather, take_log};

    use super::*;

    #[track_caller]
    fn check(replies: &[&str], wanted: Result<&str, &str>) {
        let module = LowestQuote { pointer: "/price".into() };
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b", "c"]);
        for reply in replies {
            gather.reply("a", *reply);
        }
        let wanted = wanted.map(Response::new).map_err(str::to_owned);
        assert_eq!(gather.finish(End::Settled), wanted);
    }

    #[test]
    fn the_least_number_wins_and_of_equals_the_first() {
        check(
            &[r#"{"price": 12}"#, r#"{"price": 9.90, "by": "b"}"#, r#"{"price": 9.9, "by": "c"}"#],
            Ok(r#"{"price": 9.90, "by": "b"}"#),
        );
        check(&[r#"{"price": -1}"#, r#"{"price": 0}"#], Ok(r#"{"price": -1}"#));
    }

    #[test]
    fn replies_without_a_number_there_are_left_out() {
        check(
            &["sold out", r#"{"price": "1"}"#, r#"{"cost": 1}"#, r#"{"price": 30}"#],
            Ok(r#"{"price": 30}"#),
        );
        assert_eq!(take_log().len(), 3);
        check(&["sold out"], Err("no reply has a number at `/price`"));
        check(&[], Err("no reply has a number at `/price`"));
    }
}
