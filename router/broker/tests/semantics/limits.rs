//! max_messages, max_bytes and what a full queue does.

use chaski_broker::{DeadReason, Durability, Event, Operation, Overflow, PublishError};

use crate::harness::{World, draft, queue};

#[test]
fn full_rejecting_queue_refuses_and_nothing_is_stored_anywhere() {
    let mut world = World::new(&[
        queue("roomy").bind(&["topic"]),
        queue("tight").bind(&["topic"]).max_messages(1, Overflow::Reject),
    ]);
    world.store(draft("topic", "a"));
    assert_eq!(
        world.try_publish(draft("topic", "b")),
        Err(PublishError::QueueFull { queue: "tight".into() })
    );
    assert_eq!((world.stats("roomy").ready, world.stats("tight").ready), (1, 1));
}

#[test]
fn max_bytes_counts_whole_blocks() {
    let len = draft("work", "a").build().body.len() as u64;
    let mut world = World::new(&[queue("work").with(|settings| settings.max_bytes = Some(2 * len))]);
    world.store(draft("work", "a"));
    world.store(draft("work", "b"));
    assert_eq!(world.stats("work").bytes, 2 * len);
    assert!(world.try_publish(draft("work", "c")).is_err());
}

#[test]
fn limits_count_ready_delayed_parked_and_leased() {
    let mut world = World::new(&[queue("work").by_key().max_messages(4, Overflow::Reject)]);
    let due = world.now.after(1_000);
    world.store(draft("work", "parked1").key("k"));
    world.store(draft("work", "parked2").key("k"));
    world.store(draft("work", "delayed").deliver_at(due));
    world.store(draft("work", "leased"));
    let consumer = world.attach("work", 2);
    let head = world.next(consumer);
    world.nack_after(consumer, &head, 5_000);
    assert_eq!(world.counts("work"), [0, 2, 1, 1]);
    assert!(world.try_publish(draft("work", "more")).is_err());
}

#[test]
fn drop_oldest_makes_room_from_the_oldest_that_is_not_leased_and_tells() {
    let mut world = World::new(&[queue("work").max_messages(2, Overflow::DropOldest)]);
    let consumer = world.attach("work", 1);
    for id in ["leased", "b", "c"] {
        assert_eq!(world.publish(draft("work", id)).routed, 1);
    }
    assert_eq!(world.counts("work"), [1, 0, 0, 1]);
    assert_eq!(world.browse("work").len(), 2);
    assert_eq!(world.stats("work").totals.dropped, 1);
    world.advance(10);
    assert!(world.events.contains(&Event::QueueDropped { queue: "work".into(), count: 1 }));
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    assert_eq!(world.ids(consumer), ["c"]);
}

#[test]
fn drops_are_told_at_most_once_a_second() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::DropOldest)]);
    for id in 0..100 {
        world.publish(draft("work", &id.to_string()));
        world.advance(10);
    }
    world.advance(2_000);
    let told = world.events.iter().map(|event| match event {
        Event::QueueDropped { count, .. } => *count,
        other => panic!("{other:?}"),
    });
    let told: Vec<u64> = told.collect();
    assert_eq!(told.iter().sum::<u64>(), 99);
    assert!(told.len() <= 3, "{told:?}");
}

#[test]
fn newcomer_goes_itself_when_all_are_leased_and_the_publish_is_confirmed() {
    for (overflow, dead) in [(Overflow::DropOldest, 0), (Overflow::DeadLetterOldest, 1)] {
        let mut world = World::new(&[queue("work").max_messages(1, overflow)]);
        world.attach("work", 1);
        world.store(draft("work", "a"));
        let confirmation = world.publish(draft("work", "b"));
        assert_eq!((confirmation.routed, confirmation.duplicate), (1, false));
        assert_eq!(world.counts("work"), [0, 0, 0, 1]);
        assert_eq!(world.stats("work").dead, dead);
        assert!(world.publish(draft("work", "b")).duplicate);
    }
}

#[test]
fn dead_letter_oldest_keeps_what_made_room() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::DeadLetterOldest)]);
    for id in ["a", "b"] {
        world.store(draft("work", id));
    }
    assert_eq!(world.letters("work")["a"].reason, DeadReason::Overflow);
    assert_eq!(world.counts("work"), [1, 0, 0, 0]);
}

#[test]
fn message_larger_than_the_queue_goes_without_emptying_it() {
    let mut world = World::new(&[queue("work").with(|settings| {
        (settings.max_bytes, settings.overflow) = (Some(1_000), Overflow::DropOldest);
    })]);
    for id in ["a", "b"] {
        world.store(draft("work", id));
    }
    assert_eq!(world.publish(draft("work", "huge").payload(&"x".repeat(2_000))).routed, 1);
    assert_eq!(world.counts("work"), [2, 0, 0, 0]);
}

#[test]
fn large_newcomer_takes_the_room_of_several() {
    let mut world = World::new(&[queue("work").with(|settings| {
        (settings.max_bytes, settings.overflow) = (Some(400), Overflow::DropOldest);
    })]);
    for id in 0..10 {
        world.store(draft("work", &id.to_string()));
    }
    world.store(draft("work", "large").payload(&"x".repeat(300)));
    assert!(world.stats("work").bytes <= 400);
    assert!(world.browse("work").len() > 1);
}

#[test]
fn what_leaves_makes_room() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::Reject)]);
    world.store(draft("work", "a"));
    world.operate("work", Operation::Purge { limit: 1 }).expect("it may be purged");
    world.store(draft("work", "b"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "bad");
    world.store(draft("work", "c"));
}

#[test]
fn memory_queue_refuses_when_full_as_any_other() {
    let mut world =
        World::new(&[queue("fast").durability(Durability::Memory).max_messages(1, Overflow::Reject)]);
    world.store(draft("fast", "a"));
    assert!(world.try_publish(draft("fast", "b")).is_err());
}
