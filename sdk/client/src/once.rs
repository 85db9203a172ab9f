//! Idempotent consumers: a delivery that was processed before is acked and not processed again, and a saga's step that was undone before
//! it was done is done no more.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::error::ConsumeError;
use crate::step::{Step, StepOutcome};

/// What remembers which deliveries were processed, by [`Delivery::idempotency_key`]. Where it lives in the database that the
/// processing changes, in the same transaction, an effect happens exactly once.
///
/// Those who do a saga's step and those who undo it share one, and it outlives their processes: what it doesn't know of a step whose
/// outcome is unknown was not done.
pub trait Seen {
    /// Why it can't tell.
    type Error: Display;

    /// Whether the key was recorded.
    fn check(&self, key: &str) -> impl Future<Output = Result<bool, Self::Error>>;

    /// Records the key: its delivery was processed.
    fn record(&self, key: &str) -> impl Future<Output = Result<(), Self::Error>>;

    /// Closes the key of a saga's step, and says whether it was recorded before: whether the step was done. From now on it must not be
    /// done, so [`check`](Seen::check) answers true for it. Asked again, it says the same again.
    ///
    /// The default closes with `check` and `record`, under one key more (`KEY/closed`). Between its look and its closing another process
    /// can still do the step, which is then not undone: a store that processes share closes in one step of its own, and a handler that
    /// records the key with its effect, in one transaction, fails where the key is closed.
    fn close(&self, key: &str) -> impl Future<Output = Result<bool, Self::Error>> {
        async move {
            let closed = format!("{key}/closed");
            if !self.check(&closed).await? {
                if self.check(key).await? {
                    return Ok(true);
                }
                self.record(&closed).await?;
            }
            // Once more, where a crash came between the two.
            self.record(key).await?;
            Ok(false)
        }
    }
}

impl<S: Seen> Seen for &S {
    type Error = S::Error;

    fn check(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::check(self, key)
    }

    fn record(&self, key: &str) -> impl Future<Output = Result<(), S::Error>> {
        S::record(self, key)
    }

    fn close(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::close(self, key)
    }
}

impl<S: Seen> Seen for Arc<S> {
    type Error = S::Error;

    fn check(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::check(self, key)
    }

    fn record(&self, key: &str) -> impl Future<Output = Result<(), S::Error>> {
        S::record(self, key)
    }

    fn close(&self, key: &str) -> impl Future<Output = Result<bool, S::Error>> {
        S::close(self, key)
    }
}

/// The latest keys, in memory: it forgets with the process.
#[derive(Debug)]
pub struct MemorySeen {
    capacity: usize,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    /// Each with whether what it names was done; if not, it was closed before.
    done: HashMap<String, bool>,
    order: VecDeque<String>,
}

impl MemorySeen {
    /// Remembers at most `capacity` keys, the latest.
    pub fn new(capacity: usize) -> MemorySeen {
        MemorySeen { capacity: capacity.max(1), keys: Mutex::default() }
    }

    /// Notes a key that is new; answers whether what it names was done.
    fn note(&self, key: &str, done: bool) -> bool {
        let mut keys = self.keys.lock().expect("nobody panics with it");
        if let Some(done) = keys.done.get(key) {
            return *done;
        }
        keys.done.insert(key.to_owned(), done);
        keys.order.push_back(key.to_owned());
        if keys.order.len() > self.capacity {
            let oldest = keys.order.pop_front().expect("it is longer than 1");
            keys.done.remove(&oldest);
        }
        done
    }
}

impl Seen for MemorySeen {
    type Error = Infallible;

    async fn check(&self, key: &str) -> Result<bool, Infallible> {
        Ok(self.keys.lock().expect("nobody panics with it").done.contains_key(key))
    }

    async fn record(&self, key: &str) -> Result<(), Infallible> {
        self.note(key, true);
        Ok(())
    }

    async fn close(&self, key: &str) -> Result<bool, Infallible> {
        Ok(self.note(key, false))
    }
}

impl Consumer {
    /// Processes deliveries, at most `concurrency` at once, each key once as far as `seen` knows: known ones are acked, others
    /// go to the handler; `Ok` is recorded, then acked, `Err` is a nack. Ends as the consumer does.
    ///
    /// A saga's steps go by their idempotency keys, and complete with an empty result. A compensation first [closes](Seen::close) the key of
    /// its step, so that what is still on its way of the step comes to nothing. Its handler is called when the step was done: when the saga
    /// knows that it completed, or `seen` knew its key. Else there is nothing to undo, and the compensation completes at once.
    pub async fn once<S, E>(
        self,
        seen: S,
        concurrency: usize,
        handler: impl AsyncFn(&Delivery) -> Result<(), E>,
    ) -> Result<(), ConsumeError>
    where
        S: Seen,
        E: Display,
    {
        let under_way = UnderWay::default();
        self.each(concurrency, |delivery| process(&seen, &under_way, &handler, delivery)).await
    }

    /// Gives each delivery to `work`, at most `concurrency` at once. When the consumer ends, what is under way goes on to its end.
    pub(crate) async fn each<W: Future<Output = ()>>(
        mut self,
        concurrency: usize,
        work: impl Fn(Delivery) -> W,
    ) -> Result<(), ConsumeError> {
        let mut running = FuturesUnordered::new();
        let ended = loop {
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                next = self.next(), if running.len() < concurrency.max(1) => match next {
                    Some(Ok(delivery)) => running.push(work(delivery)),
                    Some(Err(error)) => break Err(error),
                    None => break Ok(()),
                },
            }
        };
        while running.next().await.is_some() {}
        ended
    }
}

/// The keys that are being processed: a second delivery of one, after its first one's lease ended, waits for its outcome.
#[derive(Default)]
struct UnderWay(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl UnderWay {
    /// Does the work when no other with the same key is under way.
    async fn alone<T>(&self, key: &str, work: impl Future<Output = T>) -> T {
        let turn = {
            let mut keys = self.0.lock().expect("nobody panics with it");
            Arc::clone(keys.entry(key.to_owned()).or_default())
        };
        let done = {
            let _turn = turn.lock().await;
            work.await
        };
        drop(turn);
        let mut keys = self.0.lock().expect("nobody panics with it");
        if keys.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            keys.remove(key);
        }
        done
    }
}

/// What becomes of a delivery.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is processed, now or before.
    Done,
    /// It must not be processed any more.
    Undone,
}

async fn process<S, E>(
    seen: &S,
    under_way: &UnderWay,
    handler: &impl AsyncFn(&Delivery) -> Result<(), E>,
    delivery: Delivery,
) where
    S: Seen,
    E: Display,
{
    let key = delivery.idempotency_key();
    let sequence = delivery.sequence();
    // Nothing of it runs before it is awaited.
    let handling = async { handler(&delivery).await.map_err(|error| error.to_string()) };
    let step = delivery.step();
    // A step and its compensation take turns too.
    let turn = step.as_ref().and_then(Step::undone_key).unwrap_or(&key);
    let verdict = under_way.alone(turn, judge(seen, &key, step.as_ref(), handling)).await;
    let settled = match verdict {
        Ok(Verdict::Done) => delivery.ack().await,
        Ok(Verdict::Undone) => delivery.reject("the step is undone already, and is done no more").await,
        Err(error) => {
            tracing::debug!(sequence, %error, "a delivery was not processed");
            delivery.nack().await
        }
    };
    if let Err(error) = settled {
        tracing::debug!(sequence, %error, "a delivery comes again");
    }
}

/// Runs the handler where that is to be done, and records it.
async fn judge<S: Seen>(
    seen: &S,
    key: &str,
    step: Option<&Step<'_>>,
    handling: impl Future<Output = Result<(), String>>,
) -> Result<Verdict, String> {
    let known = async |key: &str| seen.check(key).await.map_err(|error| error.to_string());
    let record = async |key: &str| seen.record(key).await.map_err(|error| error.to_string());
    if let Some((step, undone)) = step.and_then(|step| Some((step, step.undone_key()?))) {
        // First: what it says of the step stays true, since nobody does the step from here on.
        let was_done = seen.close(undone).await.map_err(|error| error.to_string())?;
        if !known(key).await? {
            if was_done || step.step_outcome() == Some(StepOutcome::Completed) {
                handling.await?;
            }
            record(key).await?;
        }
        return Ok(Verdict::Done);
    }
    if let Some(step) = step
        && known(&step.undo_key()).await?
    {
        return Ok(Verdict::Undone);
    }
    if !known(key).await? {
        handling.await?;
        record(key).await?;
    }
    Ok(Verdict::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memory_keeps_the_latest_keys() {
        let seen = MemorySeen::new(2);
        for key in ["a", "b", "b", "c"] {
            let Ok(()) = seen.record(key).await;
        }
        let Ok(known) = seen.check("a").await;
        assert!(!known);
        let Ok(known) = Arc::new(&seen).check("b").await;
        assert!(known);
    }

    /// What becomes of a step's delivery, and whether the handler was called.
    async fn step(seen: &MemorySeen, key: &str, outcome: Option<&str>) -> (Result<Verdict, String>, bool) {
        let phase = if outcome.is_some() { "undo" } else { "forward" };
        let mut message = crate::Message::new("q", "")
            .header("chaski-step", "charge")
            .header("chaski-idempotency-key", key)
            .header("chaski-phase", phase);
        if let Some(outcome) = outcome {
            message = message.header("chaski-step-outcome", outcome);
        }
        let step = Step::of(&message).expect("a step");
        let called = std::cell::Cell::new(false);
        let handling = async {
            called.set(true);
            Ok(())
        };
        (judge(seen, step.key(), Some(&step), handling).await, called.get())
    }

    const DONE: Result<Verdict, String> = Ok(Verdict::Done);
    const UNDONE: Result<Verdict, String> = Ok(Verdict::Undone);

    /// A store with the two methods that each must have.
    #[derive(Default)]
    struct Plain(Mutex<Vec<String>>);

    impl Seen for Plain {
        type Error = Infallible;

        async fn check(&self, key: &str) -> Result<bool, Infallible> {
            Ok(self.0.lock().expect("nobody panics with it").iter().any(|known| known == key))
        }

        async fn record(&self, key: &str) -> Result<(), Infallible> {
            self.0.lock().expect("nobody panics with it").push(key.to_owned());
            Ok(())
        }
    }

    /// Closing says what was before, however often it is asked.
    async fn closes(seen: impl Seen<Error = Infallible>) {
        let Ok(()) = seen.record("done").await;
        for _ in 0..2 {
            assert_eq!((seen.close("done").await, seen.close("open").await), (Ok(true), Ok(false)));
            assert_eq!((seen.check("done").await, seen.check("open").await), (Ok(true), Ok(true)));
        }
        let Ok(()) = seen.record("open").await;
        assert_eq!(seen.close("open").await, Ok(false), "what is closed is not done any more");
    }

    #[tokio::test]
    async fn a_closed_key_says_whether_it_was_recorded_before() {
        closes(MemorySeen::new(100)).await;
        closes(Plain::default()).await;
        // A crash before the key itself was recorded.
        let seen = Plain::default();
        let Ok(()) = seen.record("open/closed").await;
        assert_eq!((seen.close("open").await, seen.check("open").await), (Ok(false), Ok(true)));
    }

    #[tokio::test]
    async fn a_step_cannot_be_done_between_the_look_at_it_and_its_closing() {
        /// Somebody does the step, wherever one can come in between.
        struct Hasty<'a>(&'a MemorySeen);

        impl Seen for Hasty<'_> {
            type Error = Infallible;

            async fn check(&self, key: &str) -> Result<bool, Infallible> {
                let known = self.0.check(key).await;
                // Its worker records the key with the effect, and fails where the key is taken.
                let Ok(()) = self.0.record("s/a").await;
                known
            }

            async fn record(&self, key: &str) -> Result<(), Infallible> {
                self.0.record(key).await
            }

            async fn close(&self, key: &str) -> Result<bool, Infallible> {
                self.0.close(key).await
            }
        }

        let seen = MemorySeen::new(100);
        let message = crate::Message::new("q", "")
            .header("chaski-step", "charge")
            .header("chaski-idempotency-key", "s/a/undo")
            .header("chaski-phase", "undo");
        let undo = Step::of(&message).expect("a step");
        let called = std::cell::Cell::new(false);
        let handling = async {
            called.set(true);
            Ok(())
        };
        assert_eq!(judge(&Hasty(&seen), undo.key(), Some(&undo), handling).await, DONE);
        let done = seen.close("s/a").await == Ok(true);
        assert_eq!(called.get(), done, "a step that was done is undone, and no other");
    }

    #[tokio::test]
    async fn a_step_is_done_once_and_undone_once() {
        let seen = MemorySeen::new(100);
        assert_eq!(step(&seen, "s/a", None).await, (DONE, true));
        assert_eq!(step(&seen, "s/a", None).await, (DONE, false), "another attempt");
        assert_eq!(step(&seen, "s/a/undo", Some("unknown")).await, (DONE, true), "it was done here");
        assert_eq!(step(&seen, "s/a/undo", Some("unknown")).await, (DONE, false));
        assert_eq!(step(&seen, "s/a", None).await, (UNDONE, false), "it is late");
    }

    #[tokio::test]
    async fn what_was_never_done_is_not_undone_and_is_refused_from_then_on() {
        let seen = MemorySeen::new(100);
        assert_eq!(step(&seen, "s/a/undo", Some("unknown")).await, (DONE, false));
        assert_eq!(step(&seen, "s/a/undo", Some("unknown")).await, (DONE, false), "a second delivery");
        assert_eq!(step(&seen, "s/a", None).await, (UNDONE, false));
        assert_eq!(step(&seen, "s/b", None).await, (DONE, true), "another step");
    }

    #[tokio::test]
    async fn what_the_saga_knows_as_completed_is_undone_whoever_did_it() {
        let seen = MemorySeen::new(100);
        assert_eq!(step(&seen, "s/a/undo", Some("completed")).await, (DONE, true));
    }

    #[tokio::test]
    async fn a_compensation_that_fails_is_called_again() {
        let seen = MemorySeen::new(100);
        let Ok(()) = seen.record("s/a").await;
        let message = crate::Message::new("q", "")
            .header("chaski-step", "charge")
            .header("chaski-idempotency-key", "s/a/undo")
            .header("chaski-phase", "undo");
        let undo = Step::of(&message).expect("a step");
        let fails = async { Err("the bank is closed".to_owned()) };
        assert!(judge(&seen, undo.key(), Some(&undo), fails).await.is_err());
        assert_eq!(step(&seen, "s/a/undo", Some("unknown")).await, (DONE, true));
    }

    #[tokio::test]
    async fn one_key_is_processed_by_one_at_a_time() {
        use futures::FutureExt as _;

        let under_way = UnderWay::default();
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let mut first = std::pin::pin!(under_way.alone("a", finished));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = std::pin::pin!(under_way.alone("a", async {}));
        assert!(second.as_mut().now_or_never().is_none(), "the first is under way");
        assert!(under_way.alone("b", async {}).now_or_never().is_some(), "another key goes on");
        finish.send(()).expect("the first waits for it");
        first.await.expect("it was sent");
        second.await;
        assert!(under_way.0.lock().expect("nobody panics with it").is_empty());
    }
}
