//! The client: one connection to a router, shared by all its clones.

use std::sync::Arc;

use quinn::VarInt;

use crate::admin::Admin;
use crate::consumer::Consume;
use crate::error::{ConnectError, PublishError};
use crate::link::{LinkState, Shared};
use crate::message::Message;
use crate::options::{ClientBuilder, Options};
use crate::publisher::{PublishPipelined, Published, Publisher};
use crate::transaction::Transaction;

/// A connection to a router. Clones share it, and it is closed when the last of them, and of the consumers, deliveries and
/// subscriptions made from it, is dropped. Unconfirmed publishes are then given up: [`flush`](Client::flush) or
/// [`close`](Client::close) first.
///
/// A lost connection is made again in the background: consumers and subscriptions resume, and what is unconfirmed is sent again
/// under the same id, in the same order.
///
/// ```no_run
/// use chaski_client::{Client, Message};
/// use futures::TryStreamExt as _;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("quic://127.0.0.1:7447").await?;
/// let sent = client.publish(Message::new("orders.eu.created", "two llamas").key("c42")).await?;
/// println!("{} is stored as {:?}", sent.id, sent.sequence);
///
/// let mut orders = client.consume("billing").credit(64).await?;
/// while let Some(delivery) = orders.try_next().await? {
///     println!("{}: {:?}", delivery.topic(), delivery.payload());
///     delivery.ack().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

/// What the last clone takes with it.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("router", &self.shared().transport.address()).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to `quic://host:port` (the port defaults to 7447) with default settings. A router on a loopback address is
    /// trusted by the CA that `chaski serve --dev` keeps.
    pub async fn connect(url: impl AsRef<str>) -> Result<Client, ConnectError> {
        Client::builder().connect(url).await
    }

    /// Settings: CA, certificate, windows, patience.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) async fn open(url: &str, options: Options) -> Result<Client, ConnectError> {
        let shared = Arc::new(Shared::new(url, options)?);
        let first = shared.establish().await?;
        tokio::spawn(Arc::clone(&shared).keep_up(Some(first)));
        tokio::spawn(Publisher::run(Arc::clone(&shared)));
        Ok(Client { inner: Arc::new(Inner { shared }) })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Publishes and waits for the confirm: then the message is stored as durably as the queues that took it ask for.
    ///
    /// A lost connection and a retryable refusal are retried under the same id, for as long as the router surely remembers the
    /// id (its real dedup window, 2 minutes or more); then the error is `outcome_unknown`. When this future is dropped, the
    /// message may still be stored.
    pub async fn publish(&self, message: Message) -> Result<Published, PublishError> {
        self.shared().publisher.publish(self.shared(), &message).await
    }

    /// Publishes without waiting for the confirm: this waits for room only. The confirm can be awaited, or dropped and left to
    /// [`flush`](Client::flush). Messages are stored in the order of these calls.
    ///
    /// A lost connection is mended as in [`publish`](Client::publish); a retryable refusal is not retried, since later messages
    /// would overtake this one.
    pub async fn publish_pipelined(&self, message: Message) -> Result<PublishPipelined, PublishError> {
        self.shared().publisher.publish_pipelined(self.shared(), &message).await
    }

    /// Waits for the confirms of all that was published so far, and answers the first error of a pipelined publish since the
    /// last flush, whether or not its confirm was awaited too.
    pub async fn flush(&self) -> Result<(), PublishError> {
        self.shared().publisher.flush().await
    }

    /// Consumes a queue: `.await` gives a stream of deliveries, after settings such as [`credit`](Consume::credit).
    /// `NAME.dlq` names a dead-letter queue.
    pub fn consume(&self, queue: impl Into<String>) -> Consume {
        Consume::new(self.clone(), queue.into())
    }

    /// Settles and publishes, all or nothing.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// Administrative calls.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }

    /// Moves to a new local UDP port; QUIC migrates the connection, and nothing is lost.
    pub fn rebind(&self) -> std::io::Result<()> {
        self.shared().transport.rebind()
    }

    /// Breaks the connection as a failing network would, though at once; the client connects again.
    pub fn reconnect(&self) {
        if let LinkState::Up(link) = self.shared().link_now() {
            link.connection.close(VarInt::from_u32(0), b"reconnect");
        }
    }

    /// The local UDP addresses, one for each address family in use.
    pub fn local_addresses(&self) -> Vec<std::net::SocketAddr> {
        self.shared().transport.local_addresses()
    }

    /// How long the router surely remembers an id at the moment.
    pub fn dedup_window(&self) -> std::time::Duration {
        self.shared().dedup_window()
    }

    /// Ends in good order, for all clones: waits for the confirms of what was published, gives back deliveries that no
    /// application saw, and closes the connection. It takes no longer than the drain timeout (10 s by default).
    pub async fn close(&self) {
        let shared = self.shared();
        let drain = async {
            let consumers: Vec<_> = {
                let consumers = shared.consumers.lock().expect("nobody panics with it");
                consumers.iter().filter_map(std::sync::Weak::upgrade).collect()
            };
            for consumer in &consumers {
                consumer.begin_close();
            }
            // An error is its publisher's to see.
            let _ = shared.publisher.flush().await;
            for consumer in &consumers {
                consumer.released().await;
            }
        };
        let drained = tokio::time::timeout(shared.options.drain_timeout, drain).await;
        if drained.is_err() {
            tracing::warn!("the client was closed before every confirm came");
        }
        shared.close();
        // The router is told; whether it still listens is not worth a longer wait.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), shared.transport.wait_idle()).await;
    }
}
