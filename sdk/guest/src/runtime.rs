//! What the code that the attributes generate calls. Not for authors: it changes without notice.

pub use crate::bindings::filter::{
    Answer, Batch, Description, Field, Guest, Param,
    chaski::module::{
        columns::{EditKind, Edits},
        types::{ParamKind, ParamSpec, ParamValue},
    },
};
use crate::{Aggregating, Compensator, FromParam, Headers, Level, StateBytes, Verdict};

/// The bindings of the world `aggregator`.
pub mod gather {
    pub use crate::bindings::aggregator::{End, Event, Folded, Guest, Message, Response};
}

/// The bindings of the world `compensator`.
pub mod saga {
    pub use crate::bindings::compensator::{Course, Guest, History, Plan};
}

const PASS: u8 = 0;
const DROP: u8 = 1;
const EDITED: u8 = 2;

/// Bytes of an offset.
const OFFSET: usize = size_of::<u32>();
/// Set in the offset of a value that is absent.
const ABSENT: u32 = 1 << 31;

/// A struct made by `#[params]`, or `()` where a filter takes none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a module's params",
    label = "has no `#[params]`",
    note = "put `#[params]` on the struct; one without fields can be `struct {Self};`"
)]
pub trait ParamSet: Sized {
    /// Each param: its name, its kind, whether it is required.
    const SPECS: &'static [(&'static str, ParamKind, bool)];

    /// Reads all params. An error is a sentence that names the param.
    fn read(params: Vec<Param>) -> Result<Self, String>;
}

impl ParamSet for () {
    const SPECS: &'static [(&'static str, ParamKind, bool)] = &[];
    fn read(_: Vec<Param>) -> Result<Self, String> {
        Ok(())
    }
}

/// Takes one param out of the list and reads it.
pub fn param<T: FromParam>(params: &mut Vec<Param>, name: &str, default: Option<T>) -> Result<T, String> {
    match take(params, name) {
        Some(value) => T::from_param(value).map_err(|error| sentence(name, &error)),
        None => default.or_else(T::absent).ok_or_else(|| sentence(name, "is missing")),
    }
}

/// Takes one param that is JSON out of the list and reads it.
#[cfg(feature = "serde_json")]
pub fn json_param<T: serde::de::DeserializeOwned>(
    params: &mut Vec<Param>,
    name: &str,
    default: Option<T>,
) -> Result<T, String> {
    match take(params, name) {
        Some(ParamValue::Json(text)) => {
            serde_json::from_str(&text).map_err(|error| sentence(name, &format!("can't be read: {error}")))
        }
        Some(_) => Err(sentence(name, "must be JSON")),
        None => default.ok_or_else(|| sentence(name, "is missing")),
    }
}

/// What the function that `reads` names can answer.
pub trait Declared {
    /// The headers' names, or a sentence for whoever wrote the rules.
    fn declared(self) -> Result<Vec<String>, String>;
}

impl Declared for Vec<String> {
    fn declared(self) -> Result<Vec<String>, String> {
        Ok(self)
    }
}

impl Declared for Result<Vec<String>, String> {
    fn declared(self) -> Result<Vec<String>, String> {
        self
    }
}

fn take(params: &mut Vec<Param>, name: &str) -> Option<ParamValue> {
    let index = params.iter().position(|param| param.name == name)?;
    Some(params.swap_remove(index).value)
}

fn sentence(name: &str, error: &str) -> String {
    ["the param \"", name, "\" ", error].concat()
}

/// The answer of `describe`.
pub fn describe<P: ParamSet>(name: &str, version: &str, keeps_state: bool) -> Description {
    let spec =
        |&(name, kind, required): &(&str, ParamKind, bool)| ParamSpec { name: name.into(), kind, required };
    Description {
        name: name.into(),
        version: version.into(),
        keeps_state,
        advances: false,
        params: P::SPECS.iter().map(spec).collect(),
    }
}

/// Sends a panic's message and place to the log before the trap, which itself carries neither.
pub fn install_panic_hook() {
    #[cfg(target_family = "wasm")]
    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("a panic without a message");
        let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
        write_log(Level::Panic, &[message, " (", file, ":", &line.to_string(), ")"].concat());
    }));
}

/// One message of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    batch: &'a Batch,
    index: usize,
}

impl<'a> Row<'a> {
    /// The value of the column at `column`, or none where it is absent.
    pub fn optional_bytes(&self, column: usize) -> Option<&'a [u8]> {
        let at = column * self.batch.count as usize + self.index;
        let columns = &*self.batch.columns;
        let offset = |at: usize| {
            let bytes = columns[at * OFFSET..].first_chunk();
            u32::from_le_bytes(*bytes.expect("there is one more than there are values"))
        };
        let (begin, end) = (offset(at), offset(at + 1) & !ABSENT);
        (begin & ABSENT == 0).then(|| &columns[begin as usize..end as usize])
    }

    /// The value of a column that is never absent.
    pub fn bytes(&self, column: usize) -> &'a [u8] {
        self.optional_bytes(column).unwrap_or_default()
    }

    /// Text that can be absent.
    pub fn optional_text(&self, column: usize) -> Option<&'a str> {
        self.optional_bytes(column).map(text)
    }

    /// Text that is never absent.
    pub fn text(&self, column: usize) -> &'a str {
        text(self.bytes(column))
    }

    /// The priority.
    pub fn byte(&self, column: usize) -> u8 {
        self.bytes(column)[0]
    }

    /// A time, in milliseconds since 1970.
    pub fn time(&self, column: usize) -> u64 {
        u64::from_le_bytes(*self.bytes(column).first_chunk().expect("a time has eight bytes"))
    }

    /// The time of the batch, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.batch.now
    }

    /// All headers.
    pub fn headers(&self, column: usize) -> Headers<'a> {
        let mut rest = self.bytes(column);
        let next = || (!rest.is_empty()).then(|| (counted(&mut rest), counted(&mut rest)));
        std::iter::from_fn(next).collect()
    }

    /// The headers that were declared by name, whose columns begin at `first`.
    pub fn declared_headers(&self, first: usize, names: &'a [String]) -> Headers<'a> {
        Headers::columns(*self, first, names)
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_else(|_| panic!("the router sends text as UTF-8"))
}

fn counted<'a>(rest: &mut &'a [u8]) -> &'a str {
    let (length, tail) = rest.split_first_chunk::<4>().expect("a length has four bytes");
    let (value, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
    *rest = tail;
    text(value)
}

/// Reads a payload as JSON; what can't be read is rejected, with the reason.
#[cfg(feature = "serde_json")]
pub fn json<'a, T: serde::Deserialize<'a>>(payload: &'a [u8]) -> Result<T, Verdict> {
    serde_json::from_slice(payload)
        .map_err(|error| Verdict::Reject(format!("the payload is not the JSON expected: {error}")))
}

/// Judges a batch, one message after another.
pub fn judge(batch: &Batch, mut judge_one: impl FnMut(Row<'_>) -> Verdict) -> Answer {
    let count = batch.count as usize;
    let mut edits = Edits { kinds: Vec::new(), indexes: Vec::new(), ends: Vec::new(), bytes: Vec::new() };
    let mut verdicts = Vec::with_capacity(count);
    for index in 0..count {
        let verdict = judge_one(Row { batch, index });
        verdicts.push(add(&mut edits, index as u32, verdict));
    }
    Answer { verdicts, edits: (!edits.kinds.is_empty()).then_some(edits) }
}

/// Adds a verdict's edits; answers its number.
fn add(edits: &mut Edits, index: u32, verdict: Verdict) -> u8 {
    let before = edits.kinds.len();
    let mut edit = |kind: EditKind, bytes: &[u8]| {
        edits.kinds.push(kind as u8);
        edits.indexes.push(index);
        edits.bytes.extend_from_slice(bytes);
        edits.ends.push(edits.bytes.len() as u32);
    };
    let without_edits = match &verdict {
        Verdict::Pass => PASS,
        Verdict::Drop => DROP,
        Verdict::Reject(reason) => {
            edit(EditKind::Reject, reason.as_bytes());
            EDITED
        }
        Verdict::Transform(message) => {
            message.edits().iter().for_each(|(kind, bytes)| edit(*kind, bytes));
            PASS
        }
        Verdict::Route(topics) => {
            topics.iter().for_each(|topic| edit(EditKind::Route, topic.as_bytes()));
            DROP
        }
        Verdict::Split(children) => {
            for child in children {
                edit(EditKind::Child, &[]);
                child.edits().iter().for_each(|(kind, bytes)| edit(*kind, bytes));
            }
            DROP
        }
    };
    if edits.kinds.len() > before { EDITED } else { without_edits }
}

/// A state as its own bytes.
pub fn state_into_bytes<S: StateBytes>(state: S) -> Vec<u8> {
    state.into_bytes()
}

/// A state of its own bytes.
pub fn state_from_bytes<S: StateBytes>(bytes: Vec<u8>) -> S {
    S::from_bytes(bytes)
}

/// A state as JSON.
#[cfg(feature = "serde_json")]
pub fn state_into_json<S: serde::Serialize>(state: S) -> Vec<u8> {
    serde_json::to_vec(&state).expect("the state can be written as JSON")
}

/// A state of its JSON.
#[cfg(feature = "serde_json")]
pub fn state_from_json<S: serde::de::DeserializeOwned>(bytes: Vec<u8>) -> S {
    serde_json::from_slice(&bytes).expect("the state can be read as the JSON that it was written as")
}

/// A gather begins.
pub fn begin<A: Aggregating>(module: &A, request: gather::Message, recipients: Vec<String>) -> Vec<u8> {
    crate::aggregator::begin(module, &request.into(), &recipients)
}

/// Something happened to a recipient.
pub fn fold<A: Aggregating>(module: &A, state: Vec<u8>, event: gather::Event) -> gather::Folded {
    crate::aggregator::fold(module, state, event)
}

/// A gather ends.
pub fn finish<A: Aggregating>(
    module: &A,
    state: Vec<u8>,
    why: gather::End,
) -> Result<gather::Response, String> {
    crate::aggregator::finish(module, state, why)
}

/// A step of a saga was answered.
pub fn advance<C: Compensator>(module: &C, history: saga::History) -> saga::Course {
    crate::compensator::advance(module, history)
}

/// A saga is to be undone.
pub fn compensate<C: Compensator>(module: &C, history: saga::History) -> saga::Plan {
    crate::compensator::compensate(module, history)
}

/// What `log!` calls.
pub fn write_log(level: Level, line: &str) {
    crate::log::write(level, line);
}

/// The router's table.
#[cfg(target_family = "wasm")]
pub fn router_state() -> crate::State {
    crate::State::ROUTER
}

/// Natively an empty table.
#[cfg(not(target_family = "wasm"))]
pub fn router_state() -> crate::State {
    crate::State::fake()
}
