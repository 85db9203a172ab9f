//! Aggregators: one answer of the many replies of a scatter-gather.

use crate::bindings::aggregator::{self as wit, chaski::module::gathering};
use crate::request::{Request, find, pairs};

/// What an aggregator does in a gather. `#[aggregator]` on the `impl` makes a module of it; `self` is what the rules give, so
/// its type has `#[params]`.
///
/// ```
/// use chaski_guest::prelude::*;
///
/// /// Answers with the longest reply.
/// #[params]
/// struct Longest;
///
/// #[aggregator]
/// impl Aggregator for Longest {
///     type State = Vec<u8>;
///
///     fn begin(&self, _: &Request, _: &[String]) -> Vec<u8> {
///         Vec::new()
///     }
///
///     fn reply(&self, longest: &mut Vec<u8>, reply: Reply) -> Flow {
///         if reply.payload.len() > longest.len() {
///             *longest = reply.payload;
///         }
///         Flow::Continue
///     }
///
///     fn finish(&self, longest: Vec<u8>, _: End) -> Result<Response, String> {
///         Ok(Response::new(longest))
///     }
/// }
///
/// let mut gather = chaski_guest::testing::Gather::begin(&Longest, &Request::default(), &["a", "b"]);
/// gather.reply("a", "some");
/// gather.reply("b", "more of it");
/// assert_eq!(gather.finish(End::Settled), Ok(Response::new("more of it")));
/// ```
pub trait Aggregator {
    /// What is kept of a gather from one event to the next, as bytes, at most 1 MiB of them: a type with [`StateBytes`], or
    /// with `#[json]` on it any type that serde reads and writes. A `static` is no state: an instance can be dropped between
    /// any two calls.
    type State;

    /// Looks at the params, before anything else. An error refuses the rules, with its sentence.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// A gather begins: the request, and the names of those that it went to.
    fn begin(&self, request: &Request, recipients: &[String]) -> Self::State;

    /// A recipient has answered.
    fn reply(&self, state: &mut Self::State, reply: Reply) -> Flow;

    /// A recipient said no, died of the request, or was not there.
    fn failed(&self, state: &mut Self::State, failed: Failed) -> Flow {
        let _ = (state, failed);
        Flow::Continue
    }

    /// A recipient had said nothing when the gather's time was over.
    fn silent(&self, state: &mut Self::State, recipient: &str) {
        let _ = (state, recipient);
    }

    /// The gather ends: what the requester gets, or a reason for which the gather fails.
    fn finish(&self, state: Self::State, end: End) -> Result<Response, String>;
}

/// A recipient's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Who answered: a name among those that `begin` was given.
    pub recipient: String,
    /// When the router took the answer, in milliseconds since 1970. It is recorded, and so the same in a replay.
    pub at: u64,
    /// Its headers: names and values.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The value of the header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON. The error is a sentence.
    #[cfg(feature = "serde_json")]
    pub fn json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, String> {
        crate::request::json(&self.payload)
    }
}

/// A recipient that did not answer, and won't.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failed {
    /// Which: a name among those that `begin` was given.
    pub recipient: String,
    /// When, in milliseconds since 1970. It is recorded, and so the same in a replay.
    pub at: u64,
    /// Why, as a sentence.
    pub reason: String,
}

/// Whether an aggregator has seen enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It wants to see more. The gather goes on, unless its quorum is in or nobody is left.
    Continue,
    /// It has seen enough: `finish` follows, and open requests are withdrawn.
    Done,
}

impl Flow {
    /// [`Flow::Done`] if `condition` holds, else [`Flow::Continue`].
    pub fn done_if(condition: bool) -> Self {
        if condition { Self::Done } else { Self::Continue }
    }
}

/// Why a gather ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As many replies as the scatter asks for are in.
    Quorum,
    /// The aggregator was done.
    Done,
    /// Every recipient has answered or failed, without reaching the quorum.
    Settled,
    /// Its time is over.
    Timeout,
}

/// What the requester gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// Headers to set: names and values. None begins with `chaski-`, and none is there twice.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub payload: Vec<u8>,
}

impl Response {
    /// With this body.
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self { headers: Vec::new(), payload: payload.into() }
    }

    /// With this body as JSON.
    ///
    /// # Panics
    /// If it can't be written as JSON: a map whose keys are no text, for example.
    #[cfg(feature = "serde_json")]
    pub fn json<T: serde::Serialize + ?Sized>(body: &T) -> Self {
        Self::new(serde_json::to_vec(body).expect("the answer can be written as JSON"))
    }

    /// With this header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A state that crosses to the router as bytes. `#[json]` on `type State` takes any type that serde reads and writes instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the state of an aggregator",
    label = "has no form in bytes",
    note = "`#[json]` on `type State` takes any type that serde reads and writes; or implement `StateBytes`"
)]
pub trait StateBytes: Sized {
    /// The state as bytes.
    fn into_bytes(self) -> Vec<u8>;
    /// The state that these bytes were made of.
    fn from_bytes(bytes: Vec<u8>) -> Self;
}

impl StateBytes for () {
    fn into_bytes(self) -> Vec<u8> {
        Vec::new()
    }
    fn from_bytes(_: Vec<u8>) -> Self {}
}

impl StateBytes for Vec<u8> {
    fn into_bytes(self) -> Vec<u8> {
        self
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        bytes
    }
}

impl StateBytes for String {
    fn into_bytes(self) -> Vec<u8> {
        self.into_bytes()
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).expect("the router keeps the state as it was")
    }
}

impl StateBytes for u64 {
    fn into_bytes(self) -> Vec<u8> {
        self.to_le_bytes().to_vec()
    }
    fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::from_le_bytes(bytes.try_into().expect("the router keeps the state as it was"))
    }
}

/// An aggregator with the form of its state, which `#[aggregator]` knows.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no aggregator's type",
    note = "put `#[aggregator]` on its `impl Aggregator`"
)]
pub trait Aggregating: Aggregator {
    /// The state as bytes.
    fn encode(state: Self::State) -> Vec<u8>;
    /// The state that these bytes were made of.
    fn decode(bytes: Vec<u8>) -> Self::State;
}

pub(crate) fn begin<A: Aggregating>(module: &A, request: &Request, recipients: &[String]) -> Vec<u8> {
    A::encode(module.begin(request, recipients))
}

pub(crate) fn fold<A: Aggregating>(module: &A, state: Vec<u8>, event: gathering::Event) -> wit::Folded {
    let mut state = A::decode(state);
    let flow = match event {
        gathering::Event::Reply(gathering::Reply { recipient, at, headers, payload }) => {
            module.reply(&mut state, Reply { recipient, at, headers: pairs(headers), payload })
        }
        gathering::Event::Failed(gathering::Failure { recipient, at, reason }) => {
            module.failed(&mut state, Failed { recipient, at, reason })
        }
        gathering::Event::Silent(recipient) => {
            module.silent(&mut state, &recipient);
            Flow::Continue
        }
    };
    wit::Folded { state: A::encode(state), done: flow == Flow::Done }
}

pub(crate) fn finish<A: Aggregating>(
    module: &A,
    state: Vec<u8>,
    why: wit::End,
) -> Result<wit::Response, String> {
    let end = match why {
        wit::End::Quorum => End::Quorum,
        wit::End::Done => End::Done,
        wit::End::Settled => End::Settled,
        wit::End::Timeout => End::Timeout,
    };
    let Response { headers, payload } = module.finish(A::decode(state), end)?;
    let header = |(name, value)| crate::bindings::filter::chaski::module::types::Header { name, value };
    Ok(wit::Response { headers: headers.into_iter().map(header).collect(), payload })
}
