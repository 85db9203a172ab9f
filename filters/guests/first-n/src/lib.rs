//! Answers a JSON array of the first replies, as soon as they are in.

use chaski_guest::{JsonArray, prelude::*};

#[params]
struct FirstN {
    /// How many replies are enough.
    n: u32,
}

#[aggregator]
impl Aggregator for FirstN {
    type State = JsonArray;

    fn check(&self) -> Result<(), String> {
        if self.n == 0 { Err("`n` must be at least 1".into()) } else { Ok(()) }
    }

    fn begin(&self, _: &Request, _: &[String]) -> JsonArray {
        JsonArray::new()
    }

    fn reply(&self, replies: &mut JsonArray, reply: Reply) -> Flow {
        replies.push(&reply.payload);
        Flow::done_if(replies.len() >= self.n as usize)
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
    fn it_is_done_with_the_last_that_it_waits_for() {
        let module = FirstN { n: 2 };
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b", "c"]);
        assert_eq!(gather.reply("b", "1"), Flow::Continue);
        assert_eq!(gather.failed("a", "no"), Flow::Continue);
        assert_eq!(gather.reply("c", "2"), Flow::Done);
        assert_eq!(gather.finish(End::Done), Ok(Response::new("[1,2]")));
    }

    #[test]
    fn fewer_are_answered_at_the_end() {
        let module = FirstN { n: 2 };
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b"]);
        gather.reply("b", "1");
        gather.silent("a");
        assert_eq!(gather.finish(End::Timeout), Ok(Response::new("[1]")));
    }

    #[test]
    fn none_is_not_a_number_of_replies() {
        assert_eq!(FirstN { n: 0 }.check(), Err("`n` must be at least 1".into()));
        assert_eq!(FirstN { n: 1 }.check(), Ok(()));
    }
}
