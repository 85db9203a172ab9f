//! Messages that wait behind the dedup check for a filter that keeps state. The session files the work under a job's number, the
//! broker says when it is wanted, and a worker for each module takes all that waits in one batch, one batch at a time.
//!
//! A batch holds the state of every module that it calls, so that what it wrote and what became of its messages are one command. Which
//! those are shows only on the way (a filter can route to where another one keeps state): when one is missing, nothing of the batch is used and
//! it is judged again, holding that one too.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chaski_broker::{Filtered, JobId, JudgeError, JudgedOutcome, StateWrite};
use tokio::sync::{OwnedMutexGuard, mpsc};

use super::judge::{Needs, Purpose, States, advance};
use super::lanes::Lanes;
use super::overlay::Overlay;
use super::versions::now_ms;
use super::work::Work;
use crate::shard::{Shard, Stopped};

/// Messages that wait for one module at most.
const WAITING: usize = 4096;

/// Messages of one batch at most.
const BATCH: usize = chaski_modules::BATCH_MESSAGES;

/// What came of a batch.
struct Called {
    outcomes: Vec<(JobId, JobOutcome)>,
    /// By module, what it wrote.
    writes: Vec<(String, Vec<StateWrite>)>,
    /// Nobody else calls these modules meanwhile.
    alone: Vec<OwnedMutexGuard<()>>,
}

/// What filters made of a job: one for each of its messages, in order.
pub(crate) type JobOutcome = Result<Vec<Filtered>, JudgeError>;

/// The work under way, by job, and the workers, by module.
#[derive(Default)]
pub(crate) struct Jobs {
    filed: Mutex<HashMap<u64, Vec<Work>>>,
    workers: Mutex<HashMap<String, Arc<Worker>>>,
    next: AtomicU64,
    /// Batches see time pass forwards only.
    now_ms: AtomicU64,
}

struct Worker {
    jobs: mpsc::UnboundedSender<(JobId, Vec<Work>)>,
    waiting: AtomicUsize,
    /// Held while a batch calls the module: one call in flight for each name.
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl Jobs {
    /// Keeps the work until the broker wants it.
    pub(crate) fn file(&self, works: Vec<Work>) -> JobId {
        let job = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.filed).insert(job, works);
        JobId(job)
    }

    /// The broker doesn't want it: the message is a duplicate, or refused.
    pub(crate) fn spare(&self, job: JobId) {
        lock(&self.filed).remove(&job.0);
    }

    /// The broker wants it. An answer at once where it can't wait.
    pub(crate) fn invoke(
        self: &Arc<Self>,
        job: JobId,
        lanes: &Arc<Lanes>,
        shard: &Shard,
    ) -> Option<JobOutcome> {
        let works = lock(&self.filed).remove(&job.0)?;
        let Some(module) = works.iter().find_map(Work::stateful_module) else {
            // Nothing of it waits for state any more; whoever files sees to that.
            return Some(works.into_iter().map(Work::finish_filtered).collect());
        };
        let worker = self.worker(&module.name, lanes, shard);
        if worker.waiting.load(Ordering::Relaxed) + works.len() > WAITING {
            let detail = format!("{WAITING} messages wait for the module `{}`; try again", module.name);
            return Some(Err(JudgeError::Busy { detail }));
        }
        worker.waiting.fetch_add(works.len(), Ordering::Relaxed);
        // Workers end with the router.
        let _ = worker.jobs.send((job, works));
        None
    }

    fn worker(self: &Arc<Self>, module: &str, lanes: &Arc<Lanes>, shard: &Shard) -> Arc<Worker> {
        let mut workers = lock(&self.workers);
        if let Some(worker) = workers.get(module) {
            return Arc::clone(worker);
        }
        let (jobs, waiting) = mpsc::unbounded_channel();
        let worker = Arc::new(Worker { jobs, waiting: AtomicUsize::new(0), alone: Arc::default() });
        workers.insert(module.to_owned(), Arc::clone(&worker));
        let task = Task {
            jobs: Arc::clone(self),
            worker: Arc::clone(&worker),
            lanes: Arc::clone(lanes),
            shard: shard.clone(),
            holds: BTreeSet::from([module.to_owned()]),
        };
        tokio::spawn(task.run(waiting));
        worker
    }

    /// The time of a batch.
    fn now(&self) -> u64 {
        let now = now_ms();
        self.now_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

/// One module's worker.
struct Task {
    jobs: Arc<Jobs>,
    worker: Arc<Worker>,
    lanes: Arc<Lanes>,
    shard: Shard,
    /// The modules whose state its batches hold, in the order in which they are taken.
    holds: BTreeSet<String>,
}

impl Task {
    async fn run(mut self, mut waiting: mpsc::UnboundedReceiver<(JobId, Vec<Work>)>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let jobs = std::mem::take(&mut batch);
            let messages = jobs.iter().map(|(_, works)| works.len()).sum();
            // The driver is gone, and so is everybody who waited.
            if self.judge(jobs).await.is_err() {
                return;
            }
            self.worker.waiting.fetch_sub(messages, Ordering::Relaxed);
        }
    }

    /// Judges a batch whole and hands it to the broker. What comes to nothing, since a filter failed on it or a queue refuses it, is
    /// answered, and the others are judged again without it: their verdicts may rest on what was written for it.
    async fn judge(&mut self, mut jobs: Vec<(JobId, Vec<Work>)>) -> Result<(), Stopped> {
        while !jobs.is_empty() {
            // Held until the broker has what was written, so that nobody reads the state before.
            let Called { outcomes: judged, writes, alone } = self.call(&jobs).await?;
            let wrote = !writes.is_empty();
            let failed: Vec<JobId> =
                judged.iter().filter(|(_, outcome)| outcome.is_err()).map(|(job, _)| *job).collect();
            let gone = if wrote && !failed.is_empty() {
                let errors = judged.into_iter().filter(|(_, outcome)| outcome.is_err()).collect();
                self.shard.judged(Vec::new(), errors).await?;
                failed
            } else {
                match self.shard.judged(writes, judged).await? {
                    JudgedOutcome::Refused(refused) => refused,
                    JudgedOutcome::Taken | JudgedOutcome::DiskFull => return Ok(()),
                }
            };
            drop(alone);
            jobs.retain(|(job, _)| !gone.contains(job));
        }
        Ok(())
    }

    /// Takes a batch through its filters, holding every module whose state it needs.
    async fn call(&mut self, jobs: &[(JobId, Vec<Work>)]) -> Result<Called, Stopped> {
        let works: Vec<Work> = jobs.iter().flat_map(|(_, works)| works.iter().cloned()).collect();
        loop {
            let mut alone = Vec::with_capacity(self.holds.len());
            for name in &self.holds {
                let lock = Arc::clone(&self.jobs.worker(name, &self.lanes, &self.shard).alone);
                alone.push(lock.lock_owned().await);
            }
            let states = self.states().await?;
            let mut judged = works.clone();
            match advance(&self.lanes, &mut judged, self.jobs.now(), Some(&states), Purpose::Publish).await {
                Ok(()) => {
                    let writes = states.into_iter().map(|(name, state)| (name, state.writes()));
                    let writes = writes.filter(|(_, writes)| !writes.is_empty()).collect();
                    let mut judged = judged.into_iter();
                    let outcomes = jobs.iter().map(|(job, works)| {
                        (*job, judged.by_ref().take(works.len()).map(Work::finish_filtered).collect())
                    });
                    return Ok(Called { outcomes: outcomes.collect(), writes, alone });
                }
                Err(Needs(name)) => {
                    self.holds.insert(name);
                }
            }
        }
    }

    /// The state of the modules as the broker has it now.
    async fn states(&self) -> Result<States, Stopped> {
        let names: Vec<String> = self.holds.iter().cloned().collect();
        let states = self.shard.inspect(move |broker| {
            let state = |name: &String| broker.module_state(name).cloned().unwrap_or_default();
            names.iter().map(|name| (name.clone(), state(name))).collect::<Vec<_>>()
        });
        Ok(states.await?.into_iter().map(|(name, state)| (name, Overlay::new(state))).collect())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of what they guard is one statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
