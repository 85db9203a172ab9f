//! A consume stream: deliveries one way, settlements the other.
//!
//! Deliveries keep the driver's order, since the broker counts what was handed to the stream from the oldest on. Bodies that are
//! no longer in memory are read by the journal's reader threads while this stream, and only this one, waits.

use std::sync::Arc;

use bytes::Bytes;
use chaski_broker::{
    Attach, Body, Command, ConsumerId, Delivery, Lease, Millis, Sequence, Settle, SettleError, UnknownQueue,
    Verdict as BrokerVerdict,
};
use chaski_protocol::frames::{ConsumeCommand, ConsumeFrame, Delivery as DeliveryFrame, Opening, Verdict};
use chaski_protocol::{
    Code, MAX_CREDIT, MAX_EXTEND, MAX_MESSAGE_FRAME, MAX_REASON, Refusal, decode, encode_frame,
};
use quinn::SendStream;
use tokio::sync::mpsc;

use crate::render;
use crate::session::connection::Peer;
use crate::session::frames::{Ended, FrameReader, answer, refuse, write};
use crate::session::named::{self, Fate};
use crate::session::ring::Ring;
use crate::shard::{ConsumerEvent, Input, read_bodies};

/// Settlements without an answer on one stream; beyond it the stream is not read.
const MAX_UNANSWERED: usize = 2 * MAX_CREDIT as usize;

/// Deliveries are gathered into writes of about this size.
const WRITE_BYTES: usize = 64 << 10;

pub(crate) async fn serve(
    peer: &Arc<Peer>,
    send: &mut SendStream,
    mut frames: FrameReader,
    queue: &str,
    credit: u32,
    filters: &[&str],
) -> Ended {
    let filters = match named::check(&peer.shard.view(), filters) {
        Ok(filters) => filters,
        Err(refusal) => {
            refuse(send, &refusal).await;
            return Ended::Finished;
        }
    };
    if credit > MAX_CREDIT {
        let detail = format!("a credit is at most {MAX_CREDIT}, this one {credit}");
        refuse(send, &Refusal::new(Code::LimitExceeded, detail)).await;
        return Ended::Finished;
    }
    frames.set_limit(MAX_MESSAGE_FRAME);
    let (events, mut inbox) = mpsc::unbounded_channel();
    let consumer = ConsumerId(peer.shard.next_id());
    let attach = Attach { consumer, connection: peer.id, queue: queue.to_owned(), credit };
    if peer.shard.send(Input::OpenConsumer(attach, events)).await.is_err() {
        return Ended::Stopped;
    }
    let Some(first) = inbox.recv().await else { return Ended::Stopped };
    let mut first = first.into_iter();
    match first.next() {
        Some(ConsumerEvent::Attached(Ok(attached))) => {
            let mut session = Session {
                peer,
                consumer,
                queue: queue.to_owned(),
                filters,
                frames,
                number: 0,
                unanswered: 0,
                ring: Ring::new(),
                closing: false,
                out: Vec::new(),
            };
            let opened = answer(send, &Opening::Consuming { ack_wait_ms: attached.ack_wait_ms }, &[]).await;
            let ended = match opened {
                Ok(()) => session.run(send, inbox, first.collect()).await,
                Err(ended) => ended,
            };
            let release = matches!(ended, Ended::Finished | Ended::Stopped);
            let _ = peer.shard.send(Input::CloseConsumer { consumer, release }).await;
            ended
        }
        Some(ConsumerEvent::Attached(Err(UnknownQueue))) => {
            let _ = peer.shard.send(Input::CloseConsumer { consumer, release: true }).await;
            refuse(send, &crate::admin::unknown_queue(queue)).await;
            Ended::Finished
        }
        _ => unreachable!("the first event of a consumer answers its attach"),
    }
}

struct Session<'a> {
    peer: &'a Peer,
    consumer: ConsumerId,
    queue: String,
    /// The filters that it named.
    filters: Vec<String>,
    frames: FrameReader,
    number: u64,
    unanswered: usize,
    ring: Ring<Result<(), Code>>,
    /// The client wants no more: what still comes is released.
    closing: bool,
    out: Vec<u8>,
}

impl Session<'_> {
    async fn run(
        &mut self,
        send: &mut SendStream,
        mut inbox: mpsc::UnboundedReceiver<Vec<ConsumerEvent>>,
        first: Vec<ConsumerEvent>,
    ) -> Ended {
        if let Err(ended) = self.events(send, first).await {
            return ended;
        }
        loop {
            let result = tokio::select! {
                biased;
                events = inbox.recv() => {
                    let Some(mut events) = events else { return Ended::Stopped };
                    while let Ok(more) = inbox.try_recv() {
                        events.extend(more);
                    }
                    self.events(send, events).await
                }
                filled = self.frames.fill(), if self.unanswered < MAX_UNANSWERED => match filled {
                    Ok(()) => self.commands(send).await,
                    Err(ended) => Err(ended),
                },
            };
            if let Err(ended) = result {
                return ended;
            }
        }
    }

    /// What the driver says: deliveries, answers, the end.
    async fn events(&mut self, send: &mut SendStream, events: Vec<ConsumerEvent>) -> Result<(), Ended> {
        let bodies = self.fetch(&events).await?;
        let mut bodies = self.bodies(&events, bodies).await.into_iter();
        let mut sent = 0;
        for event in events {
            match event {
                ConsumerEvent::Deliver(delivery) => {
                    sent += 1;
                    let fate = bodies.next().expect("one for each delivery");
                    match fate {
                        Some(_) if self.closing => self.settle(&delivery, BrokerVerdict::Release).await?,
                        Some(Fate::Deliver(body)) => self.encode_delivery(&delivery, &body),
                        Some(fate) => self.filtered(&delivery, fate).await?,
                        None => {}
                    }
                }
                ConsumerEvent::Settled { number: 0, .. } => {}
                ConsumerEvent::Settled { number, outcome } => {
                    self.unanswered -= 1;
                    self.ring.put(number, outcome.map_err(settle_code));
                }
                ConsumerEvent::Lost(leases) => {
                    let leases = leases.iter().map(|(sequence, lease)| (sequence.0, lease.0)).collect();
                    encode_frame(&ConsumeFrame::Lost { leases }, &[], &mut self.out);
                }
                ConsumerEvent::Detached => {
                    let closed = ConsumeFrame::Closed {
                        code: Code::UnknownQueue.number(),
                        detail: "the queue was deleted",
                    };
                    encode_frame(&closed, &[], &mut self.out);
                    self.flush(send).await?;
                    return Err(Ended::Finished);
                }
                ConsumerEvent::Attached(_) => unreachable!("a consumer is attached once"),
            }
            if self.out.len() >= WRITE_BYTES {
                self.flush(send).await?;
                self.sent(&mut sent).await?;
            }
        }
        self.encode_settled();
        self.flush(send).await?;
        self.sent(&mut sent).await
    }

    /// Tells the broker that deliveries were handed to the stream: their leases start.
    async fn sent(&self, count: &mut u32) -> Result<(), Ended> {
        if *count > 0 {
            self.peer.shard.command(Command::Sent { consumer: self.consumer, count: *count }).await?;
            *count = 0;
        }
        Ok(())
    }

    /// One fate for each delivery, in order; `None` for a body that is lost.
    async fn bodies(&self, events: &[ConsumerEvent], fetched: Vec<Option<Bytes>>) -> Vec<Option<Fate>> {
        let mut fetched = fetched.into_iter();
        let deliveries = events.iter().filter_map(|event| match event {
            ConsumerEvent::Deliver(delivery) => Some(delivery),
            _ => None,
        });
        let bodies: Vec<Option<(Bytes, Millis)>> = deliveries
            .map(|delivery| {
                let body = match &delivery.body {
                    Body::Here(body) => Some(body.clone()),
                    Body::At(_) => fetched.next().expect("one body for each that was fetched"),
                };
                body.map(|body| (body, delivery.published_at))
            })
            .collect();
        if self.filters.is_empty() || self.closing {
            return bodies.into_iter().map(|body| body.map(|(body, _)| Fate::Deliver(body))).collect();
        }
        let whole = bodies.iter().flatten().cloned().collect();
        let mut fates = named::judge(&self.peer.shard, &self.filters, whole).await.into_iter();
        bodies.into_iter().map(|body| body.and_then(|_| fates.next())).collect()
    }

    /// A delivery that a filter keeps from the consumer.
    async fn filtered(&self, delivery: &Delivery, fate: Fate) -> Result<(), Ended> {
        let outcome = match &fate {
            Fate::Drop => "dropped",
            Fate::Dead { .. } => "rejected",
            _ => "later",
        };
        let queue = self.queue.clone();
        metrics::counter!("chaski_consumer_filtered_total", "queue" => queue, "outcome" => outcome)
            .increment(1);
        match fate.settlement() {
            Some(verdict) => self.settle(delivery, verdict).await,
            None => Ok(()),
        }
    }

    /// Reads the bodies that are not in memory, in order; one that is lost is `None`, and the broker is told.
    async fn fetch(&self, events: &[ConsumerEvent]) -> Result<Vec<Option<Bytes>>, Ended> {
        let mut positions = Vec::new();
        for event in events {
            if let ConsumerEvent::Deliver(Delivery { body: Body::At(position), .. }) = event {
                positions.push(*position);
            }
        }
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let read = read_bodies(self.peer.shard.reader(), positions.clone()).await?;
        let mut bodies = Vec::with_capacity(read.len());
        for (position, body) in positions.into_iter().zip(read) {
            match body {
                Ok(body) => bodies.push(Some(body)),
                Err(error) => {
                    tracing::error!(position = position.0, %error, "a message is lost");
                    self.peer.shard.command(Command::BodyLost { position }).await?;
                    bodies.push(None);
                }
            }
        }
        Ok(bodies)
    }

    fn encode_delivery(&mut self, delivery: &Delivery, body: &Bytes) {
        let headers = delivery.dead.as_deref().map(render::dead_headers).unwrap_or_default();
        let frame = DeliveryFrame {
            sequence: delivery.sequence.0,
            lease: delivery.lease.0,
            attempt: delivery.attempt,
            redelivered: delivery.redelivered,
            published_at_ms: delivery.published_at.0,
            headers: headers.iter().map(|(name, value)| (*name, value.as_str())).collect(),
        };
        encode_frame(&ConsumeFrame::Delivery(frame), &[body], &mut self.out);
    }

    /// Ends a lease for the router's own reasons.
    async fn settle(&self, delivery: &Delivery, verdict: BrokerVerdict) -> Result<(), Ended> {
        let Delivery { sequence, lease, .. } = *delivery;
        let settle = Settle { consumer: self.consumer, number: 0, sequence, lease, verdict };
        Ok(self.peer.shard.command(Command::Settle(settle)).await?)
    }

    fn encode_settled(&mut self) {
        let before = self.ring.through();
        let mut refused = Vec::new();
        while let Some(outcome) = self.ring.next() {
            if let Err(code) = outcome {
                refused.push((self.ring.through(), code.number()));
            }
        }
        if self.ring.through() > before {
            encode_frame(
                &ConsumeFrame::Settled { through: self.ring.through(), refused },
                &[],
                &mut self.out,
            );
        }
    }

    async fn flush(&mut self, send: &mut SendStream) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        write(send, std::mem::take(&mut self.out)).await
    }

    /// Everything that has arrived from the client.
    async fn commands(&mut self, send: &mut SendStream) -> Result<(), Ended> {
        let mut commands = Vec::new();
        let max_payload = self.peer.shard.view().max_payload as usize;
        while let Some(frame) = self.frames.ready()? {
            let (command, length) = decode::<ConsumeCommand<'_>>(&frame)?;
            let rest = &frame[length..];
            if !rest.is_empty() && !completes(&command) {
                return Err(broken("bytes follow a command on a consume stream that has none"));
            }
            match command {
                ConsumeCommand::Settle { .. } if rest.len() > max_payload => {
                    self.number += 1;
                    self.ring.put(self.number, Err(Code::PayloadTooLarge));
                }
                ConsumeCommand::Settle { sequence, lease, verdict } => {
                    self.number += 1;
                    self.unanswered += 1;
                    commands.push(Command::Settle(Settle {
                        consumer: self.consumer,
                        number: self.number,
                        sequence: Sequence(sequence),
                        lease: Lease(lease),
                        verdict: to_broker(verdict, rest)?,
                    }));
                }
                ConsumeCommand::Extend { leases } if leases.len() <= MAX_EXTEND => {
                    let leases = leases
                        .into_iter()
                        .map(|(sequence, lease)| (Sequence(sequence), Lease(lease)))
                        .collect();
                    commands.push(Command::Extend { consumer: self.consumer, leases });
                }
                ConsumeCommand::Extend { .. } => return Err(broken("an Extend names too many leases")),
                ConsumeCommand::SetCredit { credit } if credit <= MAX_CREDIT => {
                    commands.push(Command::SetCredit { consumer: self.consumer, credit });
                }
                ConsumeCommand::SetCredit { .. } => {
                    return Err(broken("a SetCredit is above the greatest credit"));
                }
                ConsumeCommand::Close => {
                    self.closing = true;
                    commands.push(Command::SetCredit { consumer: self.consumer, credit: 0 });
                    encode_frame(&ConsumeFrame::Closed { code: 0, detail: "" }, &[], &mut self.out);
                }
            }
        }
        if !commands.is_empty() {
            self.peer.shard.send(Input::Commands(commands)).await?;
        }
        self.encode_settled();
        self.flush(send).await
    }
}

/// Whether a payload may follow.
fn completes(command: &ConsumeCommand<'_>) -> bool {
    matches!(command, ConsumeCommand::Settle { verdict: Verdict::Complete, .. })
}

fn broken(detail: &str) -> Ended {
    Ended::Broken(Refusal::new(Code::LimitExceeded, detail))
}

/// `rest`: what follows the verdict.
fn to_broker(verdict: Verdict<'_>, rest: &[u8]) -> Result<BrokerVerdict, Ended> {
    let reason = |reason: &str| {
        if reason.len() > MAX_REASON {
            return Err(broken("a reason is longer than 1,024 bytes"));
        }
        Ok(reason.to_owned())
    };
    Ok(match verdict {
        Verdict::Ack => BrokerVerdict::Ack,
        Verdict::Nack { delay_ms } => BrokerVerdict::Nack {
            delay_ms: delay_ms.map(|delay| delay.min(chaski_protocol::MAX_DURATION_MS)),
        },
        Verdict::Reject { reason: text } => BrokerVerdict::Reject { reason: reason(text)? },
        Verdict::Fail { reason: text, retryable } => BrokerVerdict::Fail { reason: reason(text)?, retryable },
        Verdict::Release => BrokerVerdict::Release,
        // A copy: results are kept, and a part of the stream's buffer would keep all of it.
        Verdict::Complete => BrokerVerdict::Complete { payload: Bytes::copy_from_slice(rest) },
    })
}

fn settle_code(error: SettleError) -> Code {
    match error {
        SettleError::LeaseLost => Code::LeaseLost,
        SettleError::NotAllowed => Code::NotAllowed,
        SettleError::TooLarge => Code::PayloadTooLarge,
        SettleError::DiskFull => Code::DiskFull,
    }
}
