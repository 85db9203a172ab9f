//! The values of the test vectors: every kind of frame once at least, with what follows its header.

use chaski_protocol::frames::{
    ConsumeCommand, ConsumeFrame, Counts, Delivery, Notice, Open, Opening, Outcome, Passed, PublishAnswer,
    PublishFrame, Refused, Run, Token, Verdict,
};
use chaski_protocol::{Code, Head, encode_frame};

use crate::kinds::Kind;

/// What follows a header, in parts.
#[derive(Clone)]
pub(crate) enum Part {
    Head(Head<'static>),
    Payload(&'static str),
    Json(&'static str),
}

/// Decodes a frame's header, says whether it is the sample's value, and where it ends.
pub(crate) type Decode = Box<dyn Fn(&[u8]) -> (bool, usize)>;

/// A vector: a value, and its bytes as the codec makes them.
pub(crate) struct Sample {
    /// `Open`, `ConsumeCommand` …; `Datagram` has no header.
    pub(crate) kind: &'static str,
    /// The header in words.
    pub(crate) text: String,
    pub(crate) rest: Vec<Part>,
    /// The whole frame with its length; of a datagram the block.
    pub(crate) bytes: Vec<u8>,
    pub(crate) decode: Decode,
    pub(crate) covers: Vec<String>,
}

impl Part {
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Part::Head(_) => "head",
            Part::Payload(_) => "payload",
            Part::Json(_) => "json",
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Part::Head(head) => format!("{head:?}"),
            Part::Payload(text) => format!("{text:?}"),
            Part::Json(text) => (*text).to_owned(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match self {
            Part::Head(head) => {
                let mut block = Vec::new();
                head.encode(&[], &mut block);
                block
            }
            Part::Payload(text) | Part::Json(text) => text.as_bytes().to_vec(),
        }
    }
}

macro_rules! sample {
    ($kind:ident $(<$life:lifetime>)?: $value:expr) => {
        sample!($kind $(<$life>)?: $value, [])
    };
    ($kind:ident $(<$life:lifetime>)?: $value:expr, $rest:expr) => {{
        let value = $value;
        let rest: Vec<Part> = $rest.into_iter().collect();
        let parts: Vec<Vec<u8>> = rest.iter().map(Part::bytes).collect();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let mut bytes = Vec::new();
        encode_frame(&value, &parts, &mut bytes);
        let mut covers = Vec::new();
        value.covers(&mut covers);
        let text = format!("{value:?}");
        let decode = move |bytes: &[u8]| {
            let (decoded, length) = chaski_protocol::decode::<$kind$(<$life>)?>(bytes).expect("a vector is decoded");
            (decoded == value, length)
        };
        Sample { kind: stringify!($kind), text, rest, bytes, decode: Box::new(decode), covers }
    }};
}

/// As small as a message can be.
fn small() -> Head<'static> {
    Head { topic: "a.b", id: "m1", priority: 4, timestamp_ms: 1_767_323_045_678, ..Head::default() }
}

/// With all that a message can have.
fn full() -> Head<'static> {
    Head {
        topic: "orders.größe",
        id: "0190b7a4-6c00-7000-8000-000000000001",
        key: Some("c42"),
        reply_to: Some("$inbox.000102030405060708090a0b0c0d0e0f.1"),
        correlation_id: Some("r1"),
        headers: vec![("region", "eu"), ("note", "")],
        priority: 9,
        ttl_ms: Some(30_000),
        deliver_at_ms: Some(1_767_323_105_678),
        timestamp_ms: 1_767_323_045_678,
    }
}

fn message(head: Head<'static>) -> [Part; 2] {
    [Part::Head(head), Part::Payload("hello")]
}

fn answer(through: u64, runs: Vec<(u32, Outcome)>) -> PublishAnswer {
    let runs = runs.into_iter().map(|(count, outcome)| Run { count, outcome });
    PublishAnswer { through, runs: runs.collect() }
}

fn settle(verdict: Verdict<'static>) -> ConsumeCommand<'static> {
    ConsumeCommand::Settle { sequence: 1_048_577, lease: 1_048_578, verdict }
}

/// All of them, in the document's order.
pub(crate) fn all() -> Vec<Sample> {
    [opening(), publishing(), consuming(), passing()].into_iter().flatten().collect()
}

fn opening() -> Vec<Sample> {
    let client = 0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f;
    let refused = Refused { code: Code::UnknownQueue.number(), detail: "there is no queue `billing`" };
    let welcome = Opening::Welcome {
        server: "chaski 0.1.0",
        dedup_window_ms: 120_000,
        max_payload: 1_048_576,
        max_headers: 65_536,
    };
    vec![
        sample!(Open<'_>: Open::Hello { version: 1, client, sdk: "example 0.1.0", token: None }),
        sample!(Open<'_>: Open::Hello { version: 1, client, sdk: "example 0.1.0", token: Some("swordfish") }),
        sample!(Open<'_>: Open::Publish),
        sample!(Open<'_>: Open::Consume { queue: "billing", credit: 64, filters: vec![] }),
        sample!(Open<'_>: Open::Consume { queue: "billing", credit: 64, filters: vec!["eu-only", "big"] }),
        sample!(Open<'_>: Open::Subscribe { pattern: "orders.*.>", filters: vec!["eu-only"] }),
        sample!(Open<'_>: Open::Admin, [Part::Json(r#"{"verb":"queue_pause","queue":"billing"}"#)]),
        sample!(Open<'_>: Open::Upload { bytes: 251 }),
        sample!(Opening<'_>: welcome),
        sample!(Opening<'_>: Opening::Opened),
        sample!(Opening<'_>: Opening::Consuming { ack_wait_ms: 30_000 }),
        sample!(Opening<'_>: Opening::Answer, [Part::Json("{}")]),
        sample!(Opening<'_>: Opening::Refused(refused)),
        sample!(Notice: Notice::DedupWindow { window_ms: 604_800_000 }),
        sample!(Notice: Notice::Limits { max_payload: 67_108_864, max_headers: 250 }),
        sample!(Notice: Notice::ShuttingDown),
    ]
}

fn publishing() -> Vec<Sample> {
    let counts = Counts { routed: 2, dropped: 1, rejected: 0 };
    let length = |head: Head<'static>| message(head).iter().map(|part| part.bytes().len() as u32).sum();
    let transaction = PublishFrame::Transaction {
        id: "t1",
        acks: vec![Token { queue: "orders", sequence: 300, lease: 70_000 }],
        publishes: vec![(true, length(small())), (false, length(full()))],
    };
    let confirmed = |first, step, counts| Outcome::Confirmed { first, step, counts };
    let refused = Outcome::Refused {
        code: Code::QueueFull.number(),
        detail: "queue `billing` is full and refuses; nothing was stored".to_owned(),
    };
    let parts = vec![
        Run { count: 2, outcome: confirmed(Some(251), 1, counts) },
        Run { count: 1, outcome: Outcome::Duplicate { first: Some(7), step: 0 } },
    ];
    vec![
        sample!(PublishFrame<'_>: PublishFrame::Publish { mandatory: false }, message(small())),
        sample!(PublishFrame<'_>: PublishFrame::Publish { mandatory: true }, message(full())),
        sample!(PublishFrame<'_>: transaction, [message(small()), message(full())].concat()),
        sample!(PublishAnswer: answer(100, vec![
            (98, confirmed(Some(4_294_967_296), 3, counts)),
            (2, confirmed(None, 0, Counts::default())),
        ])),
        sample!(PublishAnswer: answer(251, vec![(1, Outcome::Duplicate { first: Some(65_536), step: 0 })])),
        sample!(PublishAnswer: answer(2, vec![(1, refused)])),
        sample!(PublishAnswer: answer(3, vec![(1, Outcome::Transacted { parts })])),
        sample!(PublishAnswer: answer(4, vec![(1, Outcome::LeaseLost { acks: vec![0, 2] })])),
    ]
}

fn consuming() -> Vec<Sample> {
    let delivery = |attempt, headers| {
        ConsumeFrame::Delivery(Delivery {
            sequence: 1_048_577,
            lease: 1_048_578,
            attempt,
            redelivered: attempt > 1,
            published_at_ms: 1_767_323_045_679,
            headers,
        })
    };
    let dead = vec![("chaski-dead-reason", "max_deliver"), ("chaski-dead-attempts", "5")];
    let leases = || vec![(1_048_577, 1_048_578), (1_048_580, 1_048_581)];
    let gone = ConsumeFrame::Closed { code: Code::UnknownQueue.number(), detail: "the queue was deleted" };
    let settled = ConsumeFrame::Settled { through: 3, refused: vec![(2, Code::LeaseLost.number())] };
    vec![
        sample!(ConsumeFrame<'_>: delivery(1, vec![]), message(small())),
        sample!(ConsumeFrame<'_>: delivery(2, dead), message(full())),
        sample!(ConsumeFrame<'_>: settled),
        sample!(ConsumeFrame<'_>: ConsumeFrame::Lost { leases: leases() }),
        sample!(ConsumeFrame<'_>: ConsumeFrame::Closed { code: 0, detail: "" }),
        sample!(ConsumeFrame<'_>: gone),
        sample!(ConsumeCommand<'_>: settle(Verdict::Ack)),
        sample!(ConsumeCommand<'_>: settle(Verdict::Nack { delay_ms: None })),
        sample!(ConsumeCommand<'_>: settle(Verdict::Nack { delay_ms: Some(1000) })),
        sample!(ConsumeCommand<'_>: settle(Verdict::Reject { reason: "no such customer" })),
        sample!(ConsumeCommand<'_>: settle(Verdict::Fail { reason: "no stock", retryable: true })),
        sample!(ConsumeCommand<'_>: settle(Verdict::Release)),
        sample!(ConsumeCommand<'_>: settle(Verdict::Complete), [Part::Payload("hello")]),
        sample!(ConsumeCommand<'_>: ConsumeCommand::Extend { leases: leases() }),
        sample!(ConsumeCommand<'_>: ConsumeCommand::SetCredit { credit: 16_384 }),
        sample!(ConsumeCommand<'_>: ConsumeCommand::Close),
    ]
}

fn passing() -> Vec<Sample> {
    let rest = message(small()).to_vec();
    let bytes = rest.iter().flat_map(Part::bytes).collect();
    let datagram = Sample {
        kind: "Datagram",
        text: String::new(),
        rest,
        bytes,
        decode: Box::new(|_| (true, 0)),
        covers: Vec::new(),
    };
    vec![sample!(Passed: Passed::Message { dropped: 250 }, message(small())), datagram]
}
