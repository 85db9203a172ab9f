//! One instance of a filter: its Store, its exports, and the room for its batches. It makes one call at a time and tells how
//! that went; whether the instance is used again its owner decides by [`Instance::is_sound`].

use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store};

use crate::bindings::{self, FilterPre};
use crate::clock::{CallClock, Spent};
use crate::columns::{Columns, Message};
use crate::failure::Cause;
use crate::field::{self, Field};
use crate::guest::{Guest, Lines, Phase};
use crate::limits::{BATCH_BYTES, Limits};
use crate::params::{Kind, Param, ParamSpec, Value};
use crate::state::Overlay;
use crate::ticker::Ticker;

/// What a module says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// Whether a filter calls `state`.
    pub keeps_state: bool,
    /// Whether the router calls a compensator's `proceed`.
    pub advances: bool,
    /// The params that it understands.
    pub params: Vec<ParamSpec>,
}

/// An instance that was configured.
pub(crate) struct Instance {
    store: Store<Guest>,
    exports: bindings::Filter,
    columns: Columns,
    sound: bool,
}

/// What came of one call.
pub(crate) struct Called {
    /// How many of the messages were in it: those that fit.
    pub(crate) count: usize,
    pub(crate) answer: Result<bindings::Answer, Cause>,
    pub(crate) spent: Spent,
    pub(crate) lines: Lines,
}

/// What is needed to make an instance of a filter.
pub(crate) struct Recipe<'a> {
    pub(crate) pre: &'a FilterPre<Guest>,
    pub(crate) limits: &'a Limits,
    pub(crate) keeps_state: bool,
    pub(crate) params: &'a [Param],
}

/// Why a new instance did not come to be.
pub(crate) enum MakeError {
    /// It failed, after this long.
    Failed(Cause, Spent),
    /// `configure` refused the params, with its sentence.
    Refused(String),
}

impl Instance {
    /// Makes an instance and configures it. Also answers the fields that it declares.
    pub(crate) fn make(ticker: &Ticker, recipe: &Recipe<'_>) -> Result<(Instance, Vec<Field>), MakeError> {
        let _in_flight = ticker.call();
        let mut store = store(recipe.pre.engine(), recipe.limits, recipe.keeps_state);
        store.data_mut().phase = Phase::Configure;
        let exports = recipe.pre.instantiate(&mut store).map_err(|error| {
            let spent = store.data().clock.stop();
            MakeError::Failed(not_made(&mut store, &error), spent)
        })?;
        let params: Vec<_> = recipe.params.iter().map(wit_param).collect();
        let answer = exports.call_configure(&mut store, &params);
        let fields = match answer {
            Ok(Ok(fields)) => fields.into_iter().map(Field::from_wit).collect(),
            Ok(Err(sentence)) => return Err(MakeError::Refused(sentence)),
            Err(error) => {
                let spent = store.data().clock.stop();
                return Err(MakeError::Failed(store.data_mut().cause(&error), spent));
            }
        };
        let guest = store.data_mut();
        guest.phase = Phase::Judge;
        let sound = guest.denied.is_none();
        Ok((Instance { store, exports, columns: Columns::default(), sound }, fields))
    }

    /// Makes one call with as many of the messages as fit, of which the first always does.
    pub(crate) fn judge<M: Message>(
        &mut self,
        ticker: &Ticker,
        fields: &[Field],
        messages: &[M],
        now_ms: u64,
        options: CallOptions,
        overlay: &mut Option<Box<Overlay>>,
    ) -> Called {
        debug_assert!(self.sound, "an instance that failed is never called again");
        let batch = self.columns.fill(fields, messages, now_ms, BATCH_BYTES);
        let in_flight = ticker.call();
        self.store.set_epoch_deadline(1);
        let guest = self.store.data_mut();
        guest.clock = CallClock::start(options.limit, options.exact);
        guest.overlay = overlay.take();
        let answer = self.exports.call_filter(&mut self.store, batch);
        drop(in_flight);
        let guest = self.store.data_mut();
        let spent = guest.clock.stop();
        *overlay = guest.overlay.take();
        let answer = answer.map_err(|error| guest.cause(&error));
        let lines = std::mem::take(&mut guest.lines);
        self.sound = answer.is_ok() && guest.denied.is_none();
        Called { count: batch.count as usize, answer, spent, lines }
    }

    /// Whether it may be called again: nothing trapped, nothing was denied.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound
    }

    /// Bytes of its linear memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes
    }
}

/// How one call is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) limit: std::time::Duration,
    pub(crate) exact: bool,
}

/// Asks a module of any world what it says of itself, in an instance that is thrown away.
pub(crate) fn describe(
    ticker: &Ticker,
    pre: &InstancePre<Guest>,
    limits: &Limits,
) -> Result<Description, Cause> {
    let _in_flight = ticker.call();
    let mut store = store(pre.engine(), limits, false);
    let instance = pre.instantiate(&mut store).map_err(|error| not_made(&mut store, &error))?;
    let answer = instance
        .get_typed_func::<(), (bindings::Description,)>(&mut store, "describe")
        .and_then(|describe| describe.call(&mut store, ()));
    match answer {
        Ok((description,)) => Ok(from_wit(description)),
        Err(error) => Err(store.data_mut().cause(&error)),
    }
}

fn store(engine: &Engine, limits: &Limits, keeps_state: bool) -> Store<Guest> {
    let mut store = Store::new(engine, Guest::new(limits.clone(), keeps_state));
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(limits.crossing_bytes);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| context.data_mut().tick());
    store
}

/// The cause, told apart: a limit and a trap are what they are, and all else is the engine's refusal.
fn not_made(store: &mut Store<Guest>, error: &wasmtime::Error) -> Cause {
    match store.data_mut().cause(error) {
        Cause::Trap { .. } if error.downcast_ref::<wasmtime::Trap>().is_none() => {
            Cause::Instance { text: format!("{error:#}") }
        }
        cause => cause,
    }
}

fn wit_param(param: &Param) -> bindings::Param {
    use bindings::chaski::module::types::ParamValue as Wit;
    let value = match &param.value {
        Value::Text(text) => Wit::Text(text.clone()),
        Value::Integer(number) => Wit::Integer(*number),
        Value::Number(number) => Wit::Number(*number),
        Value::Boolean(truth) => Wit::Boolean(*truth),
        Value::Json(text) => Wit::Json(text.clone()),
    };
    bindings::Param { name: param.name.clone(), value }
}

fn from_wit(description: bindings::Description) -> Description {
    use bindings::chaski::module::types::ParamKind as Wit;
    let bindings::Description { name, version, keeps_state, advances, params } = description;
    let spec = |spec: bindings::chaski::module::types::ParamSpec| ParamSpec {
        name: spec.name,
        kind: match spec.kind {
            Wit::Text => Kind::Text,
            Wit::Integer => Kind::Integer,
            Wit::Number => Kind::Number,
            Wit::Boolean => Kind::Boolean,
            Wit::Json => Kind::Json,
        },
        required: spec.required,
    };
    Description { name, version, keeps_state, advances, params: params.into_iter().map(spec).collect() }
}

/// The difference between declared fields, as a cause.
pub(crate) fn other_fields(got: &[Field], wanted: &[Field]) -> Cause {
    Cause::Fields { got: field::list(got), wanted: field::list(wanted) }
}
