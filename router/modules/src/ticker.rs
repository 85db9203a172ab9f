//! The clock hand of the time limits: a thread that moves the engine's epoch on each millisecond, while a call is in flight
//! and not otherwise. It knows an engine and a count, and nothing of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// The ticker's step: the grain of every time limit.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks without a call before the thread sleeps. Under steady load it is then woken seldom, which costs more than a tick.
const LINGER: u32 = 8;

/// The thread, and how many calls are in flight.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
    join: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    in_flight: AtomicU32,
    asleep: AtomicBool,
    stop: AtomicBool,
    ticks: AtomicU32,
}

impl Ticker {
    /// Starts the thread. `tick` is called from it.
    pub(crate) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let join = thread::Builder::new().name("chaski-epoch".into()).spawn(move || run(&theirs, tick))?;
        Ok(Ticker { shared, thread: join.thread().clone(), join: Some(join) })
    }

    /// Marks a call as in flight until the guard is dropped.
    pub(crate) fn call(&self) -> InFlight<'_> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        // The thread says that it sleeps before it looks at the count, and here it is the other way round: one sees the other.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
        InFlight(self)
    }

    /// How often the thread has ticked.
    #[cfg(test)]
    fn ticks(&self) -> u32 {
        self.shared.ticks.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.unpark();
        if let Some(join) = self.join.take() {
            // The thread holds nothing that could be left half-done, and has nobody to tell of a panic.
            let _ = join.join();
        }
    }
}

/// A call that is in flight.
pub(crate) struct InFlight<'a>(&'a Ticker);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.in_flight.load(Ordering::SeqCst) > 0 {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle > LINGER {
            shared.asleep.store(true, Ordering::SeqCst);
            while shared.in_flight.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
            idle = 0;
        }
        thread::sleep(TICK);
        tick();
        shared.ticks.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// It ticks during a call, and not without one: the count stands still once it sleeps.
    #[test]
    fn the_ticker_runs_only_while_a_call_is_in_flight() {
        let (told, ticked) = mpsc::channel();
        let ticker = Ticker::start(move || told.send(()).unwrap_or(())).unwrap();
        let call = ticker.call();
        for _ in 0..LINGER + 5 {
            ticked.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(call);
        while !ticker.shared.asleep.load(Ordering::SeqCst) {
            thread::sleep(TICK);
        }
        while ticked.try_recv().is_ok() {}
        let before = ticker.ticks();
        assert!(ticked.recv_timeout(Duration::from_millis(30)).is_err());
        assert_eq!(ticker.ticks(), before);
        let _call = ticker.call();
        ticked.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
