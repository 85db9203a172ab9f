//! What a consumer holds: the buffer of deliveries that the application has not seen, settlements on their way out, and the
//! answers that are owed. Leases belong to one stream, an *epoch*: when it ends, all of them are lost.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chaski_protocol::frames::{ConsumeCommand, Delivery as DeliveryFrame, Verdict};
use chaski_protocol::{Code, MAX_CREDIT, encode_frame};
use tokio::sync::Notify;

use crate::answers::{Answers, Ticket, wake_all};
use crate::error::{ConsumeError, SettleError};
use crate::frames;
use crate::message::Message;

pub(crate) type Settlement = Result<(), SettleError>;

/// A delivery in the buffer.
pub(crate) struct Parcel {
    pub(crate) message: Message,
    pub(crate) sequence: u64,
    pub(crate) lease: u64,
    pub(crate) attempt: u32,
    pub(crate) redelivered: bool,
    pub(crate) published_at_ms: u64,
}

impl Parcel {
    pub(crate) fn new(message: Message, delivery: &DeliveryFrame<'_>) -> Parcel {
        Parcel {
            message,
            sequence: delivery.sequence,
            lease: delivery.lease,
            attempt: delivery.attempt,
            redelivered: delivery.redelivered,
            published_at_ms: delivery.published_at_ms,
        }
    }
}

/// Shared by the consumer, its deliveries and its task.
pub(crate) struct ConsumerState {
    queue: String,
    filters: Vec<String>,
    leases: Mutex<Leases>,
    /// Something to write, or the end.
    output: Notify,
    /// Progress of a close.
    closing: Notify,
}

struct Leases {
    credit: u32,
    /// The stream's number; settlements of another epoch are too late.
    epoch: u64,
    live: bool,
    buffer: VecDeque<Parcel>,
    reader: Option<Waker>,
    /// The task is over.
    finished: bool,
    error: Option<ConsumeError>,
    out: Vec<u8>,
    writer_idle: bool,
    answers: Answers<Settlement>,
    /// The number of this stream's first settlement.
    base: u64,
    /// Leases that the application holds and that the router told lost.
    lost: HashSet<(u64, u64)>,
    /// Deliveries of this epoch with the application.
    held: usize,
    closing: bool,
    closed_by_router: bool,
    /// Settlements up to here give back the buffer.
    released_at: u64,
    ack_wait_ms: u64,
}

impl ConsumerState {
    pub(crate) fn new(queue: String, filters: Vec<String>, credit: u32) -> ConsumerState {
        let leases = Leases {
            credit,
            epoch: 0,
            live: false,
            buffer: VecDeque::new(),
            reader: None,
            finished: false,
            error: None,
            out: Vec::new(),
            writer_idle: false,
            answers: Answers::new(),
            base: 0,
            lost: HashSet::new(),
            held: 0,
            closing: false,
            closed_by_router: false,
            released_at: 0,
            ack_wait_ms: 0,
        };
        ConsumerState {
            queue,
            filters,
            leases: Mutex::new(leases),
            output: Notify::new(),
            closing: Notify::new(),
        }
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().expect("nobody panics with it")
    }

    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    /// Filters of the rules that judge before delivery.
    pub(crate) fn filters(&self) -> &[String] {
        &self.filters
    }

    pub(crate) fn credit(&self) -> u32 {
        self.leases().credit
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.leases().closing
    }

    pub(crate) fn take_error(&self) -> Option<ConsumeError> {
        self.leases().error.take()
    }

    // The application's side.

    pub(crate) fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(u64, Parcel), ConsumeError>>> {
        let mut leases = self.leases();
        if let Some(parcel) = leases.buffer.pop_front() {
            leases.held += 1;
            return Poll::Ready(Some(Ok((leases.epoch, parcel))));
        }
        if leases.finished || leases.closing {
            return Poll::Ready(leases.error.take().map(Err));
        }
        match &mut leases.reader {
            Some(waker) if waker.will_wake(context.waker()) => {}
            reader => *reader = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Sends a settlement of a delivery that the application held, with the result behind it that only `Complete` has; `None` when its lease is gone already.
    pub(crate) fn settle(
        &self,
        epoch: u64,
        (sequence, lease): (u64, u64),
        verdict: Verdict<'_>,
        result: &[u8],
    ) -> Option<Ticket<Settlement>> {
        let mut leases = self.leases();
        if !leases.live || leases.epoch != epoch {
            return None;
        }
        leases.held -= 1;
        leases.lost.remove(&(sequence, lease));
        let ticket = leases.settle(sequence, lease, verdict, result);
        self.wake_writer(leases);
        Some(ticket)
    }

    /// A delivery was settled elsewhere, by a transaction.
    pub(crate) fn forget(&self, epoch: u64, token: (u64, u64)) {
        let mut leases = self.leases();
        if leases.live && leases.epoch == epoch {
            leases.held -= 1;
            leases.lost.remove(&token);
            self.wake_writer(leases);
        }
    }

    /// Renews the lease of a delivery that the application holds; false when it is known to be gone.
    pub(crate) fn extend(&self, epoch: u64, token: (u64, u64)) -> bool {
        let mut leases = self.leases();
        if !leases.live || leases.epoch != epoch || leases.lost.contains(&token) {
            return false;
        }
        leases.command(&ConsumeCommand::Extend { leases: vec![token] });
        self.wake_writer(leases);
        true
    }

    pub(crate) fn set_credit(&self, credit: u32) {
        let mut leases = self.leases();
        leases.credit = credit;
        if leases.live && !leases.closing {
            leases.command(&ConsumeCommand::SetCredit { credit });
            self.wake_writer(leases);
        }
    }

    /// Asks for no more, and gives back what the application has not seen.
    pub(crate) fn begin_close(&self) {
        let mut leases = self.leases();
        if std::mem::replace(&mut leases.closing, true) {
            return;
        }
        if leases.live {
            leases.command(&ConsumeCommand::Close);
            leases.release_buffer();
        }
        let reader = leases.reader.take();
        self.wake_writer(leases);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Waits until a close was asked for.
    pub(crate) async fn close_begun(&self) {
        loop {
            let progress = self.closing.notified();
            let mut progress = std::pin::pin!(progress);
            progress.as_mut().enable();
            if self.is_closing() {
                return;
            }
            progress.await;
        }
    }

    /// Waits until a close has given back everything.
    pub(crate) async fn released(&self) {
        loop {
            let progress = self.closing.notified();
            let mut progress = std::pin::pin!(progress);
            progress.as_mut().enable();
            {
                let leases = self.leases();
                let given_back = leases.closed_by_router && leases.answers.answered() >= leases.released_at;
                if leases.finished || given_back {
                    return;
                }
            }
            progress.await;
        }
    }

    // The task's side.

    pub(crate) fn begin(&self, ack_wait_ms: u64) {
        let mut leases = self.leases();
        leases.epoch += 1;
        leases.live = true;
        leases.base = leases.answers.issued();
        leases.ack_wait_ms = ack_wait_ms;
        leases.writer_idle = false;
        if leases.closing {
            leases.command(&ConsumeCommand::Close);
        }
    }

    /// The stream is gone, and every lease with it.
    pub(crate) fn end(&self) {
        let mut wakers = Vec::new();
        let mut leases = self.leases();
        leases.live = false;
        leases.buffer.clear();
        leases.out.clear();
        leases.lost.clear();
        leases.held = 0;
        let waiting = leases.answers.waiting();
        leases.answers.resolve(waiting, |_| Err(SettleError::LeaseLost), &mut wakers);
        drop(leases);
        self.closing.notify_waiters();
        wake_all(wakers);
    }

    /// The task is over.
    pub(crate) fn finish(&self, error: Option<ConsumeError>) {
        let mut leases = self.leases();
        leases.finished = true;
        leases.error = error;
        let reader = leases.reader.take();
        drop(leases);
        self.closing.notify_waiters();
        reader.into_iter().for_each(Waker::wake);
    }

    /// Takes deliveries into the buffer.
    pub(crate) fn arrive(&self, parcels: &mut Vec<Parcel>) {
        if parcels.is_empty() {
            return;
        }
        let mut leases = self.leases();
        leases.buffer.extend(parcels.drain(..));
        if leases.closing {
            leases.release_buffer();
            self.wake_writer(leases);
            return;
        }
        let reader = leases.reader.take();
        drop(leases);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Takes the router's answers to settlements; the error says how they break the protocol.
    pub(crate) fn settled(&self, through: u64, refused: &[(u64, u32)]) -> Result<(), String> {
        let mut wakers = Vec::new();
        let mut leases = self.leases();
        let (base, answered) = (leases.base, leases.answers.answered());
        let count = base.checked_add(through).and_then(|through| through.checked_sub(answered));
        let Some(count) = count.filter(|count| *count <= leases.answers.waiting()) else {
            return Err(format!("settlements are answered through {through}, which were not sent"));
        };
        let answer = |number: u64| {
            // Numbers on the wire begin with 1.
            let refusal = refused.iter().find(|(refused, _)| *refused == number - base + 1);
            match refusal {
                None => Ok(()),
                Some((_, code)) if *code == Code::LeaseLost.number() => Err(SettleError::LeaseLost),
                Some((_, code)) => Err(SettleError::Refused(frames::refusal(*code, ""))),
            }
        };
        leases.answers.resolve(count, answer, &mut wakers);
        if leases.closing {
            self.wake_writer(leases);
        } else {
            drop(leases);
        }
        wake_all(wakers);
        Ok(())
    }

    /// Leases that are gone: what lies in the buffer is dropped.
    pub(crate) fn lost(&self, gone: &[(u64, u64)]) {
        let gone: HashSet<(u64, u64)> = gone.iter().copied().collect();
        let mut leases = self.leases();
        let before = leases.buffer.len();
        leases.buffer.retain(|parcel| !gone.contains(&(parcel.sequence, parcel.lease)));
        if before - leases.buffer.len() < gone.len() && leases.lost.len() < MAX_CREDIT as usize {
            leases.lost.extend(gone);
        }
    }

    pub(crate) fn closed_by_router(&self) {
        let mut leases = self.leases();
        leases.closed_by_router = true;
        self.wake_writer(leases);
    }

    pub(crate) fn extend_every(&self) -> Duration {
        Duration::from_millis((self.leases().ack_wait_ms / 3).max(1))
    }

    /// Renews the leases of what lies in the buffer, in one frame.
    pub(crate) fn extend_buffer(&self) {
        let mut leases = self.leases();
        if leases.buffer.is_empty() {
            return;
        }
        let tokens = leases.buffer.iter().map(|parcel| (parcel.sequence, parcel.lease));
        let tokens: Vec<_> = tokens.take(chaski_protocol::MAX_EXTEND).collect();
        leases.command(&ConsumeCommand::Extend { leases: tokens });
        self.wake_writer(leases);
    }

    /// What is to be written; `None` when there is nothing, and the writer counts as idle then.
    pub(crate) fn take_output(&self) -> Option<Vec<u8>> {
        let mut leases = self.leases();
        leases.writer_idle = leases.out.is_empty();
        (!leases.out.is_empty()).then(|| std::mem::take(&mut leases.out))
    }

    /// Waits until there may be something to write.
    pub(crate) async fn output(&self) {
        self.output.notified().await;
    }

    /// Whether the stream is closed and nothing is left to settle or to be answered.
    pub(crate) fn is_done(&self) -> bool {
        let leases = self.leases();
        leases.closing && leases.closed_by_router && leases.held == 0 && leases.answers.waiting() == 0
    }

    fn wake_writer(&self, mut leases: MutexGuard<'_, Leases>) {
        let wake = std::mem::take(&mut leases.writer_idle);
        let closing = leases.closing;
        drop(leases);
        if wake {
            self.output.notify_one();
        }
        if closing {
            self.closing.notify_waiters();
        }
    }
}

impl Leases {
    fn command(&mut self, command: &ConsumeCommand<'_>) {
        encode_frame(command, &[], &mut self.out);
    }

    fn settle(
        &mut self,
        sequence: u64,
        lease: u64,
        verdict: Verdict<'_>,
        result: &[u8],
    ) -> Ticket<Settlement> {
        encode_frame(&ConsumeCommand::Settle { sequence, lease, verdict }, &[result], &mut self.out);
        self.answers.issue()
    }

    fn release_buffer(&mut self) {
        for parcel in std::mem::take(&mut self.buffer) {
            drop(self.settle(parcel.sequence, parcel.lease, Verdict::Release, &[]));
        }
        self.released_at = self.answers.issued();
    }
}

#[cfg(test)]
mod tests;
