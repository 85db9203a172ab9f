//! The clock hand of the time limits: a thread that moves the engine's epoch on each millisecond, while calls are made and
//! not otherwise. It knows an engine, and nothing of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

/// The ticker's step: the grain of every time limit.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks in which nobody was busy before the thread sleeps. Under steady load it is then woken seldom, which costs more than a tick.
const LINGER: u32 = 8;

/// The thread.
pub(crate) struct Ticker {
    hand: Hand,
    join: Option<JoinHandle<()>>,
}

/// What keeps the thread going.
#[derive(Clone)]
pub(crate) struct Hand {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// Somebody was busy since the last tick.
    busy: AtomicBool,
    /// How many hold it awake.
    held: AtomicU32,
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
        let thread = join.thread().clone();
        Ok(Ticker { hand: Hand { shared, thread }, join: Some(join) })
    }

    /// How many hold it awake.
    #[cfg(test)]
    pub(crate) fn held(&self) -> u32 {
        self.hand.shared.held.load(Ordering::SeqCst)
    }

    /// For whoever makes calls.
    pub(crate) fn hand(&self) -> &Hand {
        &self.hand
    }
}

impl Hand {
    /// A call begins, whose deadline is set: at least one tick follows. Most calls are over before it comes, and need not be
    /// counted; one that meets it [holds](Hand::hold) the thread awake from then on.
    pub(crate) fn busy(&self) {
        // Mostly it is said already, and costs no more than a look. It stays said until the thread takes note.
        if !self.shared.busy.load(Ordering::SeqCst) {
            self.shared.busy.store(true, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Keeps the thread ticking until it is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.shared.held.fetch_add(1, Ordering::SeqCst);
        self.wake();
        Hold(self.clone())
    }

    fn wake(&self) {
        // The thread says that it sleeps before it looks whether somebody is busy, and here it is the other way round: one
        // sees the other.
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

/// Keeps the ticker awake.
pub(crate) struct Hold(Hand);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.shared.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.hand.shared.stop.store(true, Ordering::SeqCst);
        self.hand.thread.unpark();
        if let Some(join) = self.join.take() {
            // The thread holds nothing that could be left half-done, and has nobody to tell of a panic.
            let _ = join.join();
        }
    }
}

impl Shared {
    /// Whether a tick is wanted. Forgets that somebody was busy.
    fn is_wanted(&self) -> bool {
        let busy = self.busy.swap(false, Ordering::SeqCst);
        busy || self.held.load(Ordering::SeqCst) > 0
    }
}

fn run(shared: &Shared, tick: impl Fn()) {
    let mut idle = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        idle = if shared.is_wanted() { 0 } else { idle + 1 };
        if idle > LINGER {
            shared.asleep.store(true, Ordering::SeqCst);
            while !shared.is_wanted() && !shared.stop.load(Ordering::SeqCst) {
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

    /// It ticks for as long as somebody holds it awake, and not much longer: the count stands still once it sleeps.
    #[test]
    fn the_ticker_runs_only_while_it_is_wanted() {
        let (told, ticked) = mpsc::channel();
        let ticker = Ticker::start(move || told.send(()).unwrap_or(())).unwrap();
        let ticks = || ticker.hand.shared.ticks.load(Ordering::SeqCst);
        let hold = ticker.hand().hold();
        for _ in 0..LINGER + 5 {
            ticked.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        drop(hold);
        while !ticker.hand.shared.asleep.load(Ordering::SeqCst) {
            thread::sleep(TICK);
        }
        while ticked.try_recv().is_ok() {}
        let before = ticks();
        assert!(ticked.recv_timeout(Duration::from_millis(30)).is_err());
        assert_eq!(ticks(), before);
        let _hold = ticker.hand().hold();
        ticked.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    /// Whenever it is said, also while the thread is about to sleep: a deadline that was set before is reached.
    #[test]
    fn a_tick_follows_whoever_says_that_he_is_busy() {
        let ticker = Ticker::start(|| {}).unwrap();
        let ticks = || ticker.hand.shared.ticks.load(Ordering::SeqCst);
        for round in 0..40 {
            thread::sleep(TICK * (LINGER + 1) + Duration::from_micros(50 * round));
            let before = ticks();
            ticker.hand().busy();
            let begun = std::time::Instant::now();
            while ticks() == before {
                assert!(begun.elapsed() < Duration::from_secs(10), "no tick came");
                thread::yield_now();
            }
        }
    }
}
