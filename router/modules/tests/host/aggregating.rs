//! What an aggregator is called with and answers, and that no call of it exceeds its limits.

use std::time::Duration;

use chaski_modules::{
    Aggregator, Answered, Cause, Folded, GatherEnd, GatherEvent, Level, Lie, Limits, Request, Response,
};

use crate::by_hand;
use crate::kit::{deploy, host};

/// Generous in time, for what is to meet another limit on a slow machine.
fn ample() -> Limits {
    Limits { cpu_time: Duration::from_secs(5), ..Limits::default() }
}

fn aggregator(limits: Limits) -> Aggregator {
    let host = host();
    let (compiled, description) = deploy(&host, &by_hand::aggregator());
    host.aggregator("test", &compiled, &description, &[], limits).expect("it is configured")
}

fn reply(payload: &[u8]) -> GatherEvent {
    GatherEvent::Reply {
        recipient: "a".into(),
        at_ms: 7,
        headers: vec![("h".into(), "v".into())],
        payload: payload.to_vec(),
    }
}

fn fold(aggregator: &Aggregator, state: &[u8], payload: &[u8]) -> Answered<Folded> {
    aggregator.fold(state, &reply(payload)).expect("there is room")
}

#[track_caller]
fn cause(aggregator: &Aggregator, payload: &[u8]) -> Cause {
    let cause = fold(aggregator, b"", payload).answer.expect_err("it fails").cause;
    assert_eq!(aggregator.metrics().instances, 0, "after a failure the instance goes");
    cause
}

#[test]
fn a_state_goes_through_a_gather_and_becomes_the_answer() {
    let aggregator = aggregator(ample());
    let request = Request { payload: b"ask:".to_vec(), topic: "quotes".into(), ..Request::default() };
    let recipients = ["a", "b", "c"].map(str::to_owned);
    let mut state = aggregator.begin(&request, &recipients).unwrap().answer.unwrap();
    assert_eq!(state, b"ask:");
    let failed = GatherEvent::Failed { recipient: "b".into(), at_ms: 8, reason: "no".into() };
    let silent = GatherEvent::Silent { recipient: "c".into() };
    for (event, done) in [(reply(b"1"), false), (failed, false), (silent, false), (reply(b"d"), true)] {
        let folded = aggregator.fold(&state, &event).unwrap().answer.unwrap();
        assert_eq!(folded.done, done);
        state = folded.state;
    }
    let finished = aggregator.finish(&state, GatherEnd::Done).unwrap().answer.unwrap();
    assert_eq!(finished, Ok(Response { headers: vec![], payload: b"ask:1..d".to_vec() }));
    let metrics = aggregator.metrics();
    assert_eq!((metrics.calls, metrics.messages), (6, 6));
    assert_eq!((metrics.instances, metrics.instances_made), (1, 1), "one instance served all calls");
}

#[test]
fn a_gather_can_fail_with_the_modules_reason() {
    let finished = aggregator(ample()).finish(b"e: no number", GatherEnd::Timeout).unwrap();
    assert_eq!(finished.answer.unwrap(), Err("e: no number".into()));
}

#[test]
fn what_it_logs_comes_with_the_answer() {
    let folded = fold(&aggregator(ample()), b"", b"l");
    let lines: Vec<_> = folded.lines.iter().map(|line| (line.level, line.text.as_str())).collect();
    assert_eq!(lines, [(Level::Info, "boom")]);
    assert!(folded.answer.is_ok());
}

#[test]
fn a_trap_or_a_panic_fails_one_call_and_the_next_has_a_new_instance() {
    let aggregator = aggregator(ample());
    assert!(matches!(cause(&aggregator, b"t"), Cause::Trap { .. }));
    assert_eq!(cause(&aggregator, b"p"), Cause::Panic { text: "boom, at lib.rs:1:1".into() });
    let failure = fold(&aggregator, b"", b"p").answer.unwrap_err();
    assert!(failure.to_string().starts_with("module test (sha256:"), "{failure}");
    assert!(failure.to_string().ends_with("failed: it panicked: boom, at lib.rs:1:1"), "{failure}");
    assert_eq!(fold(&aggregator, b"x", b"y").answer.unwrap().state, b"xy");
    assert_eq!(aggregator.metrics().errors, [("panic", 2), ("trap", 1)]);
}

#[test]
fn one_that_never_answers_is_ended_by_cpu_time() {
    let limit = Duration::from_millis(20);
    let aggregator = aggregator(Limits { cpu_time: limit, ..Limits::default() });
    assert_eq!(cause(&aggregator, b"s"), Cause::CpuTime { limit });
    let begun = aggregator.begin(&Request { topic: "s".into(), ..Request::default() }, &[]).unwrap();
    assert_eq!(begun.answer.unwrap_err().cause, Cause::CpuTime { limit });
}

#[test]
fn one_that_asks_for_too_much_memory_is_ended() {
    let aggregator = aggregator(ample());
    assert_eq!(cause(&aggregator, b"m"), Cause::Memory { limit: 16 << 20 });
    let roomy = self::aggregator(Limits { memory_bytes: 128 << 20, ..ample() });
    assert!(fold(&roomy, b"", b"m").answer.is_ok());
}

#[test]
fn a_state_of_one_mebibyte_is_kept_and_a_larger_one_fails() {
    let aggregator = aggregator(ample());
    let most = fold(&aggregator, b"", b"B").answer.unwrap().state;
    assert_eq!(most.len(), 1 << 20);
    let failure = fold(&aggregator, b"", b"b").answer.unwrap_err();
    assert_eq!(failure.cause, Cause::Lie(Lie::State { got: (1 << 20) + 1 }));
    assert!(failure.to_string().ends_with("its state has 1048577 bytes, and at most 1048576 are kept"));
    // A state and a reply of that size cross the boundary together.
    let mut reply = vec![b'.'; 1 << 20];
    reply[0] = b'd';
    let smaller = &most[1..];
    assert_eq!(fold(&aggregator, smaller, &reply).answer.unwrap().state.len(), 1 << 20);
}

#[test]
fn a_response_with_a_header_or_size_that_is_not_its_own_fails() {
    let finish = |limits: Limits, state: &[u8]| {
        let finished = aggregator(limits).finish(state, GatherEnd::Quorum).unwrap();
        finished.answer.map_err(|failure| failure.cause)
    };
    let header = Lie::ResponseHeader { name: "chaski-x".into() };
    assert_eq!(finish(ample(), b"h"), Err(Cause::Lie(header)));
    let limits = Limits { headers_bytes: 15, ..ample() };
    assert_eq!(finish(limits, b"h"), Err(Cause::Lie(Lie::Headers { got: 16, limit: 15 })));
    assert_eq!(finish(ample(), b"P"), Err(Cause::Lie(Lie::Payload { got: 2 << 20, limit: 1 << 20 })));
    let roomy = Limits { payload_bytes: 2 << 20, ..ample() };
    assert_eq!(finish(roomy, b"P").unwrap().unwrap().payload.len(), 2 << 20);
}

/// A payload limit above the ordinary crossing raises the crossing too.
#[test]
fn what_the_rules_let_through_crosses() {
    let limits = Limits { payload_bytes: 2 << 20, crossing_bytes: 1024, ..ample() };
    let finished = aggregator(limits).finish(b"P", GatherEnd::Quorum).unwrap();
    assert!(finished.answer.is_ok());
}
