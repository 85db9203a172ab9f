//! Answers a JSON array of the replies, in the order in which they came.

use chaski_guest::{JsonArray, prelude::*};

#[params]
struct Collect;

#[aggregator]
impl Aggregator for Collect {
    type State = JsonArray;

    fn begin(&self, _: &Request, _: &[String]) -> JsonArray {
        JsonArray::new()
    }

    fn reply(&self, replies: &mut JsonArray, reply: Reply) -> Flow {
        replies.push(&reply.payload);
        Flow::Continue
    }

    fn finish(&self, replies: JsonArray, _: End) -> Result<Response, String> {
        Ok(replies.into())
    }
}

#[cfg(test)]
mod tests {
    use chaski_guest::testing::Gather;

    use super::*;

    #[test]
    fn replies_stand_in_the_order_of_their_coming() {
        let mut gather = Gather::begin(&Collect, &Request::default(), &["a", "b", "c", "d"]);
        gather.reply("c", r#"{"price": 9.90}"#);
        gather.failed("a", "sold out");
        gather.reply("b", "no JSON");
        gather.silent("d");
        let wanted = r#"[{"price": 9.90},{"$base64":"bm8gSlNPTg=="}]"#;
        assert_eq!(gather.finish(End::Timeout), Ok(Response::new(wanted)));
    }

    #[test]
    fn without_replies_it_is_empty() {
        let gather = Gather::begin(&Collect, &Request::default(), &[]);
        assert_eq!(gather.finish(End::Settled), Ok(Response::new("[]")));
    }
}
