//! ttl, deliver_at, and the clock.

use chaski_broker::{DeadReason, Millis};

use crate::harness::{World, draft, queue};

#[test]
fn message_is_delivered_no_earlier_than_deliver_at_also_after_a_restart() {
    let mut world = World::new(&[queue("work")]);
    let due = world.now.after(10_000);
    world.store(draft("work", "m").deliver_at(due));
    assert_eq!(world.counts("work"), [0, 1, 0, 0]);
    assert_eq!(world.browse("work")[0].not_before, Some(due));
    world.restart();
    let consumer = world.attach("work", 64);
    world.advance(9_999);
    assert!(world.poll(consumer).is_none());
    world.advance(1);
    assert_eq!(world.next(consumer).attempt, 1);
}

#[test]
fn deliver_at_in_the_past_is_now() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m").deliver_at(Millis(5)));
    assert_eq!(world.counts("work"), [1, 0, 0, 0]);
}

#[test]
fn shorter_ttl_of_message_and_queue_counts() {
    let mut world = World::new(&[queue("work").ttl(5_000)]);
    world.store(draft("work", "short").ttl(1_000));
    world.store(draft("work", "long").ttl(60_000));
    world.store(draft("work", "none"));
    world.advance(999);
    assert_eq!(world.counts("work"), [3, 0, 0, 0]);
    world.advance(1);
    assert_eq!(world.letters("work")["short"].reason, DeadReason::Expired);
    world.advance(4_000);
    assert_eq!(world.letters("work").len(), 3);
    let letter = &world.letters("work")["none"];
    assert_eq!((letter.attempts, letter.first_at, letter.last_at), (0, world.now, world.now));
}

#[test]
fn ttl_runs_from_deliver_at_when_that_is_later() {
    let mut world = World::new(&[queue("work")]);
    let due = world.now.after(10_000);
    world.store(draft("work", "m").deliver_at(due).ttl(1_000));
    world.advance(10_999);
    assert_eq!(world.counts("work"), [1, 0, 0, 0]);
    world.advance(1);
    assert_eq!(world.letters("work").len(), 1);
}

#[test]
fn ttl_expires_in_any_state_but_leased() {
    let mut world = World::new(&[queue("work").by_key()]);
    world.store(draft("work", "leased").key("a").ttl(1_000));
    world.store(draft("work", "behind").key("a").ttl(1_000));
    world.store(draft("work", "delayed").key("b").ttl(1_000));
    world.store(draft("work", "parked").key("b").ttl(1_000));
    let consumer = world.attach("work", 2);
    let (leased, delayed) = (world.next(consumer), world.next(consumer));
    world.nack_after(consumer, &delayed, 60_000);
    world.advance(1_000);
    assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["behind", "delayed", "parked"]);
    world.nack_after(consumer, &leased, 60_000);
    assert_eq!(world.letters("work")["leased"].reason, DeadReason::Expired, "once its lease ends");
}

#[test]
fn leased_message_past_its_ttl_may_still_be_acked() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m").ttl(1_000));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.advance(2_000);
    world.ack(consumer, &delivery);
    assert!(world.letters("work").is_empty());
}

#[test]
fn ttl_survives_a_restart() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m").ttl(1_000));
    world.snapshot();
    world.restart();
    world.advance(1_000);
    assert_eq!(world.letters("work").len(), 1);
}

#[test]
fn time_never_goes_back() {
    let mut world = World::new(&[queue("work")]);
    world.advance(10_000);
    world.store(draft("work", "a"));
    let before = world.now;
    world.now = Millis(5);
    world.store(draft("work", "b"));
    assert_eq!(world.browse("work")[1].published_at, before);
}

#[test]
fn quiet_broker_has_no_wake_up_but_its_windows() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    world.advance(1_000_000);
    assert_eq!(world.broker.next_timeout(), None);
    assert_eq!(world.broker.dedup_entries(), 0);
}
