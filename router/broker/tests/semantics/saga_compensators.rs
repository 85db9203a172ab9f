//! Compensators: what they are asked, what their answers do, and which make no sense. SEMANTICS, Sagas.

use super::harness::*;
use super::sagas::start;
use chaski_broker::*;

fn steps(names: &[&str]) -> Vec<StepSettings> {
    names.iter().map(|name| saga_step(name)).collect()
}

/// A saga with a compensator.
fn advised(steps: Vec<StepSettings>, advances: bool) -> World {
    advised_within(ShardLimits::default(), steps, advances)
}

fn advised_within(limits: ShardLimits, steps: Vec<StepSettings>, advances: bool) -> World {
    let saga = saga_with("order", steps, |it| {
        it.compensator = Some(module("plan"));
        it.advances = advances;
    });
    World::steering_within(limits, &[], &[], &[saga])
}

/// One of `stock`, `card` and `ship`, of which the last just failed.
fn failed() -> World {
    let mut world = advised(steps(&["stock", "card", "ship"]), false);
    world.publish(start("o1"));
    world.does("stock", "reserved");
    world.does("card", "charged");
    world.fails("ship", "no van", false);
    world
}

fn state(world: &World) -> SagaState {
    world.saga_state("order", "o1")
}

fn undo(steps: &[(&str, Option<&str>)]) -> Advice {
    let steps = steps
        .iter()
        .map(|(name, payload)| ((*name).to_owned(), payload.map(|payload| payload.to_owned().into())));
    Advice::Undo { steps: steps.collect() }
}

#[track_caller]
fn parked(world: &World, why: &str) {
    assert_eq!(state(world), SagaState::Parked);
    let detail = world.broker.saga("order", "o1").unwrap().summary.detail;
    assert!(detail.contains(why), "{detail:?} says nothing of {why:?}");
}

#[test]
fn compensator_is_asked_with_the_history_and_its_plan_is_followed() {
    let mut world = failed();
    assert_eq!(state(&world), SagaState::Compensating);
    assert_eq!(world.shown("undo.card"), None, "nothing is undone before its word");
    let asked = world.advise(undo(&[("stock", Some("give back")), ("card", None)]));
    assert_eq!(asked.cause, Some(SagaCause::Step { step: 2, reason: "no van".into() }));
    assert_eq!((asked.name.as_str(), asked.id.as_str(), asked.retries), ("order", "o1", 0));
    let seen: Vec<(StepOutcome, u32)> =
        asked.steps.iter().map(|step| (step.outcome, step.attempts)).collect();
    let expected = [(StepOutcome::Completed, 1), (StepOutcome::Completed, 1), (StepOutcome::Failed, 1)];
    assert_eq!(seen, expected);
    assert_eq!(world.shown("undo.stock").unwrap().1, "give back");
    world.does("undo.stock", "");
    assert_eq!(
        world.shown("undo.card").unwrap().1,
        "3 hats [stock=reserved card=charged] failed ship: no van"
    );
    world.does("undo.card", "");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn plan_that_makes_no_sense_parks() {
    let cases: [(&[&str], &str); 4] = [
        (&["card"], "leaves out step `stock`"),
        (&["card", "stock", "bill"], "`bill`, which its definition doesn't have"),
        (&["card", "stock", "ship"], "`ship`, which has nothing to undo"),
        (&["card", "stock", "card"], "`card` twice"),
    ];
    for (plan, why) in cases {
        let mut world = failed();
        let plan: Vec<(&str, Option<&str>)> = plan.iter().map(|step| (*step, None)).collect();
        world.advise(undo(&plan));
        parked(&world, why);
        assert_eq!(world.counts("undo.card"), [0; 4]);
    }
}

#[test]
fn unknown_step_must_be_in_the_plan_too() {
    let mut world = advised(steps(&["stock"]), false);
    world.publish(start("o1"));
    world.takes("stock");
    world.advance(5_000);
    world.advise(undo(&[]));
    parked(&world, "leaves out step `stock`");
}

#[test]
fn empty_plan_ends_a_saga_that_has_nothing_to_undo() {
    let mut world = advised(steps(&["stock"]), false);
    world.publish(start("o1"));
    world.fails("stock", "no", false);
    world.advise(undo(&[]));
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn retry_tries_the_failed_step_once_more_at_most_sixteen_times() {
    let mut world = failed();
    for retry in 0..16 {
        let asked = world.advise(Advice::Retry);
        assert_eq!(asked.retries, retry);
        assert_eq!(world.fails("ship", "no van", false), format!("order/o1/ship/{}", retry + 2));
    }
    world.advise(Advice::Retry);
    parked(&world, "more than 16 times");
    // An operator's retry goes on, and the count stands.
    world.steer("order", "o1", SagaVerb::Retry).unwrap();
    world.fails("ship", "no van", false);
    world.advise(Advice::Retry);
    parked(&world, "more than 16 times");
}

#[test]
fn retry_that_helps_completes_the_saga() {
    let mut world = failed();
    world.advise(Advice::Retry);
    assert_eq!(state(&world), SagaState::Running);
    world.does("ship", "sent");
    assert_eq!(state(&world), SagaState::Completed);
    assert_eq!(world.broker.saga("order", "o1").unwrap().failed, None);
}

#[test]
fn retry_is_no_answer_to_an_operators_abort() {
    let mut world = advised(steps(&["stock", "card"]), false);
    world.publish(start("o1"));
    world.does("stock", "");
    world.steer("order", "o1", SagaVerb::Abort { compensate: true }).unwrap();
    let asked = world.advise(Advice::Retry);
    assert!(matches!(asked.cause, Some(SagaCause::Aborted { .. })));
    parked(&world, "no step failed");
}

#[test]
fn park_failure_and_the_wrong_kind_of_answer_park() {
    let park = Advice::Park { reason: "ask Ann".into() };
    for (advice, why) in [(park, "ask Ann"), (Advice::Next, "wrong kind"), (Advice::Complete, "wrong kind")] {
        let mut world = failed();
        world.advise(advice);
        parked(&world, why);
    }
    let mut world = failed();
    let asked = world.advice_wanted.pop_front().unwrap();
    let outcome = Err(ModuleFailure { detail: "it trapped".into() });
    world.call(Command::Advised { saga: asked.saga, call: asked.call, outcome });
    parked(&world, "its compensator failed: it trapped");
}

#[test]
fn saga_parked_by_its_compensator_goes_on_by_an_operators_word() {
    let park = || Advice::Park { reason: "ask Ann".into() };
    // Aborted, it undoes without asking once more.
    let mut world = failed();
    world.advise(park());
    world.steer("order", "o1", SagaVerb::Abort { compensate: true }).unwrap();
    assert_eq!(world.advice_wanted.len(), 0);
    world.does("undo.card", "");
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
    // Retried, what failed is tried again.
    let mut world = failed();
    world.advise(park());
    world.steer("order", "o1", SagaVerb::Retry).unwrap();
    world.does("ship", "");
    assert_eq!(state(&world), SagaState::Completed);
    // Skipped, it is complete, and nothing is to blame any more.
    let mut world = failed();
    world.advise(park());
    let skip = SagaVerb::Skip { step: "ship".into(), payload: "by hand".into() };
    assert_eq!(world.steer("order", "o1", skip), Ok(SagaState::Completed));
    assert_eq!(world.broker.saga("order", "o1").unwrap().failed, None);
}

#[test]
fn answer_to_a_call_that_is_over_is_passed_over() {
    let mut world = failed();
    let asked = world.advice_wanted.pop_front().unwrap();
    world.steer("order", "o1", SagaVerb::Abort { compensate: false }).unwrap();
    let stale = |world: &mut World, call| {
        let outcome = Ok(undo(&[("card", None), ("stock", None)]));
        world.call(Command::Advised { saga: asked.saga, call, outcome });
    };
    stale(&mut world, asked.call);
    assert_eq!(state(&world), SagaState::Aborted);
    let mut world = failed();
    stale(&mut world, asked.call + 1);
    assert_eq!(state(&world), SagaState::Compensating);
    assert_eq!(world.advice_wanted.len(), 1);
}

#[test]
fn advance_chooses_each_next_step() {
    let mut world = advised(steps(&["a", "b", "c", "d"]), true);
    world.publish(start("o1"));
    assert_eq!(world.does("a", "1"), "order/o1/a/1", "the first one follows from the start");
    let asked = world.advise(Advice::Next);
    assert_eq!(asked.cause, None);
    world.does("b", "2");
    world.advise(Advice::Step { step: "d".into(), payload: Some("own".into()) });
    assert_eq!(world.shown("c"), None, "those between are left out");
    assert_eq!(world.shown("d").unwrap().1, "own");
    // Its retries carry the same, also after a restart.
    world.restart();
    assert_eq!(world.shown("d").unwrap().1, "own");
    world.does("d", "4");
    world.advise(Advice::Next);
    assert_eq!(state(&world), SagaState::Completed);
    assert_eq!(world.step_of("order", "o1", "c").outcome, StepOutcome::Pending);
}

#[test]
fn payloads_of_the_compensator_outlive_a_snapshot_and_go_with_every_attempt() {
    let retried = |name: &str| step_with(name, |step| step.retries = 1);
    let mut world = advised(vec![retried("a"), retried("b"), retried("c")], true);
    let restart = |world: &mut World| {
        world.snapshot();
        world.restart();
        world.advance(1_100);
    };
    world.publish(start("o1"));
    world.does("a", "");
    world.advise(Advice::Step { step: "b".into(), payload: Some("own".into()) });
    world.fails("b", "busy", true);
    restart(&mut world);
    assert_eq!(world.shown("b").unwrap(), ("order/o1/b/2".to_owned(), "own".to_owned()));
    world.does("b", "");
    world.advise(Advice::Fail { reason: "too dear".into() });
    world.advise(undo(&[("a", None), ("b", Some("back"))]));
    world.does("undo.a", "");
    world.fails("undo.b", "busy", true);
    restart(&mut world);
    assert_eq!(world.shown("undo.b").unwrap(), ("order/o1/b/undo/2".to_owned(), "back".to_owned()));
}

#[test]
fn payloads_of_the_compensator_count_to_what_a_saga_keeps() {
    let limits = ShardLimits { saga_max_payload_bytes: 100, ..ShardLimits::default() };
    let mut world = advised_within(limits.clone(), steps(&["a", "b", "c"]), false);
    world.publish(start("o1"));
    world.does("a", "");
    world.does("b", "");
    world.fails("c", "no", false);
    let large = "x".repeat(45);
    world.advise(undo(&[("a", Some(&large)), ("b", Some(&large))]));
    parked(&world, "gave 90 bytes of payloads, where the saga keeps at most 100");
    world.steer("order", "o1", SagaVerb::Retry).unwrap();
    world.fails("c", "no", false);
    world.advise(undo(&[("a", Some(&large)), ("b", None)]));
    assert_eq!(world.shown("undo.a").unwrap().1, large);

    let chosen = |payload: &str| {
        let mut world = advised_within(limits.clone(), steps(&["a", "b", "c"]), true);
        world.publish(start("o1"));
        world.does("a", "");
        world.advise(Advice::Step { step: "b".into(), payload: Some(payload.to_owned().into()) });
        world
    };
    parked(&chosen(&"x".repeat(101)), "saga_max_payload");
    let mut world = chosen(&large);
    // What it carries and what it answers are both kept.
    let delivery = world.takes("b");
    let too_large = Verdict::Complete { payload: "y".repeat(60).into() };
    assert_eq!(world.ends("b", &delivery, too_large), Err(SettleError::TooLarge));
    world.ends("b", &delivery, Verdict::Complete { payload: "y".into() }).unwrap();
}

#[test]
fn advance_may_go_back_to_a_step_that_was_left_out() {
    let mut world = advised(steps(&["a", "b", "c", "d"]), true);
    world.publish(start("o1"));
    world.does("a", "");
    world.advise(Advice::Step { step: "c".into(), payload: None });
    world.does("c", "");
    world.advise(Advice::Step { step: "b".into(), payload: None });
    world.does("b", "");
    world.advise(Advice::Next);
    assert_eq!(world.does("d", ""), "order/o1/d/1", "what is complete is passed over");
}

#[test]
fn advance_completes_or_fails_the_saga() {
    let mut world = advised(steps(&["a", "b"]), true);
    world.publish(start("o1"));
    world.does("a", "1");
    world.advise(Advice::Complete);
    assert_eq!(state(&world), SagaState::Completed);

    let mut world = advised(steps(&["a", "b"]), true);
    world.publish(start("o1"));
    world.does("a", "1");
    world.advise(Advice::Fail { reason: "too dear".into() });
    assert_eq!(state(&world), SagaState::Compensating);
    let asked = world.advise(undo(&[("a", None)]));
    assert_eq!(asked.cause, Some(SagaCause::Aborted { reason: "too dear".into() }));
    assert_eq!(world.shown("undo.a").unwrap().1, "3 hats [a=1] failed : too dear");
}

#[test]
fn advance_that_fails_beyond_the_pivot_parks() {
    let pivot = step_with("a", |step| step.pivot = true);
    let mut world = advised(vec![pivot, saga_step("b")], true);
    world.publish(start("o1"));
    world.does("a", "");
    world.advise(Advice::Fail { reason: "too dear".into() });
    parked(&world, "too dear");
}

#[test]
fn advance_to_a_step_that_makes_no_sense_parks_and_retry_asks_once_more() {
    for (step, why) in [("z", "doesn't have"), ("a", "is complete")] {
        let mut world = advised(steps(&["a", "b"]), true);
        world.publish(start("o1"));
        world.does("a", "");
        world.advise(Advice::Step { step: step.into(), payload: None });
        parked(&world, why);
        world.advance(600_000);
        world.steer("order", "o1", SagaVerb::Retry).unwrap();
        world.advance(1_000);
        assert_eq!(state(&world), SagaState::Running, "its time was over while it rested");
        world.advise(Advice::Next);
        world.does("b", "");
        world.advise(Advice::Next);
        assert_eq!(state(&world), SagaState::Completed);
    }
}

#[test]
fn time_that_is_over_while_the_compensator_chooses_compensates() {
    let mut world = advised(steps(&["a", "b"]), true);
    world.publish(start("o1"));
    world.does("a", "");
    let stale = world.advice_wanted.pop_front().unwrap();
    world.advance(60_000);
    assert_eq!(world.advice_wanted.front().unwrap().cause, Some(SagaCause::Timeout));
    world.call(Command::Advised { saga: stale.saga, call: stale.call, outcome: Ok(Advice::Next) });
    assert_eq!(state(&world), SagaState::Compensating);
    world.advise(undo(&[("a", None)]));
    world.does("undo.a", "");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn letter_of_a_failed_compensation_names_the_compensator() {
    let mut world = failed();
    world.advise(undo(&[("card", Some("own")), ("stock", None)]));
    world.fails("undo.card", "bank closed", false);
    let letters = world.letters("chaski");
    let info = &letters["order/o1/card/undo/1"];
    assert_eq!(info.module.as_deref(), Some("plan"));
    assert!(info.digest.as_deref().unwrap().starts_with("sha256:0707"));
    let letter = &world.browse("chaski.dlq")[0];
    assert_eq!(part(&world.body(&letter.body), 5), "own");
}
