//! Sagas: SEMANTICS, Sagas.

use super::gathers::{inbox, received};
use super::harness::*;
use chaski_broker::*;

#[test]
fn steps_follow_one_another_and_the_starter_gets_the_outcome() {
    let steps = vec![saga_step("stock"), saga_step("card")];
    let mut world = World::steering(&[], &[], &[saga("order", steps)]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let (stock, card) = (world.attach("stock", 8), world.attach("card", 8));
    world.publish(draft("order", "o1").reply_to("$inbox.1.1").payload("3 hats"));
    assert_eq!(world.complete(stock, "reserved"), "order/o1/stock/1");
    assert_eq!(world.complete(card, "charged"), "order/o1/card/1");
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
fn a_failed_step_undoes_those_before_it_last_first() {
    let steps = vec![saga_step("stock"), saga_step("card"), saga_step("ship")];
    let mut world = World::steering(&[], &[], &[saga("order", steps)]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let consumers: Vec<ConsumerId> = ["stock", "card", "ship", "undo.stock", "undo.card"]
        .iter()
        .map(|name| world.attach(name, 8))
        .collect();
    world.publish(draft("order", "o1").reply_to("$inbox.1.1").payload("3 hats"));
    world.complete(consumers[0], "reserved");
    world.complete(consumers[1], "charged");
    world.fail_next(consumers[2], "no van", false);
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensating);
    assert_eq!(world.complete(consumers[4], ""), "order/o1/card/undo/1");
    assert_eq!(world.complete(consumers[3], ""), "order/o1/stock/undo/1");
    assert_eq!(world.saga_state("order", "o1"), SagaState::Compensated);
    let outcome = "compensated [stock=reserved card=charged] failed ship: no van undone [stock card]";
    assert_eq!(received(&mut world, inbox), [outcome]);
}
