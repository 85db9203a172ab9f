//! Scenarios of gathers and sagas, killed at every batch boundary and driven to their end: whatever the moment, each effect is had
//! once, and each answer is one.

use super::harness::*;
use chaski_broker::*;

use Behaviour::*;

/// Plays a scenario without a kill, then with one at each boundary, started again from the journal and from a snapshot.
#[track_caller]
fn everywhere(scenario: impl Fn(usize, &[Kill]) -> Outside) {
    for sync_every in [1, 4] {
        let mut whole = scenario(sync_every, &[]);
        whole.finish();
        let boundaries = whole.boundaries;
        assert!(boundaries > 6, "{boundaries} boundaries are no scenario");
        for after in 1..=boundaries {
            for snapshot in [false, true] {
                scenario(sync_every, &[Kill { after, snapshot }]).finish();
            }
        }
    }
}

fn saga_scenario(
    steps: Vec<StepSettings>,
    compensator: bool,
    behaviours: &[Behaviour],
) -> impl Fn(usize, &[Kill]) -> Outside {
    move |sync_every, kills| {
        let saga = saga_with("order", steps.clone(), |it| {
            it.compensator = compensator.then(|| module("plan"));
            it.advances = compensator;
        });
        let world = World::steering(&[], &[], &[saga]);
        let mut outside = Outside::new(world, &steps, sync_every, kills);
        outside.behaviours = behaviours.iter().copied().collect();
        outside.ask("order", "o1");
        outside
    }
}

fn gather_scenario(
    change: impl Fn(&mut ScatterSettings),
    behaviours: &[Behaviour],
) -> impl Fn(usize, &[Kill]) -> Outside {
    move |sync_every, kills| {
        let scatter = scatter_with("quote", &["a", "b", "c"], &change);
        let world = World::steering(&[], &[scatter], &[]);
        let mut outside = Outside::new(world, &[], sync_every, kills);
        outside.behaviours = behaviours.iter().copied().collect();
        outside.ask("quote", "q1");
        outside
    }
}

fn steps(names: &[&str]) -> Vec<StepSettings> {
    names.iter().map(|name| step_with(name, |step| step.retries = 1)).collect()
}

#[test]
fn saga_that_completes() {
    everywhere(saga_scenario(steps(&["stock", "card", "ship"]), false, &[]));
}

#[test]
fn saga_whose_last_step_fails() {
    everywhere(saga_scenario(steps(&["stock", "card", "ship"]), false, &[Complete, Complete, Refuse]));
}

#[test]
fn saga_with_retries_and_workers_that_die() {
    let behaviours = [Die, Fail, Complete, ApplyAndNack, Die, Die, Sleep, Fail, Refuse];
    everywhere(saga_scenario(steps(&["stock", "card", "ship"]), false, &behaviours));
}

#[test]
fn saga_with_groups() {
    let grouped = |name: &str, group: &str| {
        step_with(name, |step| (step.group, step.retries) = (Some(group.to_owned()), 1))
    };
    let steps = vec![saga_step("stock"), grouped("a", "g"), grouped("b", "g"), grouped("c", "g")];
    for behaviours in [&[Complete; 0][..], &[Complete, Die, Complete, Refuse], &[Complete, Refuse, Fail, Die]]
    {
        everywhere(saga_scenario(steps.clone(), false, behaviours));
    }
}

#[test]
fn saga_that_parks_beyond_its_pivot_and_is_tried_again() {
    let steps = vec![
        saga_step("stock"),
        step_with("card", |step| step.pivot = true),
        step_with("ship", |step| step.compensate = None),
    ];
    for behaviours in
        [&[Complete, Complete, Refuse][..], &[Complete, Die], &[Complete, Complete, Refuse, Refuse, Refuse]]
    {
        everywhere(saga_scenario(steps.clone(), false, behaviours));
    }
}

#[test]
fn saga_whose_compensation_parks_and_is_tried_again() {
    let behaviours = [Complete, Complete, Refuse, Refuse, Die, Complete, Refuse];
    everywhere(saga_scenario(steps(&["stock", "card", "ship"]), false, &behaviours));
}

#[test]
fn saga_with_a_compensator() {
    let behaviours = [Complete, Complete, Refuse, Die, Complete];
    everywhere(saga_scenario(steps(&["stock", "card", "ship"]), true, &behaviours));
}

#[test]
fn gather_that_all_answer() {
    everywhere(gather_scenario(|_| {}, &[]));
}

#[test]
fn gather_with_a_quorum_and_recipients_that_fail() {
    everywhere(gather_scenario(|it| it.quorum = Some(2), &[Refuse, Nack, Complete]));
}

#[test]
fn gather_whose_recipients_stay_silent() {
    everywhere(gather_scenario(|_| {}, &[Complete, Sleep, Die]));
    everywhere(gather_scenario(|it| it.on_timeout = OnTimeout::Fail, &[Complete, Sleep, Nack, Sleep]));
}
