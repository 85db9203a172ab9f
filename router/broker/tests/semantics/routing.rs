//! Patterns, subscriptions, unroutable publishes.

use chaski_broker::{Command, Confirmation, PublishError};

use crate::harness::{Seen, World, draft, queue, rules};

#[test]
fn queue_without_bind_takes_the_topic_of_its_own_name() {
    let mut world = World::new(&[queue("work")]);
    assert_eq!(world.publish(draft("work", "a")).routed, 1);
    assert_eq!(world.publish(draft("work.more", "b")).routed, 0);
}

#[test]
fn every_bound_queue_takes_a_copy_under_one_sequence() {
    let mut world = World::new(&[
        queue("all").bind(&["orders.>"]),
        queue("eu").bind(&["orders.eu.*", "orders.eu.created"]),
        queue("us").bind(&["orders.us.*"]),
    ]);
    let confirmation = world.publish(draft("orders.eu.created", "m"));
    assert_eq!(confirmation.routed, 2);
    let sequence = confirmation.sequence;
    assert_eq!(sequence, Some(world.browse("all")[0].sequence));
    assert_eq!(sequence, Some(world.browse("eu")[0].sequence));
    assert!(world.browse("us").is_empty());
}

#[test]
fn unroutable_publish_is_confirmed_with_zeroes_and_an_error_when_mandatory() {
    let mut world = World::new(&[queue("work")]);
    assert_eq!(world.publish(draft("nobody", "a")), Confirmation::default());
    assert_eq!(
        world.publish_mandatory(draft("nobody", "b")),
        Err(PublishError::Unroutable { topic: "nobody".to_owned() })
    );
    assert_eq!(world.publish_mandatory(draft("work", "c")).map(|confirmation| confirmation.routed), Ok(1));
}

#[test]
fn subscription_gets_what_matches_and_counts_as_routed() {
    let mut world = World::new(&[queue("work").bind(&["news.a"])]);
    let (all, some) = (world.subscribe(1, "news.>"), world.subscribe(1, "news.*.late"));
    assert_eq!(world.publish(draft("news.a", "1")).routed, 2);
    assert_eq!(world.publish(draft("news.b.late", "2")).routed, 2);
    assert_eq!(world.publish_mandatory(draft("news.c", "3")).map(|confirmation| confirmation.routed), Ok(1));
    assert_eq!(world.passed(all), [("1".into(), 0), ("2".into(), 0), ("3".into(), 0)]);
    assert_eq!(world.passed(some), [("2".into(), 0)]);
}

#[test]
fn wildcards_reach_no_reserved_topic() {
    let mut world = World::new(&[queue("all").bind(&[">"])]);
    let all = world.subscribe(1, ">");
    let events = world.subscribe(1, "$chaski.events.>");
    world.call(Command::Announce { message: draft("$chaski.events.dead_letter", "e").build() });
    assert_eq!((world.passed(all).len(), world.passed(events).len()), (0, 1));
    assert!(world.browse("all").is_empty());
}

#[test]
fn announced_message_is_stored_where_it_is_bound_and_bypasses_dedup() {
    let mut world = World::new(&[queue("events").bind(&["$chaski.events.>"])]);
    for _ in 0..2 {
        world.call(Command::Announce { message: draft("$chaski.events.x", "same").build() });
    }
    assert_eq!(world.counts("events"), [2, 0, 0, 0]);
}

#[test]
fn full_subscription_drops_counts_and_never_refuses() {
    let mut document = rules(1, &[]);
    document.limits.subscription_max_messages = 2;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    let news = world.subscribe(1, "news");
    for id in 0..5 {
        assert_eq!(world.publish(draft("news", &id.to_string())).routed, 1);
    }
    assert_eq!(world.passed(news), [("0".into(), 0), ("1".into(), 0)]);
    assert_eq!(world.broker.subscription_dropped(), 3);
    world.call(Command::Taken { subscription: news, count: 1 });
    world.publish(draft("news", "5"));
    assert_eq!(world.passed(news), [("5".into(), 3)], "the next one that passes tells");
}

#[test]
fn subscription_ends_with_its_connection() {
    let mut world = World::new(&[]);
    let (mine, theirs) = (world.subscribe(1, "news"), world.subscribe(2, "news"));
    world.disconnect(1);
    assert_eq!(world.publish(draft("news", "m")).routed, 1);
    assert_eq!((world.passed(mine).len(), world.passed(theirs).len()), (0, 1));
    world.call(Command::Unsubscribe { subscription: theirs });
    assert_eq!(world.publish(draft("news", "n")).routed, 0);
}

#[test]
fn subscriptions_and_consumers_are_gone_after_a_start() {
    let mut world = World::new(&[queue("work")]);
    world.subscribe(1, "news");
    world.attach("work", 1);
    world.restart();
    assert_eq!(world.publish(draft("news", "m")).routed, 0);
    world.store(draft("work", "m"));
    assert_eq!((world.counts("work"), world.stats("work").consumers), ([1, 0, 0, 0], 0));
}

#[test]
fn confirms_keep_the_publish_streams_order() {
    let mut world = World::new(&[queue("work").bind(&["a", "b"])]);
    world.sync_at_once = false;
    let mut numbers = Vec::new();
    for (topic, id) in [("a", "1"), ("nobody", "2"), ("b", "3"), ("a", "1")] {
        let (number, command) = world.command(&draft(topic, id), false);
        world.call(command);
        numbers.push(number);
    }
    let confirmed = world.seen.iter().filter_map(|seen| match seen {
        Seen::Confirm(_, number, _) => Some(*number),
        _ => None,
    });
    assert_eq!(confirmed.collect::<Vec<_>>(), numbers);
}

#[test]
fn thousand_queues_with_ten_bindings_each_route_to_the_right_one() {
    let queues: Vec<_> = (0..1_000)
        .map(|number| {
            let patterns: Vec<String> = (0..10).map(|n| format!("net{number}.*.kind{n}")).collect();
            queue(&format!("q{number}")).bind(&patterns.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect();
    let mut world = World::new(&queues);
    assert_eq!(world.publish(draft("net371.x.kind9", "m")).routed, 1);
    assert_eq!(world.counts("q371"), [1, 0, 0, 0]);
}
