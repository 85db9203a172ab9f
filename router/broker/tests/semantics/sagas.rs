//! Sagas forward: how they begin, how steps answer, what messages carry. SEMANTICS, Sagas.

use super::gathers::{inbox, received};
use super::harness::*;
use chaski_broker::*;

/// A world with one saga `order` of these steps.
pub(crate) fn order(steps: Vec<StepSettings>) -> World {
    World::steering(&[], &[], &[saga("order", steps)])
}

/// The message that begins one.
pub(crate) fn start(id: &str) -> Draft {
    draft("order", id).reply_to("$inbox.1.1").payload("3 hats")
}

#[test]
fn steps_follow_one_another_and_the_starter_gets_the_outcome() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    assert_eq!(world.publish(start("o1")).routed, 1);
    assert_eq!(world.does("stock", "reserved"), "order/o1/stock/1");
    assert_eq!(world.does("card", "charged"), "order/o1/card/1");
    assert_eq!(received(&mut world, inbox), ["completed [stock=reserved card=charged] undone []"]);
    assert_eq!(
        world.timeline("order", "o1"),
        [
            "began",
            "stock 1 sent",
            "stock 1 completed",
            "card 1 sent",
            "card 1 completed",
            "ended (completed)"
        ]
    );
}

#[test]
fn plain_ack_completes_a_step_with_nothing() {
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    world.ends("stock", &delivery, Verdict::Ack).unwrap();
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
    assert_eq!(world.step_of("order", "o1", "stock").result, None);
}

#[test]
fn ack_in_a_transaction_completes_a_step_with_what_else_is_in_it() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    let nowhere = [(draft("nowhere", "x"), true)];
    assert!(world.transact("t1", &[("stock", &delivery)], &nowhere).is_err());
    assert_eq!(world.shown("card"), None, "nothing of it was done");
    world.transact("t2", &[("stock", &delivery)], &[(draft("stock", "other"), false)]).unwrap();
    assert_eq!(world.does("card", ""), "order/o1/card/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn reject_and_final_fail_settle_the_step_without_a_dead_letter() {
    let verdicts =
        [Verdict::Reject { reason: "no".into() }, Verdict::Fail { reason: "no".into(), retryable: false }];
    for verdict in verdicts {
        let mut world = order(vec![step_with("stock", |step| step.retries = 9)]);
        world.publish(start("o1"));
        let delivery = world.takes("stock");
        world.ends("stock", &delivery, verdict).unwrap();
        assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
        let step = world.step_of("order", "o1", "stock");
        assert_eq!((step.outcome, step.reason.as_deref()), (StepOutcome::Failed, Some("no")));
        assert_eq!(world.counts("stock.dlq"), [0; 4]);
    }
}

#[test]
fn nack_and_lease_expiry_are_the_same_attempt_again_under_the_queues_own_backoff() {
    let short = queue("stock").with(|it| (it.ack_wait_ms, it.backoff_ms) = (1_000, vec![100]));
    let steps = vec![step_with("stock", |step| step.timeout_ms = 60_000)];
    let mut world = World::steering(&[short], &[], &[saga_with("order", steps, |_| {})]);
    world.publish(start("o1"));
    let first = world.takes("stock");
    world.ends("stock", &first, Verdict::Nack { delay_ms: None }).unwrap();
    assert_eq!(world.shown("stock"), None);
    world.advance(110);
    let second = world.takes("stock");
    assert_eq!((second.sequence, second.attempt), (first.sequence, 2));
    world.advance(1_110);
    let third = world.takes("stock");
    assert_eq!((third.sequence, third.attempt), (first.sequence, 3));
    world.ends("stock", &third, Verdict::Complete { payload: "ok".into() }).unwrap();
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
    assert_eq!(world.step_of("order", "o1", "stock").attempts, 1);
}

#[test]
fn answer_and_what_follows_from_it_are_in_one_batch_and_told_once_durable() {
    let fast = queue("stock").durability(Durability::Memory);
    let steps = vec![saga_step("stock"), saga_step("card")];
    let mut world = World::steering(&[fast], &[], &[saga("order", steps)]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    let card = world.worker("card");
    world.sync_at_once = false;
    let (worker, number) = (world.worker("stock"), world.draw());
    let before = world.journal.len();
    world.call(Command::Settle(Settle {
        consumer: worker,
        number,
        sequence: delivery.sequence,
        lease: delivery.lease,
        verdict: Verdict::Complete { payload: "ok".into() },
    }));
    assert!(!world.settled.contains_key(&number), "a `memory` queue's step is answered as surely as any");
    let next = world.batches.range(before + 1..).next();
    assert_eq!(next, Some(&world.journal.len()));
    assert!(world.poll(card).is_none());
    world.sync();
    assert_eq!(world.settled[&number], Ok(()));
    world.sync_at_once = true;
    assert_eq!(world.does("card", ""), "order/o1/card/1");
}

#[test]
fn transaction_that_answers_a_step_of_a_memory_queue_is_as_durable_as_the_saga() {
    let fast = queue("stock").durability(Durability::Memory);
    let mut world = World::steering(&[fast], &[], &[saga("order", vec![saga_step("stock")])]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    world.sync_at_once = false;
    let number = world.send_transaction("t", &[("stock", &delivery)], &[]);
    assert!(!world.transacted.contains_key(&number));
    world.sync();
    assert!(world.transacted[&number].is_ok());
}

#[test]
fn start_is_confirmed_when_journaled() {
    let fast = queue("stock").durability(Durability::Memory);
    let mut world = World::steering(&[fast], &[], &[saga("order", vec![saga_step("stock")])]);
    world.sync_at_once = false;
    let (number, command) = world.command(&start("o1"), false);
    world.call(command);
    assert!(!world.confirms.contains_key(&number));
    world.sync();
    assert_eq!(world.confirms[&number].as_ref().unwrap().routed, 1);
}

#[test]
fn payload_is_all_the_input_or_the_previous_result() {
    let with = |name: &str, payload| step_with(name, |step| step.payload = payload);
    let steps = vec![
        with("first", StepPayload::Previous),
        with("all", StepPayload::All),
        with("input", StepPayload::Input),
        with("previous", StepPayload::Previous),
        with("empty", StepPayload::Previous),
    ];
    let mut world = order(steps);
    world.publish(start("o1"));
    let mut carried = Vec::new();
    for (step, result) in [("first", "1"), ("all", "2"), ("input", "3"), ("previous", ""), ("empty", "5")] {
        carried.push(world.shown(step).unwrap().1);
        world.does(step, result);
    }
    assert_eq!(carried, ["3 hats", "3 hats [first=1]", "3 hats", "3", "3"]);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn group_runs_side_by_side_and_the_next_step_waits_for_all_of_it() {
    let grouped = |name: &str, group: &str| step_with(name, |step| step.group = Some(group.to_owned()));
    let steps = vec![grouped("a", "g"), grouped("b", "g"), grouped("c", "h"), saga_step("d")];
    let mut world = order(steps);
    world.publish(start("o1"));
    assert!(world.shown("a").is_some() && world.shown("b").is_some());
    world.does("b", "2");
    assert_eq!(world.broker.saga("order", "o1").unwrap().pending, ["b"], "its answer waits in the ACK queue");
    assert_eq!(world.shown("c"), None);
    world.does("a", "1");
    assert_eq!(world.broker.saga("order", "o1").unwrap().pending, [""; 0]);
    assert_eq!(world.shown("d"), None);
    world.does("c", "3");
    assert_eq!(world.shown("d").unwrap().1, "3 hats [a=1 b=2 c=3]");
    world.does("d", "4");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn group_of_which_one_fails_is_awaited_then_compensated() {
    let grouped = |name: &str| step_with(name, |step| step.group = Some("g".to_owned()));
    let mut world = order(vec![grouped("a"), grouped("b"), grouped("c")]);
    world.publish(start("o1"));
    world.fails("a", "no", false);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Running);
    world.does("c", "3");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Running);
    world.does("b", "2");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensating);
    assert_eq!(world.does("undo.c", ""), "order/o1/c/undo/1");
    assert_eq!(world.does("undo.b", ""), "order/o1/b/undo/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
}

#[test]
fn repeated_start_joins_and_the_latest_reply_topic_gets_the_outcome() {
    let mut world = order(vec![saga_step("stock")]);
    let (first, second) = (inbox(&mut world, "$inbox.1.1"), inbox(&mut world, "$inbox.2.1"));
    world.publish(start("o1"));
    assert!(world.publish(start("o1").reply_to("$inbox.2.1")).duplicate);
    assert_eq!(world.counts("stock"), [1, 0, 0, 0]);
    world.does("stock", "ok");
    assert_eq!(received(&mut world, first), [""; 0]);
    assert_eq!(received(&mut world, second), ["completed [stock=ok] undone []"]);
    assert!(world.publish(start("o1")).duplicate);
    assert_eq!(received(&mut world, first), ["completed [stock=ok] undone []"]);
}

#[test]
fn start_is_a_duplicate_long_after_the_dedup_window() {
    let steps = vec![step_with("stock", |step| step.timeout_ms = 86_400_000)];
    let mut world = World::steering(&[], &[], &[saga_with("order", steps, |it| it.timeout_ms = 86_400_000)]);
    let first = world.publish(start("o1").reply_to("$inbox.2.1"));
    world.advance(3_600_000);
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        let again = world.publish(start("o1"));
        assert_eq!((again.duplicate, again.sequence), (true, first.sequence), "restart: {restart}");
        world.advance(3_600_000);
    }
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.does("stock", "ok");
    assert_eq!(received(&mut world, inbox), ["completed [stock=ok] undone []"]);
    world.advance(3_600_000);
    assert!(world.publish(start("o1")).duplicate);
    assert_eq!(received(&mut world, inbox), ["completed [stock=ok] undone []"]);
    world.advance(7 * 86_400_000);
    assert!(!world.publish(start("o1")).duplicate, "its history is over");
}

#[test]
fn one_transaction_begins_one_saga_of_an_id() {
    let mut world = order(vec![saga_step("stock")]);
    let result = |id: &str| Outgoing {
        message: start(id).build(),
        targets: world.broker.bindings().resolve("order"),
        subscriptions: true,
        unroutable: None,
    };
    // Filters may send two results under one id to one topic.
    let results = vec![result("o1"), result("o1")];
    let way = Way::Filtered(Box::new(Filtered { results, ..Filtered::default() }));
    let number = world.draw();
    world.call(Command::Publish(Publish {
        publisher: Some(PublisherId(1)),
        connection: None,
        number,
        rules: world.broker.rules().version,
        mandatory: false,
        message: draft("in", "o1").build(),
        hash: None,
        way,
        job: None,
    }));
    assert_eq!(world.broker.sagas(None, Sequence(0), 9).sagas.len(), 1);
    assert_eq!(world.counts("stock"), [1, 0, 0, 0]);
}

#[test]
fn saga_is_one_more_target_of_its_topic() {
    let log = queue("log").bind(&["order"]);
    let mut world = World::steering(&[log], &[], &[saga("order", vec![saga_step("stock")])]);
    assert_eq!(world.publish(start("o1")).routed, 2);
    assert_eq!(world.counts("log"), [1, 0, 0, 0]);
}

#[test]
fn watchers_of_its_topic_hear_what_it_does() {
    let mut world = order(vec![saga_step("stock")]);
    let watcher = world.subscribe(2, "$chaski.saga.order.o1");
    let all = world.subscribe(2, "$chaski.saga.>");
    world.publish(start("o1"));
    world.fails("stock", "no", false);
    let lines = [
        "running - began",
        "running stock sent",
        "running stock failed",
        "compensating - compensates",
        "compensated - ended",
    ];
    assert_eq!(world.heard(watcher), lines);
    assert_eq!(world.heard(all), lines);
    world.publish(start("a.b c*"));
    let topics: Vec<String> =
        world.passes.remove(&all).unwrap().iter().map(|(body, _)| part(body, 0)).collect();
    assert_eq!(topics[0], "$chaski.saga.order.a%2Eb%20c%2A");
}

#[test]
fn answers_without_a_lease_change_nothing_and_are_counted_by_kind() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    let answer = || Verdict::Complete { payload: "ok".into() };
    world.ends("stock", &delivery, answer()).unwrap();
    let before = world.timeline("order", "o1");
    assert_eq!(world.ends("stock", &delivery, answer()), Err(SettleError::LeaseLost));
    let withdrawn = world.takes("card");
    world.advance(5_000);
    assert_eq!(world.ends("card", &withdrawn, answer()), Err(SettleError::LeaseLost));
    let forged = Delivery { sequence: Sequence(9_999), ..withdrawn };
    assert_eq!(world.ends("card", &forged, answer()), Err(SettleError::LeaseLost));
    assert_eq!(world.broker.answers_ignored(), [("duplicate", 1), ("late", 1), ("foreign", 1)]);
    assert_eq!(world.timeline("order", "o1")[..before.len()], before);
}

#[test]
fn bounds_of_sagas_and_of_their_bytes_hold() {
    let limits = ShardLimits {
        sagas_max: 2,
        sagas_max_bytes: 200,
        saga_max_payload_bytes: 100,
        ..ShardLimits::default()
    };
    let steps = vec![saga_step("stock"), saga_step("card")];
    let mut world = World::steering_within(limits, &[], &[], &[saga("order", steps)]);
    let large = start("o9").payload(&"x".repeat(100));
    let refused = world.try_publish(large);
    assert!(matches!(refused, Err(PublishError::SagaTooLarge { limit: 100, .. })), "{refused:?}");
    let busy = |refused: Result<Confirmation, PublishError>| {
        assert!(matches!(refused, Err(PublishError::Judge(JudgeError::Busy { .. }))), "{refused:?}");
    };
    world.publish(start("o1").payload(&"x".repeat(60)));
    world.publish(start("o2"));
    busy(world.try_publish(start("o3")));
    // A result that doesn't fit is refused, and the lease stands.
    let delivery = world.takes("stock");
    let too_large = Verdict::Complete { payload: "y".repeat(60).into() };
    assert_eq!(world.ends("stock", &delivery, too_large), Err(SettleError::TooLarge));
    world.ends("stock", &delivery, Verdict::Complete { payload: "y".into() }).unwrap();
    world.fails("card", "no", false);
    // A compensation's answer is not kept, so it always fits.
    let undo = world.takes("undo.stock");
    world.ends("undo.stock", &undo, Verdict::Complete { payload: "z".repeat(99).into() }).unwrap();
    world.publish(start("o3"));
}

#[test]
fn bytes_of_all_sagas_are_bounded() {
    let limits = ShardLimits { sagas_max_bytes: 200, ..ShardLimits::default() };
    let mut world = World::steering_within(limits, &[], &[], &[saga("order", vec![saga_step("stock")])]);
    let large = |id| start(id).payload(&"x".repeat(60));
    world.publish(large("o1"));
    world.publish(large("o2"));
    let refused = world.try_publish(large("o3"));
    assert!(matches!(refused, Err(PublishError::Judge(JudgeError::Busy { .. }))), "{refused:?}");
    world.does("stock", "");
    world.publish(large("o3"));
}

#[test]
fn saga_whose_compensator_is_missing_does_not_begin() {
    let without = saga_with("order", vec![saga_step("stock")], |it| {
        it.compensator = Some(ModuleUse { binary: None, ..module("plan") });
    });
    let mut world = World::steering(&[], &[], &[without]);
    let refused = world.try_publish(start("o1"));
    assert!(matches!(refused, Err(PublishError::Judge(JudgeError::ModuleMissing { .. }))), "{refused:?}");
}

#[test]
fn ended_sagas_are_remembered_in_bounds_of_number_and_age() {
    let limits = ShardLimits { saga_history_max: 2, saga_history_ms: 10_000, ..ShardLimits::default() };
    let mut world = World::steering_within(limits, &[], &[], &[saga("order", vec![saga_step("stock")])]);
    for id in ["o1", "o2", "o3"] {
        world.publish(draft("order", id));
        world.does("stock", "");
    }
    let known = |world: &World| -> Vec<String> {
        world.broker.sagas(None, Sequence(0), 9).sagas.into_iter().map(|saga| saga.id).collect()
    };
    assert_eq!(known(&world), ["o2", "o3"]);
    world.restart();
    assert_eq!(known(&world), ["o2", "o3"]);
    world.advance(11_000);
    assert_eq!(known(&world), [""; 0]);
    assert_eq!(world.broker.saga_counts(), []);
}

#[test]
fn history_of_nothing_forgets_a_saga_as_it_ends() {
    let limits = ShardLimits { saga_history_max: 0, ..ShardLimits::default() };
    let steps = vec![step_with("stock", |step| step.compensate = None)];
    let mut world = World::steering_within(limits, &[], &[], &[saga("order", steps)]);
    for id in ["o1", "o2", "o3"] {
        world.publish(draft("order", id));
    }
    world.does("stock", "");
    assert_eq!(world.steer("order", "o2", SagaVerb::Abort { compensate: true }), Ok(SagaState::Compensated));
    world.advance(5_000);
    assert_eq!(world.broker.saga_counts(), []);
}

#[test]
fn a_delayed_start_sends_its_first_step_when_it_is_due() {
    let mut world = World::steering(&[], &[], &[saga("order", vec![saga_step("stock")])]);
    let stock = world.attach("stock", 8);
    let due = world.now.after(10_000);
    world.publish(draft("order", "o1").deliver_at(due));
    world.advance(9_999);
    assert!(world.poll(stock).is_none());
    world.restart();
    let stock = world.attach("stock", 8);
    world.advance(1);
    assert_eq!(world.complete(stock, ""), "order/o1/stock/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Completed);
}

#[test]
fn a_delayed_saga_has_its_whole_time_from_when_it_is_due() {
    let mut world = World::steering(&[], &[], &[saga("order", vec![saga_step("stock")])]);
    let due = world.now.after(120_000);
    world.publish(draft("order", "o1").deliver_at(due));
    world.advance(119_999);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Running, "its time is 60 s, and did not begin");
}

#[test]
fn look_for_sagas_in_a_state_ends_after_so_many_and_says_where_to_go_on() {
    let mut world = World::steering(&[], &[], &[saga("order", vec![saga_step("stock")])]);
    for number in 0..1_001 {
        world.publish(draft("order", &format!("o{number}")));
    }
    world.does("stock", "");
    let page = world.broker.sagas(Some(SagaState::Completed), Sequence(0), 9);
    assert_eq!(page.sagas.len(), 1);
    let next = page.next.expect("not all were looked at");
    let rest = world.broker.sagas(Some(SagaState::Completed), next, 9);
    assert_eq!((rest.sagas.len(), rest.next), (0, None));
    assert_eq!(
        world.broker.sagas(Some(SagaState::Running), next, 9).sagas[0].id,
        "o1000",
        "none is left out"
    );
    let full = world.broker.sagas(Some(SagaState::Running), Sequence(0), 9);
    assert_eq!((full.sagas.len(), full.next), (9, None));
}

#[test]
fn compensator_is_pinned_until_the_last_saga_that_began_with_it_is_over() {
    let mut begun = saga("order", vec![saga_step("stock")]);
    begun.1.compensator = Some(module("plan"));
    let mut world = World::steering(&[], &[], &[begun]);
    world.publish(draft("order", "o1"));
    world.publish(draft("order", "o2"));
    world.does("stock", "");
    assert_eq!(world.broker.pinned_binaries(), [[7; 32]]);
    world.restart();
    assert_eq!(world.broker.pinned_binaries(), [[7; 32]]);
    world.does("stock", "");
    assert_eq!(world.broker.pinned_binaries(), [[0; 32]; 0]);
}
