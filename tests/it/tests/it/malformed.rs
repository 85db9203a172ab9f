//! What no client should send: each has a code and a sentence, and the router goes on.

use chaski_it::{Raw, Router, Stream, within};
use chaski_protocol::frames::{Open, Opening, Outcome, PublishAnswer, PublishFrame};
use chaski_protocol::{Code, Head, decode, encode_frame};

/// Another client is served as if nothing had happened.
#[track_caller]
fn still_serves(router: &Router) {
    assert_eq!(router.one(&["publish", "q", "x"])["routed"], 1);
}

fn router() -> Router {
    Router::with_rules("[queue.q]\n")
}

pub(crate) fn head<'a>(topic: &'a str, id: &'a str) -> Head<'a> {
    Head { topic, id, priority: 4, ..Head::default() }
}

/// Publishes one message as it is, and answers the code that it is refused with.
pub(crate) async fn refusal(router: &Router, head: &Head<'_>, payload: &[u8]) -> Option<Code> {
    let raw = Raw::hello(router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    let (mut block, mut frame) = (Vec::new(), Vec::new());
    head.encode(payload, &mut block);
    encode_frame(&PublishFrame::Publish { mandatory: false }, &[&block], &mut frame);
    stream.send.write_all(&frame).await.expect("the stream is open");
    let answer = stream.frame().await.expect("an answer");
    let (answer, _) = decode::<PublishAnswer>(&answer).expect("it is an answer");
    assert_eq!(answer.through, 1);
    match &answer.runs[0].outcome {
        Outcome::Refused { code, detail } => {
            assert!(detail.len() > 10, "a sentence: {detail}");
            Code::from_number(*code)
        }
        Outcome::Confirmed { .. } => None,
        other => panic!("{other:?}"),
    }
}

/// What became of the first so many frames of a publish stream.
async fn outcomes(stream: &mut Stream, frames: u64) -> Vec<Outcome> {
    let (mut through, mut outcomes) = (0, Vec::new());
    while through < frames {
        let answer = stream.frame().await.expect("an answer");
        let (answer, _) = decode::<PublishAnswer>(&answer).expect("it is an answer");
        through = answer.through;
        for run in answer.runs {
            outcomes.extend(std::iter::repeat_n(run.outcome, run.count as usize));
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_refused_one_by_one() {
    let router = router();
    let long = "x".repeat(256);
    let headers = |name, value| Head { headers: vec![(name, value)], ..head("q", "1") };
    let big = "v".repeat(70_000);
    let cases = [
        (head("a..b", "1"), Code::BadTopic),
        (head("", "1"), Code::BadTopic),
        (head("a.*", "1"), Code::BadTopic),
        (head(&long, "1"), Code::BadTopic),
        (head("$chaski.events.x", "1"), Code::Reserved),
        (head("$other", "1"), Code::Reserved),
        (head("q", ""), Code::BadMessage),
        (head("q", &long), Code::BadMessage),
        (head("q", "a\u{7}"), Code::BadMessage),
        (headers("chaski-dead-reason", "x"), Code::Reserved),
        (headers("with space", "x"), Code::BadHeader),
        (headers("", "x"), Code::BadHeader),
        (Head { headers: vec![("a", "1"), ("a", "2")], ..head("q", "1") }, Code::BadHeader),
        (headers("big", &big), Code::HeadersTooLarge),
        (Head { priority: 10, ..head("q", "1") }, Code::BadMessage),
        (Head { key: Some(""), ..head("q", "1") }, Code::BadMessage),
        (Head { reply_to: Some("$chaski.x"), ..head("q", "1") }, Code::Reserved),
        (Head { ttl_ms: Some(0), ..head("q", "1") }, Code::BadMessage),
    ];
    for (head, code) in cases {
        assert_eq!(refusal(&router, &head, b"x").await, Some(code), "{head:?}");
    }
    assert_eq!(refusal(&router, &head("q", "1"), &vec![0; (1 << 20) + 1]).await, Some(Code::PayloadTooLarge));
    assert_eq!(refusal(&router, &head("q", "1"), &vec![0; 1 << 20]).await, None, "the limit itself is fine");
    assert_eq!(router.count("q", "messages"), 1);
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_does_not_hold_up_the_others_on_its_stream() {
    let router = router();
    let raw = Raw::hello(&router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    let mut frames = Vec::new();
    for topic in ["q", "a..b", "q"] {
        let mut block = Vec::new();
        let id = format!("{}", frames.len());
        head(topic, &id).encode(b"x", &mut block);
        encode_frame(&PublishFrame::Publish { mandatory: false }, &[&block], &mut frames);
    }
    stream.send.write_all(&frames).await.expect("the stream is open");
    let outcomes = outcomes(&mut stream, 3).await;
    let outcomes: Vec<bool> =
        outcomes.iter().map(|outcome| matches!(outcome, Outcome::Confirmed { .. })).collect();
    assert_eq!(outcomes, [true, false, true]);
}

/// The first message of the transaction stands before a filter that would drop it when its second turns out to be wrong.
#[tokio::test(flavor = "multi_thread")]
async fn what_filters_would_have_said_of_a_refused_transaction_concerns_no_other() {
    let router = Router::with_rules(
        "[module.eu]\nbuiltin = \"header-match\"\nparams = { all = \"region = eu\" }\n\
         [route.r]\ntopics = [\"f\"]\nfilters = [\"eu\"]\n[queue.q]\n",
    );
    let raw = Raw::hello(&router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    let (mut blocks, mut publishes) = (Vec::new(), Vec::new());
    for topic in ["f", "a..b"] {
        let before = blocks.len();
        head(topic, topic).encode(b"x", &mut blocks);
        publishes.push((false, (blocks.len() - before) as u32));
    }
    let mut frames = Vec::new();
    let transaction = PublishFrame::Transaction { id: "t", acks: Vec::new(), publishes };
    encode_frame(&transaction, &[&blocks], &mut frames);
    let mut block = Vec::new();
    head("q", "1").encode(b"x", &mut block);
    encode_frame(&PublishFrame::Publish { mandatory: false }, &[&block], &mut frames);
    stream.send.write_all(&frames).await.expect("the stream is open");
    let outcomes = outcomes(&mut stream, 2).await;
    let [Outcome::Refused { code, .. }, Outcome::Confirmed { counts, .. }] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(Code::from_number(*code), Some(Code::BadTopic));
    assert_eq!((counts.routed, counts.dropped), (1, 0));
    assert_eq!(router.count("q", "messages"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_connection_with_the_code() {
    let router = router();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[5, 0, 0, 0, 0xfb, 0xff, 0xff, 0xff, 0xff]]
    {
        let raw = Raw::hello(&router).await;
        let _stream = raw.send(garbage).await;
        let code = raw.closed().await;
        assert!(matches!(code, Some(Code::BadFrame | Code::UnknownFrame)), "{garbage:?}: {code:?}");
        still_serves(&router);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_frame_is_named() {
    let router = router();
    let raw = Raw::hello(&router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    stream.send.write_all(&[1, 0, 0, 0, 99]).await.expect("the stream is open");
    assert_eq!(raw.closed().await, Some(Code::UnknownFrame));
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_says_it_is_huge_is_refused_before_it_comes() {
    let router = router();
    let raw = Raw::hello(&router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    stream.send.write_all(&[0xff, 0xff, 0xff, 0x7f, 0]).await.expect("the stream is open");
    assert_eq!(raw.closed().await, Some(Code::BadFrame));
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_within_a_frame_loses_nothing_else() {
    let router = router();
    let raw = Raw::hello(&router).await;
    let mut stream = raw.open(&Open::Publish).await;
    stream.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
    let (mut block, mut frame) = (Vec::new(), Vec::new());
    head("q", "whole").encode(b"x", &mut block);
    encode_frame(&PublishFrame::Publish { mandatory: false }, &[&block], &mut frame);
    stream.send.write_all(&frame).await.expect("the stream is open");
    stream.send.write_all(&frame[..frame.len() / 2]).await.expect("the stream is open");
    stream.send.finish().expect("the stream is open");
    // Breaking the framing costs the connection; what was whole is stored.
    assert_eq!(raw.closed().await, Some(Code::BadFrame));
    assert_eq!(router.count("q", "messages"), 1);
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_before_hello_is_refused() {
    let router = router();
    let raw = Raw::with_alpn(&router, chaski_protocol::ALPN).await.expect("the handshake is fine");
    let _stream = raw.open(&Open::Publish).await;
    assert!(raw.closed().await.is_some());
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_is_told_so() {
    let router = router();
    let raw = Raw::with_alpn(&router, chaski_protocol::ALPN).await.expect("the handshake is fine");
    let _control =
        raw.open(&Open::Hello { version: 2, client: 7, sdk: "from the future", token: None }).await;
    assert_eq!(raw.closed().await, Some(Code::BadVersion));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_alpn_is_refused_by_tls() {
    let router = router();
    let error = Raw::with_alpn(&router, b"h3").await.expect_err("it is another protocol");
    // RFC 8446, section 6: alert 120 is no_application_protocol.
    assert!(error.to_string().contains("error 120"), "{error}");
    still_serves(&router);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_inbox_is_private() {
    let router = router();
    let raw = Raw::hello(&router).await;
    for pattern in ["$inbox.>", "$inbox.00000000000000000000000000000008.>", "$other.>"] {
        let mut stream = raw.open(&Open::Subscribe { pattern, filters: Vec::new() }).await;
        let code = stream
            .opening(|opening| match opening {
                Opening::Refused(refused) => Code::from_number(refused.code),
                other => panic!("{other:?}"),
            })
            .await;
        assert_eq!(code, Some(Code::Reserved), "{pattern}");
    }
    let mut own = raw
        .open(&Open::Subscribe { pattern: "$inbox.00000000000000000000000000000007.>", filters: Vec::new() })
        .await;
    own.opening(|opening| assert_eq!(opening, Opening::Opened)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_flood_of_garbage_changes_nothing() {
    let router = router();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("there is a free port");
    let mut state = 1u64;
    for length in 1..400usize {
        let packet: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length * 3)
        .collect();
        within("a send", socket.send_to(&packet, router.address())).await.expect("it is sent");
    }
    still_serves(&router);
}

#[test]
fn limits_hold_for_the_command_line_too() {
    let router = router();
    let path = router.setup().path("big");
    std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).expect("the test's directory can be written");
    let path = path.to_str().expect("a plain path");
    router.cli(&["publish", "q", "--file", path]).refused("payload_too_large");
    router
        .cli(&["publish", "q", "x", "-H", &format!("a={}", "v".repeat(65_536))])
        .refused("headers_too_large");
    router.cli(&["publish", "a..b", "x"]).refused("bad_topic");
    router.cli(&["publish", "$chaski.events.alarm_raised", "x"]).refused("reserved");
    router.cli(&["publish", "q", "x", "-H", "a b=1"]).refused("bad_header");
    assert_eq!(router.count("q", "messages"), 0);
}
