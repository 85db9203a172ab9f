//! Answers the value on which more than half of those asked agree.

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct MajorityVote {
    /// Where the value stands, for example `/approved`.
    #[default("")]
    pointer: String,
}

/// How many were asked, and the votes for each value. As a pair and a list it is JSON without derived code.
type Votes = (usize, Vec<(Value, usize)>);

#[aggregator]
impl Aggregator for MajorityVote {
    #[json]
    type State = Votes;

    fn begin(&self, _: &Request, recipients: &[String]) -> Votes {
        (recipients.len(), Vec::new())
    }

    fn reply(&self, (asked, votes): &mut Votes, reply: Reply) -> Flow {
        let body = reply.json::<Value>().unwrap_or_default();
        let Some(value) = body.pointer(&self.pointer).filter(|value| !value.is_null()) else {
            log!(warn, "{} gave no value at `{}`", reply.recipient, self.pointer);
            return Flow::Continue;
        };
        let count = match votes.iter_mut().find(|(known, _)| known == value) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                votes.push((value.clone(), 1));
                1
            }
        };
        Flow::done_if(count * 2 > *asked)
    }

    fn finish(&self, (asked, votes): Votes, _: End) -> Result<Response, String> {
        // Of several with as many the first: none of them has a majority.
        let best = votes.iter().rev().max_by_key(|(_, count)| count);
        let most = best.map_or(0, |(_, count)| *count);
        match best {
            Some((value, count)) if count * 2 > asked => Ok(Response::json(value)
                .header("votes", count.to_string())
                .header("asked", asked.to_string())),
            _ => Err(format!("no value has a majority: at most {most} of {asked} agree")),
        }
    }
}

#[cfg(test)]
mod tests {
    use chaski_guest::testing::Gather;

    use super::*;

    fn module() -> MajorityVote {
        MajorityVote { pointer: "/ok".into() }
    }

    #[test]
    fn a_majority_of_those_asked_ends_the_vote() {
        let module = module();
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b", "c", "d"]);
        assert_eq!(gather.reply("a", r#"{"ok": true}"#), Flow::Continue);
        assert_eq!(gather.reply("b", r#"{"ok": false}"#), Flow::Continue);
        assert_eq!(gather.reply("c", r#"{"ok": true, "by": "c"}"#), Flow::Continue);
        assert_eq!(gather.reply("d", r#"{"ok": true}"#), Flow::Done);
        let response = Response::new("true").header("votes", "3").header("asked", "4");
        assert_eq!(gather.finish(End::Done), Ok(response));
    }

    #[test]
    fn half_of_those_asked_is_no_majority() {
        let module = module();
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b", "c", "d"]);
        for (recipient, reply) in [("a", r#"{"ok": 1}"#), ("b", r#"{"ok": 1}"#), ("c", "nonsense")] {
            assert_eq!(gather.reply(recipient, reply), Flow::Continue);
        }
        gather.silent("d");
        let failed = gather.finish(End::Timeout);
        assert_eq!(failed, Err("no value has a majority: at most 2 of 4 agree".into()));
    }

    #[test]
    fn without_votes_there_is_no_majority() {
        let module = module();
        let gather = Gather::begin(&module, &Request::default(), &["a"]);
        assert_eq!(gather.finish(End::Settled), Err("no value has a majority: at most 0 of 1 agree".into()));
    }
}
