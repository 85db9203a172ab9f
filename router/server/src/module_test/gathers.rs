//! An aggregator on a gather that was made up: a request, and what became of those it went to.

use chaski_modules::{Aggregator, Answered, Busy, Folded, GatherEnd, GatherEvent, Request, Response};
use chaski_protocol::{Code, Refusal};

use super::{Sample, Timed, Tried, now_ms};

/// An aggregator that is ready to be tried.
pub struct AggregatorTest(Aggregator);

/// What the requester would get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its headers, but for those of the router.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl AggregatorTest {
    pub(super) fn new(aggregator: Aggregator) -> AggregatorTest {
        AggregatorTest(aggregator)
    }

    /// Runs a gather to its end: what came of the request, of each event until the module was done, and of the end; and the
    /// answer, where there is one. A call that fails leaves the state as it was.
    pub fn gather(
        &self,
        request: &Sample,
        events: &[GatherEvent],
    ) -> Result<(Vec<Tried>, Option<Answer>), Refusal> {
        let mut recipients: Vec<String> = Vec::new();
        for event in events {
            let (GatherEvent::Reply { recipient, .. }
            | GatherEvent::Failed { recipient, .. }
            | GatherEvent::Silent { recipient }) = event;
            if !recipients.contains(recipient) {
                recipients.push(recipient.clone());
            }
        }
        let request = Request::of(&Timed { sample: request, now_ms: now_ms() });
        let begun = self.0.begin(&request, &recipients).map_err(refused)?;
        let mut state = begun.answer.clone().unwrap_or_default();
        let mut tried =
            vec![told(&begun, |state| ("begun", Some(format!("{} bytes of state", state.len()))))];
        if begun.answer.is_err() {
            return Ok((tried, None));
        }
        let mut end = GatherEnd::Settled;
        for event in events {
            if matches!(event, GatherEvent::Silent { .. }) {
                end = GatherEnd::Timeout;
            }
            let folded = self.0.fold(&state, event).map_err(refused)?;
            tried.push(told(&folded, |Folded { state, done }| {
                (if *done { "done" } else { "continue" }, Some(format!("{} bytes of state", state.len())))
            }));
            let Ok(folded) = folded.answer else { continue };
            state = folded.state;
            if folded.done {
                end = GatherEnd::Done;
                break;
            }
        }
        let finished = self.0.finish(&state, end).map_err(refused)?;
        tried.push(told(&finished, |finished| match finished {
            Ok(Response { payload, .. }) => ("answer", Some(format!("{} bytes", payload.len()))),
            Err(reason) => ("failed", Some(reason.clone())),
        }));
        let answer = finished.answer.ok().and_then(Result::ok);
        Ok((tried, answer.map(|Response { headers, payload }| Answer { headers, payload })))
    }
}

pub(super) fn refused(busy: Busy) -> Refusal {
    Refusal::new(Code::Busy, busy.to_string())
}

/// One call in words.
pub(super) fn told<T>(
    answered: &Answered<T>,
    words: impl FnOnce(&T) -> (&'static str, Option<String>),
) -> Tried {
    let (verdict, detail) = match &answered.answer {
        Ok(answer) => words(answer),
        Err(failure) => ("error", Some(failure.cause.to_string())),
    };
    let log = answered.lines.iter().map(|line| line.text.clone()).collect();
    Tried { verdict, detail, cpu: answered.spent.cpu, log }
}
