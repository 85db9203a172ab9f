//! One version of a module of any world: a binary with its params and limits, its idle instances and its figures. Here
//! instances are taken, given back and dropped, and calls are counted. It must not know what a call is about.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quanta::Instant;
use wasmtime::Store;

use crate::answer::Lie;
use crate::clock::{EXACT_FROM, Spent};
use crate::digest::Digest;
use crate::failure::{Cause, Failure};
use crate::guest::{Guest, Line};
use crate::instance::{CallOptions, Exports, Instance, MakeError, Recipe};
use crate::meter::{Meter, Metrics};
use crate::slots::{Idle, Slot, Slots};
use crate::ticker::{Hand, Ticker};

/// What tells one version of a module from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionId {
    /// The digest of the binary.
    pub binary: Digest,
    /// The digest of its params.
    pub params: Digest,
}

/// All instances are in use. The call can be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {instances} instances of modules are in use: try again, or raise the number of instances")]
pub struct Busy {
    /// How many there are.
    pub instances: u32,
}

/// What came of one call of an aggregator or compensator.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered<T> {
    /// Its answer, checked.
    pub answer: Result<T, Failure>,
    /// What the module logged, in a failed call too.
    pub lines: Vec<Line>,
    /// Lines that it logged beyond the limit.
    pub lines_left_out: u64,
    /// The time that the call took.
    pub spent: Spent,
}

pub(crate) struct Version<E: Exports> {
    pub(crate) name: String,
    pub(crate) id: VersionId,
    pub(crate) recipe: Recipe<E>,
    /// What the first instance declared.
    pub(crate) declared: E::Declared,
    pub(crate) compile_time: Duration,
    ticker: Arc<Ticker>,
    slots: Arc<Slots>,
    kept: Mutex<Kept<E>>,
    live: Arc<Live>,
    /// Whether calls have their CPU time measured at both ends.
    exact: AtomicBool,
}

/// What one lock guards: it is taken once before and once after a call.
struct Kept<E> {
    /// Idle instances, the longest idle first. The last is taken, so that few stay warm.
    idle: Vec<Box<Pooled<E>>>,
    meter: Meter,
}

/// Figures of live instances.
#[derive(Debug, Default)]
struct Live {
    instances: AtomicU64,
    memory_bytes: AtomicU64,
}

/// An instance with its slot and its part of the figures.
pub(crate) struct Pooled<E> {
    pub(crate) instance: Instance<E>,
    idle_since: Instant,
    share: Share,
    _slot: Slot,
}

/// An instance for a call, or why there is none and what trying took.
pub(crate) type Taken<E> = Result<Box<Pooled<E>>, (Cause, Spent)>;

/// An instance's part of the figures.
struct Share {
    live: Arc<Live>,
    memory_bytes: u64,
}

impl Share {
    fn new(live: &Arc<Live>) -> Share {
        live.instances.fetch_add(1, Ordering::Relaxed);
        Share { live: Arc::clone(live), memory_bytes: 0 }
    }

    fn set(&mut self, memory_bytes: u64) {
        if memory_bytes != self.memory_bytes {
            // A memory never shrinks.
            self.live.memory_bytes.fetch_add(memory_bytes - self.memory_bytes, Ordering::Relaxed);
            self.memory_bytes = memory_bytes;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.live.instances.fetch_sub(1, Ordering::Relaxed);
        self.live.memory_bytes.fetch_sub(self.memory_bytes, Ordering::Relaxed);
    }
}

/// What a host gives to each of its versions.
pub(crate) struct Shared {
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) slots: Arc<Slots>,
}

impl<E: Exports> Version<E> {
    pub(crate) fn new(
        name: String,
        id: VersionId,
        recipe: Recipe<E>,
        declared: E::Declared,
        compile_time: Duration,
        shared: Shared,
    ) -> Version<E> {
        let kept = Mutex::new(Kept { idle: Vec::new(), meter: Meter::new() });
        let (live, exact) = (Arc::default(), AtomicBool::new(true));
        let Shared { ticker, slots } = shared;
        Version { name, id, recipe, declared, compile_time, ticker, slots, kept, live, exact }
    }

    /// From here on its idle instances may be taken away for others.
    pub(crate) fn shared(self) -> Arc<Version<E>> {
        let version = Arc::new(self);
        let keeper: Weak<Version<E>> = Arc::downgrade(&version);
        version.slots.register(keeper);
        version
    }

    fn kept(&self) -> MutexGuard<'_, Kept<E>> {
        // What the lock guards is whole between any two statements, so a panic of another holder broke nothing.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hand(&self) -> &Hand {
        self.ticker.hand()
    }

    pub(crate) fn busy(&self) -> Busy {
        Busy { instances: self.slots.live() }
    }

    pub(crate) fn failure(&self, cause: Cause) -> Failure {
        Failure { module: self.name.clone(), digest: self.id.binary, cause }
    }

    /// How the next call is timed.
    pub(crate) fn call_options(&self) -> CallOptions {
        CallOptions { limit: self.recipe.limits.cpu_time, exact: self.exact.load(Ordering::Relaxed) }
    }

    /// An idle instance, or a new one. `None` when there is no room for one.
    pub(crate) fn take(&self) -> Option<Taken<E>> {
        if let Some(pooled) = self.kept().idle.pop() {
            return Some(Ok(pooled));
        }
        let slot = self.slots.take()?;
        let share = Share::new(&self.live);
        self.kept().meter.made += 1;
        Some(match Instance::make(self.hand(), &self.recipe) {
            Err(MakeError::Failed(cause, spent)) => Err((cause, spent)),
            Err(MakeError::Refused(text)) => Err((Cause::Refused { text }, Spent::default())),
            Ok((_, declared)) if declared != self.declared => {
                Err((E::other(&declared, &self.declared), Spent::default()))
            }
            Ok((instance, _)) => {
                Ok(Box::new(Pooled { instance, idle_since: Instant::now(), share, _slot: slot }))
            }
        })
    }

    /// Counts a call that went well and ended then. Its instance is kept, if it is sound.
    pub(crate) fn succeeded(
        &self,
        mut pooled: Box<Pooled<E>>,
        messages: usize,
        spent: Spent,
        ended: Instant,
    ) {
        self.measure(spent);
        let sound = pooled.instance.is_sound();
        pooled.share.set(pooled.instance.memory_bytes() as u64);
        pooled.idle_since = ended;
        let mut kept = self.kept();
        kept.meter.count_call(spent);
        kept.meter.messages += messages as u64;
        if sound {
            kept.idle.push(pooled);
        }
    }

    /// Counts a failed call, which decided this many messages. Its instance goes here, whole.
    pub(crate) fn failed(
        &self,
        pooled: Option<Box<Pooled<E>>>,
        messages: usize,
        cause: &Cause,
        spent: Spent,
    ) {
        drop(pooled);
        if cause.is_overtime() {
            self.measure(spent);
        }
        let mut kept = self.kept();
        kept.meter.count_call(spent);
        kept.meter.count_error(cause);
        kept.meter.messages += messages as u64;
    }

    /// Decides whether the next call is measured exactly.
    fn measure(&self, spent: Spent) {
        self.exact.store(spent.wall >= EXACT_FROM, Ordering::Relaxed);
    }

    /// One call by an idle instance or a new one, whose answer `check` looks over. Blocks for as long as it takes.
    pub(crate) fn call<R, T>(
        &self,
        call: impl FnOnce(&mut E, &mut Store<Guest>) -> wasmtime::Result<R>,
        check: impl FnOnce(R) -> Result<T, Lie>,
    ) -> Result<Answered<T>, Busy> {
        let mut pooled = match self.take() {
            None => return Err(self.busy()),
            Some(Ok(pooled)) => pooled,
            Some(Err((cause, spent))) => {
                self.failed(None, 1, &cause, spent);
                let answer = Err(self.failure(cause));
                return Ok(Answered { answer, lines: Vec::new(), lines_left_out: 0, spent });
            }
        };
        let called = pooled.instance.call(self.hand(), self.call_options(), None, call);
        let (spent, ended, lines) = (called.spent, called.ended, called.lines);
        let answer = match called.answer.and_then(|answer| check(answer).map_err(Cause::Lie)) {
            Ok(answer) => {
                self.succeeded(pooled, 1, spent, ended);
                Ok(answer)
            }
            Err(cause) => {
                self.failed(Some(pooled), 1, &cause, spent);
                Err(self.failure(cause))
            }
        };
        Ok(Answered { answer, lines: lines.kept, lines_left_out: lines.left_out, spent })
    }

    /// Its figures, with this mean cost of a message.
    pub(crate) fn metrics(&self, mean_message: Duration) -> Metrics {
        let kept = self.kept();
        Metrics {
            calls: kept.meter.calls,
            messages: kept.meter.messages,
            errors: kept.meter.errors(),
            call_p50: kept.meter.quantile(0.5),
            call_p99: kept.meter.quantile(0.99),
            memory_bytes: self.live.memory_bytes.load(Ordering::Relaxed),
            instances: self.live.instances.load(Ordering::Relaxed),
            instances_made: kept.meter.made,
            compile_time: self.compile_time,
            mean_message,
        }
    }

    /// Calls, messages and errors so far were no live ones.
    pub(crate) fn forget_figures(&self) {
        let mut kept = self.kept();
        let made = kept.meter.made;
        kept.meter = Meter::new();
        kept.meter.made = made;
    }

    /// Drops all idle instances.
    pub(crate) fn shrink(&self) {
        let idle = std::mem::take(&mut self.kept().idle);
        drop(idle);
    }
}

impl<E: Exports> Idle for Version<E> {
    fn oldest(&self) -> Option<Instant> {
        self.kept().idle.first().map(|pooled| pooled.idle_since)
    }

    fn drop_oldest(&self) -> bool {
        let oldest = {
            let mut kept = self.kept();
            (!kept.idle.is_empty()).then(|| kept.idle.remove(0))
        };
        oldest.is_some()
    }
}

impl<E: Exports> std::fmt::Debug for Version<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Version").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}
