//! The dedup window.

use chaski_broker::{Confirmation, Durability, Event, Overflow, PublishError};

use crate::harness::{World, draft, queue, rules};

const WINDOW: u64 = 120_000;

fn duplicate_of(sequence: chaski_broker::Sequence) -> Confirmation {
    Confirmation { sequence: Some(sequence), duplicate: true, ..Confirmation::default() }
}

#[test]
fn second_publish_of_an_id_is_confirmed_as_duplicate_with_the_first_sequence() {
    let mut world = World::new(&[queue("work")]);
    let sequence = world.store(draft("work", "m"));
    assert_eq!(world.publish(draft("work", "m").payload("other")), duplicate_of(sequence));
    assert_eq!(world.publish_mandatory(draft("work", "m")), Ok(duplicate_of(sequence)));
    assert_eq!(world.stats("work").ready, 1);
}

#[test]
fn window_is_two_minutes_by_default_and_outlives_the_message() {
    let mut world = World::new(&[queue("work")]);
    let sequence = world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    world.advance(WINDOW - 1);
    assert_eq!(world.publish(draft("work", "m")), duplicate_of(sequence));
    world.advance(1);
    assert_ne!(world.store(draft("work", "m")), sequence);
}

#[test]
fn id_is_known_by_topic() {
    let mut world = World::new(&[queue("work").bind(&["a", "b"])]);
    assert_ne!(world.store(draft("a", "m")), world.store(draft("b", "m")));
}

#[test]
fn longest_window_among_the_queues_counts() {
    let long = queue("long").bind(&["topic"]).with(|settings| settings.dedup_window_ms = 3 * WINDOW);
    let mut world = World::new(&[queue("short").bind(&["topic"]), long]);
    let sequence = world.store(draft("topic", "m"));
    world.advance(3 * WINDOW - 1);
    assert_eq!(world.publish(draft("topic", "m")), duplicate_of(sequence));
}

#[test]
fn window_survives_a_restart_and_a_snapshot() {
    let mut world = World::new(&[queue("work")]);
    let first = world.store(draft("work", "m"));
    world.restart();
    assert_eq!(world.publish(draft("work", "m")), duplicate_of(first));
    let second = world.store(draft("work", "n"));
    world.snapshot();
    world.restart();
    assert_eq!(world.publish(draft("work", "m")), duplicate_of(first));
    assert_eq!(world.publish(draft("work", "n")), duplicate_of(second));
    world.advance(WINDOW);
    world.restart();
    assert!(!world.publish(draft("work", "m")).duplicate);
}

#[test]
fn entry_is_as_durable_as_the_strongest_target() {
    let mut world = World::new(&[queue("fast").durability(Durability::Memory)]);
    world.store(draft("fast", "m"));
    assert!(world.publish(draft("fast", "m")).duplicate);
    world.restart();
    assert!(!world.publish(draft("fast", "m")).duplicate);
}

#[test]
fn what_was_refused_or_reached_nobody_is_judged_afresh() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::Reject)]);
    world.store(draft("work", "a"));
    assert_eq!(world.try_publish(draft("work", "b")), Err(PublishError::QueueFull { queue: "work".into() }));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    assert!(!world.publish(draft("work", "b")).duplicate);
    assert_eq!(world.publish(draft("later", "m")).routed, 0);
    world.reload(&[queue("work"), queue("later")]).expect("nothing stands against it");
    assert_eq!(world.publish(draft("later", "m")).routed, 1);
}

#[test]
fn duplicate_is_known_before_capacity_is_asked() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::Reject)]);
    let sequence = world.store(draft("work", "m"));
    assert_eq!(world.publish(draft("work", "m")), duplicate_of(sequence));
}

#[test]
fn what_only_a_subscription_took_is_known_without_a_sequence() {
    let mut world = World::new(&[]);
    let news = world.subscribe(1, "news.>");
    assert_eq!(world.publish(draft("news.a", "m")).routed, 1);
    let again = world.publish(draft("news.a", "m"));
    assert_eq!((again.sequence, again.duplicate, again.routed), (None, true, 0));
    assert_eq!(world.passed(news).len(), 1);
}

#[test]
fn redriven_message_bypasses_the_window() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "no");
    assert_eq!(world.redrive("work").count, 1);
    assert_eq!(world.ids(consumer), ["m"]);
}

#[test]
fn beyond_the_bound_the_oldest_go_early_and_the_real_window_is_told() {
    let mut document = rules(1, &[queue("work")]);
    document.limits.dedup_max_entries = 100;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    for id in 0..150 {
        world.store(draft("work", &id.to_string()));
        world.advance(100);
    }
    world.advance(2_000);
    assert!(!world.publish(draft("work", "0")).duplicate, "the oldest went");
    assert!(world.publish(draft("work", "149")).duplicate, "the newest did not");
    assert!(world.broker.dedup_window_ms() < WINDOW);
    assert!(world.windows.iter().any(|window| *window < WINDOW), "{:?}", world.windows);
    assert!(world.events.iter().any(|event| matches!(event, Event::DedupWindow { wanted_ms: WINDOW, .. })));
    world.advance(2 * WINDOW);
    assert_eq!(world.broker.dedup_window_ms(), WINDOW);
    assert_eq!(world.windows.last(), Some(&WINDOW));
}

#[test]
fn real_window_is_known_after_a_start_from_a_snapshot() {
    let mut document = rules(1, &[queue("work")]);
    document.limits.dedup_max_entries = 100;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    for id in 0..150 {
        world.store(draft("work", &id.to_string()));
        world.advance(100);
    }
    let real = world.broker.dedup_window_ms();
    assert!(real < WINDOW);
    world.snapshot();
    world.restart();
    assert_eq!(world.broker.dedup_window_ms(), real);
}

#[test]
fn reply_request_and_late_reply_are_judged_by_the_topic_that_the_client_named() {
    let mut world = World::new(&[queue("price"), queue("answers").bind(&["answers.>"])]);
    world.store(draft("price", "q").reply_to("answers.old"));
    world.publish(draft("price", "q").reply_to("answers.new"));
    let reply = || draft("answers.old", "r").correlation("q");
    let sequence = world.store(reply());
    assert_eq!(world.publish(reply()), duplicate_of(sequence), "known by its own topic, wherever it went");
    assert!(!world.publish(draft("answers.new", "r")).duplicate);
}
