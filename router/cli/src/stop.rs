//! Ctrl-C and SIGTERM: the first asks a command to finish what it began, the second ends it.

use std::future::Future;
use std::time::{Duration, Instant};

use chaski_protocol::Code;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::fail;
use crate::out;

/// Signals that come so soon after the first are the same wish: `timeout` and process supervisors signal a process and its
/// group.
const SAME: Duration = Duration::from_millis(300);

/// Whether, and how urgently, the user wants an end.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<u32>);

impl Stop {
    /// Waits for the first signal; at once when it came before.
    pub(crate) async fn requested(&mut self) {
        self.reached(1).await;
    }

    async fn reached(&mut self, count: u32) {
        if self.0.wait_for(|signals| *signals >= count).await.is_err() {
            // Nobody listens for signals any more, so none comes.
            std::future::pending::<()>().await;
        }
    }
}

/// Runs work that knows how to finish on the first signal; the second ends it where it stands.
pub(crate) async fn with<F: Future<Output = anyhow::Result<()>>>(
    work: impl FnOnce(Stop) -> F,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        let mut first = None;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_same(first, Instant::now()) {
                continue;
            }
            let signals = *sender.borrow() + 1;
            if signals == 1 {
                first = Some(Instant::now());
                out::note("finishing what is under way; once more to stop at once");
            }
            if sender.send(signals).is_err() {
                break;
            }
        }
    });
    let mut stop = Stop(receiver.clone());
    tokio::select! {
        ended = work(Stop(receiver)) => ended,
        () = stop.reached(2) => Err(fail(Code::ShuttingDown, "interrupted twice; what was under way was left")),
    }
}

fn is_same(first: Option<Instant>, now: Instant) -> bool {
    first.is_some_and(|first| now.saturating_duration_since(first) < SAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_right_after_the_first_is_no_second_wish() {
        let now = Instant::now();
        assert!(!is_same(None, now));
        assert!(is_same(Some(now), now + Duration::from_millis(1)));
        assert!(!is_same(Some(now), now + SAME));
    }
}
