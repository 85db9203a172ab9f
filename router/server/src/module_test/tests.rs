//! What modules of each kind make of samples, and what is told of those that fail.

use super::*;

fn load(name: &str, params: &[(String, Json)]) -> Result<ModuleTest, Refusal> {
    ModuleTest::load(chaski_filters::builtin(name).expect("a builtin").wasm, params)
}

fn filter(test: &ModuleTest) -> &FilterTest {
    let Ready::Filter(filter) = test.ready() else { panic!("no filter") };
    filter
}

fn sample(region: &str) -> Sample {
    let headers = vec![("region".to_owned(), region.to_owned())];
    Sample { topic: "orders".into(), id: "o-1".into(), headers, priority: 4, ..Sample::default() }
}

#[test]
fn a_module_judges_samples_as_it_would_judge_messages() {
    let test = load("eu-only", &[("region".into(), "eu".into())]).unwrap();
    let about = test.about();
    assert_eq!((about.kind, about.name.as_str(), about.keeps_state), ("filter", "eu-only", false));
    assert_eq!(about.fields, ["header:region"]);
    assert_eq!(filter(&test).judge(&sample("eu")).unwrap().verdict, "pass");
    assert_eq!(filter(&test).judge(&sample("us")).unwrap().verdict, "drop");
}

#[test]
fn what_a_deploy_would_refuse_is_refused() {
    let refused = load("eu-only", &[("regoin".into(), "eu".into())]).map(drop).unwrap_err();
    assert_eq!(refused.code, Code::ModuleFailed);
    assert!(refused.detail.contains("did you mean `region`?"), "{}", refused.detail);
    let refused = ModuleTest::load(chaski_filters::NOT_WASM, &[]).map(drop).unwrap_err();
    assert!(refused.detail.contains("no WebAssembly"), "{}", refused.detail);
}

#[test]
fn wrong_params_are_told_with_their_lines() {
    let document = "[module.m]\nbuiltin = \"eu-only\"\n[module.m.params]\nzone = 1\nregoin = \"eu\"\n";
    let checked = rules::check(document).unwrap();
    let wasm = chaski_filters::builtin("eu-only").expect("a builtin").wasm;
    let told = |wasm| check_module(&checked, &checked.modules[0], wasm);
    let lines: Vec<_> = told(wasm).into_iter().map(|(line, _)| line).collect();
    // The second is about a param that is not there: the nearest place is the table around it.
    assert_eq!(lines, [5, 4, 3]);
    assert!(told(wasm)[0].1.contains("did you mean `region`?"), "{:?}", told(wasm));
    assert_eq!(told(chaski_filters::NOT_WASM)[0].0, 1);
    let small = rules::check(&format!("{document}[modules]\nmax_size = \"1KiB\"\n")).unwrap();
    assert!(check_module(&small, &small.modules[0], wasm)[0].1.contains("at most 1024"));
    let right = "[module.m]\nbuiltin = \"eu-only\"\nparams = { region = \"eu\" }\n";
    let right = rules::check(right).unwrap();
    assert_eq!(check_module(&right, &right.modules[0], wasm), []);
}

#[test]
fn a_module_that_keeps_state_remembers_the_samples_before() {
    let test = load("dedup-by-content", &[]).unwrap();
    let verdicts = [1, 2].map(|_| filter(&test).judge(&sample("eu")).unwrap().verdict);
    assert_eq!(verdicts, ["pass", "drop"]);
}

#[test]
fn a_module_that_traps_is_told_and_can_be_tried_again() {
    let wasm = chaski_filters::hostile("trap").expect("a guest").wasm;
    let test = ModuleTest::load(wasm, &[]).unwrap();
    for _ in 0..2 {
        let tried = filter(&test).judge(&sample("eu")).unwrap();
        assert_eq!(tried.verdict, "error");
        assert!(tried.detail.is_some());
    }
}

fn reply(recipient: &str, payload: &str) -> GatherEvent {
    let (recipient, payload) = (recipient.to_owned(), payload.as_bytes().to_vec());
    GatherEvent::Reply { recipient, at_ms: 0, headers: vec![], payload }
}

fn gather(name: &str, params: &[(String, Json)], events: &[GatherEvent]) -> (Vec<Tried>, Option<Answer>) {
    let test = load(name, params).unwrap();
    let Ready::Aggregator(aggregator) = test.ready() else { panic!("no aggregator") };
    aggregator.gather(&Sample::default(), events).unwrap()
}

fn verdicts(tried: &[Tried]) -> Vec<&'static str> {
    tried.iter().map(|tried| tried.verdict).collect()
}

#[test]
fn an_aggregator_makes_one_answer_of_a_gather() {
    let silent = GatherEvent::Silent { recipient: "c".into() };
    let events = [reply("a", "{\"n\": 2}"), reply("b", "{\"n\": 1}"), silent];
    let (tried, answer) = gather("lowest-quote", &[("pointer".into(), "/n".into())], &events);
    assert_eq!(verdicts(&tried), ["begun", "continue", "continue", "continue", "answer"]);
    assert_eq!(answer, Some(Answer { headers: vec![], payload: b"{\"n\": 1}".to_vec() }));
}

#[test]
fn an_aggregator_that_is_done_is_told_of_nothing_more() {
    let events = [reply("a", "1"), reply("b", "2"), reply("c", "3")];
    let (tried, answer) = gather("first-n", &[("n".into(), 2.into())], &events);
    assert_eq!(verdicts(&tried), ["begun", "continue", "done", "answer"]);
    assert_eq!(answer.unwrap().payload, b"[1,2]");
}

#[test]
fn an_aggregator_that_fails_or_refuses_is_told() {
    let (tried, answer) = gather("lowest-quote", &[("pointer".into(), "/n".into())], &[reply("a", "{}")]);
    assert_eq!(verdicts(&tried), ["begun", "continue", "failed"]);
    assert_eq!(tried[2].detail.as_deref(), Some("no reply has a number at `/n`"));
    assert_eq!((answer, tried[1].log.len()), (None, 1));
    let test = ModuleTest::load(chaski_filters::hostile("trap-on-fold").unwrap().wasm, &[]).unwrap();
    let Ready::Aggregator(aggregator) = test.ready() else { panic!("no aggregator") };
    let (tried, answer) = aggregator.gather(&Sample::default(), &[reply("a", "")]).unwrap();
    // What a trap does to the state is nothing: the gather goes on without that reply.
    assert_eq!((verdicts(&tried), answer.is_some()), (vec!["begun", "error", "answer"], true));
}

fn history(cause: Option<SagaCause>) -> History {
    let step = |name: &str, state| SagaStep {
        name: name.into(),
        state,
        attempts: 1,
        payload: Some(b"{\"risk\":\"low\"}".to_vec()),
        reason: None,
        can_undo: true,
        undone: false,
        pivot: false,
    };
    let steps = vec![step("check", StepState::Completed), step("review", StepState::Pending)];
    let (saga, id) = ("order".into(), "o-1".into());
    History { saga, id, now_ms: 0, input: Request::default(), steps, cause, retries: 0 }
}

#[test]
fn a_compensator_says_what_comes_next_and_how_to_undo() {
    let params = [
        ("steps".to_owned(), Json::from(vec!["review"])),
        ("pointer".to_owned(), "/risk".into()),
        ("equals".to_owned(), "low".into()),
    ];
    let test = load("skip-steps", &params).unwrap();
    assert!(test.about().advances);
    let Ready::Compensator(compensator) = test.ready() else { panic!("no compensator") };
    assert_eq!(compensator.decide(&history(None)).unwrap().verdict, "complete");
    let plan = compensator.decide(&history(Some(SagaCause::Timeout))).unwrap();
    assert_eq!((plan.verdict, plan.detail.as_deref()), ("undo", Some("check")));
    let test = load("order-compensation", &[]).unwrap();
    let Ready::Compensator(compensator) = test.ready() else { panic!("no compensator") };
    let refused = compensator.decide(&history(None)).unwrap_err();
    assert!(refused.detail.contains("has no `advance`"), "{}", refused.detail);
}

#[test]
fn a_module_of_any_kind_is_checked_against_its_params() {
    let document = "[module.m]\nbuiltin = \"lowest-quote\"\nparams = { pionter = \"/n\" }\n";
    let checked = rules::check(document).unwrap();
    let wasm = chaski_filters::builtin("lowest-quote").expect("a builtin").wasm;
    let told = check_module(&checked, &checked.modules[0], wasm);
    assert!(told.iter().any(|(_, sentence)| sentence.contains("did you mean `pointer`?")), "{told:?}");
}
