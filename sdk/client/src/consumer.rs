//! A consumer: a stream of deliveries from one queue, resumed after a lost connection. The task reads, writes and extends; what
//! it shares with the application is [`ConsumerState`].

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chaski_protocol::frames::{ConsumeFrame, Open, Opening};
use chaski_protocol::{MAX_CREDIT, MAX_MESSAGE_FRAME, Refusal, decode};
use futures::Stream;
use quinn::SendStream;
use tokio::time::MissedTickBehavior;

use crate::client::Client;
use crate::delivery::Delivery;
use crate::error::ConsumeError;
use crate::frames::{self, Ended, FrameReader};
pub(crate) use crate::leases::ConsumerState;
use crate::leases::Parcel;
use crate::link::{Link, NoLink, Shared, backoff};
use crate::message::Message;

/// A consumer about to begin: `.await` it.
#[must_use = "a consumer begins when it is awaited"]
pub struct Consume {
    client: Client,
    queue: String,
    filters: Vec<String>,
    credit: u32,
}

impl Consume {
    pub(crate) fn new(client: Client, queue: String) -> Consume {
        let credit = client.shared().options.credit;
        Consume { client, queue, filters: Vec::new(), credit }
    }

    /// Deliveries in flight at most, 1 to 16,384: those that lie in the SDK's buffer and those that the application has not
    /// settled. 64 by default.
    pub fn credit(mut self, credit: u32) -> Consume {
        self.credit = credit.clamp(1, MAX_CREDIT);
        self
    }

    /// A filter of the rules, by name, that judges before delivery, behind those named before. What it drops is acked and counted,
    /// what it rejects becomes a dead letter.
    pub fn filter(mut self, name: impl Into<String>) -> Consume {
        self.filters.push(name.into());
        self
    }
}

impl IntoFuture for Consume {
    type Output = Result<Consumer, ConsumeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Consume { client, queue, filters, credit } = self;
            let shared = Arc::clone(client.shared());
            let state = Arc::new(ConsumerState::new(queue, filters, credit));
            let opened = tokio::time::timeout(shared.options.patience, open_first(&shared, &state));
            let opened = opened.await.unwrap_or(Err(ConsumeError::Unreachable))?;
            {
                let mut consumers = shared.consumers.lock().expect("nobody panics with it");
                consumers.retain(|consumer| consumer.strong_count() > 0);
                consumers.push(Arc::downgrade(&state));
            }
            tokio::spawn(run(shared, Arc::clone(&state), opened));
            Ok(Consumer { handle: Arc::new(Handle { client, state }) })
        })
    }
}

/// What a consumer and its deliveries hold: as long as one of them lives, so does the connection.
pub(crate) struct Handle {
    client: Client,
    pub(crate) state: Arc<ConsumerState>,
}

impl Handle {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

/// A stream of deliveries. It yields an error when the queue is gone, then ends; it ends without one when the client is closed.
///
/// Several consumers of one queue compete. When the connection is lost the consumer resumes on the next one: what lay in its
/// buffer comes again, and what the application holds has lost its lease.
///
/// Dropping a consumer gives back what the application never saw; deliveries that it holds can still be settled.
pub struct Consumer {
    pub(crate) handle: Arc<Handle>,
}

impl Consumer {
    /// The queue.
    pub fn queue(&self) -> &str {
        self.handle.state.queue()
    }

    /// Another credit from now on, 1 to 16,384.
    pub fn set_credit(&self, credit: u32) {
        self.handle.state.set_credit(credit.clamp(1, MAX_CREDIT));
    }

    /// Ends in good order: gives back what the application never saw, without counting an attempt. Deliveries that it holds can
    /// still be settled.
    pub async fn close(self) -> Result<(), ConsumeError> {
        self.handle.state.begin_close();
        self.handle.state.released().await;
        self.handle.state.take_error().map_or(Ok(()), Err)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.handle.state.begin_close();
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("queue", &self.queue()).finish_non_exhaustive()
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let handle = &self.handle;
        let next = std::task::ready!(handle.state.poll_next(context));
        Poll::Ready(
            next.map(|next| next.map(|(epoch, parcel)| Delivery::new(Arc::clone(handle), epoch, parcel))),
        )
    }
}

/// A consume stream that the router took.
struct Opened {
    link: Arc<Link>,
    send: SendStream,
    reader: FrameReader,
    ack_wait_ms: u64,
}

async fn open_on(link: Arc<Link>, state: &ConsumerState) -> Result<Opened, Ended> {
    let filters = state.filters().iter().map(String::as_str).collect();
    let open = Open::Consume { queue: state.queue(), credit: state.credit(), filters };
    let (send, reader, first) = frames::open(&link.connection, &open, &[], MAX_MESSAGE_FRAME).await?;
    match decode::<Opening<'_>>(&first)?.0 {
        Opening::Consuming { ack_wait_ms } => Ok(Opened { link, send, reader, ack_wait_ms }),
        other => Err(Ended::Broken(format!("{other:?} is no answer to Consume"))),
    }
}

/// Opens until it is done or refused for good.
async fn open_first(shared: &Shared, state: &ConsumerState) -> Result<Opened, ConsumeError> {
    let mut attempt = 0;
    loop {
        let link = shared.patient_link().await.map_err(|error| match error {
            NoLink::Timeout => ConsumeError::Unreachable,
            NoLink::Closed => ConsumeError::Closed,
        })?;
        match open_on(Arc::clone(&link), state).await {
            Ok(opened) => return Ok(opened),
            Err(ended) => recover(shared, &link, ended, attempt).await.map_err(ConsumeError::Refused)?,
        }
        attempt += 1;
    }
}

/// Waits before a stream is opened again; the error is a refusal that waiting doesn't mend.
pub(crate) async fn recover(shared: &Shared, link: &Link, ended: Ended, attempt: u32) -> Result<(), Refusal> {
    match ended {
        Ended::Refused(refusal) if !refusal.code.is_retryable() => return Err(refusal),
        Ended::Refused(refusal) => tracing::debug!(%refusal, "the router refused a stream; trying again"),
        Ended::Broken(detail) => frames::break_off(&link.connection, &detail),
        Ended::Lost => {}
    }
    tokio::select! {
        () = shared.replaced(link) => {}
        () = tokio::time::sleep(backoff(shared.options.backoff, attempt)) => {}
    }
    Ok(())
}

/// The consumer's task: until it is closed and everything is settled, or the router ends it.
async fn run(shared: Arc<Shared>, state: Arc<ConsumerState>, first: Opened) {
    let mut opened = Some(first);
    let mut attempt = 0;
    loop {
        let Some(Opened { link, send, reader, ack_wait_ms }) = opened.take() else {
            let link = tokio::select! {
                link = shared.link() => link,
                // With no stream there is nothing to give back.
                () = state.close_begun() => None,
            };
            let Some(link) = link else { return state.finish(None) };
            match open_on(Arc::clone(&link), &state).await {
                Ok(fresh) => opened = Some(fresh),
                Err(ended) => {
                    if let Err(refusal) = recover(&shared, &link, ended, attempt).await {
                        return state.finish(Some(ConsumeError::Refused(refusal)));
                    }
                    attempt += 1;
                }
            }
            continue;
        };
        attempt = 0;
        state.begin(ack_wait_ms);
        let ended = serve(&state, send, reader).await;
        state.end();
        let Some(ended) = ended else { return state.finish(None) };
        if state.is_closing() {
            return state.finish(None);
        }
        if let Err(refusal) = recover(&shared, &link, ended, attempt).await {
            return state.finish(Some(ConsumeError::Refused(refusal)));
        }
    }
}

/// Serves one stream; `None` when it is done in good order.
async fn serve(state: &ConsumerState, send: SendStream, reader: FrameReader) -> Option<Ended> {
    tokio::select! {
        ended = read(state, reader) => Some(ended),
        ended = write(state, send) => ended,
        () = extend(state) => unreachable!("extending goes on as long as the stream"),
    }
}

/// Keeps the leases of what lies in the buffer: one frame each third of a lease.
async fn extend(state: &ConsumerState) {
    let mut ticks = tokio::time::interval(state.extend_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        state.extend_buffer();
    }
}

async fn write(state: &ConsumerState, mut send: SendStream) -> Option<Ended> {
    loop {
        match state.take_output() {
            Some(bytes) => {
                if let Err(error) = send.write_chunk(bytes.into()).await {
                    return Some(error.into());
                }
            }
            None if state.is_done() => {
                // The router sees the end of the stream; should it be gone, there is nobody to tell.
                let _ = send.finish();
                return None;
            }
            None => state.output().await,
        }
    }
}

async fn read(state: &ConsumerState, mut reader: FrameReader) -> Ended {
    let mut parcels = Vec::new();
    loop {
        loop {
            let frame = match reader.ready() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(error) => return error.into(),
            };
            let (header, length) = match decode::<ConsumeFrame<'_>>(&frame) {
                Ok(decoded) => decoded,
                Err(error) => return error.into(),
            };
            if let ConsumeFrame::Delivery(delivery) = header {
                let message = match Message::from_block(&frame.slice(length..), &delivery.headers) {
                    Ok(message) => message,
                    Err(error) => return Ended::Broken(format!("a delivery's message: {error}")),
                };
                parcels.push(Parcel::new(message, &delivery));
                continue;
            }
            state.arrive(&mut parcels);
            match header {
                ConsumeFrame::Delivery(_) => unreachable!("deliveries were taken above"),
                ConsumeFrame::Settled { through, refused } => {
                    if let Err(detail) = state.settled(through, &refused) {
                        return Ended::Broken(detail);
                    }
                }
                ConsumeFrame::Lost { leases } => state.lost(&leases),
                ConsumeFrame::Closed { code: 0, .. } => state.closed_by_router(),
                ConsumeFrame::Closed { code, detail } => {
                    return Ended::Refused(frames::refusal(code, detail));
                }
            }
        }
        state.arrive(&mut parcels);
        if let Err(ended) = reader.fill().await {
            return ended;
        }
    }
}
