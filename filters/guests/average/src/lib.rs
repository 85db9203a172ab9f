//! Answers the mean of the numbers at a place of the replies' JSON bodies.

use chaski_guest::{StateBytes, prelude::*};
use serde_json::Value;

#[params]
struct Average {
    /// Where the number stands, for example `/price`.
    #[default("")]
    pointer: String,
}

/// What the numbers are together. As bytes it is exact, which a decimal text would not be.
#[derive(Default)]
struct Sum {
    sum: f64,
    count: u64,
}

impl StateBytes for Sum {
    fn into_bytes(self) -> Vec<u8> {
        [self.sum.to_le_bytes(), self.count.to_le_bytes()].concat()
    }

    fn from_bytes(bytes: Vec<u8>) -> Self {
        let word =
            |at: usize| bytes[at..].first_chunk().copied().expect("the router keeps the state as it was");
        Sum { sum: f64::from_le_bytes(word(0)), count: u64::from_le_bytes(word(8)) }
    }
}

#[aggregator]
impl Aggregator for Average {
    type State = Sum;

    fn begin(&self, _: &Request, _: &[String]) -> Sum {
        Sum::default()
    }

    fn reply(&self, sum: &mut Sum, reply: Reply) -> Flow {
        let body = reply.json::<Value>().ok();
        match body.and_then(|body| body.pointer(&self.pointer)?.as_f64()) {
            Some(number) => {
                sum.sum += number;
                sum.count += 1;
            }
            None => log!(warn, "{} gave no number at `{}`", reply.recipient, self.pointer),
        }
        Flow::Continue
    }

    fn finish(&self, Sum { sum, count }: Sum, _: End) -> Result<Response, String> {
        let mean = sum / count as f64;
        if count == 0 {
            return Err(format!("no reply has a number at `{}`", self.pointer));
        }
        if !mean.is_finite() {
            return Err("the numbers are together larger than a number can be".into());
        }
        Ok(Response::json(&mean).header("count", count.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use chaski_guest::testing::{Gather, take_log};

    use super::*;

    #[track_caller]
    fn check(pointer: &str, replies: &[&str], wanted: Result<(&str, &str), &str>) {
        let module = Average { pointer: pointer.into() };
        let mut gather = Gather::begin(&module, &Request::default(), &["a", "b", "c"]);
        for reply in replies {
            gather.reply("a", *reply);
        }
        let wanted = wanted.map(|(mean, count)| Response::new(mean).header("count", count));
        assert_eq!(gather.finish(End::Settled), wanted.map_err(str::to_owned));
    }

    #[test]
    fn the_mean_is_that_of_the_numbers_alone() {
        check("/n", &[r#"{"n": 1}"#, r#"{"n": 2.5}"#, r#"{"n": "9"}"#, "no"], Ok(("1.75", "2")));
        assert_eq!(take_log().len(), 2);
        check("", &["-3", "3"], Ok(("0.0", "2")));
    }

    #[test]
    fn without_numbers_or_beyond_all_numbers_there_is_no_mean() {
        check("/n", &["{}"], Err("no reply has a number at `/n`"));
        check("", &["1e308", "1e308"], Err("the numbers are together larger than a number can be"));
    }
}
