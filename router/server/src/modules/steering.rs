//! Where aggregators and compensators are called: a worker for each scatter or saga of a version of the rules, one batch of calls at a time.
//! What they say goes back to the broker as commands. The states of gathers live here between calls; the broker tells all again after a start.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chaski_broker::{
    Advice, Advise, Aggregate, AggregateCall, Aggregated, Command, ModuleFailure, ModuleUse, SagaSettings,
    ScatterSettings, Sequence,
};
use chaski_modules::{Answered, Busy, Course, Plan};
use tokio::sync::mpsc;

use super::conduct::SUSPENDED;
use super::coordinators::{Callee, Coordinator};
use super::health::Admission;
use super::lanes::{Lanes, Place};
use super::translate::{end, event_of, history, request_of};
use super::versions::Versions;
use crate::mailboxes::IdMap;
use crate::shard::{Input, Shard};

/// Calls of one batch at most.
const BATCH: usize = 256;

/// A worker without anything to do for so long ends.
const IDLE: Duration = Duration::from_secs(30);

/// Times that a call is made again when every instance is in use, a millisecond apart.
const BUSY_RETRIES: u32 = 1_000;

/// Bytes of all gathers' states of one worker at most: beyond it, gathers fail.
const STATES_BYTES: usize = 256 << 20;

/// What a worker is asked.
pub(crate) enum Ask {
    /// An aggregator is to be called.
    Aggregate(Box<Aggregate>),
    /// This gather is over.
    Forget(Sequence),
    /// A compensator is to be called.
    Advise(Box<Advise>),
}

/// The way to a worker: it gets what it is asked in the driver's order, many things at a time.
type Asks = mpsc::UnboundedSender<Vec<Ask>>;

/// The workers.
#[derive(Default)]
pub(crate) struct Steering(Mutex<Workers>);

#[derive(Default)]
struct Workers {
    /// By the address of their settings, which are kept so that it stays theirs.
    by_settings: HashMap<usize, (Settings, Asks)>,
    /// The worker of each gather under way.
    by_gather: IdMap<Asks>,
}

/// What a worker works for.
#[derive(Clone)]
enum Settings {
    Scatter(Arc<ScatterSettings>),
    Saga(Arc<SagaSettings>),
}

impl Settings {
    fn address(&self) -> usize {
        match self {
            Settings::Scatter(settings) => Arc::as_ptr(settings) as usize,
            Settings::Saga(settings) => Arc::as_ptr(settings) as usize,
        }
    }

    fn module(&self) -> Option<&ModuleUse> {
        match self {
            Settings::Scatter(settings) => Some(&settings.aggregator),
            Settings::Saga(settings) => settings.compensator.as_ref(),
        }
    }
}

impl Steering {
    /// Hands on what the driver asks, in its order.
    pub(crate) fn ask(self: &Arc<Self>, asks: &mut Vec<Ask>, versions: &Arc<Versions>, shard: &Shard) {
        let mut workers = self.lock();
        let mut together: Option<(Asks, Vec<Ask>)> = None;
        for ask in asks.drain(..) {
            let worker = match &ask {
                Ask::Aggregate(call) => match workers.by_gather.get(&call.gather.0) {
                    Some(worker) => worker.clone(),
                    None => {
                        let settings = Settings::Scatter(call.module.clone());
                        let worker = self.worker(&mut workers, settings, versions, shard);
                        workers.by_gather.insert(call.gather.0, worker.clone());
                        worker
                    }
                },
                Ask::Forget(gather) => match workers.by_gather.remove(&gather.0) {
                    Some(worker) => worker,
                    None => continue,
                },
                Ask::Advise(call) => {
                    self.worker(&mut workers, Settings::Saga(call.definition.clone()), versions, shard)
                }
            };
            match &mut together {
                Some((same, more)) if same.same_channel(&worker) => more.push(ask),
                // A worker ends by itself only when nobody has anything for it, and under the lock.
                _ => {
                    if let Some((other, more)) = together.replace((worker, vec![ask])) {
                        let _ = other.send(more);
                    }
                }
            }
        }
        if let Some((last, more)) = together {
            let _ = last.send(more);
        }
    }

    fn worker(
        self: &Arc<Self>,
        workers: &mut Workers,
        settings: Settings,
        versions: &Arc<Versions>,
        shard: &Shard,
    ) -> Asks {
        if let Some((_, worker)) = workers.by_settings.get(&settings.address()) {
            return worker.clone();
        }
        let (asks, asked) = mpsc::unbounded_channel();
        workers.by_settings.insert(settings.address(), (settings.clone(), asks.clone()));
        let worker = Worker {
            steering: Arc::clone(self),
            settings,
            versions: Arc::clone(versions),
            place: Arc::new(versions.lanes.place()),
            shard: shard.clone(),
        };
        tokio::spawn(worker.run(asked));
        asks
    }

    fn lock(&self) -> MutexGuard<'_, Workers> {
        // Each change of what it guards is one statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    steering: Arc<Steering>,
    settings: Settings,
    versions: Arc<Versions>,
    place: Arc<Place>,
    shard: Shard,
}

impl Worker {
    async fn run(self, mut asked: mpsc::UnboundedReceiver<Vec<Ask>>) {
        let mut module = None;
        let mut states = States::default();
        let (mut received, mut waiting) = (Vec::new(), VecDeque::new());
        loop {
            if waiting.is_empty() {
                match tokio::time::timeout(IDLE, asked.recv_many(&mut received, BATCH)).await {
                    Ok(0) => return,
                    Ok(_) => waiting.extend(received.drain(..).flatten()),
                    Err(_) if self.retire(&states, &asked) => return,
                    Err(_) => continue,
                }
            }
            let made = match module.take() {
                Some(made) => made,
                None => self.module().await,
            };
            let calls = waiting.drain(..waiting.len().min(BATCH)).collect();
            let commands;
            (states, commands) = match &made {
                Ok(coordinator) => match self.call(coordinator, states, calls).await {
                    Some(called) => called,
                    // The router stops.
                    None => return,
                },
                Err(detail) => (states, refused(calls, detail)),
            };
            // What couldn't be made is tried again with the next batch.
            module = made.ok().map(Ok);
            if !commands.is_empty() && self.shard.send(Input::Commands(commands)).await.is_err() {
                return;
            }
        }
    }

    /// Nobody asked for a while: the worker is forgotten, unless somebody asks just now or gathers are still open.
    fn retire(&self, states: &States, asked: &mpsc::UnboundedReceiver<Vec<Ask>>) -> bool {
        let mut workers = self.steering.lock();
        let idle = states.by_gather.is_empty() && asked.is_empty();
        if idle {
            workers.by_settings.remove(&self.settings.address());
        }
        idle
    }

    async fn module(&self) -> Result<Arc<Coordinator>, String> {
        let Some(used) = self.settings.module().cloned() else { return Err("there is none".to_owned()) };
        let versions = Arc::clone(&self.versions);
        let made = tokio::task::spawn_blocking(move || versions.coordinator(&used)).await;
        made.map_err(|error| error.to_string())?
    }

    /// Makes a batch of calls: in the slow lane while the module is not known to be fast, else on a thread of their own. `None`: nobody makes calls any more.
    async fn call(
        &self,
        module: &Arc<Coordinator>,
        mut states: States,
        calls: Vec<Ask>,
    ) -> Option<(States, Vec<Command>)> {
        let (called, lanes): (_, &Lanes) = (Arc::clone(module), &self.versions.lanes);
        let work = move || {
            let commands = calls.into_iter().filter_map(|ask| answer(&called, &mut states, ask)).collect();
            (states, commands)
        };
        if module.is_slow() {
            Some(lanes.run(&self.place, work).await)
        } else {
            tokio::task::spawn_blocking(work).await.ok()
        }
    }
}

/// Every call fails, since there is no module.
fn refused(calls: Vec<Ask>, detail: &str) -> Vec<Command> {
    let failure = || ModuleFailure { detail: format!("the module can't be loaded: {detail}") };
    calls
        .into_iter()
        .filter_map(|ask| match ask {
            Ask::Aggregate(call) => {
                Some(Command::Aggregated { gather: call.gather, call: call.call, outcome: Err(failure()) })
            }
            Ask::Forget(_) => None,
            Ask::Advise(call) => {
                Some(Command::Advised { saga: call.saga, call: call.call, outcome: Err(failure()) })
            }
        })
        .collect()
}

/// Makes one call. A gather whose fold says nothing new has nothing to tell.
fn answer(module: &Coordinator, states: &mut States, ask: Ask) -> Option<Command> {
    match ask {
        Ask::Aggregate(call) => {
            let Aggregate { gather, call, what, .. } = *call;
            let outcome = states.aggregate(module, gather, what)?;
            Some(Command::Aggregated { gather, call, outcome })
        }
        Ask::Forget(gather) => {
            states.remove(gather);
            None
        }
        Ask::Advise(call) => {
            let outcome = advise(module, &call);
            Some(Command::Advised { saga: call.saga, call: call.call, outcome })
        }
    }
}

/// What aggregators remember of the gathers under way.
#[derive(Default)]
struct States {
    /// `None`: a call failed, and nothing more is asked.
    by_gather: IdMap<Option<Vec<u8>>>,
    bytes: usize,
}

impl States {
    fn set(&mut self, gather: Sequence, state: Option<Vec<u8>>) {
        self.bytes += state.as_ref().map_or(0, Vec::len);
        if let Some(Some(before)) = self.by_gather.insert(gather.0, state) {
            self.bytes -= before.len();
        }
    }

    fn remove(&mut self, gather: Sequence) {
        if let Some(Some(before)) = self.by_gather.remove(&gather.0) {
            self.bytes -= before.len();
        }
    }

    fn aggregate(
        &mut self,
        module: &Coordinator,
        gather: Sequence,
        what: AggregateCall,
    ) -> Option<Result<Aggregated, ModuleFailure>> {
        let Callee::Aggregator(aggregator) = &module.callee else {
            return Some(Err(ModuleFailure { detail: "it is no aggregator".to_owned() }));
        };
        let begun = match self.by_gather.get(&gather.0) {
            Some(Some(state)) => Some(state),
            Some(None) => return None,
            None => None,
        };
        let outcome = match (what, begun) {
            (AggregateCall::Begin { request, at, recipients }, _) => {
                let request = request_of(&request, at);
                let recipients: Vec<String> =
                    recipients.iter().map(|name| name.as_ref().to_owned()).collect();
                made(module, || aggregator.begin(&request, &recipients)).map(|state| (state, false))
            }
            (AggregateCall::Finish { why }, Some(state)) => {
                let why = end(why);
                let finished = made(module, || aggregator.finish(state, why));
                return Some(match finished {
                    Ok(Ok(response)) => {
                        let payload = Bytes::from(response.payload);
                        Ok(Aggregated::Answer { headers: response.headers, payload })
                    }
                    Ok(Err(reason)) => Err(ModuleFailure { detail: reason }),
                    Err(failure) => Err(failure),
                });
            }
            (event, Some(state)) => {
                let event = event_of(event);
                made(module, || aggregator.fold(state, &event)).map(|folded| (folded.state, folded.done))
            }
            (_, None) => return None,
        };
        match outcome {
            Ok((state, _)) if self.bytes + state.len() > STATES_BYTES => {
                self.set(gather, None);
                let detail = format!("the states of all gathers under way would exceed {STATES_BYTES} bytes");
                Some(Err(ModuleFailure { detail }))
            }
            Ok((state, done)) => {
                self.set(gather, Some(state));
                done.then_some(Ok(Aggregated::Folded { done }))
            }
            Err(failure) => {
                self.set(gather, None);
                Some(Err(failure))
            }
        }
    }
}

/// One call, made again while every instance is in use; its log, its time and how it went are noted. A suspended module is not called.
fn made<T>(module: &Coordinator, call: impl Fn() -> Result<Answered<T>, Busy>) -> Result<T, ModuleFailure> {
    let admission = module.conduct.admit();
    if admission == Admission::Suspended {
        return Err(ModuleFailure { detail: SUSPENDED.to_owned() });
    }
    let mut tries = 0;
    loop {
        match call() {
            Ok(Answered { answer, lines, lines_left_out, spent }) => {
                module.log.write(module.name(), &lines, lines_left_out);
                module.called(admission, spent, answer.as_ref().err().map(|failure| &failure.cause));
                return answer.map_err(|failure| ModuleFailure { detail: failure.cause.to_string() });
            }
            Err(busy) if tries == BUSY_RETRIES => return Err(ModuleFailure { detail: busy.to_string() }),
            Err(_) => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn advise(module: &Coordinator, call: &Advise) -> Result<Advice, ModuleFailure> {
    let Callee::Compensator(compensator) = &module.callee else {
        return Err(ModuleFailure { detail: "it is no compensator".to_owned() });
    };
    let history = history(call);
    if call.cause.is_none() {
        return made(module, || compensator.advance(&history)).map(|course| match course {
            Course::Next => Advice::Next,
            Course::Step { step, payload } => Advice::Step { step, payload: payload.map(Bytes::from) },
            Course::Complete => Advice::Complete,
            Course::Fail(reason) => Advice::Fail { reason },
        });
    }
    made(module, || compensator.compensate(&history)).map(|plan| match plan {
        Plan::Undo(steps) => {
            let steps = steps.into_iter().map(|undo| (undo.step, undo.payload.map(Bytes::from)));
            Advice::Undo { steps: steps.collect() }
        }
        Plan::Retry => Advice::Retry,
        Plan::Park(reason) => Advice::Park { reason },
    })
}
