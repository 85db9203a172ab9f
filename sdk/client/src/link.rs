//! The connection, kept up: what all streams of a client share, and the task that connects again with backoff.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use chaski_protocol::frames::{Notice, Open, Opening};
use chaski_protocol::{Code, Refusal, check_token, decode};
use chaski_protocol::{
    DEFAULT_MAX_HEADERS, DEFAULT_MAX_PAYLOAD, MAX_COMMAND_FRAME, MIN_DEDUP_WINDOW_MS, VERSION,
};
use quinn::{Connection, SendStream, VarInt};
use tokio::sync::watch;

use crate::consumer::ConsumerState;
use crate::error::ConnectError;
use crate::frames::{self, Ended, FrameReader};
use crate::id;
use crate::inbox::Inbox;
use crate::options::Options;
use crate::publisher::Publisher;
use crate::transport::Transport;

/// One connection that said hello.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    /// Connections of a client are numbered from 1.
    pub(crate) generation: u64,
}

#[derive(Clone)]
pub(crate) enum LinkState {
    Up(Arc<Link>),
    Down,
    Closed,
}

/// Why there is no connection to use.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoLink {
    Timeout,
    Closed,
}

/// What the client's handles and tasks share. It owns no task.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) client_id: u128,
    pub(crate) transport: Transport,
    pub(crate) publisher: Publisher,
    pub(crate) consumers: Mutex<Vec<Weak<ConsumerState>>>,
    pub(crate) inbox: Inbox,
    link: watch::Sender<LinkState>,
    dedup_window_ms: AtomicU64,
    max_payload: AtomicU32,
    max_headers: AtomicU32,
}

/// The control stream of a connection. Finishing it early would tell nothing, so the sending side is only kept.
pub(crate) struct Control {
    _send: SendStream,
    reader: FrameReader,
}

impl Shared {
    pub(crate) fn new(url: &str, options: Options) -> Result<Shared, ConnectError> {
        if let Some(token) = &options.token {
            check_token(&token.0)?;
        }
        Ok(Shared {
            client_id: options.client_id.unwrap_or_else(id::client_id),
            transport: Transport::new(url, &options)?,
            publisher: Publisher::new(&options),
            consumers: Mutex::new(Vec::new()),
            inbox: Inbox::new(),
            link: watch::Sender::new(LinkState::Down),
            dedup_window_ms: AtomicU64::new(MIN_DEDUP_WINDOW_MS),
            max_payload: AtomicU32::new(DEFAULT_MAX_PAYLOAD),
            max_headers: AtomicU32::new(DEFAULT_MAX_HEADERS),
            options,
        })
    }

    /// The real dedup window, as the router last told it.
    pub(crate) fn dedup_window(&self) -> Duration {
        Duration::from_millis(self.dedup_window_ms.load(Ordering::Relaxed))
    }

    /// Payload and headers in bytes, as the router last told them.
    pub(crate) fn limits(&self) -> (u32, u32) {
        (self.max_payload.load(Ordering::Relaxed), self.max_headers.load(Ordering::Relaxed))
    }

    /// The connection of this moment.
    pub(crate) fn link_now(&self) -> LinkState {
        self.link.borrow().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(*self.link.borrow(), LinkState::Closed)
    }

    /// Waits for a connection; `None` once the client is closed.
    pub(crate) async fn link(&self) -> Option<Arc<Link>> {
        let mut states = self.link.subscribe();
        // The sender is this object's own, so the channel can't end before.
        let state = states.wait_for(|state| !matches!(state, LinkState::Down)).await.ok()?.clone();
        match state {
            LinkState::Up(link) => Some(link),
            LinkState::Down | LinkState::Closed => None,
        }
    }

    /// As [`Shared::link`], for no longer than the client's patience.
    pub(crate) async fn patient_link(&self) -> Result<Arc<Link>, NoLink> {
        match tokio::time::timeout(self.options.patience, self.link()).await {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(NoLink::Closed),
            Err(_) => Err(NoLink::Timeout),
        }
    }

    /// Waits until this connection is no longer the one to use.
    pub(crate) async fn replaced(&self, old: &Link) {
        let mut states = self.link.subscribe();
        let _ = states
            .wait_for(|state| !matches!(state, LinkState::Up(link) if link.generation == old.generation))
            .await;
    }

    /// Waits until the client is closed.
    pub(crate) async fn closed(&self) {
        let mut states = self.link.subscribe();
        let _ = states.wait_for(|state| matches!(state, LinkState::Closed)).await;
    }

    /// Ends everything: tasks see it, and the router gets a close with code 0.
    pub(crate) fn close(&self) {
        let before = self.link.send_replace(LinkState::Closed);
        if let LinkState::Up(link) = before {
            link.connection.close(VarInt::from_u32(0), b"closed");
        }
        self.publisher.close();
    }

    /// Connects and says hello.
    pub(crate) async fn establish(&self) -> Result<(Connection, Control), ConnectError> {
        let connection = self.transport.connect().await?;
        let hello = Open::Hello {
            version: VERSION,
            client: self.client_id,
            sdk: concat!("chaski-client ", env!("CARGO_PKG_VERSION")),
            token: self.options.token.as_ref().map(|token| token.0.as_str()),
        };
        let welcomed = tokio::time::timeout(
            self.options.connect_timeout,
            frames::open(&connection, &hello, &[], MAX_COMMAND_FRAME),
        );
        let refused = |detail: String| ConnectError::Refused(Refusal::new(Code::BadVersion, detail));
        let (send, reader, first) = match welcomed.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(Ended::Refused(refusal))) => return Err(ConnectError::Refused(refusal)),
            Ok(Err(Ended::Broken(detail))) => {
                return Err(refused(format!("its welcome was not understood: {detail}")));
            }
            Ok(Err(Ended::Lost)) => {
                let reason = connection.closed().await;
                return Err(self.transport.judge(reason));
            }
            Err(_) => {
                let reason = "it took the connection and said nothing".to_owned();
                return Err(ConnectError::Unreachable { address: self.transport.address(), reason });
            }
        };
        match decode::<Opening<'_>>(&first) {
            Ok((Opening::Welcome { server, dedup_window_ms, max_payload, max_headers }, _)) => {
                tracing::debug!(%server, dedup_window_ms, "connected");
                self.dedup_window_ms.store(dedup_window_ms, Ordering::Relaxed);
                self.max_payload.store(max_payload, Ordering::Relaxed);
                self.max_headers.store(max_headers, Ordering::Relaxed);
            }
            other => return Err(refused(format!("its welcome was not understood: {other:?}"))),
        }
        Ok((connection, Control { _send: send, reader }))
    }

    /// Keeps the connection up until the client is closed.
    pub(crate) async fn keep_up(self: Arc<Shared>, mut first: Option<(Connection, Control)>) {
        let mut generation = 0;
        let mut attempt = 0;
        loop {
            let connected = match first.take() {
                Some(connected) => Ok(connected),
                None => tokio::select! {
                    connected = self.establish() => connected,
                    () = self.closed() => return,
                },
            };
            match connected {
                Ok((connection, control)) => {
                    generation += 1;
                    attempt = 0;
                    if !self.raise(Link { connection: connection.clone(), generation }) {
                        connection.close(VarInt::from_u32(0), b"closed");
                        return;
                    }
                    self.listen(&connection, control).await;
                    self.lower();
                }
                Err(error) => tracing::debug!(%error, attempt, "not connected"),
            }
            let pause = backoff(self.options.backoff, attempt);
            attempt += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closed() => return,
            }
        }
    }

    fn raise(&self, link: Link) -> bool {
        self.link.send_if_modified(|state| {
            let open = !matches!(state, LinkState::Closed);
            if open {
                *state = LinkState::Up(Arc::new(link));
            }
            open
        })
    }

    fn lower(&self) {
        self.link.send_if_modified(|state| {
            let open = !matches!(state, LinkState::Closed);
            if open {
                *state = LinkState::Down;
            }
            open
        });
    }

    /// Takes the router's notices until the connection ends.
    async fn listen(&self, connection: &Connection, mut control: Control) {
        loop {
            tokio::select! {
                reason = connection.closed() => {
                    if !self.is_closed() {
                        tracing::info!(%reason, "the connection to the router is lost");
                    }
                    return;
                }
                frame = control.reader.next() => {
                    let noticed = frame.map(|frame| decode::<Notice>(&frame).map(|(notice, _)| notice));
                    match noticed {
                        Ok(Ok(notice)) => self.notice(&notice),
                        // A notice that this version doesn't know is none of its business.
                        Ok(Err(chaski_protocol::DecodeError::Unknown(_))) => {}
                        Ok(Err(error)) => return frames::break_off(connection, &error.to_string()),
                        Err(Ended::Broken(detail)) => return frames::break_off(connection, &detail),
                        Err(Ended::Lost | Ended::Refused(_)) => {
                            // The control stream lives as long as its connection.
                            connection.close(VarInt::from_u32(0), b"the control stream ended");
                            return;
                        }
                    }
                }
            }
        }
    }

    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::DedupWindow { window_ms } => self.dedup_window_ms.store(*window_ms, Ordering::Relaxed),
            Notice::Limits { max_payload, max_headers } => {
                self.max_payload.store(*max_payload, Ordering::Relaxed);
                self.max_headers.store(*max_headers, Ordering::Relaxed);
            }
            Notice::ShuttingDown => tracing::info!("the router is stopping"),
        }
    }
}

/// The pause before the next attempt: doubling, with a jitter of a quarter to either side.
pub(crate) fn backoff((first, longest): (Duration, Duration), attempt: u32) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.min(16)).min(longest);
    let quarter = doubled.as_micros() as u64 / 4;
    let jitter = id::random() % (2 * quarter + 1);
    doubled + Duration::from_micros(jitter) - Duration::from_micros(quarter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_longest_with_jitter() {
        let ms = Duration::from_millis;
        for (attempt, middle) in [(0, 100), (1, 200), (5, 3200), (6, 5000), (60, 5000)] {
            for _ in 0..100 {
                let pause = backoff((ms(100), ms(5000)), attempt);
                assert!(pause >= ms(middle * 3 / 4) && pause <= ms(middle * 5 / 4), "{attempt}: {pause:?}");
            }
        }
    }
}
