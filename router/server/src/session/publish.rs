//! A publish stream: every frame that is ready becomes a command, a batch of commands goes to the driver at once, and answers
//! come back in order, cumulatively.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use chaski_broker::{
    Command, Confirmation, Lease, Millis, Publish, PublisherId, Sequence, Transaction, TransactionError, Way,
};
use chaski_protocol::frames::{Counts, Opening, Outcome as Told, PublishAnswer, PublishFrame, Run};
use chaski_protocol::{
    Code, MAX_IN_FLIGHT, MAX_MESSAGE_FRAME, MAX_TRANSACTION_PARTS, Refusal, check_message_id, decode,
    encode_frame,
};
use quinn::SendStream;
use tokio::sync::mpsc;

use crate::driver::publish_refusal;
use crate::message;
use crate::modules::{Resolved, now_ms};
use crate::session::connection::Peer;
use crate::session::frames::{Ended, FrameReader, answer, write};
use crate::session::judged::{self, Batch};
use crate::session::ring::Ring;
use crate::shard::{Answered, Input, Outcome, Shard, View};

/// Commands handed over in one go.
const COMMANDS_A_BATCH: usize = 512;

/// Answers go into another frame beyond this: well below the protocol's limit of one (4 MiB).
const ANSWER_BYTES: usize = 1 << 20;

/// A run's own fields are never larger.
const RUN_BYTES: usize = 48;

/// Bytes of unanswered frames on one stream: beyond it the stream is not read, so the client stops by QUIC's own flow control.
const MAX_IN_FLIGHT_BYTES: usize = 128 << 20;

pub(crate) async fn serve(peer: &Arc<Peer>, send: &mut SendStream, frames: FrameReader) -> Ended {
    let (answers, answered) = mpsc::unbounded_channel();
    let id = PublisherId(peer.shard.next_id());
    if peer.shard.send(Input::OpenPublisher(id, answers)).await.is_err() {
        return Ended::Stopped;
    }
    if let Err(ended) = answer(send, &Opening::Opened, &[]).await {
        return ended;
    }
    let mut session = Session {
        peer,
        id,
        frames,
        view: peer.shard.view(),
        last_topic: None,
        number: 0,
        taken: Millis(now_ms()),
        ring: Ring::new(),
        sizes: std::collections::VecDeque::new(),
        in_flight_bytes: 0,
        last_batch: 0,
        runs: Vec::new(),
    };
    let ended = session.run(send, answered).await;
    let _ = peer.shard.send(Input::ClosePublisher(id)).await;
    ended
}

struct Session<'a> {
    peer: &'a Peer,
    id: PublisherId,
    frames: FrameReader,
    view: Arc<View>,
    /// Most publishes follow one on the same topic, which is then known to be good.
    last_topic: Option<(Vec<u8>, Resolved)>,
    number: u64,
    /// When what is being read was taken.
    taken: Millis,
    ring: Ring<Outcome>,
    /// Bytes of the frames that are not answered yet.
    sizes: std::collections::VecDeque<u32>,
    in_flight_bytes: usize,
    /// Commands of the last batch: the next has room for as many.
    last_batch: usize,
    /// Empty; keeps its room.
    runs: Vec<Run>,
}

impl Session<'_> {
    async fn run(
        &mut self,
        send: &mut SendStream,
        mut answered: mpsc::UnboundedReceiver<Vec<Answered>>,
    ) -> Ended {
        let mut finished = false;
        loop {
            let room =
                self.sizes.len() < MAX_IN_FLIGHT as usize && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES;
            if finished && self.sizes.is_empty() {
                return Ended::Finished;
            }
            tokio::select! {
                biased;
                answers = answered.recv() => {
                    let Some(answers) = answers else { return Ended::Stopped };
                    self.take(answers);
                    while let Ok(more) = answered.try_recv() {
                        self.take(more);
                    }
                }
                filled = self.frames.fill(), if room && !finished => match filled {
                    Ok(()) => {}
                    // What is under way is still answered.
                    Err(Ended::Finished) => finished = true,
                    Err(ended) => return ended,
                },
            }
            if let Err(ended) = self.read_ready().await {
                return ended;
            }
            if let Some(frame) = self.encode_answers()
                && let Err(ended) = write(send, frame).await
            {
                return ended;
            }
        }
    }

    /// Turns the frames that have arrived into commands.
    async fn read_ready(&mut self) -> Result<(), Ended> {
        self.refresh_view();
        self.taken = Millis(now_ms());
        self.frames.set_limit(MAX_MESSAGE_FRAME);
        let mut batch = Batch::expecting(self.last_batch);
        while self.sizes.len() < MAX_IN_FLIGHT as usize && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES {
            let Some(frame) = self.frames.ready()? else { break };
            self.number += 1;
            self.sizes.push_back(frame.len() as u32);
            self.in_flight_bytes += frame.len();
            match self.command(frame, &mut batch)? {
                Ok(command) => batch.push(command),
                Err(refusal) => {
                    batch.forget();
                    self.ring.put(self.number, Outcome::Refused(refusal));
                }
            }
            if batch.len() == COMMANDS_A_BATCH {
                self.last_batch = COMMANDS_A_BATCH;
                self.hand_over(std::mem::replace(&mut batch, Batch::expecting(COMMANDS_A_BATCH))).await?;
            }
        }
        if batch.len() == 0 {
            return Ok(());
        }
        self.last_batch = batch.len();
        self.hand_over(batch).await
    }

    /// Through the filters, then to the driver.
    async fn hand_over(&mut self, batch: Batch) -> Result<(), Ended> {
        let (commands, refused) = judged::judge(self.peer.shard.modules(), &self.view.filters, batch).await;
        for (number, refusal) in refused {
            self.ring.put(number, Outcome::Refused(refusal));
        }
        if commands.is_empty() {
            return Ok(());
        }
        Ok(self.peer.shard.send(Input::Commands(commands)).await?)
    }

    fn refresh_view(&mut self) {
        let shard: &Shard = &self.peer.shard;
        if self.view.version() != shard.view().version() {
            self.view = shard.view();
            self.last_topic = None;
        }
    }

    /// The command that a frame makes; its messages that filters concern go into the batch.
    fn command(&mut self, mut frame: Bytes, batch: &mut Batch) -> Result<Result<Command, Refusal>, Ended> {
        let (header, length) = decode::<PublishFrame<'_>>(&frame)?;
        match header {
            PublishFrame::Publish { mandatory } => {
                frame.advance(length);
                Ok(self.message(frame, 0, batch).map(|(message, way)| {
                    let hash = self.view.bindings.message_hash(message.topic(), message.id());
                    Command::Publish(Publish {
                        publisher: Some(self.id),
                        connection: Some(self.peer.id),
                        number: self.number,
                        rules: self.view.version(),
                        mandatory,
                        message,
                        hash: Some(hash),
                        way,
                        job: None,
                    })
                }))
            }
            PublishFrame::Transaction { id, acks, publishes } => {
                let total: usize = publishes.iter().map(|(_, length)| *length as usize).sum();
                if total != frame.len() - length {
                    let detail = format!(
                        "a transaction names {total} bytes of messages and carries {}",
                        frame.len() - length
                    );
                    return Err(Ended::Broken(Refusal::new(Code::BadFrame, detail)));
                }
                Ok(self.transaction(&frame, length, id, &acks, &publishes, batch))
            }
        }
    }

    /// A message, the part with this number of its command, and its way.
    fn message(
        &mut self,
        block: Bytes,
        part: usize,
        batch: &mut Batch,
    ) -> Result<(chaski_broker::Message, Way), Refusal> {
        let known = self.last_topic.as_ref().map(|(topic, _)| &topic[..]);
        let (head, payload_at) = message::check(&block, self.view.max_payload, self.view.max_headers, known)?;
        let fields = message::fields(&block, &head);
        let resolved = match &mut self.last_topic {
            Some((topic, resolved)) if topic == head.topic.as_bytes() => resolved,
            last => &mut last.insert((head.topic.as_bytes().to_vec(), self.view.resolve(head.topic))).1,
        };
        let way = batch.way(part, resolved, (&block, fields), (&head, payload_at), self.taken);
        Ok((chaski_broker::Message { body: block, fields }, way))
    }

    fn transaction(
        &mut self,
        frame: &Bytes,
        mut at: usize,
        id: &str,
        acks: &[chaski_protocol::frames::Token<'_>],
        publishes: &[(bool, u32)],
        batch: &mut Batch,
    ) -> Result<Command, Refusal> {
        let parts = acks.len() + publishes.len();
        if parts > MAX_TRANSACTION_PARTS {
            let detail = format!("a transaction has at most {MAX_TRANSACTION_PARTS} parts, this one {parts}");
            return Err(Refusal::new(Code::LimitExceeded, detail));
        }
        check_message_id(id)
            .map_err(|detail| Refusal::new(Code::BadMessage, format!("transaction id: {detail}")))?;
        let mut messages = Vec::with_capacity(publishes.len());
        for (index, (mandatory, length)) in publishes.iter().enumerate() {
            let block = frame.slice(at..at + *length as usize);
            at += *length as usize;
            let (message, way) = self.message(block, index, batch).map_err(|refusal| {
                Refusal::new(refusal.code, format!("message {index} of the transaction: {}", refusal.detail))
            })?;
            messages.push((message, way, *mandatory));
        }
        let acks = acks
            .iter()
            .map(|token| {
                (self.view.bindings.queue_id(token.queue), Sequence(token.sequence), Lease(token.lease))
            })
            .collect();
        Ok(Command::Transaction(Transaction {
            publisher: self.id,
            number: self.number,
            connection: self.peer.id,
            id: frame.slice_ref(id.as_bytes()),
            rules: self.view.version(),
            acks,
            publishes: messages,
            job: None,
        }))
    }

    fn take(&mut self, answers: Vec<Answered>) {
        for Answered { number, outcome } in answers {
            self.ring.put(number, outcome);
        }
    }

    /// The answers that are due, in order: one frame, or several when their sentences are long.
    fn encode_answers(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut runs = std::mem::take(&mut self.runs);
        let mut words = 0;
        while let Some(outcome) = self.ring.next() {
            let size = self.sizes.pop_front().expect("every answered frame is in flight");
            self.in_flight_bytes -= size as usize;
            words += words_of(&outcome);
            push_outcome(&mut runs, outcome);
            if words + runs.len() * RUN_BYTES >= ANSWER_BYTES {
                runs = self.encode_runs(runs, &mut out);
                words = 0;
            }
        }
        if !runs.is_empty() {
            runs = self.encode_runs(runs, &mut out);
        }
        self.runs = runs;
        (!out.is_empty()).then_some(out)
    }

    /// Adds a frame with these runs; gives their room back, empty.
    fn encode_runs(&self, runs: Vec<Run>, out: &mut Vec<u8>) -> Vec<Run> {
        out.reserve(32 + runs.len() * 16);
        let answer = PublishAnswer { through: self.ring.through(), runs };
        encode_frame(&answer, &[], out);
        let mut runs = answer.runs;
        runs.clear();
        runs
    }
}

/// Bytes of an outcome that its run's own fields don't bound.
fn words_of(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Refused(refusal) => refusal.detail.len(),
        Outcome::Publish(Err(error)) => publish_refusal(error).detail.len(),
        Outcome::Publish(Ok(_)) => 0,
        Outcome::Transaction(Ok(confirmations)) => confirmations.len() * RUN_BYTES,
        Outcome::Transaction(Err(_)) => MAX_TRANSACTION_PARTS * RUN_BYTES,
    }
}

fn push_outcome(runs: &mut Vec<Run>, outcome: Outcome) {
    let told = match outcome {
        Outcome::Publish(Ok(confirmation)) => return push_confirmation(runs, confirmation),
        Outcome::Publish(Err(error)) => refused(&publish_refusal(&error)),
        Outcome::Refused(refusal) => refused(&refusal),
        Outcome::Transaction(Ok(confirmations)) => {
            let mut parts = Vec::with_capacity(confirmations.len());
            confirmations.iter().for_each(|confirmation| push_confirmation(&mut parts, *confirmation));
            Told::Transacted { parts }
        }
        Outcome::Transaction(Err(TransactionError::LeaseLost(acks))) => Told::LeaseLost { acks },
        Outcome::Transaction(Err(TransactionError::Publish { index, error })) => {
            let refusal = publish_refusal(&error);
            refused(&Refusal::new(
                refusal.code,
                format!("message {index} of the transaction: {}", refusal.detail),
            ))
        }
        Outcome::Transaction(Err(TransactionError::Disk(error))) => refused(&publish_refusal(&error)),
    };
    match runs.last_mut() {
        Some(Run { count, outcome }) if matches!(told, Told::Refused { .. }) && *outcome == told => {
            *count += 1
        }
        _ => runs.push(Run { count: 1, outcome: told }),
    }
}

fn refused(refusal: &Refusal) -> Told {
    Told::Refused { code: refusal.code.number(), detail: refusal.detail.clone() }
}

/// Adds to the last run when it continues it: same kind and counts, sequences at one distance.
fn push_confirmation(runs: &mut Vec<Run>, confirmation: Confirmation) {
    let Confirmation { sequence, duplicate, routed, dropped, rejected } = confirmation;
    let sequence = sequence.map(|sequence| sequence.0);
    let counts = Counts { routed, dropped, rejected };
    if let Some(Run { count, outcome }) = runs.last_mut() {
        let (first, step) = match outcome {
            Told::Confirmed { first, step, counts: same } if !duplicate && *same == counts => (*first, step),
            Told::Duplicate { first, step } if duplicate => (*first, step),
            _ => return runs.push(Run { count: 1, outcome: run(sequence, duplicate, counts) }),
        };
        let continues = match (first, sequence) {
            (None, None) => true,
            (Some(first), Some(sequence)) if *count == 1 && sequence > first => {
                *step = sequence - first;
                true
            }
            (Some(first), Some(sequence)) => *count > 1 && sequence == first + u64::from(*count) * *step,
            _ => false,
        };
        if continues {
            *count += 1;
            return;
        }
    }
    runs.push(Run { count: 1, outcome: run(sequence, duplicate, counts) });
}

fn run(first: Option<u64>, duplicate: bool, counts: Counts) -> Told {
    if duplicate { Told::Duplicate { first, step: 0 } } else { Told::Confirmed { first, step: 0, counts } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64) -> Confirmation {
        Confirmation {
            sequence: Some(Sequence(sequence)),
            duplicate: false,
            routed: 1,
            dropped: 0,
            rejected: 0,
        }
    }

    #[test]
    fn confirms_are_run_length_coded() {
        let mut runs = Vec::new();
        for sequence in [10, 12, 14, 15, 17, 19, 3] {
            push_confirmation(&mut runs, stored(sequence));
        }
        push_confirmation(&mut runs, Confirmation { duplicate: true, routed: 0, ..stored(3) });
        let shape: Vec<_> = runs.iter().map(|run| run.count).collect();
        assert_eq!(shape, [3, 3, 1, 1]);
        let counts = Counts { routed: 1, dropped: 0, rejected: 0 };
        assert_eq!(runs[1].outcome, Told::Confirmed { first: Some(15), step: 2, counts });
    }
}
