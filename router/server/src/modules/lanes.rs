//! The slow lane: a few threads of the operating system that stand back behind everybody else, for the calls of modules that are
//! slow or not yet known to be fast (SEMANTICS, Filters). It takes the modules in turn, one call of each at a time, and must not know
//! what a call does.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::{Semaphore, oneshot};

/// Batches of one module that wait at most; whoever has another one waits for room, and its stream is not read meanwhile.
const WAITING: usize = 32;

/// How far its threads stand back behind those that serve.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// The threads and what waits for them.
pub(crate) struct Lanes {
    shared: Arc<Shared>,
    next: AtomicU64,
}

/// One module's place in the lane.
pub(crate) struct Place {
    id: u64,
    room: Semaphore,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    places: HashMap<u64, Waiting>,
    /// Those that have work and no call in flight, in turn.
    turn: VecDeque<u64>,
    closed: bool,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    running: bool,
}

impl Lanes {
    /// Starts the threads: half as many as there are cores, at least one.
    pub(crate) fn start() -> std::io::Result<Lanes> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let shared = Arc::new(Shared::default());
        for number in 0..(cores / 2).max(1) {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("modules-{number}")).spawn(move || serve(&shared))?;
        }
        Ok(Lanes { shared, next: AtomicU64::new(1) })
    }

    /// A place for a module.
    pub(crate) fn place(&self) -> Place {
        Place { id: self.next.fetch_add(1, Ordering::Relaxed), room: Semaphore::new(WAITING) }
    }

    /// Runs a call in the lane when its module's turn comes.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        place: &Place,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let _room = place.room.acquire().await.expect("it is never closed");
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || {
            // Whoever asked may be gone.
            let _ = answer.send(call());
        });
        {
            let mut state = self.shared.lock();
            let waiting = state.places.entry(place.id).or_default();
            waiting.work.push_back(work);
            if !waiting.running && waiting.work.len() == 1 {
                state.turn.push_back(place.id);
            }
        }
        self.shared.wake.notify_one();
        answered.await.expect("the lane's threads end only with the router")
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Work runs outside the lock, so what it guards is whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next module's oldest work; waits for some. `None` when the lane is closed.
    fn take(&self) -> Option<(u64, Work)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(id) = state.turn.pop_front() {
                let waiting = state.places.get_mut(&id).expect("whoever has a turn has work");
                waiting.running = true;
                return Some((id, waiting.work.pop_front().expect("whoever has a turn has work")));
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, id: u64) {
        let mut state = self.lock();
        let waiting = state.places.get_mut(&id).expect("it is there while a call runs");
        waiting.running = false;
        if waiting.work.is_empty() {
            state.places.remove(&id);
        } else {
            state.turn.push_back(id);
            self.wake.notify_one();
        }
    }
}

fn serve(shared: &Shared) {
    // On Linux niceness is a thread's own. Where it can't be set, others notice slow modules a little more.
    let _ = rustix::process::nice(NICE);
    while let Some((id, work)) = shared.take() {
        work();
        shared.done(id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn modules_take_turns_and_each_has_one_call_in_flight() {
        let lanes = Arc::new(Lanes::start().unwrap());
        let (hold, held) = mpsc::channel::<()>();
        let (blocker, greedy, modest) = (lanes.place(), Arc::new(lanes.place()), lanes.place());
        // Every thread of the lane is kept busy while the others' work is handed in.
        let threads = (thread::available_parallelism().map_or(1, usize::from) / 2).max(1);
        let blockers: Vec<Place> =
            std::iter::once(blocker).chain((1..threads).map(|_| lanes.place())).collect();
        let held = Arc::new(Mutex::new(held));
        let block = blockers.iter().map(|place| {
            let held = Arc::clone(&held);
            lanes.run(place, move || held.lock().unwrap().recv().unwrap())
        });
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |name: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(name)
        };
        let work = async {
            let many = (0..4).map(|_| lanes.run(&greedy, note("greedy")));
            let others =
                futures::future::join(futures::future::join_all(many), lanes.run(&modest, note("modest")));
            let release = async { (0..threads).for_each(|_| hold.send(()).unwrap()) };
            futures::future::join(others, release).await
        };
        futures::future::join(futures::future::join_all(block), work).await;
        let order = order.lock().unwrap();
        let place = order.iter().position(|name| *name == "modest").unwrap();
        assert!(
            place <= threads,
            "the modest module waited for more than one call of the greedy one: {order:?}"
        );
        assert_eq!(order.len(), 5);
    }
}
