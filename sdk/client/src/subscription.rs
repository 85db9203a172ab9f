//! A subscription: what passes on a pattern while it stands, opened again after a lost connection. Nothing is kept for it while
//! there is none.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use chaski_protocol::frames::{Open, Opening, Passed};
use chaski_protocol::{MAX_MESSAGE_FRAME, decode};
use futures::Stream;
use tokio::sync::{mpsc, watch};

use crate::client::Client;
use crate::consumer::recover;
use crate::error::SubscribeError;
use crate::frames::{self, Ended, FrameReader};
use crate::link::{Link, NoLink, Shared};
use crate::message::Message;

/// Messages that wait for the application; beyond it the stream is not read, and the router drops and counts.
const BUFFER: usize = 1024;

/// A stream of messages. It ends when the client is closed, or the router refuses to open it again.
///
/// A subscription is kept in the router's memory only: messages that pass while it is not connected are not seen, and those
/// beyond its buffer are dropped and counted.
pub struct Subscription {
    _client: Client,
    messages: mpsc::Receiver<Message>,
    dropped: Arc<AtomicU64>,
}

impl Subscription {
    /// Messages that the router dropped so far, since they were not taken fast enough.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.messages.poll_recv(context)
    }
}

impl Client {
    /// Subscribes to a pattern: `*` is one token, a final `>` one or more. `.await` gives a stream of messages, after settings such as
    /// [`filter`](Subscribe::filter); it stands by then.
    pub fn subscribe(&self, pattern: impl Into<String>) -> Subscribe {
        Subscribe { client: self.clone(), what: What { pattern: pattern.into(), filters: Vec::new() } }
    }
}

/// A subscription about to begin: `.await` it.
#[must_use = "a subscription begins when it is awaited"]
#[derive(Clone, Debug)]
pub struct Subscribe {
    client: Client,
    what: What,
}

impl Subscribe {
    /// A filter of the rules, by name, that judges before anything is passed, behind those named before. What it drops or rejects is
    /// not passed.
    pub fn filter(mut self, name: impl Into<String>) -> Subscribe {
        self.what.filters.push(name.into());
        self
    }
}

impl IntoFuture for Subscribe {
    type Output = Result<Subscription, SubscribeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Subscribe { client, what } = self;
            let shared = Arc::clone(client.shared());
            let opened = tokio::time::timeout(shared.options.patience, open_first(&shared, &what));
            let opened = opened.await.unwrap_or(Err(SubscribeError::Unreachable))?;
            let (sender, messages) = mpsc::channel(BUFFER);
            let dropped = Arc::new(AtomicU64::new(0));
            let (stands, _) = watch::channel(0);
            let feed = Feed { shared, what, messages: sender, dropped: Arc::clone(&dropped), stands };
            tokio::spawn(feed.run(Some(opened)));
            Ok(Subscription { _client: client, messages, dropped })
        })
    }
}

/// What a subscription asks for, again after each reconnect.
#[derive(Clone, Debug)]
pub(crate) struct What {
    pub(crate) pattern: String,
    pub(crate) filters: Vec<String>,
}

/// The task behind a subscription.
pub(crate) struct Feed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) what: What,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) dropped: Arc<AtomicU64>,
    /// How often it was opened.
    pub(crate) stands: watch::Sender<u64>,
}

/// A stream that the router took.
pub(crate) struct Opened {
    link: Arc<Link>,
    // Finishing it would end the subscription.
    _send: quinn::SendStream,
    reader: FrameReader,
}

async fn open_on(link: Arc<Link>, what: &What) -> Result<Opened, Ended> {
    let filters = what.filters.iter().map(String::as_str).collect();
    let open = Open::Subscribe { pattern: &what.pattern, filters };
    let (send, reader, first) = frames::open(&link.connection, &open, &[], MAX_MESSAGE_FRAME).await?;
    match decode::<Opening<'_>>(&first)?.0 {
        Opening::Opened => Ok(Opened { link, _send: send, reader }),
        other => Err(Ended::Broken(format!("{other:?} is no answer to Subscribe"))),
    }
}

async fn open_first(shared: &Shared, what: &What) -> Result<Opened, SubscribeError> {
    let mut attempt = 0;
    loop {
        let link = shared.patient_link().await.map_err(|error| match error {
            NoLink::Timeout => SubscribeError::Unreachable,
            NoLink::Closed => SubscribeError::Closed,
        })?;
        match open_on(Arc::clone(&link), what).await {
            Ok(opened) => return Ok(opened),
            Err(ended) => recover(shared, &link, ended, attempt).await.map_err(SubscribeError::Refused)?,
        }
        attempt += 1;
    }
}

impl Feed {
    /// Until nobody listens, the client is closed, or the router refuses for good.
    pub(crate) async fn run(self, mut opened: Option<Opened>) {
        let mut attempt = 0;
        loop {
            let current = match opened.take() {
                Some(opened) => opened,
                None => {
                    let Some(link) = self.shared.link().await else { return };
                    match open_on(Arc::clone(&link), &self.what).await {
                        Ok(opened) => opened,
                        Err(ended) => {
                            if let Err(refusal) = recover(&self.shared, &link, ended, attempt).await {
                                tracing::warn!(pattern = %self.what.pattern, %refusal, "a subscription was not opened again");
                                return;
                            }
                            attempt += 1;
                            continue;
                        }
                    }
                }
            };
            attempt = 0;
            self.stands.send_modify(|times| *times += 1);
            let Opened { link, _send, mut reader } = current;
            let ended = tokio::select! {
                ended = self.read(&mut reader) => ended,
                () = self.messages.closed() => return,
                () = self.shared.closed() => return,
            };
            let Some(ended) = ended else { return };
            if recover(&self.shared, &link, ended, attempt).await.is_err() {
                return;
            }
        }
    }

    /// `None` when nobody listens any more.
    async fn read(&self, reader: &mut FrameReader) -> Option<Ended> {
        loop {
            let frame = match reader.next().await {
                Ok(frame) => frame,
                Err(ended) => return Some(ended),
            };
            let (Passed::Message { dropped }, length) = match decode::<Passed>(&frame) {
                Ok(decoded) => decoded,
                Err(error) => return Some(error.into()),
            };
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
            match Message::from_block(&frame.slice(length..), &[]) {
                Ok(message) => self.messages.send(message).await.ok()?,
                Err(error) => return Some(Ended::Broken(format!("a message: {error}"))),
            }
        }
    }
}
