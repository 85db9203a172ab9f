//! Settle and publish.

use chaski_broker::{Confirmation, ConsumerId, Delivery, Overflow, PublishError, TransactionError};

use crate::harness::{Queue, World, draft, queue};

/// Queues `in`, `out` and the given one; one message of `in` delivered.
fn world(third: Queue) -> (World, ConsumerId, Delivery) {
    let mut world = World::new(&[queue("in"), queue("out"), third]);
    world.store(draft("in", "m"));
    let consumer = world.attach("in", 64);
    let delivery = world.next(consumer);
    (world, consumer, delivery)
}

#[test]
fn settle_and_publish_are_one() {
    let (mut world, _, delivery) = world(queue("tight"));
    let before = world.batches.len();
    let outcome =
        world.transact("t", &[("in", &delivery)], &[(draft("out", "x"), false), (draft("no", "y"), false)]);
    let confirmations = outcome.expect("nothing stands against it");
    assert_eq!(confirmations.iter().map(|confirmation| confirmation.routed).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((world.counts("in"), world.counts("out")), ([0; 4], [1, 0, 0, 0]));
    assert_eq!(world.batches.len(), before + 1, "one batch");
}

#[test]
fn lost_lease_refuses_the_whole() {
    let (mut world, consumer, delivery) = world(queue("tight"));
    world.store(draft("in", "n"));
    let current = world.next(consumer);
    world.nack_after(consumer, &delivery, 0);
    let acks = [("in", &current), ("in", &delivery), ("nobody", &current)];
    let outcome = world.transact("t", &acks, &[(draft("out", "x"), false)]);
    assert_eq!(outcome, Err(TransactionError::LeaseLost(vec![1, 2])));
    assert_eq!((world.counts("in"), world.counts("out")), ([0, 0, 0, 2], [0; 4]));
    assert!(!world.publish(draft("out", "x")).duplicate, "the refused publish isn't remembered");
}

#[test]
fn lease_named_twice_refuses_the_whole() {
    let (mut world, _, delivery) = world(queue("tight"));
    let outcome = world.transact("t", &[("in", &delivery), ("in", &delivery)], &[]);
    assert_eq!(outcome, Err(TransactionError::LeaseLost(vec![1])));
}

#[test]
fn lease_of_another_connection_is_lost() {
    let (mut world, ..) = world(queue("tight"));
    world.store(draft("in", "n"));
    let consumer = world.try_attach(2, "in", 64).expect("the queue is there");
    world.store(draft("in", "o"));
    let delivery = world.poll(consumer).or_else(|| {
        world.store(draft("in", "p"));
        world.poll(consumer)
    });
    let delivery = delivery.expect("consumers take turns");
    assert_eq!(world.transact("t", &[("in", &delivery)], &[]), Err(TransactionError::LeaseLost(vec![0])));
}

#[test]
fn full_rejecting_queue_refuses_the_whole_parts_counted_together() {
    let (mut world, _, delivery) = world(queue("tight").max_messages(1, Overflow::Reject));
    let publishes = [(draft("out", "x"), false), (draft("tight", "a"), false), (draft("tight", "b"), false)];
    let outcome = world.transact("t", &[("in", &delivery)], &publishes);
    let error = PublishError::QueueFull { queue: "tight".into() };
    assert_eq!(outcome, Err(TransactionError::Publish { index: 2, error }));
    assert_eq!((world.counts("in"), world.counts("out")), ([0, 0, 0, 1], [0; 4]));
}

#[test]
fn mandatory_publish_that_reaches_nobody_refuses_the_whole() {
    let (mut world, _, delivery) = world(queue("tight"));
    let outcome = world.transact("t", &[("in", &delivery)], &[(draft("nobody", "x"), true)]);
    assert_eq!(
        outcome,
        Err(TransactionError::Publish {
            index: 0,
            error: PublishError::Unroutable { topic: "nobody".to_owned() }
        })
    );
    assert_eq!(world.counts("in"), [0, 0, 0, 1]);
}

#[test]
fn repeat_gets_the_first_outcome_before_leases_are_looked_at_also_after_a_restart() {
    let (mut world, _, delivery) = world(queue("tight"));
    let publishes = [(draft("out", "x"), false)];
    let first = world.transact("t", &[("in", &delivery)], &publishes).expect("nothing stands against it");
    assert_eq!(world.transact("t", &[("in", &delivery)], &publishes).as_ref(), Ok(&first));
    world.restart();
    assert_eq!(world.transact("t", &[("in", &delivery)], &publishes).as_ref(), Ok(&first));
    world.snapshot();
    world.restart();
    assert_eq!(world.transact("t", &[("in", &delivery)], &publishes).as_ref(), Ok(&first));
    assert_eq!(world.counts("out"), [1, 0, 0, 0]);
}

#[test]
fn refused_transaction_may_be_tried_again_under_its_id() {
    let (mut world, _, delivery) = world(queue("tight"));
    let publishes = [(draft("nobody", "x"), true)];
    assert!(world.transact("t", &[("in", &delivery)], &publishes).is_err());
    assert!(world.transact("t", &[("in", &delivery)], &[(draft("out", "x"), true)]).is_ok());
}

#[test]
fn duplicate_publish_counts_as_done() {
    let (mut world, _, delivery) = world(queue("tight"));
    let sequence = world.store(draft("out", "x"));
    let publishes = [(draft("out", "x"), false), (draft("out", "y"), false), (draft("out", "y"), false)];
    let confirmations =
        world.transact("t", &[("in", &delivery)], &publishes).expect("nothing stands against it");
    let known = Confirmation { sequence: Some(sequence), duplicate: true, ..Confirmation::default() };
    assert_eq!(confirmations[0], known);
    assert_eq!((confirmations[1].routed, confirmations[2].duplicate), (1, true));
    assert_eq!(confirmations[1].sequence, confirmations[2].sequence);
    assert_eq!((world.counts("in"), world.counts("out")), ([0; 4], [2, 0, 0, 0]));
}

#[test]
fn crash_keeps_all_of_it_or_nothing() {
    let (mut world, _, delivery) = world(queue("tight"));
    world.sync();
    world.sync_at_once = false;
    let start = world.journal.len();
    let publishes = [(draft("out", "x"), false), (draft("out", "y"), false)];
    world.send_transaction("t", &[("in", &delivery)], &publishes);
    assert_eq!(world.batches.range(start + 1..).count(), 1);
    world.crash(start);
    assert_eq!((world.counts("in"), world.counts("out")), ([1, 0, 0, 0], [0; 4]));
}

#[test]
fn reply_and_ack_in_one_transaction() {
    let mut world = World::new(&[queue("price")]);
    let inbox = world.subscribe(1, "$inbox.c.1");
    world.store(draft("price", "q").reply_to("$inbox.c.1"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    let reply = draft("$inbox.c.1", "r").correlation("q").payload("5");
    world.transact("t", &[("price", &delivery)], &[(reply, false)]).expect("nothing stands against it");
    assert_eq!(world.heard(inbox), ["5"]);
    assert_eq!(world.counts("price"), [0; 4]);
}
