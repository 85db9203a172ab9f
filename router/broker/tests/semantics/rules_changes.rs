//! New rules on a running shard.

use chaski_broker::{
    Attach, Command, ConnectionId, ConsumerId, Durability, Operation, Ordering, Output, RulesRefused,
    RulesVersion, Ticket,
};

use crate::harness::{World, draft, queue, rules};

#[test]
fn version_must_be_the_next_one() {
    let mut world = World::new(&[queue("work")]);
    assert_eq!(world.apply(&rules(1, &[])), Err(RulesRefused::Version(RulesVersion(1))));
    assert_eq!(world.apply(&rules(3, &[])), Err(RulesRefused::Version(RulesVersion(1))));
    assert_eq!(world.apply(&rules(2, &[])), Ok(RulesVersion(2)));
    assert_eq!(world.broker.bindings().version(), RulesVersion(2));
}

#[test]
fn publish_under_an_older_version_is_accepted_without_targets_that_are_gone() {
    let mut world = World::new(&[queue("old").bind(&["topic"]), queue("kept").bind(&["topic"])]);
    let (both, first) = world.command(&draft("topic", "a"), false);
    let (one, second) = world.command(&draft("topic", "b"), false);
    world.reload(&[queue("kept").bind(&["topic"])]).expect("it is empty");
    world.call(first);
    assert_eq!(world.confirms[&both].as_ref().map(|confirmation| confirmation.routed), Ok(1));
    world.call(second);
    assert_eq!(world.confirms[&one].as_ref().map(|confirmation| confirmation.routed), Ok(1));
    let (none, third) = world.command(&draft("topic", "c"), false);
    world.reload_dropping(&[], &["kept"]).expect("it may be dropped");
    world.call(third);
    assert_eq!(world.confirms[&none].as_ref().map(|confirmation| confirmation.routed), Ok(0), "unroutable");
}

#[test]
fn queue_with_messages_vanishes_only_when_told_dead_letters_count() {
    let mut world = World::new(&[queue("full"), queue("dead")]);
    world.store(draft("full", "m"));
    world.store(draft("dead", "m"));
    let consumer = world.attach("dead", 1);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "bad");
    for (name, kept) in [("full", "dead"), ("dead", "full")] {
        let refused = RulesRefused::NotEmpty { queue: name.into(), messages: 1 };
        assert_eq!(world.reload(&[queue(kept)]), Err(refused));
    }
    assert_eq!(world.counts("full"), [1, 0, 0, 0]);
    assert!(world.reload_dropping(&[], &["full", "dead"]).is_ok());
    assert_eq!(world.broker.queue_id("full"), None);
    world.restart();
    assert_eq!(world.broker.queue_id("full"), None);
}

#[test]
fn consumers_of_a_vanished_queue_are_told_and_others_stay() {
    let mut world = World::new(&[queue("gone"), queue("kept")]);
    let (gone, kept) = (world.attach("gone", 1), world.attach("kept", 1));
    world.reload(&[queue("kept").max_deliver(9)]).expect("it is empty");
    assert_eq!(world.detached, [gone]);
    world.store(draft("kept", "m"));
    let delivery = world.next(kept);
    world.ack(kept, &delivery);
}

#[test]
fn queue_made_again_is_a_new_queue() {
    let mut world = World::new(&[queue("work")]);
    let before = world.broker.queue_id("work");
    world.store(draft("work", "m"));
    world.reload_dropping(&[], &["work"]).expect("it may be dropped");
    world.reload(&[queue("work")]).expect("it is new");
    assert_ne!(world.broker.queue_id("work"), before);
    assert_eq!(world.counts("work"), [0; 4]);
}

#[test]
fn durability_and_ordering_change_on_an_empty_queue_only() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let durability = queue("work").durability(Durability::Os);
    let in_use = |setting| Err(RulesRefused::InUse { queue: "work".into(), setting });
    assert_eq!(world.reload(std::slice::from_ref(&durability)), in_use("durability"));
    assert_eq!(world.reload(&[queue("work").by_key()]), in_use("ordering"));
    let consumer = world.attach("work", 1);
    assert_eq!(world.reload(&[queue("work").by_key()]), in_use("ordering"), "leased is not empty");
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    assert!(world.reload(&[durability.by_key()]).is_ok());
    let id = world.broker.rules().queues[0].clone();
    assert_eq!((id.1.durability, id.1.ordering), (Durability::Os, Ordering::Key));
}

#[test]
fn waiting_messages_follow_new_settings() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    world.reload(&[queue("work").ttl(1_000).max_deliver(1)]).expect("nothing stands against it");
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    assert_eq!(delivery.attempt, 1);
    world.nack(consumer, &delivery);
    assert_eq!(world.stats("work").dead, 1);
    world.redrive("work");
    world.detach(consumer, true);
    world.advance(1_000);
    assert_eq!(world.stats("work").dead, 1);
    world.redrive("work");
    world.reload(&[queue("work")]).expect("nothing stands against it");
    world.advance(10_000);
    assert_eq!(world.counts("work"), [1, 0, 0, 0], "a ttl that is gone ends nothing");
}

#[test]
fn queue_that_shrank_below_its_messages_keeps_them() {
    let mut world = World::new(&[queue("work")]);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
    }
    let tight = queue("work").max_messages(1, chaski_broker::Overflow::Reject);
    world.reload(&[tight]).expect("nothing stands against it");
    assert_eq!(world.counts("work"), [3, 0, 0, 0]);
    assert!(world.try_publish(draft("work", "d")).is_err());
}

#[test]
fn history_keeps_the_last_hundred_versions_across_a_restart() {
    let mut world = World::new(&[queue("work")]);
    for _ in 0..120 {
        world.reload(&[queue("work")]).expect("nothing stands against it");
    }
    let versions =
        |world: &World| -> Vec<u64> { world.broker.rules_history().map(|entry| entry.version.0).collect() };
    let before = versions(&world);
    assert_eq!((before.len(), before.last()), (100, Some(&121)));
    world.restart();
    assert_eq!(versions(&world), before);
    world.snapshot();
    world.restart();
    assert_eq!(versions(&world), before);
    let last = world.broker.rules_history().last().expect("there are some");
    assert_eq!((last.author.as_str(), last.document.as_str()), ("test", "# 121"));
}

#[test]
fn the_last_version_that_came_of_a_file_outlives_a_hundred_others() {
    let mut world = World::new(&[queue("work")]);
    for author in ["file a", "file b", "file a"] {
        let version = world.broker.rules().version.0 + 1;
        let rules = chaski_broker::Rules { author: author.to_owned(), ..rules(version, &[queue("work")]) };
        world.apply(&rules).expect("nothing stands against it");
    }
    for _ in 0..150 {
        world.reload(&[queue("work")]).expect("nothing stands against it");
    }
    let kept = |world: &World| -> Vec<(u64, String)> {
        let of_files = world.broker.rules_history().filter(|entry| entry.author.starts_with("file "));
        of_files.map(|entry| (entry.version.0, entry.author.clone())).collect()
    };
    let wanted = [(3, "file b".to_owned()), (4, "file a".to_owned())];
    assert_eq!(kept(&world), wanted);
    assert_eq!(world.broker.rules_history().count(), 100);
    world.snapshot();
    world.restart();
    assert_eq!(kept(&world), wanted);
}

#[test]
fn refused_rules_change_nothing() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let position = world.broker.position();
    assert!(world.reload(&[queue("other")]).is_err());
    assert_eq!((world.broker.position(), world.broker.queue_id("other")), (position, None));
    assert_eq!(world.publish(draft("work", "n")).routed, 1);
}

#[test]
fn new_ttl_leaves_a_delay_that_ends_at_the_same_moment_alone() {
    let mut world = World::new(&[queue("work").ttl(5_000)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.nack_after(consumer, &delivery, 5_000);
    world.reload(&[queue("work")]).expect("nothing stands against it");
    world.advance(5_000);
    assert_eq!(world.ids(consumer), ["m"]);
}

#[test]
fn message_that_was_passed_over_as_expired_is_not_lost_to_a_longer_ttl() {
    let mut world = World::new(&[queue("work").ttl(1_000)]);
    world.store(draft("work", "m"));
    // The driver is late: commands come before the timers that are due.
    world.now = world.now.after(1_000);
    let consumer = ConsumerId(world.draw());
    let attach = Attach { consumer, connection: ConnectionId(1), queue: "work".into(), credit: 1 };
    world.broker.handle(world.now, Command::Attach(attach), &mut Output::default());
    let (now, document) = (world.now, rules(2, &[queue("work")]));
    let change = Command::ApplyRules {
        ticket: Ticket(1),
        rules: document,
        drop_queues: Vec::new(),
        drop_states: Vec::new(),
    };
    world.broker.handle(now, change, &mut Output::default());
    let stats = world.stats("work");
    assert_eq!((stats.dead, stats.leased), (1, 0), "it died where it was met");
}

#[test]
fn ttl_of_a_large_queue_changes_a_part_at_a_time() {
    let mut world = World::new(&[queue("work")]);
    for id in 0..10_000 {
        world.store(draft("work", &id.to_string()));
    }
    let ticket = Ticket(world.draw());
    let document = rules(2, &[queue("work").ttl(1_000)]);
    let mut output = Output::default();
    let change =
        Command::ApplyRules { ticket, rules: document, drop_queues: Vec::new(), drop_states: Vec::new() };
    world.broker.handle(world.now, change, &mut output);
    let mut calls = 0;
    while world.broker.next_timeout().is_some_and(|at| at <= world.now) {
        world.broker.handle_timeout(world.now, &mut output);
        calls += 1;
    }
    assert!((3..10).contains(&calls), "{calls} calls");
    let now = world.now.after(1_000);
    while world.broker.next_timeout().is_some_and(|at| at <= now) {
        world.broker.handle_timeout(now, &mut output);
    }
    assert_eq!(world.stats("work").dead, 10_000);
}

#[test]
fn dropped_queue_of_many_messages_goes_a_part_at_a_time() {
    let mut world = World::new(&[queue("work").by_key(), queue("kept").bind(&["work"])]);
    for id in 0..10_000 {
        world.store(draft("work", &id.to_string()).key(&id.to_string()));
    }
    world.operate("kept", Operation::Purge { limit: 10_000 }).expect("it may be purged");
    let document = rules(2, &[queue("kept")]);
    let (ticket, drop_queues) = (Ticket(1), vec!["work".into()]);
    let mut output = Output::default();
    world.broker.handle(
        world.now,
        Command::ApplyRules { ticket, rules: document, drop_queues, drop_states: Vec::new() },
        &mut output,
    );
    assert_eq!((world.broker.queue_id("work"), world.broker.messages()), (None, 10_000));
    let mut calls = 0;
    while world.broker.next_timeout().is_some_and(|at| at <= world.now) {
        world.broker.handle_timeout(world.now, &mut output);
        calls += 1;
    }
    assert!((3..10).contains(&calls), "{calls} calls");
    assert_eq!((world.broker.messages(), world.broker.live_bytes_total()), (0, 0));
}
