//! Leaves out steps of a saga by what the last step answered.

use chaski_guest::prelude::*;
use serde_json::Value;

#[params]
struct SkipSteps {
    /// The steps that can be left out.
    #[json]
    steps: Vec<String>,
    /// Where the value stands in the last answer.
    pointer: String,
    /// The value by which they are left out.
    #[json]
    equals: Value,
}

impl SkipSteps {
    /// Whether the last answer, or before the first step the input, has the value.
    fn skips(&self, history: &History) -> bool {
        let body = match history.last_completed() {
            Some(step) => step.json::<Value>(),
            None => history.input.json::<Value>(),
        };
        body.is_ok_and(|body| body.pointer(&self.pointer) == Some(&self.equals))
    }
}

#[compensator]
impl Compensator for SkipSteps {
    fn advance(&self, history: &History) -> Course {
        let Some(next) = history.next() else { return Course::Next };
        if !self.steps.contains(&next.name) || !self.skips(history) {
            return Course::Next;
        }
        let rest = history.steps.iter().skip_while(|step| step.name != next.name);
        match { rest }.find(|step| !self.steps.contains(&step.name)) {
            Some(step) => Course::step(&step.name),
            None => Course::Complete,
        }
    }

    fn compensate(&self, history: &History) -> Plan {
        Plan::all(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> SkipSteps {
        let steps = ["review", "sign"].map(str::to_owned).to_vec();
        SkipSteps { steps, pointer: "/risk".into(), equals: "low".into() }
    }

    #[test]
    fn steps_are_left_out_by_the_last_answer() {
        let after = |risk: &str| {
            let answer = format!(r#"{{"risk": "{risk}"}}"#);
            let pending = ["review", "sign", "pay"].map(Step::pending);
            module().advance(&History::of([Step::completed("check", answer)].into_iter().chain(pending)))
        };
        assert_eq!(after("low"), Course::step("pay"));
        assert_eq!(after("high"), Course::Next);
    }

    #[test]
    fn what_follows_one_that_was_left_out_is_sent_as_it_comes() {
        let steps = [Step::completed("check", r#"{"risk":"low"}"#), Step::pending("review")];
        let last = [Step::completed("pay", "{}"), Step::pending("mail")];
        assert_eq!(module().advance(&History::of(steps.into_iter().chain(last))), Course::Next);
    }

    #[test]
    fn a_saga_that_ends_in_what_is_left_out_is_complete() {
        let steps = [Step::completed("check", r#"{"risk":"low"}"#), Step::pending("review")];
        assert_eq!(module().advance(&History::of(steps)), Course::Complete);
    }

    #[test]
    fn the_first_step_is_left_out_by_the_input() {
        let steps = ["review", "pay"].map(Step::pending);
        let input = Request { payload: br#"{"risk":"low"}"#.to_vec(), ..Request::default() };
        assert_eq!(module().advance(&History { input, ..History::of(steps.clone()) }), Course::step("pay"));
        assert_eq!(module().advance(&History::of(steps)), Course::Next);
    }

    #[test]
    fn a_failure_undoes_all() {
        let history = History::of([Step::completed("check", "{}"), Step::failed("pay", "declined")]);
        assert_eq!(module().compensate(&history), Plan::undo(["check"]));
    }
}
