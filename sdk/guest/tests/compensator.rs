//! What `#[compensator]` makes of an `impl`, and what a history tells.

use chaski_guest::{
    bindings::compensator::chaski::module::compensation,
    prelude::*,
    runtime::{Param, ParamValue, gather, saga},
};

/// Undoes in an order of its own, and decides what comes next.
mod steering {
    use super::*;

    #[params]
    pub(super) struct Steering {
        pub(super) last: String,
    }

    #[compensator]
    impl Compensator for Steering {
        fn advance(&self, history: &History) -> Course {
            match history.next() {
                Some(step) if step.name == self.last => Course::step_with(&step.name, "now"),
                Some(step) if step.name == "jump" => Course::step(&self.last),
                Some(_) => Course::Next,
                None if history.has_completed(&self.last) => Course::Complete,
                None => Course::fail("it ended early"),
            }
        }

        fn compensate(&self, history: &History) -> Plan {
            match (&history.cause, history.failed_step()) {
                (Some(Cause::Timeout), _) => Plan::park("too late"),
                (_, Some(failed)) if failed.name == self.last && history.retries < 2 => Plan::Retry,
                (Some(Cause::Aborted(reason)), _) => {
                    let undo = |step: &Step| Undo::step(&step.name).payload(reason.as_str());
                    Plan::Undo(history.undoable().map(undo).collect())
                }
                _ => Plan::all(history),
            }
        }
    }
}

/// Decides nothing but how to undo.
mod undoing {
    use super::*;

    #[params]
    pub(super) struct Undoing;

    #[compensator]
    impl Compensator for Undoing {
        fn compensate(&self, history: &History) -> Plan {
            Plan::undo(history.steps.iter().filter(|step| step.is_undoable()).map(|step| step.name.as_str()))
        }
    }
}

fn steering() -> steering::Steering {
    steering::Steering { last: "ship".into() }
}

#[test]
fn the_description_says_whether_it_advances() {
    use saga::Guest as _;
    assert!(steering::__ChaskiModule::describe().advances);
    assert!(!undoing::__ChaskiModule::describe().advances);
    assert_eq!(undoing::Undoing.advance(&History::default()), Course::Next);
}

#[test]
fn a_course_follows_from_the_history() {
    let next = |steps: &[Step]| steering().advance(&History::of(steps.to_vec()));
    let stock = Step::completed("stock", "{}");
    assert_eq!(next(&[stock.clone(), Step::pending("card")]), Course::Next);
    assert_eq!(next(&[stock.clone(), Step::pending("ship")]), Course::step_with("ship", "now"));
    assert_eq!(next(&[Step::pending("jump"), Step::pending("ship")]), Course::step("ship"));
    assert_eq!(next(&[Step::completed("ship", "")]), Course::Complete);
    assert_eq!(next(&[stock]), Course::fail("it ended early"));
}

#[test]
fn what_is_to_be_undone_is_told_last_first() {
    let history = History::of([
        Step::completed("a", ""),
        Step { can_undo: false, ..Step::completed("b", "") },
        Step::unknown("c"),
        Step { undone: true, ..Step::completed("d", "") },
        Step::failed("ship", "no truck"),
        Step::pending("f"),
    ]);
    assert_eq!(history.failed_step().and_then(|step| step.reason.as_deref()), Some("no truck"));
    assert_eq!(steering().compensate(&history), Plan::Retry);
    let tried = History { retries: 2, ..history };
    assert_eq!(steering().compensate(&tried), Plan::undo(["c", "a"]));
    assert_eq!(undoing::Undoing.compensate(&tried), Plan::undo(["a", "c"]));
    let late = History { cause: Some(Cause::Timeout), ..tried.clone() };
    assert_eq!(steering().compensate(&late), Plan::park("too late"));
    let aborted = History { cause: Some(Cause::Aborted("why".into())), ..tried };
    let undo = ["c", "a"].map(|name| Undo::step(name).payload("why"));
    assert_eq!(steering().compensate(&aborted), Plan::Undo(undo.to_vec()));
}

#[test]
fn the_records_of_the_contract_become_the_traits_calls() {
    use saga::Guest as _;
    type Module = steering::__ChaskiModule;
    let last = Param { name: "last".into(), value: ParamValue::Text("ship".into()) };
    Module::configure(vec![last]).expect("the params are right");
    let history = |state: compensation::StepState, cause: Option<compensation::Cause>| saga::History {
        saga: "order".into(),
        id: "o-1".into(),
        now: 7,
        input: gather::Message {
            topic: "t".into(),
            id: "o-1".into(),
            key: None,
            headers: vec![],
            payload: vec![],
            priority: 4,
            timestamp: 6,
        },
        steps: vec![compensation::Step {
            name: "ship".into(),
            state,
            attempts: 1,
            payload: None,
            reason: None,
            can_undo: true,
            undone: false,
            pivot: false,
        }],
        cause,
        retries: 0,
    };
    use compensation::{Cause as WitCause, StepState as State};
    let saga::Course::Step(send) = Module::advance(history(State::Pending, None)) else { panic!() };
    assert_eq!((&*send.step, send.payload.as_deref()), ("ship", Some(&b"now"[..])));
    assert!(matches!(Module::advance(history(State::Completed, None)), saga::Course::Complete));
    assert!(
        matches!(Module::advance(history(State::Running, None)), saga::Course::Fail(reason) if reason == "it ended early")
    );
    let plan = |state, cause| Module::compensate(history(state, Some(cause)));
    assert!(matches!(plan(State::Failed, WitCause::Step("ship".into())), saga::Plan::Retry));
    assert!(
        matches!(plan(State::Unknown, WitCause::Timeout), saga::Plan::Park(reason) if reason == "too late")
    );
    let saga::Plan::Undo(undo) = plan(State::Unknown, WitCause::Aborted("why".into())) else { panic!() };
    assert_eq!((&*undo[0].step, undo[0].payload.as_deref()), ("ship", Some(&b"why"[..])));
}
