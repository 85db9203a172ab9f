//! Sagas across restarts, power cuts, full disks and changes of the rules. SEMANTICS, Sagas.

use super::gathers::{inbox, received};
use super::harness::*;
use super::sagas::{order, start};
use chaski_broker::*;

fn state(world: &World) -> SagaState {
    world.saga_state("order", "o1")
}

#[test]
fn saga_goes_on_after_a_restart_where_it_stood_from_the_journal_and_from_a_snapshot() {
    for snapshot in [false, true] {
        let grouped =
            |name: &str| step_with(name, |step| (step.group, step.retries) = (Some("g".to_owned()), 1));
        let mut world = order(vec![saga_step("stock"), grouped("a"), grouped("b"), saga_step("ship")]);
        let restart = |world: &mut World| {
            let before = world.broker.saga("order", "o1").unwrap();
            if snapshot {
                world.snapshot();
            }
            world.restart();
            assert_eq!(world.broker.saga("order", "o1").unwrap(), before);
        };
        world.publish(start("o1"));
        restart(&mut world);
        world.does("stock", "reserved");
        restart(&mut world);
        world.does("a", "1");
        restart(&mut world);
        world.fails("b", "busy", true);
        restart(&mut world);
        world.advance(1_100);
        assert_eq!(world.does("b", "2"), "order/o1/b/2");
        restart(&mut world);
        world.fails("ship", "no van", false);
        restart(&mut world);
        for undone in ["b", "a", "stock"] {
            world.does(&format!("undo.{undone}"), "");
            restart(&mut world);
        }
        assert_eq!(state(&world), SagaState::Compensated);
        let inbox = inbox(&mut world, "$inbox.1.1");
        assert!(world.publish(start("o1")).duplicate);
        let outcome = "compensated [stock=reserved a=1 b=2] failed ship: no van undone [b a stock]";
        assert_eq!(received(&mut world, inbox), [outcome]);
    }
}

#[test]
fn outcome_is_told_once_its_record_is_durable_the_repeated_one_too() {
    let mut world = order(vec![saga_step("stock")]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(start("o1"));
    let delivery = world.takes("stock");
    let (consumer, number) = (world.worker("stock"), world.draw());
    world.sync_at_once = false;
    world.pass_waits.clear();
    let Delivery { sequence, lease, .. } = delivery;
    world.call(Command::Settle(Settle { consumer, number, sequence, lease, verdict: Verdict::Ack }));
    let (_, again) = world.command(&start("o1"), false);
    world.call(again);
    assert_eq!(received(&mut world, inbox), [""; 0]);
    let ends = Position(world.journal.len() as u64);
    assert!(
        world.pass_waits.iter().all(|wait| wait.durability == Durability::Fsync),
        "{:?}",
        world.pass_waits
    );
    assert!(world.pass_waits.iter().all(|wait| wait.position.0 + 1 >= ends.0), "{:?}", world.pass_waits);
    world.sync();
    assert_eq!(received(&mut world, inbox), ["completed [] undone []"; 2]);
}

#[test]
fn requester_that_joined_gets_the_outcome_after_a_restart() {
    for snapshot in [false, true] {
        let mut world = order(vec![saga_step("stock")]);
        world.publish(draft("order", "o1"));
        assert!(world.publish(start("o1").reply_to("$inbox.2.1")).duplicate);
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let inbox = inbox(&mut world, "$inbox.2.1");
        world.does("stock", "ok");
        assert_eq!(received(&mut world, inbox), ["completed [stock=ok] undone []"]);
    }
}

#[test]
fn step_in_a_memory_queue_is_sent_again_after_a_restart_and_nobody_knows_what_became_of_the_first() {
    for snapshot in [false, true] {
        let fast = ["stock", "undo.stock"].map(|name| queue(name).durability(Durability::Memory));
        let mut world = World::steering(&fast, &[], &[saga("order", vec![saga_step("stock")])]);
        world.publish(start("o1"));
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let step = world.step_of("order", "o1", "stock");
        assert_eq!((step.outcome, step.attempts), (StepOutcome::Running, 1));
        assert_eq!(world.fails("stock", "no", false), "order/o1/stock/1");
        assert_eq!(world.step_of("order", "o1", "stock").outcome, StepOutcome::Unknown);
        world.restart();
        assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/1");
        assert_eq!(state(&world), SagaState::Compensated);
    }
}

#[test]
fn lost_step_for_which_there_is_no_room_is_unknown_all_the_same() {
    let room_for = |most| queue("stock").durability(Durability::Memory).max_messages(most, Overflow::Reject);
    let grouped = |name: &str| {
        step_with(name, |step| {
            step.group = Some("g".to_owned());
            step.queue = "stock".to_owned();
            step.timeout_ms = 10_000;
        })
    };
    let saga = saga("order", vec![grouped("a"), grouped("b")]);
    let mut world = World::steering(&[room_for(2)], &[], std::slice::from_ref(&saga));
    world.publish(start("o1"));
    world.resteer(&[room_for(1)], &[], &[saga]).unwrap();
    world.restart();
    assert_eq!(world.does("stock", ""), "order/o1/a/1");
    assert_eq!(world.shown("stock"), None);
    world.advance(1_000);
    assert_eq!(world.fails("stock", "no", false), "order/o1/b/2");
    assert_eq!(world.step_of("order", "o1", "b").outcome, StepOutcome::Unknown);
}

#[test]
fn what_a_start_sends_may_push_out_a_message_that_is_worn_out() {
    let fast = queue("stock").durability(Durability::Memory);
    let log = queue("log").bind(&["$chaski.saga.>"]).max_messages(1, Overflow::DropOldest).max_deliver(1);
    let mut world = World::steering(&[fast, log], &[], &[saga("order", vec![saga_step("stock")])]);
    world.publish(start("o1"));
    world.takes("log");
    world.restart();
    assert_eq!(world.counts("log"), [1, 0, 0, 0], "the latest line of its progress");
    assert_eq!(world.does("stock", ""), "order/o1/stock/1");
}

#[test]
fn attempt_that_is_older_than_the_start_may_have_been_delivered() {
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    world.sync_at_once = false;
    let before = world.journal.len();
    world.takes("stock");
    assert!(world.journal.len() > before, "the delivery is journaled, and nobody waits for that");
    world.crash(before);
    world.sync_at_once = true;
    world.sync();
    world.advance(5_000);
    assert_eq!(world.step_of("order", "o1", "stock").outcome, StepOutcome::Unknown);
    assert_eq!(world.does("undo.stock", ""), "order/o1/stock/undo/1");
}

#[test]
fn step_whose_last_permitted_delivery_a_crash_interrupts_ends() {
    let poor = queue("stock").max_deliver(1);
    let mut world = World::steering(&[poor], &[], &[saga("order", vec![saga_step("stock")])]);
    world.publish(start("o1"));
    world.takes("stock");
    world.restart();
    assert_eq!(world.step_of("order", "o1", "stock").outcome, StepOutcome::Unknown);
    assert_eq!(state(&world), SagaState::Compensating);
}

#[test]
fn timers_run_on_over_a_restart() {
    let mut world = order(vec![step_with("stock", |step| step.timeout_ms = 600_000)]);
    world.publish(start("o1"));
    world.advance(50_000);
    world.restart();
    world.advance(9_999);
    assert_eq!(state(&world), SagaState::Running);
    world.advance(1);
    assert_eq!(state(&world), SagaState::Compensating);
    // A step's own timeout, too.
    let mut world = order(vec![saga_step("stock")]);
    world.publish(start("o1"));
    world.advance(4_000);
    world.snapshot();
    world.restart();
    world.advance(999);
    assert_eq!(state(&world), SagaState::Running);
    world.advance(1);
    assert_eq!(state(&world), SagaState::Compensating);
}

#[test]
fn compensator_that_was_asked_is_asked_again_and_nobody_else() {
    let saga = |name: &str, advances| {
        saga_with(name, vec![saga_step("stock"), saga_step("card")], |it| {
            it.compensator = Some(module("plan"));
            it.advances = advances;
        })
    };
    let mut world = World::steering(&[], &[], &[saga("order", false), saga("chosen", true)]);
    world.publish(start("o1"));
    world.publish(start("o2"));
    world.publish(draft("chosen", "c1"));
    world.does("stock", "");
    world.fails("card", "no", false);
    world.does("stock", "");
    world.does("stock", "");
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let asked: Vec<(String, bool)> =
            world.advice_wanted.iter().map(|asked| (asked.id.clone(), asked.cause.is_some())).collect();
        assert_eq!(asked, [("o1".to_owned(), true), ("c1".to_owned(), false)]);
    }
    world.advise(Advice::Undo { steps: vec![("stock".to_owned(), None)] });
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn parked_saga_rests_over_a_restart() {
    let pivot = step_with("stock", |step| step.pivot = true);
    let mut world = order(vec![pivot, saga_step("card")]);
    world.publish(start("o1"));
    world.does("stock", "");
    world.fails("card", "no", false);
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        world.restart();
        world.advance(600_000);
        assert_eq!(state(&world), SagaState::Parked);
        assert_eq!(world.broker.alarms().len(), 1);
    }
    world.steer("order", "o1", SagaVerb::Retry).unwrap();
    world.does("card", "");
    assert_eq!(state(&world), SagaState::Completed);
}

#[test]
fn low_disk_refuses_new_sagas_and_lets_running_ones_go_on() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    world.publish(start("o1"));
    world.call(Command::Disk(DiskState::Low));
    assert_eq!(world.try_publish(start("o2")), Err(PublishError::DiskLow));
    assert!(world.publish(start("o1")).duplicate);
    world.does("stock", "");
    world.fails("card", "no", false);
    world.does("undo.stock", "");
    assert_eq!(state(&world), SagaState::Compensated);
}

#[test]
fn full_disk_holds_sagas_up_without_a_record_and_nothing_is_lost() {
    let fast = queue("fast").durability(Durability::Memory);
    let grouped = |name: &str| step_with(name, |step| step.group = Some("g".to_owned()));
    let saga = saga_with("order", vec![grouped("stock"), grouped("fast")], |it| {
        it.compensator = Some(module("plan"));
        it.advances = true;
    });
    let chosen = saga_with("chosen", vec![saga_step("a"), saga_step("b")], |it| {
        it.compensator = Some(module("plan"));
        it.advances = true;
    });
    let mut world = World::steering(&[fast], &[], &[saga, chosen]);
    world.publish(start("o1"));
    world.publish(draft("chosen", "c1"));
    world.does("a", "");
    let (one, two) = (world.takes("stock"), world.takes("fast"));
    world.call(Command::Disk(DiskState::Full));
    let position = world.broker.position();
    assert_eq!(world.ends("stock", &one, Verdict::Ack), Err(SettleError::DiskFull));
    assert_eq!(world.ends("fast", &two, Verdict::Ack), Err(SettleError::DiskFull));
    let refused = world.transact("t", &[("fast", &two)], &[]);
    assert_eq!(refused, Err(TransactionError::Disk(PublishError::DiskFull)));
    assert_eq!(world.try_publish(start("o2")), Err(PublishError::DiskFull));
    assert!(world.publish(start("o1").reply_to("$inbox.7.1")).duplicate);
    world.advise(Advice::Next);
    world.disconnect(1);
    world.workers.clear();
    world.operate("fast", Operation::Purge { limit: 9 }).unwrap();
    world.advance(3_600_000);
    assert_eq!(world.broker.position(), position, "no record");
    assert_eq!((state(&world), world.saga_state("chosen", "c1")), (SagaState::Running, SagaState::Running));
    world.call(Command::Disk(DiskState::Low));
    assert_eq!(world.step_of("order", "o1", "fast").outcome, StepOutcome::Unknown, "it was purged");
    assert!(world.timeline("chosen", "c1").contains(&"b 1 sent".to_owned()));
}

#[test]
fn running_saga_keeps_its_definition_after_a_change_of_the_rules() {
    for snapshot in [false, true] {
        let mut world = order(vec![saga_step("stock"), saga_step("card")]);
        world.publish(start("o1"));
        let all = ["stock", "card", "undo.stock", "undo.card"].map(queue);
        let changed = saga("order", vec![step_with("stock", |step| step.compensate = None)]);
        world.resteer(&all, &[], &[changed]).unwrap();
        world.publish(start("o2"));
        world.resteer(&all, &[], &[]).unwrap();
        if snapshot {
            world.snapshot();
        }
        world.restart();
        assert_eq!(world.publish(draft("order", "o3")).routed, 0, "there is no such saga any more");
        world.does("stock", "");
        world.does("stock", "");
        assert_eq!(world.saga_state("order", "o2"), SagaState::Completed, "one step is all");
        world.fails("card", "no", false);
        world.does("undo.stock", "");
        assert_eq!(state(&world), SagaState::Compensated);
    }
}

#[test]
fn queue_that_a_running_saga_needs_is_not_dropped() {
    let mut world = order(vec![saga_step("stock"), saga_step("card")]);
    world.publish(start("o1"));
    let kept = ["stock", "card", "undo.stock"].map(queue);
    let needed = RulesRefused::Needed { queue: "undo.card".to_owned(), by: "order".to_owned() };
    assert_eq!(world.reload_dropping(&kept, &["undo.card"]), Err(needed));
    world.does("stock", "");
    world.does("card", "");
    world.reload_dropping(&kept, &["undo.card"]).unwrap();
}
