//! Order by key.

use chaski_broker::{OperateError, Operation, Overflow};

use crate::harness::{World, draft, queue};

/// Three messages of key `k`, two of key `l`.
fn filled(queue: crate::harness::Queue) -> World {
    let mut world = World::new(&[queue]);
    for (id, key) in [("k1", "k"), ("k2", "k"), ("l1", "l"), ("k3", "k"), ("l2", "l")] {
        world.store(draft("work", id).key(key));
    }
    world
}

#[test]
fn one_message_of_a_key_at_a_time_and_keys_in_parallel() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.attach("work", 64);
    let (k1, l1) = (world.next(consumer), world.next(consumer));
    assert!(world.poll(consumer).is_none());
    assert_eq!(world.counts("work"), [3, 0, 0, 2], "behind a leased head they are ready");
    world.ack(consumer, &l1);
    assert_eq!(world.ids(consumer), ["l2"]);
    world.ack(consumer, &k1);
    assert_eq!(world.ids(consumer), ["k2"]);
}

#[test]
fn head_that_backs_off_parks_its_key_and_every_other_flows() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.attach("work", 1);
    let k1 = world.next(consumer);
    world.nack_after(consumer, &k1, 500);
    assert_eq!(world.counts("work"), [1, 1, 2, 1]);
    let l1 = world.next(consumer);
    world.ack(consumer, &l1);
    let l2 = world.next(consumer);
    world.ack(consumer, &l2);
    assert!(world.poll(consumer).is_none());
    world.advance(500);
    let again = world.next(consumer);
    assert_eq!((again.sequence, again.attempt), (k1.sequence, 2));
}

#[test]
fn messages_without_a_key_are_unordered_in_a_queue_by_key() {
    let mut world = World::new(&[queue("work").by_key()]);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
    }
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["a", "b", "c"]);
}

#[test]
fn priority_is_ignored_by_key() {
    let mut world = World::new(&[queue("work").by_key()]);
    world.store(draft("work", "a").key("k").priority(0));
    world.store(draft("work", "b").key("l").priority(9));
    world.store(draft("work", "c").priority(9));
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["a", "b", "c"]);
}

#[test]
fn released_expired_and_lost_heads_return_to_their_place() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.try_attach(9, "work", 64).expect("the queue is there");
    assert_eq!(world.ids(consumer), ["k1", "l1"]);
    world.disconnect(9);
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["k1", "l1"]);
    world.detach(consumer, true);
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["k1", "l1"]);
}

#[test]
fn scheduled_message_is_outside_its_keys_order_until_due_and_then_takes_its_place() {
    let mut world = World::new(&[queue("work").by_key()]);
    let due = world.now.after(1_000);
    world.store(draft("work", "later").key("k").deliver_at(due));
    world.store(draft("work", "b").key("k"));
    world.store(draft("work", "c").key("k"));
    let consumer = world.attach("work", 1);
    assert_eq!(world.counts("work"), [1, 1, 0, 1]);
    let b = world.next(consumer);
    world.advance(1_000);
    world.ack(consumer, &b);
    assert_eq!(world.ids(consumer), ["later"], "its place is its sequence");
}

#[test]
fn dead_letter_lets_the_key_go_on_by_default() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    assert_eq!(world.ids(consumer), ["l1", "k2"]);
}

#[test]
fn park_key_waits_until_its_dead_letter_is_redriven_to_its_place() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    assert_eq!(world.ids(consumer), ["l1"]);
    assert_eq!(world.counts("work"), [1, 0, 2, 1]);
    assert_eq!(world.stats("work").parked_keys.len(), 1);
    assert_eq!(world.redrive("work").count, 1);
    let again = world.next(consumer);
    assert_eq!((again.sequence, again.attempt), (k1.sequence, 1), "redrive resets attempts");
    world.ack(consumer, &again);
    assert_eq!(world.ids(consumer), ["k2"]);
}

#[test]
fn park_key_is_freed_when_none_of_its_dead_letters_remains() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    world.ids(consumer);
    world.operate("work", Operation::PurgeDead { limit: 10 }).expect("it may be purged");
    assert_eq!(world.ids(consumer), ["k2"]);
}

#[test]
fn acking_the_dead_letter_frees_its_key() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    world.ids(consumer);
    let undertaker = world.attach("work.dlq", 1);
    let letter = world.next(undertaker);
    world.ack(undertaker, &letter);
    assert_eq!(world.ids(consumer), ["k2"]);
}

#[test]
fn unpark_frees_a_key_by_hand() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    world.ids(consumer);
    let unpark = |key: &'static str| Operation::Unpark { key: key.into() };
    assert_eq!(world.operate("work", unpark("l")), Err(OperateError::UnknownId));
    world.operate("work", unpark("k")).expect("it is parked");
    assert_eq!(world.ids(consumer), ["k2"]);
    assert_eq!(world.letters("work").len(), 1);
}

#[test]
fn parked_key_survives_a_restart_and_a_snapshot() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let consumer = world.attach("work", 64);
        assert_eq!(world.ids(consumer), ["l1"], "from a snapshot: {snapshot}");
        assert_eq!(world.counts("work")[2], 2);
    }
}

#[test]
fn message_published_to_a_parked_key_waits() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    for _ in 0..2 {
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    world.store(draft("work", "k4").key("k"));
    assert!(world.poll(consumer).is_none());
    assert_eq!(world.counts("work"), [0, 0, 4, 0]);
}

#[test]
fn cancel_purge_and_drop_oldest_do_not_park() {
    let parked = queue("work").park_key().max_messages(5, Overflow::DropOldest);
    let mut world = filled(parked);
    world.store(draft("work", "m1").key("m"));
    assert_eq!(world.stats("work").totals.dropped, 1);
    world.operate("work", Operation::Cancel { id: "k2".into() }).expect("it isn't leased");
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["l1", "k3", "m1"]);
    world.operate("work", Operation::Purge { limit: 10 }).expect("it may be purged");
    assert_eq!(world.counts("work"), [0, 0, 0, 3]);
    world.store(draft("work", "k5").key("k"));
    assert_eq!(world.counts("work"), [1, 0, 0, 3]);
}

#[test]
fn order_by_key_holds_across_a_restart() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.nack_after(consumer, &k1, 500);
    world.restart();
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["l1"], "the head still backs off");
    assert_eq!(world.counts("work"), [1, 1, 2, 1]);
    world.advance(500);
    assert_eq!(world.ids(consumer), ["k1"]);
}

#[test]
fn unparked_key_stays_free_across_a_restart_and_a_snapshot_until_its_next_dead_letter() {
    let mut world = filled(queue("work").park_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    world.operate("work", Operation::Unpark { key: "k".into() }).expect("it is parked");
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        world.restart();
        assert!(world.stats("work").parked_keys.is_empty(), "from a snapshot: {snapshot}");
    }
    let consumer = world.attach("work", 64);
    let k2 = world.next(consumer);
    world.reject(consumer, &k2, "bad");
    assert_eq!(world.stats("work").parked_keys.len(), 1);
    world.snapshot();
    world.restart();
    let by_id = chaski_broker::Select { id: Some("k2".into()), ..Default::default() };
    world.operate("work", Operation::Redrive { select: by_id, limit: 9 }).expect("it may be redriven");
    assert!(world.stats("work").parked_keys.is_empty(), "the letter that was unparked parks it no more");
}

#[test]
fn redriven_message_takes_its_place_before_what_is_waiting() {
    let mut world = filled(queue("work").by_key());
    let consumer = world.attach("work", 64);
    let k1 = world.next(consumer);
    world.reject(consumer, &k1, "bad");
    assert_eq!(world.ids(consumer), ["l1", "k2"]);
    world.redrive("work");
    assert!(world.poll(consumer).is_none(), "k2 is leased");
    world.detach(consumer, true);
    let consumer = world.attach("work", 64);
    assert_eq!(world.ids(consumer), ["k1", "l1"]);
}
