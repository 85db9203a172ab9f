//! The publish stream: callers append frames, one task writes them in large pieces and takes the answers. It opens the stream
//! again after a loss, and sends what is unanswered in its order, under the same ids.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chaski_protocol::frames::{Counts, Open, PublishAnswer, PublishFrame};
use chaski_protocol::{Code, Refusal, decode, encode_frame_with};
use quinn::SendStream;
use tokio::sync::Notify;

use crate::answers::{Ticket, wake_all};
use crate::error::PublishError;
use crate::frames::{self, Ended, FrameReader};
use crate::link::{Shared, backoff};
use crate::message::Message;
use crate::options::Options;
use crate::outbox::{Answer, Frame, Outbox, Taken, is_whole};
use crate::text::Text;

/// The pause between two tries of a publish that was refused with a retryable code.
const REFUSED_BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A confirmed publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: String,
    /// The sequence of the stored message; `None` when none was stored.
    pub sequence: Option<u64>,
    /// The id was known already: this is the first copy's sequence, and nothing new was stored.
    pub duplicate: bool,
    /// Copies taken by queues and subscriptions.
    pub routed: u32,
    /// Copies dropped by filters.
    pub dropped: u32,
    /// Copies rejected by filters.
    pub rejected: u32,
}

impl Published {
    /// Of an answer that no message carries.
    pub(crate) fn nothing(id: &str) -> Published {
        Published { id: id.to_owned(), sequence: None, duplicate: false, routed: 0, dropped: 0, rejected: 0 }
    }

    pub(crate) fn new(id: &str, taken: &Taken) -> Published {
        let Counts { routed, dropped, rejected } = taken.counts;
        Published {
            id: id.to_owned(),
            sequence: taken.sequence,
            duplicate: taken.duplicate,
            routed,
            dropped,
            rejected,
        }
    }
}

/// The confirm of a pipelined publish: a future that may be dropped at no cost, for instance when
/// [`Client::flush`](crate::Client::flush) collects all of them.
pub struct PublishPipelined {
    id: Text,
    ticket: Ticket<Answer>,
}

impl PublishPipelined {
    /// The message's id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }
}

impl std::fmt::Debug for PublishPipelined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishPipelined").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Future for PublishPipelined {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.ticket).poll(context).map(|answer| match answer {
            Answer::Published(taken) => Ok(Published::new(self.id.as_str(), &taken)),
            Answer::Failed(error) => Err(error),
            Answer::Transacted(_) | Answer::LeaseLost(_) => Err(PublishError::Refused(odd_answer())),
        })
    }
}

/// An answer to a publish where a transaction was sent, or the other way round.
pub(crate) fn odd_answer() -> Refusal {
    Refusal::new(Code::Internal, "the router's answer is of another kind than the frame")
}

pub(crate) struct Publisher {
    outbox: Mutex<Outbox>,
    /// Something to write, for the writer that found nothing.
    written: Notify,
    /// Room, for those who wait for it.
    room: Notify,
    /// Answers, for `flush`.
    answers: Notify,
    retry_refusals: bool,
}

impl Publisher {
    pub(crate) fn new(options: &Options) -> Publisher {
        Publisher {
            outbox: Mutex::new(Outbox::new(options.in_flight, options.in_flight_bytes, Instant::now())),
            written: Notify::new(),
            room: Notify::new(),
            answers: Notify::new(),
            retry_refusals: options.retry_refusals,
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().expect("nobody panics with it")
    }

    /// Appends a frame as soon as there is room.
    pub(crate) async fn send(
        &self,
        frame: &(impl Frame + Sync),
        direct: bool,
    ) -> Result<Ticket<Answer>, PublishError> {
        loop {
            let room = self.room.notified();
            let mut room = std::pin::pin!(room);
            {
                let mut outbox = self.outbox();
                if outbox.closed {
                    return Err(PublishError::Closed);
                }
                if outbox.has_room(frame.size()) {
                    let ticket = outbox.push(frame, direct, Instant::now);
                    let wake = std::mem::take(&mut outbox.writer_idle);
                    drop(outbox);
                    if wake {
                        self.written.notify_one();
                    }
                    return Ok(ticket);
                }
                outbox.crowded = true;
                room.as_mut().enable();
            }
            room.await;
        }
    }

    pub(crate) async fn publish_pipelined(
        &self,
        shared: &Shared,
        message: &Message,
    ) -> Result<PublishPipelined, PublishError> {
        check(shared, message)?;
        Ok(PublishPipelined { id: message.id_text(), ticket: self.send(&OneMessage(message), false).await? })
    }

    /// Publishes and waits for the confirm; tries again what was refused with a retryable code.
    pub(crate) async fn publish(
        &self,
        shared: &Shared,
        message: &Message,
    ) -> Result<Published, PublishError> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            check(shared, message)?;
            let answer = self.send(&OneMessage(message), true).await?.await;
            match answer {
                Answer::Published(taken) => return Ok(Published::new(message.message_id(), &taken)),
                Answer::Transacted(_) | Answer::LeaseLost(_) => {
                    return Err(PublishError::Refused(odd_answer()));
                }
                Answer::Failed(error) => self.pause_after(shared, error, begun, &mut attempt).await?,
            }
        }
    }

    /// Waits before another try of what was refused, or gives the error back.
    pub(crate) async fn pause_after(
        &self,
        shared: &Shared,
        error: PublishError,
        begun: Instant,
        attempt: &mut u32,
    ) -> Result<(), PublishError> {
        let refused = matches!(error, PublishError::Refused(_));
        if !self.retry_refusals || !refused || !error.is_retryable() || begun.elapsed() >= patience(shared) {
            return Err(error);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff(REFUSED_BACKOFF, *attempt)) => {}
            () = shared.closed() => return Err(PublishError::Closed),
        }
        *attempt += 1;
        Ok(())
    }

    /// Waits for the answers of all that was sent so far.
    pub(crate) async fn flush(&self) -> Result<(), PublishError> {
        let target = self.outbox().issued();
        loop {
            let answers = self.answers.notified();
            let mut answers = std::pin::pin!(answers);
            answers.as_mut().enable();
            {
                let mut outbox = self.outbox();
                if outbox.answered() >= target {
                    return outbox.take_flush_error().map_or(Ok(()), Err);
                }
            }
            answers.await;
        }
    }

    pub(crate) fn close(&self) {
        self.settle(|outbox, wakers| {
            outbox.close(wakers);
            Ok::<(), std::convert::Infallible>(())
        })
        .expect("closing breaks no protocol");
    }

    /// Changes what is answered, and wakes whoever waits for it once the lock is free.
    fn settle<T>(&self, change: impl FnOnce(&mut Outbox, &mut Vec<std::task::Waker>) -> T) -> T {
        let mut wakers = Vec::new();
        let mut outbox = self.outbox();
        let result = change(&mut outbox, &mut wakers);
        let roomy = outbox.crowded && (outbox.is_roomy() || outbox.closed);
        if roomy {
            outbox.crowded = false;
        }
        drop(outbox);
        if roomy {
            self.room.notify_waiters();
        }
        self.answers.notify_waiters();
        wake_all(wakers);
        result
    }

    /// The publish stream's task.
    pub(crate) async fn run(shared: Arc<Shared>) {
        let publisher = &shared.publisher;
        let mut attempt = 0;
        loop {
            let link = tokio::select! {
                link = shared.link() => link,
                () = publisher.expiry(&shared) => {
                    publisher.expire(&shared);
                    continue;
                }
            };
            let Some(link) = link else { return };
            publisher.expire(&shared);
            let opened =
                frames::open(&link.connection, &Open::Publish, &[], chaski_protocol::MAX_ANSWER_FRAME).await;
            let ended = match opened {
                Ok((send, reader, _)) => {
                    attempt = 0;
                    publisher.outbox().begin();
                    let ended = publisher.serve(&shared, send, reader).await;
                    publisher.outbox().end();
                    ended
                }
                Err(ended) => ended,
            };
            match ended {
                Ended::Broken(detail) => frames::break_off(&link.connection, &detail),
                Ended::Refused(refusal) => tracing::warn!(%refusal, "the publish stream was refused"),
                Ended::Lost => {}
            }
            // A connection that ends is soon seen as down; a stream alone that ends must not be opened in a busy loop.
            tokio::select! {
                _ = link.connection.closed() => {}
                () = tokio::time::sleep(backoff(shared.options.backoff, attempt)) => {}
            }
            if link.connection.close_reason().is_some() {
                shared.replaced(&link).await;
            }
            attempt += 1;
        }
    }

    async fn serve(&self, shared: &Shared, send: SendStream, reader: FrameReader) -> Ended {
        tokio::select! {
            ended = self.read(reader) => ended,
            ended = self.write(send) => ended,
            // The router has been silent for the whole window: what is out is given up before the stream is opened anew.
            () = self.expiry(shared) => Ended::Lost,
        }
    }

    async fn write(&self, mut send: SendStream) -> Ended {
        let mut pieces = Vec::new();
        loop {
            self.outbox().take(Instant::now(), &mut pieces);
            if pieces.is_empty() {
                self.written.notified().await;
                continue;
            }
            if let Err(error) = send.write_all_chunks(&mut pieces).await {
                return error.into();
            }
            pieces.clear();
        }
    }

    async fn read(&self, mut reader: FrameReader) -> Ended {
        loop {
            let frame = match reader.next().await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            let answer = match decode::<PublishAnswer>(&frame) {
                Ok((answer, _)) => answer,
                Err(error) => return error.into(),
            };
            if let Err(detail) = self.settle(|outbox, wakers| outbox.answer(&answer, wakers)) {
                return Ended::Broken(detail);
            }
        }
    }

    /// Waits until something is overdue.
    async fn expiry(&self, shared: &Shared) {
        loop {
            let patience = patience(shared);
            if self.outbox().is_overdue(Instant::now(), patience) {
                return;
            }
            let look = (patience / 20).clamp(Duration::from_millis(5), Duration::from_secs(5));
            tokio::time::sleep(look).await;
        }
    }

    fn expire(&self, shared: &Shared) {
        let patience = patience(shared);
        self.settle(|outbox, wakers| outbox.expire(Instant::now(), patience, wakers));
    }
}

/// How long a frame may be sent again: the real dedup window, less a margin for the way to the router.
fn patience(shared: &Shared) -> Duration {
    let window = shared.dedup_window();
    window - (window / 10).min(Duration::from_secs(5))
}

fn check(shared: &Shared, message: &Message) -> Result<(), PublishError> {
    let (max_payload, max_headers) = shared.limits();
    message.check_size(max_payload, max_headers).map_err(PublishError::Refused)
}

/// A frame with one message.
struct OneMessage<'a>(&'a Message);

impl Frame for OneMessage<'_> {
    fn size(&self) -> usize {
        // What is small beside the payload need not be exact.
        self.0.payload().len() + 128
    }

    fn encode(&self, out: &mut Vec<u8>, tail: &mut Vec<Bytes>) {
        let OneMessage(message) = self;
        let payload = message.payload();
        let header = PublishFrame::Publish { mandatory: message.is_mandatory() };
        let head = message.published_head();
        if is_whole(payload) {
            encode_frame_with(&header, payload.len(), out, |out| head.encode(&[], out));
            tail.push(payload.clone());
        } else {
            encode_frame_with(&header, 0, out, |out| head.encode(payload, out));
        }
    }
}
