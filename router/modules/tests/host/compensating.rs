//! What a compensator is called with and answers, and that no call of it exceeds its limits.

use std::time::Duration;

use chaski_modules::{
    Cause, Compensator, Course, History, Lie, Limits, Plan, Request, SagaCause, SagaStep, StepState, Undo,
};

use crate::by_hand;
use crate::kit::{deploy, host};

/// Generous in time, for what is to meet another limit on a slow machine.
fn ample() -> Limits {
    Limits { cpu_time: Duration::from_secs(5), ..Limits::default() }
}

fn compensator(limits: Limits) -> Compensator {
    let host = host();
    let (compiled, description) = deploy(&host, &by_hand::compensator());
    host.compensator("test", &compiled, &description, &[], limits).expect("it is configured")
}

/// A saga whose input begins with this.
fn history(input: &str, state: StepState) -> History {
    let step = |name: &str, state| SagaStep {
        name: name.into(),
        state,
        attempts: 1,
        payload: Some(b"{}".to_vec()),
        reason: Some("why".into()),
        can_undo: true,
        undone: false,
        pivot: false,
    };
    History {
        saga: "order".into(),
        id: "o-1".into(),
        now_ms: 7,
        input: Request {
            topic: "orders.place".into(),
            id: "o-1".into(),
            key: Some("k".into()),
            headers: vec![("h".into(), "v".into())],
            payload: input.into(),
            priority: 4,
            timestamp_ms: 6,
        },
        steps: vec![step("stock", state), step("card", StepState::Failed)],
        cause: Some(SagaCause::Step("card".into())),
        retries: 0,
    }
}

fn compensate(compensator: &Compensator, input: &str) -> Result<Plan, Cause> {
    let answered = compensator.compensate(&history(input, StepState::Completed)).unwrap();
    answered.answer.map_err(|failure| failure.cause)
}

fn advance(compensator: &Compensator, input: &str) -> Result<Course, Cause> {
    let answered = compensator.advance(&history(input, StepState::Pending)).unwrap();
    answered.answer.map_err(|failure| failure.cause)
}

#[test]
fn a_plan_undoes_retries_or_parks() {
    let compensator = compensator(ample());
    assert!(compensator.advances());
    let undo = vec![Undo { step: "stock".into(), payload: None }];
    assert_eq!(compensate(&compensator, "u"), Ok(Plan::Undo(undo)));
    assert_eq!(compensate(&compensator, "r"), Ok(Plan::Retry));
    assert_eq!(compensate(&compensator, "k"), Ok(Plan::Park("o-1".into())));
    assert_eq!(compensator.metrics().instances_made, 1, "one instance served all calls");
}

#[test]
fn a_course_goes_on_jumps_ends_or_fails() {
    let compensator = compensator(ample());
    assert_eq!(advance(&compensator, "n"), Ok(Course::Next));
    let course = Course::Step { step: "stock".into(), payload: Some(b"go".to_vec()) };
    assert_eq!(advance(&compensator, "go"), Ok(course));
    assert_eq!(advance(&compensator, "c"), Ok(Course::Complete));
    assert_eq!(advance(&compensator, "f"), Ok(Course::Fail("o-1".into())));
}

#[test]
fn a_step_that_there_is_not_fails_the_call() {
    let compensator = compensator(ample());
    let lie = Cause::Lie(Lie::NoStep { step: "taxi".into() });
    assert_eq!(compensate(&compensator, "x"), Err(lie.clone()));
    assert_eq!(advance(&compensator, "x"), Err(lie));
    assert_eq!(compensator.metrics().errors, [("contract", 2)]);
}

#[test]
fn a_payload_beyond_the_limit_fails_the_call() {
    let compensator = compensator(Limits { payload_bytes: 3, ..ample() });
    assert!(advance(&compensator, "gos").is_ok());
    let lie = Lie::Payload { got: 4, limit: 3 };
    assert_eq!(advance(&compensator, "goes"), Err(Cause::Lie(lie)));
}

#[test]
fn a_trap_a_panic_or_a_spin_fails_one_call() {
    let limit = Duration::from_millis(20);
    let compensator = compensator(Limits { cpu_time: limit, ..Limits::default() });
    for call in [compensate_cause, advance_cause] {
        assert!(matches!(call(&compensator, "t"), Cause::Trap { .. }));
        assert_eq!(call(&compensator, "s"), Cause::CpuTime { limit });
        assert_eq!(call(&compensator, "p"), Cause::Panic { text: "boom, at lib.rs:1:1".into() });
        assert_eq!(compensator.metrics().instances, 0, "after a failure the instance goes");
    }
    let ample = self::compensator(ample());
    assert_eq!(compensate_cause(&ample, "m"), Cause::Memory { limit: 16 << 20 });
    assert_eq!(compensate(&ample, "r"), Ok(Plan::Retry));
}

fn compensate_cause(compensator: &Compensator, input: &str) -> Cause {
    compensate(compensator, input).expect_err("it fails")
}

fn advance_cause(compensator: &Compensator, input: &str) -> Cause {
    advance(compensator, input).expect_err("it fails")
}
