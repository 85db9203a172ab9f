//! One version of a filter: a binary with its params and limits, its idle instances and its figures. Here batches are judged,
//! searched for poison, and instances reused. It must not know where messages come from or what is done with verdicts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::answer;
use crate::bindings::FilterPre;
use crate::clock::{EXACT_FROM, Spent};
use crate::columns::Message;
use crate::digest::Digest;
use crate::failure::{Cause, Failure};
use crate::field::Field;
use crate::guest::{Guest, Line};
use crate::instance::{CallOptions, Instance, MakeError, Recipe, other_fields};
use crate::limits::{BATCH_CALLS, BATCH_MESSAGES, BATCH_TIME_PART, Limits};
use crate::meter::{Meter, Metrics};
use crate::params::Param;
use crate::search::{Step, search};
use crate::slots::{Idle, Slot, Slots};
use crate::state::{Overlay, Table, Write};
use crate::ticker::Ticker;
use crate::verdict::Verdict;

/// What tells one version of a module from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VersionId {
    /// The digest of the binary.
    pub binary: Digest,
    /// The digest of its params.
    pub params: Digest,
}

/// One version of a filter, ready to judge. Clones are the same version.
#[derive(Clone)]
pub struct Filter(Arc<Version>);

pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) id: VersionId,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) pre: FilterPre<Guest>,
    pub(crate) params: Vec<Param>,
    pub(crate) fields: Vec<Field>,
    pub(crate) limits: Limits,
    pub(crate) keeps_state: bool,
    pub(crate) compile_time: Duration,
    pub(crate) kept: Mutex<Kept>,
    pub(crate) live: Arc<Live>,
    /// The mean cost of a message in nanoseconds, 0 before the first.
    pub(crate) mean_ns: AtomicU64,
    /// Whether calls have their CPU time measured at both ends.
    pub(crate) exact: AtomicBool,
}

/// What one lock guards: it is taken once before and once after a call.
pub(crate) struct Kept {
    /// Idle instances, the longest idle first. The last is taken, so that few stay warm.
    idle: Vec<Pooled>,
    meter: Meter,
}

impl Kept {
    pub(crate) fn new() -> Mutex<Kept> {
        Mutex::new(Kept { idle: Vec::new(), meter: Meter::new() })
    }
}

/// Figures of live instances.
#[derive(Debug, Default)]
pub(crate) struct Live {
    instances: AtomicU64,
    memory_bytes: AtomicU64,
}

/// An instance with its slot and its part of the figures.
struct Pooled {
    instance: Instance,
    idle_since: Instant,
    share: Share,
    _slot: Slot,
}

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

/// What a batch is judged with.
#[derive(Clone, Default)]
pub struct Context {
    /// The batch's time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The state of the module's name. A filter that keeps state needs it.
    pub state: Option<Arc<dyn Table>>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Judged {
    /// Verdicts and failures of the first messages of those given, in order; at least one. The others, which did not fit
    /// into the batch or were not reached within its calls, go into a batch of their own.
    pub outcomes: Vec<Result<Verdict, Failure>>,
    /// What the state's table must be changed by, together with the outcomes.
    pub writes: Vec<Write>,
    /// What the module logged, of failed calls too.
    pub lines: Vec<Line>,
    /// Lines that it logged beyond the limit.
    pub lines_left_out: u64,
    /// How many calls it took.
    pub calls: u32,
    /// The call that took the most CPU time.
    pub longest: Spent,
    /// CPU time of the calls that ran out of time, where the search ended in a message that does so alone; else nothing.
    pub timed_out: Duration,
}

/// All instances are in use. The batch can be given again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("all {instances} instances of modules are in use: try again, or raise the number of instances")]
pub struct Busy {
    /// How many there are.
    pub instances: u32,
}

impl Filter {
    pub(crate) fn new(version: Version) -> Filter {
        let version = Arc::new(version);
        let keeper: std::sync::Weak<Version> = Arc::downgrade(&version);
        version.slots.register(keeper);
        Filter(version)
    }

    /// The module's name in the rules.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What tells this version from others.
    pub fn id(&self) -> VersionId {
        self.0.id
    }

    /// The fields that it reads with its params.
    pub fn fields(&self) -> &[Field] {
        &self.0.fields
    }

    /// Whether it keeps state, and so is judged one batch at a time, with a table.
    pub fn keeps_state(&self) -> bool {
        self.0.keeps_state
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Judges as many of the messages as make one batch, and finds those that fail by calling halves of it. Blocks for as
    /// long as the calls take.
    pub fn judge<M: Message>(&self, messages: &[M], context: &Context) -> Result<Judged, Busy> {
        let version = &*self.0;
        let mut run = Run::new(version, context);
        let batch = &messages[..version.batch_len(messages)];
        let outcomes = search(batch.len(), BATCH_CALLS, |range| run.call(&batch[range]));
        if outcomes.is_empty() && !batch.is_empty() {
            return Err(version.busy());
        }
        Ok(run.finish(outcomes))
    }

    /// Calls the filter with an empty batch: the least that a new version must bear.
    pub fn smoke(&self, now_ms: u64) -> Result<Result<(), Failure>, Busy> {
        let context = Context { now_ms, state: None };
        let mut run = Run::new(&self.0, &context);
        let none: [&dyn Message; 0] = [];
        match run.call(&none) {
            Step::Decided(_) => Ok(Ok(())),
            Step::Failed { error, .. } => Ok(Err(error)),
            Step::Stopped => Err(self.0.busy()),
        }
    }

    /// Its figures.
    pub fn metrics(&self) -> Metrics {
        let version = &*self.0;
        let kept = version.kept();
        Metrics {
            calls: kept.meter.calls,
            messages: kept.meter.messages,
            errors: kept.meter.errors(),
            call_p50: kept.meter.quantile(0.5),
            call_p99: kept.meter.quantile(0.99),
            memory_bytes: version.live.memory_bytes.load(Ordering::Relaxed),
            instances: version.live.instances.load(Ordering::Relaxed),
            instances_made: kept.meter.made,
            compile_time: version.compile_time,
            mean_message: Duration::from_nanos(version.mean_ns.load(Ordering::Relaxed)),
        }
    }

    /// Drops all idle instances: after a swap, when the version is only kept for a rollback.
    pub fn shrink(&self) {
        let idle = std::mem::take(&mut self.0.kept().idle);
        drop(idle);
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("name", &self.0.name).field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl Version {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What the lock guards is whole between any two statements, so a panic of another holder broke nothing.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> Busy {
        Busy { instances: self.slots.live() }
    }

    fn failure(&self, cause: Cause) -> Failure {
        Failure { module: self.name.clone(), digest: self.id.binary, cause }
    }

    /// How many of the messages go into one batch: by count, by time, and by the bytes of payloads. Other fields are small,
    /// and cut when they are laid out.
    fn batch_len<M: Message>(&self, messages: &[M]) -> usize {
        let mean_ns = self.mean_ns.load(Ordering::Relaxed).max(1);
        let time_ns = (self.limits.cpu_time / BATCH_TIME_PART).as_nanos() as u64;
        let most = ((time_ns / mean_ns) as usize).clamp(1, BATCH_MESSAGES).min(messages.len());
        if !self.fields.contains(&Field::Payload) {
            return most;
        }
        let mut bytes = 0;
        let fits = messages[..most].iter().take_while(|message| {
            bytes += message.payload().len();
            bytes <= crate::limits::BATCH_BYTES
        });
        fits.count().max(1).min(most)
    }

    /// An idle instance, or a new one. `None` when there is no room for one.
    fn take(&self) -> Option<Result<Pooled, (Cause, Spent)>> {
        if let Some(pooled) = self.kept().idle.pop() {
            return Some(Ok(pooled));
        }
        let slot = self.slots.take()?;
        let recipe = Recipe {
            pre: &self.pre,
            limits: &self.limits,
            keeps_state: self.keeps_state,
            params: &self.params,
        };
        let share = Share::new(&self.live);
        self.kept().meter.made += 1;
        Some(match Instance::make(&self.ticker, &recipe) {
            Err(MakeError::Failed(cause, spent)) => Err((cause, spent)),
            Err(MakeError::Refused(text)) => Err((Cause::Refused { text }, Spent::default())),
            Ok((_, fields)) if fields != self.fields => {
                Err((other_fields(&fields, &self.fields), Spent::default()))
            }
            Ok((instance, _)) => Ok(Pooled { instance, idle_since: Instant::now(), share, _slot: slot }),
        })
    }

    /// Learns from a call what a message costs. A call that ran out of time tells the least that its messages cost.
    fn learn(&self, spent: Spent, count: usize) {
        let short = spent.wall < EXACT_FROM;
        self.exact.store(!short, Ordering::Relaxed);
        // Wall time is near enough for a short call; a long one may have been waiting for a core.
        if count == 0 || !(short || spent.measured) {
            return;
        }
        let new = (spent.cpu.as_nanos() as u64 / count as u64).max(1);
        let old = self.mean_ns.load(Ordering::Relaxed);
        let mean = if old == 0 { new } else { (old * 7 + new) / 8 };
        self.mean_ns.store(mean.max(1), Ordering::Relaxed);
    }
}

impl Idle for Version {
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

/// The calls of one batch.
struct Run<'a> {
    version: &'a Version,
    now_ms: u64,
    overlay: Option<Box<Overlay>>,
    judged: Judged,
    timed_out_alone: bool,
}

impl<'a> Run<'a> {
    fn new(version: &'a Version, context: &Context) -> Run<'a> {
        let table = context.state.clone().filter(|_| version.keeps_state);
        let limit = version.limits.state_bytes;
        let overlay = table.map(|table| Box::new(Overlay::new(table, context.now_ms, limit)));
        let judged = Judged {
            outcomes: Vec::new(),
            writes: Vec::new(),
            lines: Vec::new(),
            lines_left_out: 0,
            calls: 0,
            longest: Spent::default(),
            timed_out: Duration::ZERO,
        };
        Run { version, now_ms: context.now_ms, overlay, judged, timed_out_alone: false }
    }

    /// One call over these messages, by an idle instance or a new one. The instance goes back only if it is sound.
    fn call<M: Message>(&mut self, messages: &[M]) -> Step<Verdict, Failure> {
        let version = self.version;
        let mut pooled = match version.take() {
            None => return Step::Stopped,
            Some(Ok(pooled)) => pooled,
            Some(Err((cause, spent))) => {
                self.judged.calls += 1;
                return self.failed(None, messages.len(), cause, spent);
            }
        };
        self.judged.calls += 1;
        let options =
            CallOptions { limit: version.limits.cpu_time, exact: version.exact.load(Ordering::Relaxed) };
        let instance = &mut pooled.instance;
        let called = instance.judge(
            &version.ticker,
            &version.fields,
            messages,
            self.now_ms,
            options,
            &mut self.overlay,
        );
        self.judged.lines.extend(called.lines.kept);
        self.judged.lines_left_out += called.lines.left_out;
        if called.spent.cpu > self.judged.longest.cpu {
            self.judged.longest = called.spent;
        }
        let (count, spent) = (called.count, called.spent);
        let checked = called
            .answer
            .and_then(|answer| answer::check(answer, count, version.limits.edits).map_err(Cause::Lie));
        match checked {
            Err(cause) => self.failed(Some(pooled), count, cause, spent),
            Ok(verdicts) => {
                version.learn(spent, count);
                if let Some(overlay) = &mut self.overlay {
                    overlay.keep();
                }
                let sound = pooled.instance.is_sound();
                pooled.share.set(pooled.instance.memory_bytes() as u64);
                pooled.idle_since = Instant::now();
                let mut kept = version.kept();
                kept.meter.count_call(spent);
                kept.meter.messages += count as u64;
                if sound {
                    kept.idle.push(pooled);
                }
                Step::Decided(verdicts)
            }
        }
    }

    /// Counts a failed call. Its instance goes here, whole.
    fn failed(
        &mut self,
        pooled: Option<Pooled>,
        count: usize,
        cause: Cause,
        spent: Spent,
    ) -> Step<Verdict, Failure> {
        drop(pooled);
        if let Some(overlay) = &mut self.overlay {
            overlay.discard();
        }
        if matches!(cause, Cause::CpuTime { .. } | Cause::WallTime { .. }) {
            self.version.learn(spent, count);
            self.judged.timed_out += spent.cpu;
            self.timed_out_alone |= count == 1;
        }
        let mut kept = self.version.kept();
        kept.meter.count_call(spent);
        kept.meter.count_error(&cause);
        if count == 1 {
            kept.meter.messages += 1;
        }
        drop(kept);
        Step::Failed { count, error: self.version.failure(cause) }
    }

    fn finish(self, outcomes: Vec<Result<Verdict, Failure>>) -> Judged {
        let Run { overlay, judged, timed_out_alone, .. } = self;
        let writes = overlay.map(|overlay| overlay.into_writes()).unwrap_or_default();
        let timed_out = if timed_out_alone { judged.timed_out } else { Duration::ZERO };
        Judged { outcomes, writes, timed_out, ..judged }
    }
}
