//! The aggregators and compensators that come with the router, as the router runs them: each once through all its calls.

use std::time::Duration;

use chaski_modules::{
    Aggregator, Compensator, ConfigureError, Course, GatherEnd, GatherEvent, History, Limits, Param, Plan,
    Request, Response, SagaCause, SagaStep, StepState, Undo, Value,
};

use crate::kit::{deploy, host};

fn ample() -> Limits {
    Limits { cpu_time: Duration::from_secs(5), ..Limits::default() }
}

fn wasm(name: &str) -> &'static [u8] {
    chaski_filters::builtin(name).expect("there is such a builtin").wasm
}

fn param(name: &str, value: Value) -> Param {
    Param { name: name.into(), value }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn configured(name: &str, params: &[Param]) -> Result<Aggregator, ConfigureError> {
    let host = host();
    let (compiled, description) = deploy(&host, wasm(name));
    assert_eq!(description.name, name);
    host.aggregator(name, &compiled, &description, params, ample())
}

/// Runs a gather of three with these replies to its end, or until the module is done.
fn gather(name: &str, params: &[Param], replies: &[&str]) -> Result<Response, String> {
    let aggregator = configured(name, params).expect("it is configured");
    let recipients = ["a", "b", "c"].map(str::to_owned);
    let mut state = aggregator.begin(&Request::default(), &recipients).unwrap().answer.unwrap();
    let mut end = GatherEnd::Settled;
    for (reply, recipient) in replies.iter().zip(recipients) {
        let (headers, payload) = (vec![], reply.as_bytes().to_vec());
        let reply = GatherEvent::Reply { recipient, at_ms: 0, headers, payload };
        let folded = aggregator.fold(&state, &reply).unwrap().answer.unwrap();
        state = folded.state;
        if folded.done {
            end = GatherEnd::Done;
            break;
        }
    }
    let finished = aggregator.finish(&state, end).unwrap().answer.unwrap();
    assert_eq!(aggregator.metrics().instances_made, 1, "one instance served all calls");
    finished
}

fn answer(headers: &[(&str, &str)], payload: &str) -> Result<Response, String> {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Ok(Response { headers, payload: payload.into() })
}

#[test]
fn every_aggregator_makes_its_answer() {
    let replies = [r#"{"n": 3, "a": 1}"#, r#"{"n": 2.50}"#, r#"{"n": 3}"#];
    let whole = r#"[{"n": 3, "a": 1},{"n": 2.50},{"n": 3}]"#;
    assert_eq!(gather("collect", &[], &replies), answer(&[], whole));
    let n = [param("n", Value::Integer(2))];
    assert_eq!(gather("first-n", &n, &replies), answer(&[], r#"[{"n": 3, "a": 1},{"n": 2.50}]"#));
    assert_eq!(gather("merge-objects", &[], &replies), answer(&[], r#"{"a":1,"n":3}"#));
    let pointer = [param("pointer", text("/n"))];
    assert_eq!(gather("lowest-quote", &pointer, &replies), answer(&[], r#"{"n": 2.50}"#));
    let votes = [("votes", "2"), ("asked", "3")];
    assert_eq!(gather("majority-vote", &pointer, &replies), answer(&votes, "3"));
    assert_eq!(gather("average", &pointer, &replies[1..]), answer(&[("count", "2")], "2.75"));
    let none = Err("no reply has a number at `/n`".into());
    assert_eq!(gather("lowest-quote", &pointer, &["sold out"]), none);
}

#[test]
fn params_are_checked_before_a_gather_begins() {
    let error = configured("first-n", &[param("n", Value::Integer(0))]).unwrap_err();
    assert_eq!(error.to_string(), "the module refuses its params: `n` must be at least 1");
    let error = configured("lowest-quote", &[param("pionter", text("/n"))]).unwrap_err();
    assert!(error.to_string().contains("did you mean `pointer`?"), "{error}");
}

fn compensator(name: &str, params: &[Param]) -> Compensator {
    let host = host();
    let (compiled, description) = deploy(&host, wasm(name));
    host.compensator(name, &compiled, &description, params, ample()).expect("it is configured")
}

fn history(states: [StepState; 3], cause: Option<SagaCause>) -> History {
    let step = |(name, state): (&str, StepState)| SagaStep {
        name: name.into(),
        state,
        attempts: 1,
        payload: (state == StepState::Completed).then(|| br#"{"risk": "low"}"#.to_vec()),
        reason: (state == StepState::Failed).then(|| "no truck".into()),
        can_undo: true,
        undone: false,
        pivot: false,
    };
    History {
        saga: "order".into(),
        id: "o-1".into(),
        now_ms: 0,
        input: Request::default(),
        steps: ["card", "stock", "ship"].into_iter().zip(states).map(step).collect(),
        cause,
        retries: 0,
    }
}

#[test]
fn every_compensator_makes_its_plan() {
    use StepState::{Completed, Failed, Pending};
    let names = |name: &str, steps: &str| param(name, Value::Json(steps.into()));
    let undo = |steps: &[&str]| {
        Plan::Undo(steps.iter().map(|step| Undo { step: (*step).into(), payload: None }).collect())
    };
    let failed = history([Completed, Completed, Failed], Some(SagaCause::Step("ship".into())));
    let plan = |compensator: &Compensator| compensator.compensate(&failed).unwrap().answer.unwrap();
    let ordered = compensator("order-compensation", &[names("order", r#"["card", "stock"]"#)]);
    assert!(!ordered.advances());
    assert_eq!(plan(&ordered), undo(&["card", "stock"]));
    let parking = compensator("order-compensation", &[names("park_on", r#"["ship"]"#)]);
    assert_eq!(plan(&parking), Plan::Park("ship failed: no truck".into()));
    let params =
        [names("steps", r#"["stock"]"#), param("pointer", text("/risk")), names("equals", "\"low\"")];
    let skipping = compensator("skip-steps", &params);
    assert!(skipping.advances());
    assert_eq!(plan(&skipping), undo(&["stock", "card"]));
    let course = skipping.advance(&history([Completed, Pending, Pending], None)).unwrap().answer.unwrap();
    assert_eq!(course, Course::Step { step: "ship".into(), payload: None });
}

/// The rules offer each where its world fits, before it is compiled.
#[test]
fn every_builtin_is_of_the_world_that_its_table_says() {
    for guest in chaski_filters::builtins() {
        let binary = host().take(guest.wasm, None).expect(guest.name);
        assert_eq!(binary.world().name(), guest.world, "{}", guest.name);
    }
}
