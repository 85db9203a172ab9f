//! What each effect waits for.

use chaski_broker::{Body, Command, Durability, Operation, Position, Verdict, Wait};

use crate::harness::{Seen, World, draft, queue};

/// The waits of deliveries and confirms of one publish, with a consumer waiting.
fn waits(world: &mut World) -> (Vec<Wait>, Vec<Wait>) {
    let (mut confirms, mut deliveries) = (Vec::new(), Vec::new());
    for seen in std::mem::take(&mut world.seen) {
        match seen {
            Seen::Confirm(wait, ..) => confirms.push(wait),
            Seen::Deliver(wait, ..) => deliveries.push(wait),
            _ => {}
        }
    }
    (confirms, deliveries)
}

#[test]
fn confirm_and_delivery_wait_for_the_messages_record_at_the_queues_durability() {
    for durability in [Durability::Os, Durability::Fsync] {
        let mut world = World::new(&[queue("work").durability(durability)]);
        world.attach("work", 64);
        waits(&mut world);
        world.store(draft("work", "m"));
        let (confirms, deliveries) = waits(&mut world);
        // Behind it lies the record of the delivery, for which nobody waits.
        let position = Position(world.broker.position().0 - 1);
        assert_eq!(confirms, [Wait { position, durability }]);
        assert_eq!(deliveries, [Wait { position, durability }]);
    }
}

#[test]
fn memory_queue_journals_nothing_and_waits_for_nothing() {
    let mut world = World::new(&[queue("fast").durability(Durability::Memory)]);
    let consumer = world.attach("fast", 64);
    let position = world.broker.position();
    waits(&mut world);
    world.store(draft("fast", "m"));
    let delivery = world.next(consumer);
    assert!(matches!(delivery.body, Body::Here(_)));
    world.reject(consumer, &delivery, "no");
    world.redrive("fast");
    let again = world.next(consumer);
    world.ack(consumer, &again);
    assert_eq!(world.broker.position(), position);
    let (confirms, deliveries) = waits(&mut world);
    assert!(confirms.iter().chain(&deliveries).all(|wait| wait.durability == Durability::Memory));
}

#[test]
fn publish_to_queues_of_several_durabilities_is_confirmed_at_the_strongest_and_delivered_at_each_ones() {
    let mut world = World::new(&[
        queue("fast").bind(&["topic"]).durability(Durability::Memory),
        queue("sure").bind(&["topic"]),
        queue("swift").bind(&["topic"]).durability(Durability::Os),
    ]);
    let consumers = ["fast", "sure", "swift"].map(|name| world.attach(name, 64));
    world.seen.clear();
    world.store(draft("topic", "m"));
    let mut delivered = Vec::new();
    for seen in std::mem::take(&mut world.seen) {
        match seen {
            Seen::Confirm(wait, ..) => assert_eq!(wait.durability, Durability::Fsync),
            Seen::Deliver(wait, consumer, _) => delivered.push((consumer, wait.durability)),
            _ => {}
        }
    }
    delivered.sort();
    let expected = [Durability::Memory, Durability::Fsync, Durability::Os];
    assert_eq!(delivered, consumers.into_iter().zip(expected).collect::<Vec<_>>());
}

#[test]
fn delivery_by_key_waits_for_the_record_that_settled_the_keys_previous_message() {
    let mut world = World::new(&[queue("work").by_key()]);
    let consumer = world.attach("work", 64);
    world.store(draft("work", "a").key("k"));
    world.store(draft("work", "b").key("k"));
    let first = world.next(consumer);
    world.seen.clear();
    let before = world.broker.position();
    world.ack(consumer, &first);
    let (_, deliveries) = waits(&mut world);
    assert_eq!(deliveries.len(), 1);
    assert!(deliveries[0].position > before, "it waits for the ack's record");
}

#[test]
fn duplicate_waits_for_the_first_copys_record() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let (first, _) = waits(&mut world);
    world.store(draft("work", "n"));
    waits(&mut world);
    world.publish(draft("work", "m"));
    let (again, _) = waits(&mut world);
    assert_eq!(again, first);
}

#[test]
fn pass_waits_as_the_confirm_does_and_for_nothing_without_a_queue() {
    let mut world = World::new(&[queue("work").bind(&["news.stored"])]);
    world.sync_at_once = false;
    let news = world.subscribe(1, "news.>");
    world.publish(draft("news.only", "a"));
    assert_eq!(world.passed(news).len(), 1);
    let (number, command) = world.command(&draft("news.stored", "b"), false);
    world.call(command);
    assert!(world.passed(news).is_empty() && !world.confirms.contains_key(&number));
    world.sync();
    assert!(world.passed(news).len() == 1 && world.confirms.contains_key(&number));
}

#[test]
fn settlement_is_answered_when_durable() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.sync_at_once = false;
    let number = world.draw();
    let settle = chaski_broker::Settle {
        consumer,
        number,
        sequence: delivery.sequence,
        lease: delivery.lease,
        verdict: Verdict::Ack,
    };
    world.call(Command::Settle(settle));
    assert!(!world.settled.contains_key(&number));
    world.sync();
    assert_eq!(world.settled.get(&number), Some(&Ok(())));
}

#[test]
fn one_publish_to_many_queues_is_one_record_with_one_body() {
    let queues: Vec<_> = (0..100).map(|number| queue(&format!("q{number}")).bind(&["topic"])).collect();
    let mut world = World::new(&queues);
    let before = (world.journal.len(), world.journal.iter().map(Vec::len).sum::<usize>());
    let payload = "x".repeat(10_000);
    assert_eq!(world.publish(draft("topic", "m").payload(&payload)).routed, 100);
    assert_eq!(world.journal.len(), before.0 + 1);
    assert!(world.journal.iter().map(Vec::len).sum::<usize>() < before.1 + 11_000);
}

/// The waits of the deliveries since the last look.
fn delivered(world: &mut World) -> Vec<Wait> {
    waits(world).1
}

#[test]
fn delivery_by_key_waits_for_the_last_settlement_though_its_own_record_is_older() {
    // In both cases the key's order had forgotten the key by the time that the older record's message takes its place.
    let mut world = World::new(&[queue("work").by_key()]);
    let due = world.now.after(100);
    world.store(draft("work", "later").key("k").deliver_at(due));
    world.store(draft("work", "now").key("k"));
    let consumer = world.attach("work", 64);
    let now = world.next(consumer);
    let before = world.broker.position();
    world.ack(consumer, &now);
    waits(&mut world);
    world.advance(100);
    assert!(delivered(&mut world)[0].position > before, "due after the other was acked");
}

#[test]
fn delivery_by_key_waits_for_the_removal_of_a_waiting_head() {
    let mut world = World::new(&[queue("work").by_key()]);
    for id in ["head", "next"] {
        world.store(draft("work", id).key("k"));
    }
    let before = world.broker.position();
    world.operate("work", Operation::Cancel { id: "head".into() }).expect("it isn't leased");
    waits(&mut world);
    world.attach("work", 64);
    assert!(delivered(&mut world)[0].position > before);
}

#[test]
fn dead_letter_and_redriven_message_wait_for_the_record_that_moved_them() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    let before = world.broker.position();
    world.reject(consumer, &delivery, "no");
    waits(&mut world);
    let undertaker = world.attach("work.dlq", 1);
    assert!(delivered(&mut world)[0].position > before, "it is dead only by then");
    world.next(undertaker);
    world.detach(undertaker, true);
    let before = world.broker.position();
    waits(&mut world);
    world.redrive("work");
    assert!(delivered(&mut world)[0].position > before, "it is back only by then");
}

#[test]
fn transaction_of_a_duplicate_alone_waits_for_the_first_copys_record() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let (first, _) = waits(&mut world);
    let publishes = [(draft("work", "m"), false)];
    for turn in ["first", "repeat"] {
        let confirmations = world.transact("t", &[], &publishes).expect("nothing stands against it");
        assert!(confirmations[0].duplicate);
        let transacted = std::mem::take(&mut world.seen).into_iter().find_map(|seen| match seen {
            Seen::Transacted(wait, ..) => Some(wait),
            _ => None,
        });
        let wait = transacted.expect("it was answered");
        assert!(
            wait.durability == Durability::Fsync && wait.position >= first[0].position,
            "{turn}: {wait:?}"
        );
    }
}

#[test]
fn fail_on_a_request_is_settled_when_its_answer_is_durable() {
    let mut world = World::new(&[queue("price").durability(Durability::Memory), queue("answers")]);
    world.store(draft("price", "q").reply_to("answers"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.sync_at_once = false;
    let (number, batches) = (world.draw(), world.batches.len());
    let verdict = Verdict::Fail { reason: "no".into(), retryable: false };
    let (sequence, lease) = (delivery.sequence, delivery.lease);
    world.call(Command::Settle(chaski_broker::Settle { consumer, number, sequence, lease, verdict }));
    assert_eq!(world.batches.len(), batches + 1, "ack and answer are in one batch");
    assert!(!world.settled.contains_key(&number));
    world.sync();
    assert_eq!(world.settled.get(&number), Some(&Ok(())));
}

#[test]
fn pause_of_a_memory_queue_is_answered_when_durable() {
    let mut world = World::new(&[queue("fast").durability(Durability::Memory)]);
    world.sync_at_once = false;
    let (ticket, queue) = (chaski_broker::Ticket(world.draw()), world.broker.queue_id("fast"));
    let queue = queue.expect("the queue is there");
    world.call(Command::Operate { ticket, queue, operation: Operation::Pause });
    assert!(!world.done.contains_key(&ticket));
    world.sync();
    assert!(world.done.contains_key(&ticket));
}

#[test]
fn number_of_a_block_that_is_not_surely_reserved_is_shown_only_after_fdatasync() {
    let mut world = World::new(&[queue("work").durability(Durability::Os)]);
    world.sync_at_once = false;
    world.restart();
    let publish = |world: &mut World, id| {
        let (_, publish) = world.command(&draft("work", id), false);
        waits(world);
        world.call(publish);
        waits(world).0[0].durability
    };
    assert_eq!(publish(&mut world, "a"), Durability::Fsync, "a power cut may take the reservation");
    world.sync();
    assert_eq!(publish(&mut world, "b"), Durability::Os, "from now on the write is enough");
}
