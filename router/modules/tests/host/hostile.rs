//! The hostile guests that come with the SDK, each against the limit that it was written for. The guests of the other tests
//! are by hand; these are what a Rust author's compiler makes.

use std::sync::Arc;
use std::time::Duration;

use chaski_modules::{
    Aggregator, Answered, Cause, Compensator, Context, Entry, Filter, GatherEvent, History, Judged, Lie,
    Limits, Plan, Request, Table, Verdict,
};

use crate::kit::{Sample, deploy, host};

/// Generous in time, for those that are to meet another limit on a slow machine.
fn ample() -> Limits {
    Limits { cpu_time: Duration::from_secs(20), ..Limits::default() }
}

fn wasm(name: &str) -> &'static [u8] {
    chaski_filters::hostile(name).expect("there is such a guest").wasm
}

fn filter(name: &str, limits: Limits) -> Filter {
    let host = host();
    let (compiled, description) = deploy(&host, wasm(name));
    host.filter(name, &compiled, &description, &[], limits).expect("it is configured")
}

/// Lets it judge one message.
fn judge(name: &str, limits: Limits) -> Judged {
    let filter = filter(name, limits);
    let state = filter.keeps_state().then(|| Arc::new(Empty) as Arc<dyn Table>);
    let judged = filter.judge(&[Sample::default()], &Context { now_ms: 0, state }).unwrap();
    assert_eq!(filter.metrics().instances, u64::from(judged.outcomes[0].is_ok()), "after a failure it goes");
    judged
}

#[track_caller]
fn cause(name: &str, limits: Limits) -> Cause {
    judge(name, limits).outcomes.remove(0).expect_err("it fails").cause
}

struct Empty;

impl Table for Empty {
    fn get(&self, _: &[u8]) -> Option<Entry> {
        None
    }
    fn bytes(&self) -> u64 {
        0
    }
}

/// A hostile guest that is new needs a test here.
#[test]
fn each_hostile_guest_has_its_test() {
    let here = include_str!("hostile.rs");
    for guest in chaski_filters::hostile_guests() {
        assert!(here.contains(&format!("(\"{}\"", guest.name)), "{} has no test", guest.name);
    }
}

#[test]
fn those_that_never_answer_are_ended_by_cpu_time() {
    let limit = Limits::default().cpu_time;
    assert_eq!(cause("spin-forever", Limits::default()), Cause::CpuTime { limit });
    assert_eq!(cause("bulk-copy-loop", Limits::default()), Cause::CpuTime { limit });
}

#[test]
fn those_that_eat_memory_or_stack_get_no_more() {
    let limit = Limits::default().memory_bytes;
    assert_eq!(cause("eat-memory", ample()), Cause::Memory { limit });
    assert!(matches!(cause("deep-recursion", ample()), Cause::Trap { .. }));
}

#[test]
fn those_that_answer_wrongly_are_found_out() {
    assert_eq!(cause("huge-answer", ample()), Cause::Crossing { limit: 4 << 20 });
    let end = Lie::End { edit: 0, end: u32::MAX, bytes: 1 };
    assert_eq!(cause("lie-about-lengths", ample()), Cause::Lie(end));
    assert_eq!(cause("too-few-verdicts", ample()), Cause::Lie(Lie::Verdicts { got: 0, wanted: 1 }));
}

#[test]
fn a_flood_of_lines_is_cut() {
    let judged = judge("log-flood", ample());
    assert_eq!(judged.outcomes, [Ok(Verdict::Pass)]);
    assert_eq!((judged.lines.len(), judged.lines_left_out), (16, 9_984));
    assert!(judged.lines.iter().all(|line| line.text.len() == 1024));
}

#[test]
fn a_state_hog_meets_the_end_of_its_table_and_wrote_nothing() {
    let judged = judge("state-hog", Limits { state_bytes: 1 << 20, ..ample() });
    assert_eq!(judged.writes, []);
    let Err(failure) = &judged.outcomes[0] else { panic!("{judged:?}") };
    assert!(failure.to_string().contains("the module's state would exceed"), "{failure}");
}

#[test]
fn traps_fail_their_message_and_no_other() {
    let Cause::Panic { text } = cause("trap", ample()) else { panic!() };
    assert!(text.contains("this module fails on purpose, on id"), "{text}");
    let filter = filter("trap-on-one-message", ample());
    let messages = [Sample::default(), Sample::with("poison", "yes"), Sample::default()];
    let judged = filter.judge(&messages, &Context::default()).unwrap();
    let failed: Vec<_> = judged.outcomes.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, true, false]);
}

fn aggregator(name: &str, limits: Limits) -> Aggregator {
    let host = host();
    let (compiled, description) = deploy(&host, wasm(name));
    host.aggregator(name, &compiled, &description, &[], limits).expect("it is configured")
}

/// What becomes of the first reply of a gather.
#[track_caller]
fn fold_cause(name: &str, limits: Limits) -> Cause {
    let aggregator = aggregator(name, limits);
    let state = aggregator.begin(&Request::default(), &["a".into()]).unwrap().answer.expect("it begins");
    let (headers, payload) = (vec![], b"{}".to_vec());
    let reply = GatherEvent::Reply { recipient: "a".into(), at_ms: 0, headers, payload };
    let cause = aggregator.fold(&state, &reply).unwrap().answer.expect_err("it fails").cause;
    assert_eq!(aggregator.metrics().instances, 0, "after a failure it goes");
    cause
}

#[track_caller]
fn compensate_cause(name: &str, limits: Limits) -> Cause {
    let host = host();
    let (compiled, description) = deploy(&host, wasm(name));
    let compensator: Compensator =
        host.compensator(name, &compiled, &description, &[], limits).expect("it is configured");
    assert!(!compensator.advances());
    let history = History {
        saga: "order".into(),
        id: "o-1".into(),
        now_ms: 0,
        input: Request::default(),
        steps: vec![],
        cause: None,
        retries: 0,
    };
    let answered: Answered<Plan> = compensator.compensate(&history).unwrap();
    assert_eq!(compensator.metrics().instances, 0, "after a failure it goes");
    answered.answer.expect_err("it fails").cause
}

#[test]
fn a_hostile_aggregator_fails_its_call_and_no_more() {
    let Cause::Panic { text } = fold_cause("trap-on-fold", ample()) else { panic!() };
    assert!(text.starts_with("this aggregator fails on purpose, on a ("), "{text}");
    let limit = Limits::default().cpu_time;
    assert_eq!(fold_cause("spin-on-fold", Limits::default()), Cause::CpuTime { limit });
    let lie = Lie::State { got: (1 << 20) + 1 };
    assert_eq!(fold_cause("huge-gather-state", ample()), Cause::Lie(lie));
}

#[test]
fn a_hostile_compensator_fails_its_call_and_no_more() {
    let Cause::Panic { text } = compensate_cause("trap-on-compensate", ample()) else { panic!() };
    assert!(text.starts_with("this compensator fails on purpose, in o-1 ("), "{text}");
    let limit = Limits::default().cpu_time;
    assert_eq!(compensate_cause("spin-on-compensate", Limits::default()), Cause::CpuTime { limit });
    let lie = Lie::NoStep { step: "no-such-step".into() };
    assert_eq!(compensate_cause("undo-the-unknown", ample()), Cause::Lie(lie));
}

#[test]
fn those_that_ask_for_more_or_are_something_else_are_not_taken() {
    let refused = |name| host().take(wasm(name), None).unwrap_err().to_string();
    let import = refused("import-unknown");
    assert!(
        import.contains("imports `wasi:clocks/monotonic-clock@0.2.0`, which the router does not give"),
        "{import}"
    );
    let world = refused("wrong-world");
    assert!(world.contains("build it with the guest SDK, or from chaski.wit"), "{world}");
    assert!(host().take(chaski_filters::NOT_WASM, None).is_err());
}
