//! The client's inbox: one subscription for all its requests, opened with the first, and who waits for which reply.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use chaski_protocol::frames::inbox_prefix;
use tokio::sync::{mpsc, oneshot, watch};

use crate::link::Shared;
use crate::message::Message;
use crate::subscription::{Feed, What};

/// Replies on their way to those who wait.
const BUFFER: usize = 1024;

/// The inbox.
pub(crate) struct Inbox {
    waiting: Mutex<HashMap<String, oneshot::Sender<Message>>>,
    next: AtomicU64,
    begun: Mutex<bool>,
    stands: watch::Sender<u64>,
}

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            begun: Mutex::new(false),
            stands: watch::Sender::new(0),
        }
    }

    /// Counts how often the inbox was opened: from 1 on replies arrive.
    pub(crate) fn stands(shared: &Arc<Shared>) -> watch::Receiver<u64> {
        let inbox = &shared.inbox;
        let mut begun = inbox.begun.lock().expect("nobody panics with it");
        if !*begun {
            *begun = true;
            let (messages, arrived) = mpsc::channel(BUFFER);
            let feed = Feed {
                shared: Arc::clone(shared),
                what: What { pattern: format!("{}>", inbox_prefix(shared.client_id)), filters: Vec::new() },
                messages,
                dropped: Arc::default(),
                stands: inbox.stands.clone(),
            };
            tokio::spawn(feed.run(None));
            tokio::spawn(deliver(Arc::clone(shared), arrived));
        }
        inbox.stands.subscribe()
    }

    /// A topic for one reply.
    pub(crate) fn topic(shared: &Shared) -> String {
        let number = shared.inbox.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{number}", inbox_prefix(shared.client_id))
    }

    /// Waits for the reply to the request with this id. The latest of several that wait for one id gets it.
    pub(crate) fn wait(&self, id: &str) -> Waiting<'_> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().expect("nobody panics with it").insert(id.to_owned(), sender);
        Waiting { inbox: self, id: id.to_owned(), receiver: Some(receiver) }
    }
}

/// Somebody waits for a reply, until this is dropped.
pub(crate) struct Waiting<'a> {
    inbox: &'a Inbox,
    id: String,
    receiver: Option<oneshot::Receiver<Message>>,
}

impl Waiting<'_> {
    /// The reply; an error when another request with the same id took the wait over.
    pub(crate) async fn arrival(&mut self) -> Result<Message, oneshot::error::RecvError> {
        self.receiver.as_mut().expect("it is taken by drop alone").await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Dropping the receiver closes its sender, which tells it from that of a later wait for the same id.
        self.receiver = None;
        let mut waiting = self.inbox.waiting.lock().expect("nobody panics with it");
        if waiting.get(&self.id).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(&self.id);
        }
    }
}

async fn deliver(shared: Arc<Shared>, mut arrived: mpsc::Receiver<Message>) {
    while let Some(message) = arrived.recv().await {
        let Some(id) = message.correlation() else { continue };
        let waits = shared.inbox.waiting.lock().expect("nobody panics with it").remove(id);
        if let Some(waits) = waits {
            // Who waited may have given up just now.
            let _ = waits.send(message);
        }
    }
}
