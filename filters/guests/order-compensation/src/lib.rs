//! Undoes the steps of a saga in an order of its own: money before goods, for example.

use chaski_guest::prelude::*;

#[params]
struct OrderCompensation {
    /// Steps to undo first, in this order.
    #[json]
    #[default(vec![])]
    order: Vec<String>,
    /// Steps whose failure an operator has to look at.
    #[json]
    #[default(vec![])]
    park_on: Vec<String>,
}

#[compensator]
impl Compensator for OrderCompensation {
    fn compensate(&self, history: &History) -> Plan {
        if let Some(step) = history.failed_step().filter(|step| self.park_on.contains(&step.name)) {
            let reason = step.reason.as_deref().unwrap_or("its outcome is unknown");
            return Plan::park(format!("{} failed: {reason}", step.name));
        }
        let mut steps: Vec<&Step> = history.undoable().collect();
        // A stable sort: those that aren't named keep their order, behind the others.
        let place = |step: &Step| self.order.iter().position(|name| *name == step.name);
        steps.sort_by_key(|step| place(step).unwrap_or(usize::MAX));
        Plan::undo(steps.into_iter().map(|step| step.name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(order: &[&str], park_on: &[&str]) -> OrderCompensation {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        OrderCompensation { order: own(order), park_on: own(park_on) }
    }

    fn history() -> History {
        History::of([
            Step::completed("charge-card", "{}"),
            Step::completed("reserve-stock", "{}"),
            Step::unknown("book-slot"),
            Step::failed("ship", "no truck"),
            Step::pending("mail"),
        ])
    }

    #[test]
    fn steps_are_undone_in_the_order_of_the_params() {
        let refund_first = module(&["charge-card", "ship", "reserve-stock"], &[]);
        let plan = Plan::undo(["charge-card", "reserve-stock", "book-slot"]);
        assert_eq!(refund_first.compensate(&history()), plan);
    }

    #[test]
    fn steps_that_are_not_named_follow_last_first() {
        assert_eq!(module(&[], &[]).compensate(&history()), Plan::all(&history()));
        let plan = Plan::undo(["reserve-stock", "book-slot", "charge-card"]);
        assert_eq!(module(&["reserve-stock"], &[]).compensate(&history()), plan);
    }

    #[test]
    fn the_failure_of_some_steps_waits_for_an_operator() {
        let plan = module(&[], &["ship"]).compensate(&history());
        assert_eq!(plan, Plan::park("ship failed: no truck"));
        let unknown = History::of([Step::unknown("ship")]);
        let plan = module(&[], &["ship"]).compensate(&unknown);
        assert_eq!(plan, Plan::park("ship failed: its outcome is unknown"));
        // Its time is over: no step is to blame.
        let late = History { cause: Some(Cause::Timeout), ..history() };
        assert_eq!(module(&[], &["ship"]).compensate(&late), Plan::all(&late));
    }
}
