//! A filter: a version whose calls judge batches. Here batches are cut to size, judged, and searched for poison. It must not
//! know where messages come from or what is done with verdicts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::answer;
use crate::bindings::{self, FilterPre};
use crate::clock::{EXACT_FROM, Spent};
use crate::columns::{Columns, Message};
use crate::failure::{Cause, Failure};
use crate::field::{self, Field};
use crate::guest::{Guest, Line};
use crate::instance::Exports;
use crate::limits::{BATCH_BYTES, BATCH_CALLS, BATCH_MESSAGES, BATCH_TIME_PART, FIELDS, Limits};
use crate::meter::Metrics;
use crate::search::{Step, search};
use crate::state::{Overlay, Table, Write};
use crate::verdict::Verdict;
use crate::version::{Busy, Pooled, Version, VersionId};
use crate::world::World;

/// One version of a filter, ready to judge. Clones are the same version.
#[derive(Clone)]
pub struct Filter(Arc<Judge>);

struct Judge {
    version: Arc<Version<Exported>>,
    /// The mean cost of a message in nanoseconds, 0 before the first.
    mean_ns: AtomicU64,
}

/// A filter's exports, and the room for its batches.
pub(crate) struct Exported {
    exports: bindings::Filter,
    columns: Columns,
}

impl Exports for Exported {
    const WORLD: World = World::Filter;
    type Pre = FilterPre<Guest>;
    type Declared = Vec<Field>;

    fn check(pre: InstancePre<Guest>) -> wasmtime::Result<FilterPre<Guest>> {
        FilterPre::new(pre)
    }

    fn make(pre: &FilterPre<Guest>, store: &mut Store<Guest>) -> wasmtime::Result<Exported> {
        Ok(Exported { exports: pre.instantiate(store)?, columns: Columns::default() })
    }

    fn configure(
        &mut self,
        store: &mut Store<Guest>,
        params: &[bindings::Param],
    ) -> wasmtime::Result<Result<Vec<Field>, String>> {
        let answer = self.exports.call_configure(store, params)?;
        Ok(answer.and_then(|fields| match fields.len() {
            0..=FIELDS => Ok(fields.into_iter().map(Field::from_wit).collect()),
            got => Err(format!("it would read {got} fields of each message, and at most {FIELDS} are given")),
        }))
    }

    fn other(got: &Vec<Field>, first: &Vec<Field>) -> Cause {
        Cause::Fields { got: field::list(got), wanted: field::list(first) }
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
    pub outcomes: Vec<Result<Verdict, Box<Failure>>>,
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

impl Filter {
    pub(crate) fn new(version: Version<Exported>) -> Filter {
        Filter(Arc::new(Judge { version: version.shared(), mean_ns: AtomicU64::new(0) }))
    }

    /// The module's name in the rules.
    pub fn name(&self) -> &str {
        &self.0.version.name
    }

    /// What tells this version from others.
    pub fn id(&self) -> VersionId {
        self.0.version.id
    }

    /// The fields that it reads with its params.
    pub fn fields(&self) -> &[Field] {
        &self.0.version.declared
    }

    /// Whether it keeps state, and so is judged one batch at a time, with a table.
    pub fn keeps_state(&self) -> bool {
        self.0.version.recipe.keeps_state
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.0.version.recipe.limits
    }

    /// Judges as many of the messages as make one batch, and finds those that fail by calling halves of it. Blocks for as
    /// long as the calls take.
    pub fn judge<M: Message>(&self, messages: &[M], context: &Context) -> Result<Judged, Busy> {
        let judge = &*self.0;
        let mut run = Run::new(judge, context);
        let batch = &messages[..judge.batch_len(messages)];
        let outcomes = search(batch.len(), BATCH_CALLS, |range| run.call(&batch[range]));
        if outcomes.is_empty() && !batch.is_empty() {
            return Err(judge.version.busy());
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
            Step::Failed { error, .. } => Ok(Err(*error)),
            Step::Stopped => Err(self.0.version.busy()),
        }
    }

    /// Its figures.
    pub fn metrics(&self) -> Metrics {
        self.0.version.metrics(Duration::from_nanos(self.0.mean_ns.load(Ordering::Relaxed)))
    }

    /// Its figures begin anew, but for those of its instances.
    pub fn forget_figures(&self) {
        self.0.version.forget_figures();
    }

    /// Drops all idle instances: after a swap, when the version is only kept for a rollback.
    pub fn shrink(&self) {
        self.0.version.shrink();
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("name", &self.0.version.name)
            .field("id", &self.0.version.id)
            .finish_non_exhaustive()
    }
}

impl Judge {
    /// How many of the messages go into one batch: by count, by time, and by the bytes of payloads. Other fields are small,
    /// and cut when they are laid out.
    fn batch_len<M: Message>(&self, messages: &[M]) -> usize {
        let mean_ns = self.mean_ns.load(Ordering::Relaxed).max(1);
        let time_ns = (self.version.recipe.limits.cpu_time / BATCH_TIME_PART).as_nanos() as u64;
        let most = ((time_ns / mean_ns) as usize).clamp(1, BATCH_MESSAGES).min(messages.len());
        if !self.version.declared.contains(&Field::Payload) {
            return most;
        }
        let mut bytes = 0;
        let fits = messages[..most].iter().take_while(|message| {
            bytes += message.payload().len();
            bytes <= BATCH_BYTES
        });
        fits.count().max(1).min(most)
    }

    /// Learns from a call what a message costs. A call that ran out of time tells the least that its messages cost.
    fn learn(&self, spent: Spent, count: usize) {
        // Wall time is near enough for a short call; a long one may have been waiting for a core.
        if count == 0 || !(spent.wall < EXACT_FROM || spent.measured) {
            return;
        }
        let new = (spent.cpu.as_nanos() as u64 / count as u64).max(1);
        let old = self.mean_ns.load(Ordering::Relaxed);
        let mean = if old == 0 { new } else { (old * 7 + new) / 8 };
        self.mean_ns.store(mean.max(1), Ordering::Relaxed);
    }
}

/// The calls of one batch.
struct Run<'a> {
    judge: &'a Judge,
    now_ms: u64,
    overlay: Option<Box<Overlay>>,
    judged: Judged,
    timed_out_alone: bool,
}

impl<'a> Run<'a> {
    fn new(judge: &'a Judge, context: &Context) -> Run<'a> {
        let recipe = &judge.version.recipe;
        let table = context.state.clone().filter(|_| recipe.keeps_state);
        let limit = recipe.limits.state_bytes;
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
        Run { judge, now_ms: context.now_ms, overlay, judged, timed_out_alone: false }
    }

    /// One call over these messages, by an idle instance or a new one. The instance goes back only if it is sound.
    fn call<M: Message>(&mut self, messages: &[M]) -> Step<Verdict, Box<Failure>> {
        let version = &*self.judge.version;
        let mut pooled = match version.take() {
            None => return Step::Stopped,
            Some(Ok(pooled)) => pooled,
            Some(Err((cause, spent))) => {
                self.judged.calls += 1;
                return self.failed(None, messages.len(), cause, spent);
            }
        };
        self.judged.calls += 1;
        let limit = version.recipe.limits.memory_bytes;
        // A batch of the usual size is the instance's own to refuse.
        let room = limit.max(2 * BATCH_BYTES);
        let columns = &mut pooled.instance.exports().columns;
        let Some(batch) = columns.fill(&version.declared, messages, self.now_ms, BATCH_BYTES, room) else {
            let cause = Cause::Memory { limit };
            return self.failed(Some(pooled), messages.len(), cause, Spent::default());
        };
        let count = batch.count as usize;
        let called = pooled.instance.call(
            version.hand(),
            version.call_options(),
            self.overlay.take(),
            |Exported { exports, columns }, store| exports.call_filter(store, columns.batch()),
        );
        self.overlay = called.overlay;
        self.judged.lines.extend(called.lines.kept);
        self.judged.lines_left_out += called.lines.left_out;
        if called.spent.cpu > self.judged.longest.cpu {
            self.judged.longest = called.spent;
        }
        let spent = called.spent;
        let checked = called
            .answer
            .and_then(|answer| answer::check(answer, count, version.recipe.limits.edits).map_err(Cause::Lie));
        match checked {
            Err(cause) => self.failed(Some(pooled), count, cause, spent),
            Ok(verdicts) => {
                self.judge.learn(spent, count);
                if let Some(overlay) = &mut self.overlay {
                    overlay.keep();
                }
                version.succeeded(pooled, count, spent, called.ended);
                Step::Decided(verdicts)
            }
        }
    }

    /// Counts a failed call. Its instance goes here, whole.
    fn failed(
        &mut self,
        pooled: Option<Box<Pooled<Exported>>>,
        count: usize,
        cause: Cause,
        spent: Spent,
    ) -> Step<Verdict, Box<Failure>> {
        if let Some(overlay) = &mut self.overlay {
            overlay.discard();
        }
        if cause.is_overtime() {
            self.judge.learn(spent, count);
            self.judged.timed_out += spent.cpu;
            self.timed_out_alone |= count == 1;
        }
        // Messages of a call of several are decided by later calls.
        let decided = if count == 1 { 1 } else { 0 };
        let version = &self.judge.version;
        version.failed(pooled, decided, &cause, spent);
        Step::Failed { count, error: Box::new(version.failure(cause)) }
    }

    fn finish(self, outcomes: Vec<Result<Verdict, Box<Failure>>>) -> Judged {
        let Run { overlay, judged, timed_out_alone, .. } = self;
        let writes = overlay.map(|overlay| overlay.into_writes()).unwrap_or_default();
        let timed_out = if timed_out_alone { judged.timed_out } else { Duration::ZERO };
        Judged { outcomes, writes, timed_out, ..judged }
    }
}
