//! One connection: its streams are accepted and each gets a task; datagrams are publishes without a confirm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chaski_broker::{Command, ConnectionId, Millis, Publish};
use chaski_protocol::frames::{Open, Opening};
use chaski_protocol::{Code, MAX_ADMIN_FRAME, Refusal, decode};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::identity::{Doorkeeper, Identity};
use crate::message;
use crate::session::frames::{Ended, FrameReader, answer, close, refuse};
use crate::session::judged::{self, Batch};
use crate::session::{consume, control, publish, subscribe, upload};
use crate::shard::Shard;

/// How long a stream waits for the connection's hello, and for its own first frame.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// A stream's first frame of at most this size is read from anybody; it is what every `Open` but an admin call needs.
const SMALL_OPEN: u32 = 64 << 10;

/// Larger admin calls that one connection may have in memory at once, and how long each may take to arrive.
const LARGE_OPENS: usize = 2;
const LARGE_WITHIN: Duration = Duration::from_secs(60);

/// All connections, for metrics and the end.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<BTreeMap<u64, Connection>>>);

impl Connections {
    fn add(&self, id: ConnectionId, connection: &Connection) {
        self.0.lock().expect("nobody panics with it").insert(id.0, connection.clone());
    }

    fn remove(&self, id: ConnectionId) {
        self.0.lock().expect("nobody panics with it").remove(&id.0);
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().expect("nobody panics with it").len()
    }

    /// What QUIC counted on each.
    pub(crate) fn quic_stats(&self) -> Vec<quinn::ConnectionStats> {
        self.0.lock().expect("nobody panics with it").values().map(Connection::stats).collect()
    }

    /// Closes all of them.
    pub(crate) fn close_all(&self, refusal: &Refusal) {
        for connection in self.0.lock().expect("nobody panics with it").values() {
            close(connection, refusal);
        }
    }
}

/// What the streams of a connection share.
pub(crate) struct Peer {
    pub(crate) shard: Shard,
    pub(crate) id: ConnectionId,
    pub(crate) connection: Connection,
    pub(crate) connections: Connections,
    /// The client instance, once it said hello.
    pub(crate) client: watch::Sender<Option<u128>>,
    pub(crate) doorkeeper: Doorkeeper,
    /// Who the client is; known before `client` is.
    pub(crate) identity: OnceLock<Identity>,
    /// Room for large admin calls.
    large: Arc<Semaphore>,
}

impl Peer {
    /// Waits for room for something large.
    pub(super) async fn room_for_much(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.large).acquire_owned().await.expect("it is never closed")
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    shard: Shard,
    connections: Connections,
    doorkeeper: Doorkeeper,
    connection: Connection,
) {
    let id = ConnectionId(shard.next_id());
    connections.add(id, &connection);
    let peer = Arc::new(Peer {
        shard,
        id,
        connection,
        connections: connections.clone(),
        client: watch::Sender::new(None),
        doorkeeper,
        identity: OnceLock::new(),
        large: Arc::new(Semaphore::new(LARGE_OPENS)),
    });
    let datagrams = tokio::spawn(datagrams(Arc::clone(&peer)));
    while let Ok((send, recv)) = peer.connection.accept_bi().await {
        tokio::spawn(stream(Arc::clone(&peer), send, recv));
    }
    datagrams.abort();
    connections.remove(id);
    tracing::debug!(connection = id.0, reason = ?peer.connection.close_reason(), "connection ended");
    // When the driver is gone, so are the leases.
    let _ = peer.shard.command(Command::Disconnect { connection: id }).await;
}

async fn stream(peer: Arc<Peer>, mut send: SendStream, recv: RecvStream) {
    let ended = match first(&peer, FrameReader::new(recv, SMALL_OPEN)).await {
        Ok((first, frames, _large)) => open(&peer, &mut send, frames, &first).await,
        Err(ended) => ended,
    };
    match ended {
        Ended::Broken(refusal) => {
            tracing::debug!(connection = peer.id.0, code = %refusal.code, detail = %refusal.detail, "peer broke the protocol");
            close(&peer.connection, &refusal);
        }
        Ended::Stopped => close(&peer.connection, &Code::ShuttingDown.into()),
        Ended::Finished => {
            let _ = send.finish();
        }
        Ended::Lost => {}
    }
}

/// A stream's first frame. A large one, which only an admin call can be, needs a greeted connection and one of its few permits.
async fn first(
    peer: &Arc<Peer>,
    mut frames: FrameReader,
) -> Result<(Bytes, FrameReader, Option<OwnedSemaphorePermit>), Ended> {
    let late =
        |_| Ended::Broken(Refusal::new(Code::BadFrame, "a stream was opened, and no whole frame came"));
    let length = tokio::time::timeout(OPEN_WITHIN, frames.announced()).await.map_err(late)??;
    if length <= SMALL_OPEN {
        let first = tokio::time::timeout(OPEN_WITHIN, frames.next()).await.map_err(late)??;
        return Ok((first, frames, None));
    }
    if !greeted(peer).await {
        return Err(not_greeted());
    }
    let permit = peer.room_for_much().await;
    frames.set_limit(MAX_ADMIN_FRAME);
    let first = tokio::time::timeout(LARGE_WITHIN, frames.next()).await.map_err(late)??;
    Ok((first, frames, Some(permit)))
}

fn not_greeted() -> Ended {
    Ended::Broken(Refusal::new(Code::BadFrame, "the connection's first frame must be Hello"))
}

async fn open(peer: &Arc<Peer>, send: &mut SendStream, mut frames: FrameReader, first: &[u8]) -> Ended {
    let (open, header) = match decode::<Open<'_>>(first) {
        Ok(decoded) => decoded,
        Err(error) => return error.into(),
    };
    frames.set_limit(chaski_protocol::MAX_COMMAND_FRAME);
    if !matches!(open, Open::Hello { .. }) && !greeted(peer).await {
        return not_greeted();
    }
    match open {
        Open::Hello { version, client, sdk, token } => {
            if let Err(refusal) = control::admit(peer, version, client, sdk, token) {
                return Ended::Broken(refusal);
            }
            control::serve(peer, send, frames).await
        }
        Open::Publish => publish::serve(peer, send, frames).await,
        Open::Consume { queue, credit, filters } => {
            consume::serve(peer, send, frames, queue, credit, &filters).await
        }
        Open::Subscribe { pattern, filters } => subscribe::serve(peer, send, frames, pattern, &filters).await,
        Open::Upload { bytes } => upload::serve(peer, send, frames, bytes).await,
        Open::Admin => admin(peer, send, &first[header..]).await,
    }
}

async fn greeted(peer: &Peer) -> bool {
    let mut client = peer.client.subscribe();
    let greeted = tokio::time::timeout(OPEN_WITHIN, client.wait_for(Option::is_some)).await;
    matches!(greeted, Ok(Ok(_)))
}

async fn admin(peer: &Peer, send: &mut SendStream, request: &[u8]) -> Ended {
    let request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => {
            let detail = format!("the admin request is not understood: {error}");
            refuse(send, &Refusal::new(Code::BadRequest, detail)).await;
            return Ended::Finished;
        }
    };
    let identity = peer.identity.get().unwrap_or(&Identity::Anybody);
    let author = match identity {
        Identity::Anybody => format!("{identity} {}", peer.connection.remote_address()),
        known => format!("{known} at {}", peer.connection.remote_address()),
    };
    match crate::admin::answer(&peer.shard, &peer.connections, &author, request).await {
        Ok(json) => {
            let json = serde_json::to_vec(&json).expect("JSON values can be written");
            match answer(send, &Opening::Answer, &json).await {
                Ok(()) => Ended::Finished,
                Err(ended) => ended,
            }
        }
        Err(refusal) => {
            refuse(send, &refusal).await;
            Ended::Finished
        }
    }
}

/// At most once: what is not valid is dropped, with a word in the log.
async fn datagrams(peer: Arc<Peer>) {
    while let Ok(block) = peer.connection.read_datagram().await {
        if peer.client.borrow().is_none() {
            continue;
        }
        let view = peer.shard.view();
        let (head, payload_at) = match message::check(&block, view.max_payload, view.max_headers, None) {
            Ok(checked) => checked,
            Err(refusal) => {
                tracing::debug!(connection = peer.id.0, code = %refusal.code, detail = %refusal.detail, "datagram refused");
                continue;
            }
        };
        let message = message::to_broker(&block, &head);
        let taken = Millis(crate::modules::now_ms());
        let resolved = view.resolve(head.topic);
        let mut batch = Batch::default();
        let way = batch.way(0, &resolved, (&message.body, message.fields), (&head, payload_at), taken);
        let publish = Publish {
            publisher: None,
            connection: Some(peer.id),
            number: 0,
            rules: view.version(),
            mandatory: false,
            message,
            hash: None,
            way,
            job: None,
        };
        batch.push(Command::Publish(publish));
        let (commands, refused) = judged::judge(peer.shard.modules(), &view.filters, batch).await;
        for (_, refusal) in refused {
            tracing::debug!(connection = peer.id.0, code = %refusal.code, detail = %refusal.detail, "datagram refused");
        }
        for command in commands {
            if peer.shard.command(command).await.is_err() {
                return;
            }
        }
    }
}
