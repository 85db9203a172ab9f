//! Attempts at a saga's steps: timeouts, retries, how a step ends, and the pivot. SEMANTICS, Sagas.

use super::gathers::{inbox, received};
use super::harness::*;
use super::sagas::{order, start};
use chaski_broker::*;

fn outcome(world: &World, step: &str) -> (StepOutcome, u32) {
    let step = world.step_of("order", "o1", step);
    (step.outcome, step.attempts)
}

#[test]
fn timeout_withdraws_the_attempt_and_its_lease_ends() {
    let mut world = order(vec![step_with("stock", |step| step.retries = 1)]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    world.advance(4_999);
    assert_eq!(world.counts("stock"), [0, 0, 0, 1]);
    world.advance(1);
    assert_eq!(world.counts("stock"), [0; 4]);
    let answer = Verdict::Complete { payload: "ok".into() };
    assert_eq!(world.ends("stock", &delivery, answer), Err(SettleError::LeaseLost));
    assert_eq!(world.counts("stock.dlq"), [0; 4]);
}

#[test]
fn retries_are_further_messages_after_the_steps_backoff_with_its_jitter_recorded() {
    let step = step_with("stock", |step| (step.retries, step.backoff_ms) = (2, vec![1_000, 10_000]));
    let mut world = order(vec![step]);
    world.publish(start("o1"));
    assert_eq!(world.fails("stock", "busy", true), "order/o1/stock/1");
    world.advance(899);
    assert_eq!(world.shown("stock"), None);
    // A restart draws no other number.
    let due = world.broker.next_timeout().unwrap();
    world.restart();
    assert_eq!(world.broker.next_timeout(), Some(due));
    world.advance(201);
    assert_eq!(world.fails("stock", "busy", true), "order/o1/stock/2");
    world.advance(8_999);
    assert_eq!(world.shown("stock"), None);
    world.advance(2_001);
    assert_eq!(world.does("stock", "ok"), "order/o1/stock/3");
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Completed, 3));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn step_that_answered_failures_only_is_failed_and_not_undone() {
    let mut world = order(vec![step_with("stock", |step| step.retries = 1)]);
    world.publish(start("o1"));
    world.fails("stock", "busy", true);
    world.advance(1_100);
    world.fails("stock", "broken", true);
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Failed, 2));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
    assert_eq!(world.counts("undo.stock"), [0; 4]);
}

#[test]
fn step_that_nobody_took_is_failed_and_not_undone() {
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    world.advance(5_000);
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Failed, 1));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
}

#[test]
fn step_that_somebody_took_and_did_not_answer_is_unknown_and_undone() {
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    world.takes("stock");
    world.advance(5_000);
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Unknown, 1));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensating);
    let failed = " failed stock: nobody answered in time";
    assert_eq!(world.shown("undo.stock").unwrap().1, format!("3 hats []{failed}"));
    assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
}

#[test]
fn one_unanswered_attempt_makes_a_step_unknown_whatever_the_later_ones_say() {
    let mut world = order(vec![step_with("stock", |step| step.retries = 1)]);
    world.publish(start("o1"));
    world.takes("stock");
    world.advance(5_000 + 1_100);
    assert_eq!(world.fails("stock", "no", false), "order/o1/stock/2");
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Unknown, 2));
    // And a completed one makes it completed.
    world.publish(start("o2"));
    world.takes("stock");
    world.advance(5_000 + 1_100);
    assert_eq!(world.does("stock", ""), "order/o2/stock/2");
    assert_eq!(world.step_of("order", "o2", "stock").outcome, StepOutcome::Completed);
}

#[test]
fn nacked_delivery_counts_as_delivered_when_the_timeout_comes() {
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    world.ends("stock", &delivery, Verdict::Nack { delay_ms: Some(60_000) }).unwrap();
    world.advance(5_000);
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Unknown, 1));
}

#[test]
fn max_deliver_is_a_dead_letter_and_ends_the_attempt() {
    let poor = queue("stock").max_deliver(1);
    let step = step_with("stock", |step| step.retries = 1);
    let mut world = World::steering(&[poor], &[], &[saga("order", vec![step])]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    world.ends("stock", &delivery, Verdict::Nack { delay_ms: None }).unwrap();
    assert_eq!(world.letters("stock")["order/o1/stock/1"].reason, DeadReason::MaxDeliver);
    world.advance(1_100);
    assert_eq!(world.shown("stock").unwrap().0, "order/o1/stock/2");
    let delivery = world.takes("stock");
    world.ends("stock", &delivery, Verdict::Nack { delay_ms: None }).unwrap();
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Unknown, 2));
    // Redriven, it is nobody's any more: an answer to it changes nothing.
    world.redrive("stock");
    world.does("stock", "late");
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Unknown, 2));
}

#[test]
fn time_to_live_is_a_dead_letter_and_a_failed_step_where_nobody_had_it() {
    let mut world =
        World::steering(&[queue("stock").ttl(1_000)], &[], &[saga("order", vec![saga_step("stock")])]);
    world.publish(start("o1"));
    world.advance(1_000);
    assert_eq!(world.letters("stock")["order/o1/stock/1"].reason, DeadReason::Expired);
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Failed, 1));
}

#[test]
fn purge_and_cancel_end_the_attempt() {
    for operation in [Operation::Purge { limit: 9 }, Operation::Cancel { id: "order/o1/stock/1".into() }] {
        let mut world = order(vec![saga_step("stock")]);
        world.publish(start("o1"));
        world.operate("stock", operation).unwrap();
        assert_eq!(outcome(&world, "stock"), (StepOutcome::Failed, 1));
        assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
    }
}

#[test]
fn full_queue_is_waited_for() {
    let full = queue("stock").max_messages(1, Overflow::Reject);
    let mut world = World::steering(&[full], &[], &[saga("order", vec![saga_step("stock")])]);
    world.store(draft("stock", "other"));
    assert_eq!(world.publish(start("o1")).routed, 1, "the saga takes its start");
    world.advance(10_000);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Running);
    world.does("stock", "");
    world.advance(1_000);
    assert_eq!(world.does("stock", ""), "order/o1/stock/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn queue_full_of_leased_messages_fails_the_attempt() {
    let full = queue("stock").max_messages(1, Overflow::DropOldest);
    let step = step_with("stock", |step| step.retries = 1);
    let mut world = World::steering(&[full], &[], &[saga("order", vec![step])]);
    world.store(draft("stock", "other"));
    let other = world.takes("stock");
    world.publish(start("o1"));
    assert_eq!(outcome(&world, "stock"), (StepOutcome::Running, 1));
    world.ends("stock", &other, Verdict::Ack).unwrap();
    world.advance(1_100);
    assert_eq!(world.does("stock", ""), "order/o1/stock/2");
}

#[test]
fn time_of_the_whole_withdraws_what_is_under_way_and_compensates() {
    let slow = |name: &str| step_with(name, |step| step.timeout_ms = 600_000);
    let mut world = order(vec![slow("stock"), slow("card")]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(start("o1"));
    world.does("stock", "ok");
    let delivery = world.takes("card");
    world.advance(59_999);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Running);
    world.advance(1);
    assert_eq!(world.ends("card", &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    assert_eq!(world.does("undo.card", ""), "order/o1/card/undo/1");
    assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/1");
    let outcome = "compensated [stock=ok] failed : its time was over undone [card stock]";
    assert_eq!(received(&mut world, inbox), [outcome]);
}

fn pivoted() -> World {
    let pivot = step_with("card", |step| (step.pivot, step.timeout_ms) = (true, 600_000));
    let last = step_with("ship", |step| step.timeout_ms = 600_000);
    order(vec![saga_step("stock"), pivot, last])
}

#[test]
fn failure_before_the_pivot_and_of_the_pivot_compensates() {
    let mut world = pivoted();
    world.publish(start("o1"));
    world.does("stock", "");
    world.fails("card", "no", false);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensating);
    assert_eq!(world.shown("undo.card"), None, "it failed: there is nothing to undo");
    world.does("undo.stock", "");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
}

#[test]
fn failure_beyond_the_pivot_parks() {
    let mut world = pivoted();
    world.publish(start("o1"));
    world.does("stock", "");
    world.does("card", "");
    world.fails("ship", "no van", false);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Parked);
    let summary = world.broker.saga("order", "o1").unwrap().summary;
    let why = "step `ship` ended beyond the pivot, where nothing is undone by itself: no van";
    assert_eq!(summary.detail, why);
    world.advance(86_400_000);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Parked, "it rests, whatever its time");
}

#[test]
fn pivot_that_ended_unknown_parks() {
    let mut world = pivoted();
    world.publish(start("o1"));
    world.does("stock", "");
    let delivery = world.takes("card");
    let purge = Operation::Purge { limit: 9 };
    world.ends("card", &delivery, Verdict::Nack { delay_ms: Some(9_000) }).unwrap();
    world.operate("card", purge).unwrap();
    assert_eq!(outcome(&world, "card"), (StepOutcome::Unknown, 1));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Parked);
}

#[test]
fn time_over_beyond_the_pivot_parks_and_answers_are_still_noted() {
    let mut world = pivoted();
    world.publish(start("o1"));
    world.does("stock", "");
    world.does("card", "");
    let delivery = world.takes("ship");
    // The lease is extended as the time goes on.
    for _ in 0..3 {
        world.advance(20_000);
        let ship = world.worker("ship");
        world.extend(ship, &delivery);
    }
    assert_eq!(world.saga_state("order", "o1"), SagaState::Parked);
    world.ends("ship", &delivery, Verdict::Complete { payload: "sent".into() }).unwrap();
    assert_eq!(outcome(&world, "ship"), (StepOutcome::Completed, 1));
    assert_eq!(world.saga_state("order", "o1"), SagaState::Parked);
    assert_eq!(world.steer("order", "o1", SagaVerb::Retry), Ok(SagaState::Completed));
}

#[test]
fn time_over_while_somebody_has_the_pivot_leaves_it_unknown_and_parks() {
    for taken in [true, false] {
        let mut world = pivoted();
        world.publish(start("o1"));
        world.does("stock", "");
        if taken {
            world.takes("card");
        }
        world.advance(60_000);
        let expected = if taken {
            (StepOutcome::Unknown, SagaState::Parked)
        } else {
            (StepOutcome::Failed, SagaState::Compensating)
        };
        assert_eq!((outcome(&world, "card").0, world.saga_state("order", "o1")), expected, "taken: {taken}");
    }
}
