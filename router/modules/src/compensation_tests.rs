//! What is taken of a compensator's answers, and what is refused with which sentence.

use super::*;

fn step(name: &str, state: StepState) -> SagaStep {
    SagaStep {
        name: name.into(),
        state,
        attempts: 1,
        payload: None,
        reason: None,
        can_undo: true,
        undone: false,
        pivot: false,
    }
}

fn history() -> History {
    let steps = vec![
        step("stock", StepState::Completed),
        step("card", StepState::Unknown),
        step("mail", StepState::Failed),
        step("ship", StepState::Pending),
        SagaStep { can_undo: false, ..step("log", StepState::Completed) },
        SagaStep { undone: true, ..step("seat", StepState::Completed) },
        step("call", StepState::Running),
    ];
    let (saga, id) = ("order".into(), "o-1".into());
    History { saga, id, now_ms: 0, input: Request::default(), steps, cause: None, retries: 0 }
}

fn plan(steps: &[&str]) -> Result<Vec<String>, String> {
    let undo = steps.iter().map(|step| wit::Undo { step: (*step).into(), payload: None }).collect();
    match check_plan(wit::Plan::Undo(undo), &history(), &Limits::default()) {
        Ok(Plan::Undo(undo)) => Ok(undo.into_iter().map(|undo| undo.step).collect()),
        Ok(other) => panic!("{other:?}"),
        Err(lie) => Err(lie.to_string()),
    }
}

#[test]
fn a_plan_names_steps_that_there_is_something_to_undo_of() {
    assert_eq!(plan(&["stock", "card"]), Ok(vec!["stock".into(), "card".into()]));
    assert_eq!(plan(&[]), Ok(vec![]));
    let refused = |steps: &[&str], sentence: &str| {
        let said = plan(steps).unwrap_err();
        assert!(said.ends_with(sentence), "{said}");
    };
    refused(&["taxi"], "it names the step `taxi`, which the saga has not");
    refused(&["stock", "stock"], "the step `stock`, which is named twice");
    refused(&["log"], "the step `log`, which has no `compensate` in its definition");
    refused(&["seat"], "the step `seat`, which is undone already");
    for name in ["mail", "ship", "call"] {
        refused(&[name], "which has neither completed nor an unknown outcome");
    }
}

#[test]
fn a_course_names_a_step_that_can_be_sent() {
    let send = |step: &str, payload: usize| {
        let send = wit::Send { step: step.into(), payload: Some(vec![0; payload]) };
        let limits = Limits { payload_bytes: 8, ..Limits::default() };
        check_course(wit::Course::Step(send), &history(), &limits).map_err(|lie| lie.to_string())
    };
    for name in ["card", "mail", "ship"] {
        assert_eq!(send(name, 8), Ok(Course::Step { step: name.into(), payload: Some(vec![0; 8]) }));
    }
    assert!(send("stock", 0).unwrap_err().ends_with("the step `stock`, which has completed"));
    assert!(send("call", 0).unwrap_err().ends_with("the step `call`, which is running"));
    assert!(send("taxi", 0).unwrap_err().ends_with("the step `taxi`, which the saga has not"));
    assert_eq!(send("ship", 9), Err(Lie::Payload { got: 9, limit: 8 }.to_string()));
}
