//! What was published and is not confirmed: frames gathered into chunks, in order, kept until the router answers them. Pure: the
//! publisher's tasks do the writing and reading, and time comes as an argument.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use chaski_protocol::frames::{Counts, Outcome, PublishAnswer, Refused, Run};

use crate::answers::{Answers, Ticket};
use crate::error::PublishError;

/// Frames are gathered into chunks of about this size, and larger ones while a write is under way.
const CHUNK: usize = 128 << 10;

/// Bytes handed to one write.
const WRITE: usize = 1 << 20;

/// A payload from this size on goes out as it is; a smaller one is cheaper to copy into the chunk than to send by itself.
const WHOLE_PAYLOAD: usize = 32 << 10;

/// A chunk takes frames for no longer than this while nobody writes, so that each frame's age is known.
const CHUNK_AGE: Duration = Duration::from_secs(1);

/// While a stream takes what is gathered, the age is looked at only every so many frames: the clock costs as much as a frame.
const LOOK_EVERY: u64 = 32;

/// What became of a frame.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Published(Taken),
    Transacted(Vec<Taken>),
    /// Indexes of the acks whose leases are lost.
    LeaseLost(Vec<u32>),
    Failed(PublishError),
}

/// A message that was taken.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) sequence: Option<u64>,
    pub(crate) duplicate: bool,
    pub(crate) counts: Counts,
}

/// Whole frames that follow each other.
struct Chunk {
    /// The number of its first frame.
    first: u64,
    frames: u64,
    bytes: Bytes,
    /// The end of the last frame, where payloads are sent as they are.
    tail: Vec<Bytes>,
    size: usize,
    since: Instant,
    sent: Option<Instant>,
}

/// The frame to be appended: it writes its beginning to `out`, and leaves what follows in `tail`: payloads that are not copied.
pub(crate) trait Frame {
    fn size(&self) -> usize;
    fn encode(&self, out: &mut Vec<u8>, tail: &mut Vec<Bytes>);
}

pub(crate) struct Outbox {
    answers: Answers<Answer>,
    /// Frames that are being gathered: they follow the last chunk.
    open: Vec<u8>,
    open_frames: u64,
    open_since: Instant,
    chunks: VecDeque<Chunk>,
    /// Chunks before it were handed to the current stream.
    cursor: usize,
    /// The number of the current stream's first frame.
    base: u64,
    bytes: usize,
    max_frames: u64,
    max_bytes: usize,
    /// Numbers of frames whose caller waits for the answer itself, so that `flush` leaves them alone.
    direct: VecDeque<u64>,
    flush_error: Option<PublishError>,
    /// A stream is there to write to.
    streaming: bool,
    /// The writer found nothing and waits to be woken.
    pub(crate) writer_idle: bool,
    /// Somebody waits for room.
    pub(crate) crowded: bool,
    pub(crate) closed: bool,
}

impl Outbox {
    pub(crate) fn new(max_frames: u64, max_bytes: usize, now: Instant) -> Outbox {
        Outbox {
            answers: Answers::new(),
            open: Vec::new(),
            open_frames: 0,
            open_since: now,
            chunks: VecDeque::new(),
            cursor: 0,
            base: 0,
            bytes: 0,
            max_frames,
            max_bytes,
            direct: VecDeque::new(),
            flush_error: None,
            streaming: false,
            writer_idle: false,
            crowded: false,
            closed: false,
        }
    }

    /// Whether a frame of this size may be appended. One that is larger than all the room has it to itself.
    pub(crate) fn has_room(&self, size: usize) -> bool {
        let waiting = self.answers.waiting();
        waiting == 0 || (waiting < self.max_frames && self.bytes + size <= self.max_bytes)
    }

    /// Whether so much room came free that those who wait for it should be woken: a quarter, or they would be woken for each.
    pub(crate) fn is_roomy(&self) -> bool {
        self.answers.waiting() <= self.max_frames - self.max_frames.div_ceil(4)
            && self.bytes <= self.max_bytes - self.max_bytes.div_ceil(4)
    }

    pub(crate) fn issued(&self) -> u64 {
        self.answers.issued()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answers.answered()
    }

    pub(crate) fn take_flush_error(&mut self) -> Option<PublishError> {
        self.flush_error.take()
    }

    /// Appends a frame; the caller made sure of room.
    pub(crate) fn push(
        &mut self,
        frame: &impl Frame,
        direct: bool,
        now: impl Fn() -> Instant,
    ) -> Ticket<Answer> {
        let look = !self.streaming || self.open_frames.is_multiple_of(LOOK_EVERY);
        if self.open.len() >= CHUNK || (look && self.open_frames > 0 && now() - self.open_since > CHUNK_AGE) {
            self.seal(Vec::new());
        }
        if self.open_frames == 0 {
            self.open_since = now();
            // A chunk is likely to be as large as the last one.
            let like = self.chunks.back().map_or(0, |chunk| chunk.bytes.len());
            self.open = Vec::with_capacity((like + like / 8).clamp(1 << 10, CHUNK + CHUNK / 8));
        }
        if direct {
            self.direct.push_back(self.answers.issued());
        }
        let before = self.open.len();
        let mut tail = Vec::new();
        frame.encode(&mut self.open, &mut tail);
        self.bytes += self.open.len() - before;
        self.open_frames += 1;
        let ticket = self.answers.issue();
        if !tail.is_empty() {
            self.bytes += length(&tail);
            self.seal(tail);
        }
        ticket
    }

    fn seal(&mut self, tail: Vec<Bytes>) {
        if self.open_frames == 0 {
            return;
        }
        let bytes = Bytes::from(std::mem::take(&mut self.open));
        self.chunks.push_back(Chunk {
            first: self.answers.issued() - self.open_frames,
            frames: self.open_frames,
            size: bytes.len() + length(&tail),
            bytes,
            tail,
            since: self.open_since,
            sent: None,
        });
        self.open_frames = 0;
    }

    /// A new stream begins: whatever is unanswered goes out again, first of all.
    pub(crate) fn begin(&mut self) {
        self.base = self.answers.answered();
        self.cursor = 0;
        self.streaming = true;
        self.writer_idle = false;
    }

    /// The stream is gone.
    pub(crate) fn end(&mut self) {
        self.streaming = false;
    }

    /// The bytes to write next; nothing when all is written, and the writer counts as idle then.
    pub(crate) fn take(&mut self, now: Instant, out: &mut Vec<Bytes>) {
        self.seal(Vec::new());
        let mut taken = 0;
        while taken < WRITE {
            let Some(chunk) = self.chunks.get_mut(self.cursor) else { break };
            let answered = self.base.saturating_sub(chunk.first).min(chunk.frames);
            if answered > 0 {
                // Frames that an earlier stream answered are not sent again.
                self.bytes -= chunk.skip(answered);
            }
            chunk.sent.get_or_insert(now);
            taken += chunk.size;
            out.push(chunk.bytes.clone());
            out.extend_from_slice(&chunk.tail);
            self.cursor += 1;
        }
        self.writer_idle = out.is_empty();
    }

    /// Takes the router's answer; the error says how it breaks the protocol.
    pub(crate) fn answer(&mut self, answer: &PublishAnswer, wakers: &mut Vec<Waker>) -> Result<(), String> {
        if self.closed {
            // Every frame was given up; what was under way when the client closed is nobody's any more.
            return Ok(());
        }
        let mut counted = 0_u64;
        for run in &answer.runs {
            if run.count == 0 {
                return Err("an empty run of answers".to_owned());
            }
            counted += u64::from(run.count);
        }
        let through = self.base.checked_add(answer.through);
        if through != self.answers.answered().checked_add(counted) || counted > self.answers.waiting() {
            return Err(format!(
                "{counted} answers through {} don't follow the earlier ones",
                answer.through
            ));
        }
        for run in &answer.runs {
            self.answer_run(run, wakers)?;
        }
        self.forget_answered();
        Ok(())
    }

    fn answer_run(&mut self, run: &Run, wakers: &mut Vec<Waker>) -> Result<(), String> {
        let count = u64::from(run.count);
        let start = self.answers.answered();
        let single = match &run.outcome {
            Outcome::Confirmed { .. } | Outcome::Duplicate { .. } => {
                self.answers.resolve(
                    count,
                    |number| {
                        Answer::Published(taken(&run.outcome, number - start).expect("it is one of the two"))
                    },
                    wakers,
                );
                return Ok(());
            }
            Outcome::Refused { code, detail } => {
                let error = PublishError::Refused(Refused { code: *code, detail }.to_refusal());
                self.fail(count, &error, wakers);
                return Ok(());
            }
            Outcome::Transacted { parts } => {
                let mut all = Vec::new();
                for part in parts {
                    // A transaction has at most this many parts; a larger claim must not be unrolled.
                    if part.count as usize > chaski_protocol::MAX_TRANSACTION_PARTS {
                        return Err("a transaction's answer has too many parts".to_owned());
                    }
                    for index in 0..u64::from(part.count) {
                        all.push(taken(&part.outcome, index).ok_or("a transaction's part is no confirm")?);
                    }
                }
                Answer::Transacted(all)
            }
            Outcome::LeaseLost { acks } => Answer::LeaseLost(acks.clone()),
        };
        if count != 1 {
            return Err("a transaction's answer stands for one frame".to_owned());
        }
        self.answers.resolve(1, |_| single.clone(), wakers);
        Ok(())
    }

    /// The next `count` frames failed.
    fn fail(&mut self, count: u64, error: &PublishError, wakers: &mut Vec<Waker>) {
        let start = self.answers.answered();
        if self.flush_error.is_none() {
            let direct = self.direct.partition_point(|number| *number < start + count)
                - self.direct.partition_point(|number| *number < start);
            if (direct as u64) < count {
                self.flush_error = Some(error.clone());
            }
        }
        self.answers.resolve(count, |_| Answer::Failed(error.clone()), wakers);
    }

    fn forget_answered(&mut self) {
        let answered = self.answers.answered();
        while self.direct.front().is_some_and(|number| *number < answered) {
            self.direct.pop_front();
        }
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.first + chunk.frames <= answered) {
            self.bytes -= chunk.size;
            self.chunks.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// Whether the oldest frame waits longer than `window` since it was first sent, or made if it never was.
    pub(crate) fn is_overdue(&self, now: Instant, window: Duration) -> bool {
        match self.chunks.front() {
            Some(chunk) => now.saturating_duration_since(chunk.sent.unwrap_or(chunk.since)) >= window,
            None => self.open_frames > 0 && now.saturating_duration_since(self.open_since) >= window,
        }
    }

    /// Gives up what is overdue. Only while no stream is open: an answer that still came would be someone else's.
    pub(crate) fn expire(&mut self, now: Instant, window: Duration, wakers: &mut Vec<Waker>) {
        while self.is_overdue(now, window) {
            if self.chunks.is_empty() {
                self.seal(Vec::new());
            }
            let chunk = self.chunks.front().expect("what is overdue is in a chunk");
            let count = chunk.first + chunk.frames - self.answers.answered();
            let error =
                if chunk.sent.is_some() { PublishError::OutcomeUnknown } else { PublishError::Unreachable };
            self.fail(count, &error, wakers);
            self.forget_answered();
        }
    }

    /// Fails all that is unanswered, and everything to come.
    pub(crate) fn close(&mut self, wakers: &mut Vec<Waker>) {
        self.closed = true;
        self.seal(Vec::new());
        self.fail(self.answers.waiting(), &PublishError::Closed, wakers);
        self.forget_answered();
    }
}

impl Chunk {
    /// Leaves out the first frames; answers the bytes that went.
    fn skip(&mut self, frames: u64) -> usize {
        let before = self.size;
        for _ in 0..frames {
            let length =
                4 + u32::from_le_bytes(*self.bytes.first_chunk().expect("chunks hold whole frames")) as usize;
            match length.checked_sub(self.bytes.len()) {
                // The last frame, which ends in the tail.
                Some(beyond) if beyond > 0 => {
                    self.bytes.clear();
                    self.tail.clear();
                }
                _ => self.bytes.advance(length),
            }
        }
        self.first += frames;
        self.frames -= frames;
        self.size = self.bytes.len() + length(&self.tail);
        before - self.size
    }
}

/// The answer to the message number `index` of a run; `None` when the run is no confirm.
fn taken(outcome: &Outcome, index: u64) -> Option<Taken> {
    let nth = |first: Option<u64>, step: u64| first.map(|first| first.wrapping_add(index.wrapping_mul(step)));
    match outcome {
        Outcome::Confirmed { first, step, counts } => {
            Some(Taken { sequence: nth(*first, *step), duplicate: false, counts: *counts })
        }
        Outcome::Duplicate { first, step } => {
            Some(Taken { sequence: nth(*first, *step), duplicate: true, counts: Counts::default() })
        }
        _ => None,
    }
}

fn length(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

/// Whether a payload is sent as it is.
pub(crate) fn is_whole(payload: &Bytes) -> bool {
    payload.len() >= WHOLE_PAYLOAD
}

#[cfg(test)]
mod tests;
