//! The outbox against a router that is played by hand: order, retries, room, expiry, and answers that break the protocol.

use futures::FutureExt as _;

use super::*;

/// A frame of a few bytes, with a payload behind it where there is one.
struct Plain(&'static str, Option<Bytes>);

impl Frame for Plain {
    fn size(&self) -> usize {
        4 + self.0.len() + self.1.as_ref().map_or(0, Bytes::len)
    }

    fn encode(&self, out: &mut Vec<u8>, tail: &mut Vec<Bytes>) {
        out.extend_from_slice(&((self.size() - 4) as u32).to_le_bytes());
        out.extend_from_slice(self.0.as_bytes());
        tail.extend(self.1.clone());
    }
}

struct Pair {
    outbox: Outbox,
    now: Instant,
}

impl Pair {
    fn new(max_frames: u64, max_bytes: usize) -> Pair {
        let now = Instant::now();
        Pair { outbox: Outbox::new(max_frames, max_bytes, now), now }
    }

    fn push(&mut self, name: &'static str) -> Ticket<Answer> {
        self.outbox.push(&Plain(name, None), false, || self.now)
    }

    /// What is written until nothing is left, as the names of its frames.
    fn written(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        loop {
            let mut pieces = Vec::new();
            self.outbox.take(self.now, &mut pieces);
            if pieces.is_empty() {
                break;
            }
            pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
        }
        let mut names = Vec::new();
        let mut rest = &bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            names.push(String::from_utf8_lossy(frame).into_owned());
            rest = after;
        }
        names
    }

    fn answer(&mut self, through: u64, runs: Vec<Run>) -> Result<(), String> {
        self.outbox.answer(&PublishAnswer { through, runs }, &mut Vec::new())
    }

    fn confirm(&mut self, through: u64, count: u32) {
        let confirmed = Outcome::Confirmed { first: Some(100), step: 2, counts: Counts::default() };
        self.answer(through, vec![Run { count, outcome: confirmed }]).expect("it follows");
    }

    fn expire_after(&mut self, waited: Duration, window: Duration) {
        self.now += waited;
        self.outbox.expire(self.now, window, &mut Vec::new());
    }
}

fn sequence(ticket: Ticket<Answer>) -> Option<u64> {
    match ticket.now_or_never()? {
        Answer::Published(taken) => taken.sequence,
        other => panic!("{other:?}"),
    }
}

fn failure(ticket: Ticket<Answer>) -> Option<PublishError> {
    match ticket.now_or_never()? {
        Answer::Failed(error) => Some(error),
        other => panic!("{other:?}"),
    }
}

fn refused(code: chaski_protocol::Code) -> Outcome {
    Outcome::Refused { code: code.number(), detail: "no".to_owned() }
}

#[test]
fn a_new_stream_sends_what_is_unanswered_in_its_order() {
    let mut pair = Pair::new(100, 1 << 20);
    let tickets: Vec<_> = ["a", "b", "c"].map(|name| pair.push(name)).into();
    pair.outbox.begin();
    assert_eq!(pair.written(), ["a", "b", "c"]);
    pair.confirm(1, 1);
    let last = pair.push("d");
    assert_eq!(pair.written(), ["d"]);

    // The connection is lost: the same frames again, but for the one that was answered.
    pair.outbox.begin();
    assert_eq!(pair.written(), ["b", "c", "d"]);
    pair.confirm(3, 3);
    let sequences: Vec<_> = tickets.into_iter().chain([last]).map(sequence).collect();
    assert_eq!(sequences, [Some(100), Some(100), Some(102), Some(104)]);
    assert_eq!((pair.outbox.bytes, pair.outbox.chunks.len()), (0, 0));
}

#[test]
fn a_payload_that_goes_out_as_it_is_is_kept_for_the_retry_and_never_copied() {
    let payload = Bytes::from_static(b"-and-its-payload");
    let mut pair = Pair::new(100, 1 << 20);
    let _small = pair.push("small");
    let large = pair.outbox.push(&Plain("large", Some(payload.clone())), true, || pair.now);
    let _later = pair.push("later");
    pair.outbox.begin();
    let mut pieces = Vec::new();
    pair.outbox.take(pair.now, &mut pieces);
    assert!(pieces.iter().any(|piece| piece.as_ptr() == payload.as_ptr()));

    pair.confirm(1, 1);
    pair.outbox.begin();
    assert_eq!(pair.written(), ["large-and-its-payload", "later"]);
    pair.confirm(1, 1);
    assert!(sequence(large).is_some());
    pair.outbox.begin();
    assert_eq!(pair.written(), ["later"]);
}

#[test]
fn room_is_bounded_by_frames_and_by_bytes_and_one_large_frame_has_it_alone() {
    let mut pair = Pair::new(2, 20);
    assert!(pair.outbox.has_room(1000));
    let _first = pair.push("a");
    assert!(pair.outbox.has_room(5) && !pair.outbox.has_room(16));
    let _second = pair.push("b");
    assert!(!pair.outbox.has_room(1) && !pair.outbox.is_roomy());
    pair.outbox.begin();
    pair.written();
    pair.confirm(1, 1);
    assert!(pair.outbox.has_room(1) && pair.outbox.is_roomy());
}

#[test]
fn past_the_window_the_outcome_is_unknown_unless_it_was_never_sent() {
    let (window, half) = (Duration::from_secs(120), Duration::from_secs(60));
    let mut pair = Pair::new(100, 1 << 20);
    let sent = pair.push("sent");
    pair.outbox.begin();
    pair.written();
    pair.expire_after(half, window);
    let unsent = pair.push("unsent");
    let mut sent = Some(sent);
    assert!(!pair.outbox.is_overdue(pair.now, window));
    pair.expire_after(half, window);
    assert_eq!(failure(sent.take().expect("once")), Some(PublishError::OutcomeUnknown));
    pair.expire_after(half, window);
    assert_eq!(failure(unsent), Some(PublishError::Unreachable));

    // Numbers go on: a later stream begins after what was given up.
    let later = pair.push("later");
    pair.outbox.begin();
    assert_eq!(pair.written(), ["later"]);
    pair.confirm(1, 1);
    assert_eq!(sequence(later), Some(100));
}

#[test]
fn flush_hears_of_pipelined_failures_alone_and_of_the_first() {
    use chaski_protocol::Code;

    let mut pair = Pair::new(100, 1 << 20);
    let direct = pair.outbox.push(&Plain("direct", None), true, || pair.now);
    let tickets = ["a", "b"].map(|name| pair.push(name));
    pair.outbox.begin();
    pair.written();
    pair.answer(1, vec![Run { count: 1, outcome: refused(Code::Busy) }]).expect("it follows");
    assert!(failure(direct).is_some_and(|error| error.is_retryable()));
    assert_eq!(pair.outbox.take_flush_error(), None);
    let runs = [Code::QueueFull, Code::Unroutable].map(|code| Run { count: 1, outcome: refused(code) });
    pair.answer(3, runs.into()).expect("they follow");
    assert_eq!(pair.outbox.take_flush_error().map(|error| error.code()), Some(Code::QueueFull));
    assert_eq!(
        tickets.map(|ticket| failure(ticket).map(|error| error.code())),
        [Some(Code::QueueFull), Some(Code::Unroutable)]
    );
}

#[test]
fn answers_that_break_the_protocol_are_named() {
    let confirmed = |count| Run {
        count,
        outcome: Outcome::Confirmed { first: None, step: 0, counts: Counts::default() },
    };
    let transacted =
        |count| Run { count: 1, outcome: Outcome::Transacted { parts: vec![Run { count, ..confirmed(1) }] } };
    for (through, runs) in [
        (1, vec![confirmed(2)]),
        (3, vec![confirmed(3)]),
        (u64::MAX, vec![confirmed(1)]),
        (0, vec![confirmed(0)]),
        (1, vec![transacted(u32::MAX)]),
        (2, vec![Run { count: 2, outcome: Outcome::LeaseLost { acks: vec![] } }]),
    ] {
        let mut pair = Pair::new(100, 1 << 20);
        let _tickets = ["a", "b"].map(|name| pair.push(name));
        pair.outbox.begin();
        pair.written();
        assert!(pair.answer(through, runs.clone()).is_err(), "{through}: {runs:?}");
    }
}

#[test]
fn a_transaction_has_one_answer_with_all_its_parts() {
    let mut pair = Pair::new(100, 1 << 20);
    let (done, lost) = (pair.push("done"), pair.push("lost"));
    pair.outbox.begin();
    pair.written();
    let counts = Counts { routed: 1, ..Counts::default() };
    let parts = vec![
        Run { count: 2, outcome: Outcome::Confirmed { first: Some(5), step: 1, counts } },
        Run { count: 1, outcome: Outcome::Duplicate { first: Some(3), step: 1 } },
    ];
    let runs = vec![
        Run { count: 1, outcome: Outcome::Transacted { parts } },
        Run { count: 1, outcome: Outcome::LeaseLost { acks: vec![0, 2] } },
    ];
    pair.answer(2, runs).expect("they follow");
    let Some(Answer::Transacted(taken)) = done.now_or_never() else { panic!("not done") };
    let seen: Vec<_> = taken.iter().map(|taken| (taken.sequence, taken.duplicate)).collect();
    assert_eq!(seen, [(Some(5), false), (Some(6), false), (Some(3), true)]);
    assert!(matches!(lost.now_or_never(), Some(Answer::LeaseLost(acks)) if acks == [0, 2]));
}

#[test]
fn a_closed_client_fails_what_is_unanswered() {
    let mut pair = Pair::new(100, 1 << 20);
    let ticket = pair.push("a");
    pair.outbox.close(&mut Vec::new());
    assert_eq!(failure(ticket), Some(PublishError::Closed));
    assert!(pair.answer(1, Vec::new()).is_ok(), "an answer that comes late is nobody's");
}

#[test]
fn without_a_stream_frames_of_different_ages_share_no_chunk() {
    let mut pair = Pair::new(100, 1 << 20);
    let late = Duration::from_secs(2);
    let _first = pair.push("a");
    pair.now += late;
    let _second = pair.push("b");
    assert_eq!(pair.outbox.chunks.len(), 1);
    pair.outbox.begin();
    assert_eq!(pair.written(), ["a", "b"]);
    // Whoever writes takes what there is, however old.
    let _third = pair.push("c");
    pair.now += late;
    let _fourth = pair.push("d");
    assert_eq!(pair.outbox.chunks.len(), 2);
    pair.outbox.end();
    let _fifth = pair.push("e");
    assert_eq!(pair.outbox.chunks.len(), 3);
}
