//! What stands in for the router under the author's own `cargo test`: the log's lines, and a gather for an aggregator. (State:
//! [`State::fake`]. A compensator needs nothing: a test makes a [`History`].)
//!
//! [`State::fake`]: crate::State::fake
//! [`History`]: crate::History

use std::cell::RefCell;

use crate::{Aggregating, End, Failed, Flow, Level, Reply, Request, Response};

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

/// Takes the lines that `log!` has written on this thread since the last call.
pub fn take_log() -> Vec<(Level, String)> {
    LINES.with(|lines| lines.take())
}

#[cfg(not(target_family = "wasm"))]
pub(crate) fn record(level: Level, line: &str) {
    LINES.with(|lines| lines.borrow_mut().push((level, line.to_owned())));
}

/// A gather as the router runs it: the state is bytes between any two events.
///
/// See [`Aggregator`](crate::Aggregator) for an example.
#[derive(Debug)]
pub struct Gather<'a, A> {
    module: &'a A,
    state: Vec<u8>,
    done: bool,
}

impl<'a, A: Aggregating> Gather<'a, A> {
    /// A gather begins.
    pub fn begin(module: &'a A, request: &Request, recipients: &[&str]) -> Self {
        let recipients: Vec<String> = recipients.iter().copied().map(str::to_owned).collect();
        let state = crate::aggregator::begin(module, request, &recipients);
        Self { module, state, done: false }
    }

    /// A recipient answers this.
    pub fn reply(&mut self, recipient: &str, payload: impl Into<Vec<u8>>) -> Flow {
        let (recipient, payload) = (recipient.to_owned(), payload.into());
        self.reply_with(Reply { recipient, payload, ..Reply::default() })
    }

    /// A recipient answers, with headers or a time that matter.
    pub fn reply_with(&mut self, reply: Reply) -> Flow {
        self.event(|module, state| module.reply(state, reply))
    }

    /// A recipient fails for this reason.
    pub fn failed(&mut self, recipient: &str, reason: &str) -> Flow {
        let (recipient, reason) = (recipient.to_owned(), reason.to_owned());
        self.event(|module, state| module.failed(state, Failed { recipient, at: 0, reason }))
    }

    /// The gather's time is over, and this recipient has said nothing.
    pub fn silent(&mut self, recipient: &str) {
        self.event(|module, state| {
            module.silent(state, recipient);
            Flow::Continue
        });
    }

    /// The gather ends.
    pub fn finish(self, end: End) -> Result<Response, String> {
        self.module.finish(A::decode(self.state), end)
    }

    /// The state as bytes, as it is between two events.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    fn event(&mut self, event: impl FnOnce(&A, &mut A::State) -> Flow) -> Flow {
        assert!(!self.done, "an aggregator that is done is told of nothing more");
        let mut state = A::decode(std::mem::take(&mut self.state));
        let flow = event(self.module, &mut state);
        self.state = A::encode(state);
        self.done = flow == Flow::Done;
        flow
    }
}
