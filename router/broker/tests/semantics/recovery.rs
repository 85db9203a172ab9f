//! Crashes, replay, snapshots, relocation: what a start finds.

use std::collections::BTreeSet;

use bytes::Bytes;
use chaski_broker::{
    Broker, Command, DeadReason, Durability, Filtered, Output, Position, Record, ReplayError, Verdict,
};

use crate::harness::{World, death, draft, part, put, queue, render, rules, with_modules};

#[test]
fn crash_is_a_lost_connection_for_every_lease_that_counts_without_backoff() {
    let mut world = World::new(&[queue("work").max_deliver(2)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.restart();
    assert_eq!(world.counts("work"), [1, 0, 0, 0]);
    assert_eq!(world.settle(consumer, &delivery, Verdict::Ack), Err(chaski_broker::SettleError::LeaseLost));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    assert_eq!((delivery.attempt, delivery.redelivered), (2, true));
    world.restart();
    assert_eq!(world.letters("work")["m"].reason, DeadReason::MaxDeliver);
}

#[test]
fn clean_stop_releases_every_lease() {
    let mut world = World::new(&[queue("work").max_deliver(1)]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    world.next(consumer);
    world.call(Command::Shutdown);
    world.restart();
    let consumer = world.attach("work", 1);
    assert_eq!(world.next(consumer).attempt, 1);
}

#[test]
fn everything_older_than_this_start_is_redelivered() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "old"));
    world.restart();
    world.store(draft("work", "new"));
    let consumer = world.attach("work", 2);
    assert_eq!((world.next(consumer).redelivered, world.next(consumer).redelivered), (true, false));
}

#[test]
fn sequences_and_leases_are_never_used_twice_even_when_their_records_are_lost() {
    let mut world = World::new(&[queue("work").durability(Durability::Os)]);
    let mut seen = BTreeSet::new();
    for _ in 0..5 {
        world.sync();
        let kept = world.journal.len();
        world.sync_at_once = false;
        for id in 0..5 {
            let sequence = world.store(draft("work", &id.to_string()));
            assert!(seen.insert(sequence.0), "{sequence} is used twice");
        }
        let consumer = world.attach("work", 64);
        while let Some(delivery) = world.poll(consumer) {
            assert!(seen.insert(delivery.lease.0), "{} is used twice", delivery.lease);
        }
        world.crash(kept);
        world.sync_at_once = true;
        assert_eq!(world.counts("work"), [0; 4]);
    }
}

#[test]
fn memory_queues_are_empty_after_a_start_and_mixed_messages_stay_where_they_are_durable() {
    let mut world = World::new(&[
        queue("fast").bind(&["topic"]).durability(Durability::Memory),
        queue("sure").bind(&["topic"]),
    ]);
    world.store(draft("topic", "m"));
    for snapshot in [false, true] {
        if snapshot {
            world.store(draft("topic", "n"));
            world.snapshot();
        }
        world.restart();
        assert_eq!(world.counts("fast"), [0; 4]);
        assert_eq!(world.stats("fast").bytes, 0);
    }
    assert_eq!(world.counts("sure"), [2, 0, 0, 0]);
}

#[test]
fn backoff_survives_a_restart_with_its_jitter() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.nack(consumer, &delivery);
    let not_before = world.browse("work")[0].not_before;
    world.restart();
    assert_eq!(world.browse("work")[0].not_before, not_before);
}

#[test]
fn snapshot_is_of_one_moment_whatever_happens_while_it_is_read() {
    let mut world = World::new(&[queue("work"), queue("other")]);
    for id in 0..1_000 {
        world.store(draft("work", &id.to_string()));
    }
    let (position, snapshot) = (world.broker.position(), world.broker.snapshot());
    let consumer = world.attach("work", 500);
    while let Some(delivery) = world.poll(consumer) {
        if delivery.sequence.0 % 3 == 0 {
            world.reject(consumer, &delivery, "bad");
        } else {
            world.ack(consumer, &delivery);
        }
    }
    world.store(draft("other", "x"));
    let state = |world: &World| (world.counts("work"), world.letters("work"), world.counts("other"));
    let after = state(&world);
    world.snapshots.push((position, snapshot.collect()));
    world.restart();
    assert_eq!(state(&world), after);
}

#[test]
fn snapshot_comes_in_chunks_of_about_a_mebibyte() {
    let mut world = World::new(&[queue("work")]);
    for id in 0..20_000 {
        world.store(draft("work", &id.to_string()));
    }
    let chunks: Vec<Vec<u8>> = world.broker.snapshot().collect();
    assert!(chunks.len() > 1);
    assert!(chunks.iter().all(|chunk| chunk.len() < 3 << 20));
}

/// A world in which filters wrote, rejected and passed something.
fn filtered_world() -> World {
    let mut world = World::empty();
    let queues = [queue("work").park_key(), queue("other")];
    world.apply(&with_modules(rules(1, &queues), &["m"])).expect("the first rules meet nothing");
    let (_, job) = world.send_pending(&draft("in", "x"));
    let judged = Filtered {
        results: vec![world.result(draft("other", "x"))],
        dead: vec![
            world.stillborn(draft("in", "x").key("z"), Some("work"), death(DeadReason::FilterError, "no")),
            world.stillborn(draft("in", "x"), None, death(DeadReason::Rejected, "no")),
        ],
        stateful: true,
        ..Filtered::default()
    };
    world.judge(
        vec![("m", vec![put("k", "v", Some(u64::MAX)), put("l", "w", None)])],
        vec![(job, Ok(vec![judged]))],
    );
    world
}

#[test]
fn damaged_snapshots_are_errors_and_never_panics() {
    let mut world = filtered_world();
    let consumer = world.attach("work", 64);
    for id in 0..8 {
        world.store(draft("work", &id.to_string()).key(&(id % 2).to_string()).ttl(50_000));
        if let Some(delivery) = world.poll(consumer) {
            world.reject(consumer, &delivery, "bad");
        }
    }
    let chunks: Vec<Vec<u8>> = world.broker.snapshot().collect();
    let restore = |chunks: &[Vec<u8>]| -> Result<Broker, chaski_broker::RestoreError> {
        let mut restore = Broker::restore(9, render);
        for chunk in chunks {
            restore.push(chunk)?;
        }
        restore.finish()
    };
    assert!(restore(&chunks).is_ok());
    assert!(restore(&[]).is_err());
    for chunk in 0..chunks.len() {
        for cut in 0..chunks[chunk].len() {
            let mut cut_short = chunks[..=chunk].to_vec();
            cut_short[chunk].truncate(cut);
            assert!(restore(&cut_short).is_err(), "cut at {cut} of chunk {chunk}");
        }
        for at in 0..chunks[chunk].len() {
            for change in [1, 0x80, 0xff] {
                let mut damaged = chunks.clone();
                damaged[chunk][at] ^= change;
                // Some damage can't be told from other contents; none may bring the broker down, now or when it goes on.
                if let Ok(mut broker) = restore(&damaged) {
                    broker.resume(world.now, &mut Output::default());
                }
            }
        }
    }
}

#[test]
fn damaged_records_are_errors_and_never_panics() {
    let mut world = filtered_world();
    world.store(draft("work", "m").key("k"));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    world.nack_after(consumer, &delivery, 10);
    world.advance(10);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "bad");
    world.redrive("work");
    let replay = |records: &[Vec<u8>]| {
        let mut broker = Broker::new(3, render);
        for (index, record) in records.iter().enumerate() {
            broker.replay(world.now, Position(index as u64 + 1), record)?;
        }
        broker.resume(world.now, &mut Output::default());
        Ok::<(), ReplayError>(())
    };
    replay(&world.journal).expect("the whole journal");
    for index in 0..world.journal.len() {
        for at in 0..world.journal[index].len() {
            for change in [1, 4, 0x80, 0xff] {
                let mut damaged = world.journal.clone();
                damaged[index][at] ^= change;
                let _ = replay(&damaged);
                let _ = Record::decode(&damaged[index][..at]);
                let _ = chaski_broker::body_of(&damaged[index][..at]);
            }
        }
        let mut missing = world.journal.clone();
        missing.remove(index);
        let _ = replay(&missing);
    }
}

#[test]
fn replay_names_the_record_that_does_not_fit() {
    let mut broker = Broker::new(3, render);
    let found = broker.replay(chaski_broker::Millis(1), Position(2), &[]);
    assert_eq!(found, Err(ReplayError::Position { expected: Position(1), found: Position(2) }));
    let garbage = broker.replay(chaski_broker::Millis(1), Position(1), &[0xff; 40]);
    assert!(matches!(garbage, Err(ReplayError::Decode { position: Position(1), .. })), "{garbage:?}");
}

#[test]
fn live_bytes_are_those_of_messages_that_a_queue_holds() {
    let mut world = World::new(&[queue("a").bind(&["topic"]), queue("b").bind(&["topic"])]);
    let first = Position(world.broker.position().0 + 1);
    let message = draft("topic", "m");
    let len = message.build().body.len() as u64;
    world.store(message);
    let last = world.broker.position();
    assert_eq!(world.broker.live_bytes(first..=last), len);
    for name in ["a", "b"] {
        assert_eq!(world.broker.live_positions(first..=last, 10), [first]);
        let consumer = world.attach(name, 1);
        let delivery = world.next(consumer);
        world.ack(consumer, &delivery);
    }
    assert_eq!(world.broker.live_bytes(first..=last), 0);
    assert!(world.broker.live_positions(first..=last, 10).is_empty());
}

#[test]
fn relocation_writes_bodies_again_and_the_old_ones_are_dead() {
    let mut world = World::new(&[queue("work")]);
    for id in 0..600 {
        world.store(draft("work", &id.to_string()));
    }
    let consumer = world.attach("work", 600);
    let deliveries: Vec<_> = std::iter::from_fn(|| world.poll(consumer)).collect();
    for delivery in deliveries.iter().filter(|delivery| delivery.sequence.0 % 5 != 0) {
        world.ack(consumer, delivery);
    }
    let old = Position(1)..=world.broker.position();
    loop {
        let positions = world.broker.live_positions(old.clone(), 256);
        if positions.is_empty() {
            break;
        }
        let bodies =
            positions.iter().map(|position| (*position, world.body(&chaski_broker::Body::At(*position))));
        let bodies: Vec<(Position, Bytes)> = bodies.collect();
        world.call(Command::Relocate { bodies });
    }
    assert_eq!(world.broker.live_bytes(old.clone()), 0);
    world.snapshot();
    world.restart();
    assert_eq!(world.broker.live_bytes(old), 0);
    let consumer = world.attach("work", 600);
    let mut count = 0;
    while let Some(delivery) = world.poll(consumer) {
        let body = world.body(&delivery.body);
        assert_eq!(part(&body, 0), "work");
        count += 1;
    }
    assert_eq!(count, world.browse("work").len());
    assert!(count >= 100);
}

#[test]
fn lost_body_removes_its_messages_counted() {
    let mut world = World::new(&[queue("a").bind(&["topic"]), queue("b").bind(&["topic"])]);
    world.store(draft("topic", "m"));
    let position = world.broker.position();
    let consumer = world.attach("a", 1);
    let delivery = world.next(consumer);
    world.call(Command::BodyLost { position });
    assert_eq!((world.counts("a"), world.counts("b")), ([0; 4], [0; 4]));
    assert_eq!((world.stats("a").totals.dropped, world.stats("b").totals.dropped), (1, 1));
    assert_eq!(world.settle(consumer, &delivery, Verdict::Ack), Err(chaski_broker::SettleError::LeaseLost));
    world.store(draft("topic", "n"));
    assert_eq!(world.ids(consumer), ["n"], "its credit is free again");
    world.call(Command::BodyLost { position });
    world.restart();
    assert_eq!(world.counts("b"), [1, 0, 0, 0]);
}

#[test]
fn two_replays_of_one_journal_yield_the_same_state() {
    let mut world = World::new(&[queue("work").by_key()]);
    for id in 0..50 {
        world.store(draft("work", &id.to_string()).key(&(id % 7).to_string()));
    }
    let consumer = world.attach("work", 5);
    for _ in 0..7 {
        let delivery = world.next(consumer);
        world.nack(consumer, &delivery);
    }
    let snapshot = |journal: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let mut broker = Broker::new(3, render);
        for (index, record) in journal.iter().enumerate() {
            broker.replay(world.now, Position(index as u64 + 1), record).expect("its own journal");
        }
        broker.snapshot().collect()
    };
    assert_eq!(snapshot(&world.journal), snapshot(&world.journal));
}
