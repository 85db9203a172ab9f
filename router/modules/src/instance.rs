//! One instance of a module of any world: its Store and its exports. It makes one call at a time and tells how that went;
//! whether the instance is used again its owner decides by [`Instance::is_sound`].

use std::time::Duration;

use quanta::Instant;
use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store};

use crate::bindings;
use crate::clock::{CallClock, Spent};
use crate::failure::Cause;
use crate::guest::{Guest, Lines, Phase};
use crate::limits::Limits;
use crate::params::{Kind, Param, ParamSpec, Value};
use crate::state::Overlay;
use crate::ticker::Hand;
use crate::world::World;

/// What a module says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its own version, for people.
    pub version: String,
    /// Whether a filter calls `state`.
    pub keeps_state: bool,
    /// Whether the router calls a compensator's `advance`.
    pub advances: bool,
    /// The params that it understands.
    pub params: Vec<ParamSpec>,
}

/// What a world exports, as an instance of it is called.
pub(crate) trait Exports: Sized + Send + 'static {
    /// The world.
    const WORLD: World;
    /// The component with its imports and exports checked.
    type Pre: Send + Sync;
    /// What `configure` answers, which must be the same in every instance.
    type Declared: PartialEq + Send + Sync;

    /// Checks that the exports are of the contract's types.
    fn check(pre: InstancePre<Guest>) -> wasmtime::Result<Self::Pre>;
    /// Makes an instance in this store.
    fn make(pre: &Self::Pre, store: &mut Store<Guest>) -> wasmtime::Result<Self>;
    /// Calls `configure`.
    fn configure(
        &mut self,
        store: &mut Store<Guest>,
        params: &[bindings::Param],
    ) -> wasmtime::Result<Result<Self::Declared, String>>;
    /// The cause, when a later instance declares something else than the first.
    fn other(got: &Self::Declared, first: &Self::Declared) -> Cause;
}

/// An instance that was configured.
pub(crate) struct Instance<E> {
    store: Store<Guest>,
    exports: E,
    sound: bool,
}

/// What came of one call.
pub(crate) struct Called<T> {
    pub(crate) answer: Result<T, Cause>,
    pub(crate) spent: Spent,
    /// When it ended.
    pub(crate) ended: Instant,
    pub(crate) lines: Lines,
    pub(crate) overlay: Option<Box<Overlay>>,
}

/// What is needed to make an instance.
pub(crate) struct Recipe<E: Exports> {
    pub(crate) engine: Engine,
    pub(crate) pre: E::Pre,
    pub(crate) limits: Limits,
    pub(crate) keeps_state: bool,
    pub(crate) params: Vec<Param>,
}

/// Why a new instance did not come to be.
pub(crate) enum MakeError {
    /// It failed, after this long.
    Failed(Cause, Spent),
    /// `configure` refused the params, with its sentence.
    Refused(String),
}

/// How one call is timed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallOptions {
    pub(crate) limit: Duration,
    pub(crate) exact: bool,
}

impl<E: Exports> Instance<E> {
    /// Makes an instance and configures it. Also answers what it declares.
    pub(crate) fn make(hand: &Hand, recipe: &Recipe<E>) -> Result<(Instance<E>, E::Declared), MakeError> {
        let mut store = store(hand, &recipe.engine, &recipe.limits, recipe.keeps_state);
        store.data_mut().phase = Phase::Configure;
        let mut exports = E::make(&recipe.pre, &mut store).map_err(|error| {
            let (spent, _) = store.data().clock.stop();
            MakeError::Failed(not_made(&mut store, &error), spent)
        })?;
        let params: Vec<_> = recipe.params.iter().map(wit_param).collect();
        let declared = match exports.configure(&mut store, &params) {
            Ok(Ok(declared)) => declared,
            Ok(Err(sentence)) => return Err(MakeError::Refused(sentence)),
            Err(error) => {
                let (spent, _) = store.data().clock.stop();
                return Err(MakeError::Failed(store.data_mut().cause(&error), spent));
            }
        };
        let guest = store.data_mut();
        guest.hold = None;
        guest.phase = Phase::Work;
        let sound = guest.denied.is_none();
        Ok((Instance { store, exports, sound }, declared))
    }

    /// Makes one call, on this overlay of the state, which comes back with the answer.
    pub(crate) fn call<T>(
        &mut self,
        hand: &Hand,
        options: CallOptions,
        overlay: Option<Box<Overlay>>,
        call: impl FnOnce(&mut E, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Called<T> {
        debug_assert!(self.sound, "an instance that failed is never called again");
        self.store.set_epoch_deadline(1);
        // Behind the deadline, which the tick that follows from this is then sure to reach.
        hand.busy();
        let guest = self.store.data_mut();
        guest.clock = CallClock::start(options.limit, options.exact);
        guest.overlay = overlay;
        let answer = call(&mut self.exports, &mut self.store);
        let guest = self.store.data_mut();
        let (spent, ended) = guest.clock.stop();
        guest.hold = None;
        let overlay = guest.overlay.take();
        let answer = answer.map_err(|error| guest.cause(&error));
        let lines = std::mem::take(&mut guest.lines);
        self.sound = answer.is_ok() && guest.denied.is_none();
        Called { answer, spent, ended, lines, overlay }
    }

    /// Its exports, between calls.
    pub(crate) fn exports(&mut self) -> &mut E {
        &mut self.exports
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

/// Asks a module of any world what it says of itself, in an instance that is thrown away.
pub(crate) fn describe(hand: &Hand, pre: &InstancePre<Guest>, limits: &Limits) -> Result<Description, Cause> {
    let mut store = store(hand, pre.engine(), limits, false);
    let instance = pre.instantiate(&mut store).map_err(|error| not_made(&mut store, &error))?;
    let answer = instance
        .get_typed_func::<(), (bindings::Description,)>(&mut store, "describe")
        .and_then(|describe| describe.call(&mut store, ()));
    match answer {
        Ok((description,)) => Ok(from_wit(description)),
        Err(error) => Err(store.data_mut().cause(&error)),
    }
}

/// A store whose calls, the first of which may come at once, are stopped at their limits.
fn store(hand: &Hand, engine: &Engine, limits: &Limits, keeps_state: bool) -> Store<Guest> {
    let mut store = Store::new(engine, Guest::new(limits.clone(), keeps_state));
    store.limiter(|guest| guest);
    store.set_hostcall_fuel(limits.crossing_bytes);
    store.set_epoch_deadline(1);
    let ticking = hand.clone();
    store.epoch_deadline_callback(move |mut context| {
        let guest = context.data_mut();
        // Saying that it is busy would not do: this thread may stand still before the next deadline is set.
        guest.hold.get_or_insert_with(|| ticking.hold());
        guest.tick()
    });
    hand.busy();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::engine;
    use crate::ticker::Ticker;

    /// Were it only said at each tick that the call is busy, the ticker could sleep while the call's thread stands still between that
    /// and its next deadline, and the call would never end.
    #[test]
    fn a_call_holds_the_ticker_awake_from_its_first_tick_on() {
        let engine = engine::running(1).unwrap();
        let ticking = engine.clone();
        let ticker = Ticker::start(move || ticking.increment_epoch()).unwrap();
        let limits = Limits { cpu_time: Duration::from_secs(60), ..Limits::default() };
        let mut store = store(ticker.hand(), &engine, &limits, false);
        let over = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&over);
        let asked = wasmtime::Func::wrap(&mut store, move || i32::from(asked.load(Ordering::SeqCst)));
        let until_over = r#"(module (import "" "over" (func $over (result i32)))
            (func (export "f") (loop $again (br_if $again (i32.eqz (call $over))))))"#;
        let module = wasmtime::Module::new(&engine, wat::parse_str(until_over).unwrap()).unwrap();
        let instance = wasmtime::Instance::new(&mut store, &module, &[asked.into()]).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "f").unwrap();
        let call = std::thread::spawn(move || run.call(&mut store, ()));
        while ticker.held() == 0 {
            assert!(!call.is_finished(), "it held nothing until its time was over");
            std::thread::yield_now();
        }
        over.store(true, Ordering::SeqCst);
        call.join().unwrap().unwrap();
        assert_eq!(ticker.held(), 0, "its store is gone, and with it the hold");
    }
}
