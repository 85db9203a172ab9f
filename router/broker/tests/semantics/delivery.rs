//! Leases, credit, attempts, fairness.

use chaski_broker::{
    Attach, Command, Confirmation, ConnectionId, ConsumerId, DeadReason, Effect, Output, SettleError, Verdict,
};

use crate::harness::{World, draft, queue};

#[test]
fn stored_message_is_delivered_and_gone_once_acked() {
    let mut world = World::new(&[queue("work")]);
    let sequence = world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    assert_eq!((delivery.sequence, delivery.attempt, delivery.redelivered), (sequence, 1, false));
    assert_eq!(delivery.published_at, world.now);
    assert_eq!(world.counts("work"), [0, 0, 0, 1]);
    world.ack(consumer, &delivery);
    assert_eq!(world.counts("work"), [0; 4]);
    assert_eq!((world.stats("work").bytes, world.stats("work.dlq").bytes), (0, 0));
}

#[test]
fn settling_a_lease_that_is_over_is_lease_lost_and_changes_nothing() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    let first = world.next(consumer);
    world.nack_after(consumer, &first, 10);
    for verdict in [Verdict::Ack, Verdict::Nack { delay_ms: None }, Verdict::Reject { reason: "x".into() }] {
        assert_eq!(world.settle(consumer, &first, verdict), Err(SettleError::LeaseLost));
    }
    assert_eq!(world.counts("work"), [0, 1, 0, 0]);
    world.advance(10);
    let second = world.next(consumer);
    assert_ne!(second.lease, first.lease);
    assert_eq!(world.settle(consumer, &first, Verdict::Ack), Err(SettleError::LeaseLost));
    world.ack(consumer, &second);
    assert_eq!(world.settle(consumer, &second, Verdict::Ack), Err(SettleError::LeaseLost));
}

#[test]
fn token_is_valid_for_its_own_consumer_only() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let holder = world.attach("work", 64);
    let other = world.try_attach(2, "work", 64).expect("the queue is there");
    let delivery = world.next(holder);
    assert_eq!(world.settle(other, &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    world.ack(holder, &delivery);
}

#[test]
fn lease_starts_when_the_delivery_is_handed_to_the_stream_and_runs_for_ack_wait() {
    let mut world = World::new(&[queue("work").with(|settings| settings.ack_wait_ms = 1_000)]);
    world.send_at_once = false;
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    world.advance(50_000);
    assert_eq!(world.counts("work"), [0, 0, 0, 1], "an unsent delivery's lease doesn't run");
    world.call(Command::Sent { consumer, count: 1 });
    world.advance(999);
    assert_eq!(world.counts("work"), [0, 0, 0, 1]);
    world.advance(1);
    assert_eq!(world.counts("work"), [0, 1, 0, 0], "an expired lease backs off");
    let delivery = world.next(consumer);
    assert_eq!(world.settle(consumer, &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
}

#[test]
fn extend_renews_the_lease_and_names_those_that_are_lost() {
    let mut world = World::new(&[queue("work").with(|settings| settings.ack_wait_ms = 1_000)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    for _ in 0..5 {
        world.advance(900);
        world.extend(consumer, &delivery);
    }
    assert!(world.lost.is_empty());
    world.ack(consumer, &delivery);
    world.extend(consumer, &delivery);
    assert_eq!(world.lost, [(delivery.sequence, delivery.lease)]);
}

#[test]
fn nack_without_a_delay_takes_the_queues_backoff_with_a_tenth_of_jitter() {
    let mut world = World::new(&[queue("work").max_deliver(9)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    for wait in [1_000, 5_000, 30_000, 120_000, 120_000] {
        let delivery = world.next(consumer);
        world.nack(consumer, &delivery);
        world.advance(wait * 9 / 10 - 1);
        assert!(world.poll(consumer).is_none(), "within {wait} ms less a tenth");
        world.advance(wait * 2 / 10 + 1);
    }
    assert_eq!(world.next(consumer).attempt, 6);
}

#[test]
fn jitter_spreads_messages_that_failed_together() {
    let mut world = World::new(&[queue("work")]);
    let consumer = world.attach("work", 64);
    for id in 0..20 {
        world.store(draft("work", &id.to_string()));
    }
    for _ in 0..20 {
        let delivery = world.next(consumer);
        world.nack(consumer, &delivery);
    }
    let mut times: Vec<_> = world.browse("work").into_iter().map(|browsed| browsed.not_before).collect();
    times.sort();
    times.dedup();
    assert!(times.len() > 10, "{times:?}");
}

#[test]
fn nack_with_a_delay_takes_that_one_exactly() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    world.nack_after(consumer, &delivery, 777);
    world.advance(776);
    assert!(world.poll(consumer).is_none());
    world.advance(1);
    let delivery = world.next(consumer);
    assert_eq!((delivery.attempt, delivery.redelivered), (2, true));
    world.nack_after(consumer, &delivery, 0);
    assert_eq!(world.next(consumer).attempt, 3);
}

#[test]
fn failed_delivery_number_max_deliver_is_a_dead_letter() {
    let mut world = World::new(&[queue("work").max_deliver(2)]);
    world.store(draft("work", "nacked"));
    let consumer = world.attach("work", 1);
    for attempt in [1, 2] {
        let delivery = world.next(consumer);
        assert_eq!(delivery.attempt, attempt);
        world.nack_after(consumer, &delivery, 0);
    }
    world.store(draft("work", "expired"));
    world.advance(200_000);
    let letters = world.letters("work");
    assert_eq!(letters.len(), 2);
    for letter in letters.values() {
        assert_eq!((letter.reason, letter.attempts), (DeadReason::MaxDeliver, 2));
    }
    assert_eq!(world.counts("work"), [0; 4]);
}

#[test]
fn unlimited_max_deliver_never_dies() {
    let mut world = World::new(&[queue("work").with(|settings| settings.max_deliver = None)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    for attempt in 1..200 {
        let delivery = world.next(consumer);
        assert_eq!(delivery.attempt, attempt);
        world.nack_after(consumer, &delivery, 0);
    }
}

#[test]
fn release_does_not_count_and_keeps_the_message_redelivered() {
    let mut world = World::new(&[queue("work").max_deliver(1)]);
    world.store(draft("work", "m"));
    for _ in 0..3 {
        let consumer = world.attach("work", 1);
        let delivery = world.next(consumer);
        assert_eq!(delivery.attempt, 1);
        world.settle(consumer, &delivery, Verdict::Release).expect("the lease is current");
        world.detach(consumer, true);
    }
    let consumer = world.attach("work", 1);
    assert!(world.next(consumer).redelivered);
}

#[test]
fn lost_connection_counts_and_returns_at_once() {
    let mut world = World::new(&[queue("work").max_deliver(2)]);
    world.store(draft("work", "m"));
    let consumer = world.try_attach(7, "work", 1).expect("the queue is there");
    let delivery = world.next(consumer);
    world.disconnect(7);
    assert_eq!(world.settle(consumer, &delivery, Verdict::Ack), Err(SettleError::LeaseLost));
    assert_eq!(world.counts("work"), [1, 0, 0, 0], "no backoff");
    let consumer = world.try_attach(8, "work", 1).expect("the queue is there");
    assert_eq!(world.next(consumer).attempt, 2);
    world.disconnect(8);
    assert_eq!(world.letters("work")["m"].reason, DeadReason::MaxDeliver);
}

#[test]
fn orderly_detach_releases() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    world.next(consumer);
    world.detach(consumer, true);
    let consumer = world.attach("work", 1);
    assert_eq!(world.next(consumer).attempt, 1);
}

#[test]
fn credit_bounds_deliveries_in_flight() {
    let mut world = World::new(&[queue("work")]);
    for id in 0..10 {
        world.store(draft("work", &id.to_string()));
    }
    let consumer = world.attach("work", 3);
    assert_eq!(world.counts("work"), [7, 0, 0, 3]);
    let first = world.next(consumer);
    world.ack(consumer, &first);
    assert_eq!(world.ids(consumer), ["1", "2", "3"]);
    world.call(Command::SetCredit { consumer, credit: 5 });
    assert_eq!(world.ids(consumer), ["4", "5"]);
    world.call(Command::SetCredit { consumer, credit: 0 });
    assert_eq!(world.counts("work"), [4, 0, 0, 5], "what is in flight stays so");
}

#[test]
fn unsent_bytes_of_one_consumer_are_bounded_and_one_always_passes() {
    let mut world = World::new(&[queue("work")]);
    world.send_at_once = false;
    let large = "x".repeat(300 << 10);
    for id in 0..3 {
        world.store(draft("work", &id.to_string()).payload(&large));
    }
    let consumer = world.attach("work", 64);
    assert_eq!(world.counts("work"), [2, 0, 0, 1]);
    world.call(Command::Sent { consumer, count: 1 });
    assert_eq!(world.counts("work"), [1, 0, 0, 2]);
}

#[test]
fn consumers_share_fairly_by_credit() {
    let mut world = World::new(&[queue("work")]);
    let consumers = [world.attach("work", 64), world.attach("work", 64), world.attach("work", 2)];
    for id in 0..30 {
        world.store(draft("work", &id.to_string()));
    }
    let taken = consumers.map(|consumer| world.ids(consumer).len());
    assert_eq!(taken, [14, 14, 2]);
}

#[test]
fn single_active_serves_the_longest_attached_and_fails_over() {
    let mut world = World::new(&[queue("work").with(|settings| settings.single_active = true)]);
    let (first, second) = (world.attach("work", 1), world.attach("work", 1));
    for id in 0..4 {
        world.store(draft("work", &id.to_string()));
    }
    assert!(world.poll(second).is_none());
    let delivery = world.next(first);
    world.ack(first, &delivery);
    assert_eq!(world.ids(first), ["1"]);
    world.detach(first, true);
    assert_eq!(world.ids(second), ["1"]);
}

#[test]
fn higher_priority_goes_first_then_sequence() {
    let mut world = World::new(&[queue("work")]);
    for (id, priority) in [("a", 4), ("b", 9), ("c", 0), ("d", 4), ("e", 9)] {
        world.store(draft("work", id).priority(priority));
    }
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["b", "e", "a", "d", "c"]);
}

#[test]
fn returned_message_keeps_its_place() {
    let mut world = World::new(&[queue("work")]);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
    }
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.nack_after(consumer, &delivery, 50);
    let second = world.next(consumer);
    world.advance(50);
    world.ack(consumer, &second);
    assert_eq!(world.ids(consumer), ["a"], "later ones overtook it only while it backed off");
}

#[test]
fn attaching_to_an_unknown_queue_is_answered() {
    let mut world = World::new(&[queue("work")]);
    assert!(world.try_attach(1, "nobody", 1).is_err());
    assert!(world.try_attach(1, "work.dlq", 1).is_ok());
}

#[test]
fn commands_about_what_is_gone_do_nothing() {
    let mut world = World::new(&[queue("work")]);
    let consumer = world.attach("work", 1);
    world.detach(consumer, true);
    world.call(Command::SetCredit { consumer, credit: 5 });
    world.call(Command::Sent { consumer, count: 5 });
    world.call(Command::Detach { consumer, release: false });
    world.disconnect(99);
    let unrouted = world.publish(draft("nobody", "m"));
    assert_eq!(unrouted, Confirmation::default());
}

#[test]
fn one_command_delivers_a_bounded_part_and_the_rest_follows_at_once() {
    let mut world = World::new(&[queue("work").max_deliver(1)]);
    for id in 0..10_000 {
        world.store(draft("work", &id.to_string()));
    }
    let consumer = ConsumerId(world.draw());
    let attach = Attach { consumer, connection: ConnectionId(1), queue: "work".into(), credit: 20_000 };
    let mut output = Output::default();
    world.broker.handle(world.now, Command::Attach(attach), &mut output);
    let leased = world.stats("work").leased;
    assert!((1_000..5_000).contains(&leased), "{leased}");
    assert_eq!(world.broker.next_timeout(), Some(world.now));
    for _ in 0..100 {
        let sent = output.effects.drain(..).filter(|held| matches!(held.effect, Effect::Deliver { .. }));
        let count = sent.count() as u32;
        world.broker.handle(world.now, Command::Sent { consumer, count }, &mut output);
        world.broker.handle_timeout(world.now, &mut output);
    }
    assert_eq!(world.stats("work").leased, 10_000);
}

#[test]
fn each_lease_ends_at_its_own_time() {
    let mut world = World::new(&[queue("work").with(|settings| settings.ack_wait_ms = 1_000)]);
    let consumer = world.attach("work", 64);
    for id in 0..4 {
        world.store(draft("work", &id.to_string()));
        world.advance(100);
    }
    let deliveries: Vec<_> = std::iter::from_fn(|| world.poll(consumer)).collect();
    world.ack(consumer, &deliveries[0]);
    world.extend(consumer, &deliveries[1]);
    // The others end at 1,200, 1,300 and, extended at 400, at 1,400.
    let mut leased = Vec::new();
    for _ in 0..4 {
        leased.push(world.counts("work")[3]);
        world.advance(if leased.len() == 1 { 799 } else { 100 });
    }
    world.advance(2);
    leased.push(world.counts("work")[3]);
    assert_eq!(leased, [3, 3, 2, 1, 0]);
}
