//! What modules remember.

use chaski_broker::{Command, DiskState, Filtered, Position, RulesRefused, StateWrite};

use crate::harness::{World, delete, draft, filtered, put, queue, render, rules, with_modules};

fn world(modules: &[&str]) -> World {
    let mut world = World::empty();
    world.apply(&with_modules(rules(1, &[queue("work")]), modules)).expect("the first rules meet nothing");
    world
}

#[track_caller]
fn write(world: &mut World, module: &str, writes: Vec<StateWrite>) {
    assert!(world.judge(vec![(module, writes)], vec![]));
}

fn keys(world: &World, module: &str) -> Vec<String> {
    world.state(module).into_iter().map(|(key, _)| key).collect()
}

/// The broker's own chunks: two states are the same if these are.
fn chunks(world: &World) -> Vec<Vec<u8>> {
    world.broker.snapshot().collect()
}

#[test]
fn state_is_written_read_and_deleted_in_order_of_its_keys() {
    let mut world = world(&["m"]);
    write(&mut world, "m", vec![put("b", "1", None), put("a", "2", None), put("c", "3", None)]);
    write(&mut world, "m", vec![put("b", "22", None), delete("c"), delete("nothing")]);
    let expected = [("a", "2"), ("b", "22")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    for snapshot in [false, true] {
        assert_eq!(world.state("m"), expected);
        let state = world.broker.module_state("m").expect("it remembers something");
        assert_eq!((state.len(), state.bytes()), (2, 5));
        assert_eq!(state.get(b"b").map(|entry| &entry.value[..]), Some(&b"22"[..]));
        assert_eq!(state.get(b"c"), None);
        if snapshot {
            world.snapshot();
        }
        world.restart();
    }
    write(&mut world, "m", vec![delete("a"), delete("b")]);
    assert!(world.broker.module_state("m").is_none(), "an empty state is none");
}

#[test]
fn modules_with_state_are_told_by_name() {
    let mut world = world(&["b", "a", "c"]);
    write(&mut world, "b", vec![put("k", "1", None)]);
    write(&mut world, "a", vec![put("k", "22", None)]);
    let told: Vec<(String, u64)> =
        world.broker.modules_with_state().map(|(name, state)| (name.to_owned(), state.bytes())).collect();
    assert_eq!(told, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
}

#[test]
fn state_is_durable_with_the_messages_of_its_batch_or_not_at_all() {
    for kept in [false, true] {
        let mut world = world(&["m"]);
        world.sync();
        world.sync_at_once = false;
        let (number, job) = world.send_pending(&draft("work", "m"));
        let before = world.journal.len();
        let pass = Filtered { results: vec![world.result(draft("work", "m"))], stateful: true, ..filtered() };
        world.judge(vec![("m", vec![put("k", "1", None)])], vec![(job, Ok(vec![pass]))]);
        assert!(!world.confirms.contains_key(&number), "nobody is told before it is durable");
        let batches: Vec<usize> = world.batches.range(before..).copied().collect();
        assert_eq!(batches.len(), 2, "one batch holds all of it");
        world.crash(batches[usize::from(kept)]);
        assert_eq!(
            (world.held("work").len(), world.state("m").len()),
            (usize::from(kept), usize::from(kept))
        );
    }
}

#[test]
fn entries_end_by_the_batchs_time_and_go_by_themselves() {
    let mut world = world(&["m"]);
    let now = world.now.0;
    let writes =
        vec![put("short", "1", Some(now + 100)), put("long", "2", Some(now + 5_000)), put("ever", "3", None)];
    write(&mut world, "m", writes);
    world.advance(99);
    assert_eq!(keys(&world, "m"), ["ever", "long", "short"]);
    // What is over goes with the next tidying, at most a second later.
    world.advance(1_000);
    assert_eq!(keys(&world, "m"), ["ever", "long"]);
    world.advance(5_000);
    assert_eq!(keys(&world, "m"), ["ever"]);
    let before = chunks(&world);
    world.restart();
    world.advance(0);
    assert_eq!(keys(&world, "m"), ["ever"]);
    assert!(!before.is_empty());
}

#[test]
fn entry_that_is_written_again_ends_at_its_new_time() {
    let mut world = world(&["m"]);
    let now = world.now.0;
    write(&mut world, "m", vec![put("k", "1", Some(now + 100)), put("l", "1", Some(now + 100))]);
    write(&mut world, "m", vec![put("k", "2", Some(now + 9_000)), put("l", "2", None)]);
    world.advance(5_000);
    assert_eq!(keys(&world, "m"), ["k", "l"]);
    world.advance(9_000);
    assert_eq!(keys(&world, "m"), ["l"]);
}

#[test]
fn many_entries_end_a_part_at_a_time_and_a_replay_finds_the_same() {
    let mut world = world(&["m"]);
    let over = world.now.0 + 10;
    for batch in 0..30 {
        let writes = (0..100).map(|n| put(&format!("{batch}/{n}"), "x", Some(over + n % 3)));
        write(&mut world, "m", writes.collect());
    }
    write(&mut world, "m", vec![put("kept", "x", None)]);
    let written = world.journal.len();
    world.now = world.now.after(1_000);
    let calls = world.calls.len();
    world.run_timers();
    assert_eq!(keys(&world, "m"), ["kept"]);
    assert_eq!(world.calls.len() - calls, 3, "at once, a part a call");

    let lengths = (written..=world.journal.len()).map(|until| {
        let mut broker = chaski_broker::Broker::new(9, render);
        for (index, record) in world.journal[..until].iter().enumerate() {
            broker.replay(world.now, Position(index as u64 + 1), record).expect("the broker's own record");
        }
        broker.module_state("m").map_or(0, |state| state.len())
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [3_001, 1_977, 953, 1]);
}

#[test]
fn nothing_ends_on_a_full_disk() {
    let mut world = world(&["m"]);
    let over = world.now.0 + 10;
    write(&mut world, "m", vec![put("k", "1", Some(over))]);
    world.call(Command::Disk(DiskState::Full));
    let position = world.broker.position();
    world.advance(10_000);
    assert_eq!(world.broker.position(), position);
    world.call(Command::Disk(DiskState::Plenty));
    world.advance(0);
    assert!(world.state("m").is_empty());
}

#[test]
fn module_does_not_vanish_with_its_state_unless_it_is_named() {
    let mut world = world(&["m", "n"]);
    write(&mut world, "m", vec![put("key", "value", None)]);
    let queues = [queue("work")];
    let refused = world.reload_modules(&queues, &["n"], &["n"]);
    assert_eq!(refused, Err(RulesRefused::StateNotEmpty { module: "m".into(), bytes: 8 }));
    assert_eq!(world.state("m").len(), 1);
    world.reload_modules(&queues, &["m"], &[]).expect("`n` remembers nothing");
    world.reload_modules(&queues, &[], &["m"]).expect("it is named");
    assert!(world.broker.module_state("m").is_none());
    world.restart();
    assert!(world.broker.module_state("m").is_none());
    world.reload_modules(&queues, &["m"], &[]).expect("nothing stands against it");
    assert!(world.broker.module_state("m").is_none(), "made again it remembers nothing");
}

#[test]
fn state_of_a_name_that_stays_outlives_versions_and_is_emptied_on_demand() {
    let mut world = world(&["m"]);
    write(&mut world, "m", vec![put("k", "1", None)]);
    let mut next = with_modules(rules(2, &[queue("work")]), &["m"]);
    next.modules[0].binary = Some([8; 32]);
    world.apply(&next).expect("nothing stands against it");
    assert_eq!(keys(&world, "m"), ["k"]);
    world.reload_modules(&[queue("work")], &["m"], &["m", "unknown"]).expect("nothing stands against it");
    for _ in 0..2 {
        assert!(world.broker.module_state("m").is_none());
        world.restart();
    }
}

#[test]
fn writes_of_a_module_that_is_gone_by_then_are_left_out() {
    let mut world = world(&["m"]);
    let message = draft("work", "m");
    let (number, job) = world.send_pending(&message);
    world.reload_modules(&[queue("work")], &[], &[]).expect("it remembers nothing yet");
    let pass = Filtered { results: vec![world.result(message)], stateful: true, ..filtered() };
    world.judge(vec![("m", vec![put("k", "1", None)])], vec![(job, Ok(vec![pass]))]);
    assert!(world.confirms[&number].is_ok());
    assert!(world.broker.module_state("m").is_none());
    world.restart();
}

#[test]
fn state_that_was_handed_out_stays_as_it_was() {
    let mut world = world(&["m"]);
    let writes = (0..1_000).map(|n| put(&format!("{n:04}"), "old", None)).collect();
    write(&mut world, "m", writes);
    let handed_out = world.broker.module_state("m").expect("it remembers something").clone();
    let snapshot = world.broker.snapshot();
    let position = world.broker.position();
    write(&mut world, "m", vec![put("0500", "new", None), delete("0000")]);
    let old = handed_out.iter().filter(|(_, entry)| &entry.value[..] == b"old").count();
    assert_eq!((old, handed_out.len(), world.state("m").len()), (1_000, 1_000, 999));
    let page: Vec<&[u8]> = handed_out.iter_after(Some(b"0998")).map(|(key, _)| key).collect();
    assert_eq!(page, [&b"0999"[..]]);
    world.snapshots.push((position, snapshot.collect()));
    world.restart();
    assert_eq!(world.state("m").len(), 999);
}

#[test]
fn large_state_fills_several_chunks_of_a_snapshot() {
    let mut world = world(&["a", "b"]);
    let value = "x".repeat(40_000);
    for module in ["a", "b"] {
        write(&mut world, module, (0..60).map(|n| put(&n.to_string(), &value, Some(u64::MAX))).collect());
    }
    let states = |world: &World| ["a", "b"].map(|module| world.state(module));
    let before = states(&world);
    world.snapshot();
    assert!(chunks(&world).len() > 4);
    world.restart();
    assert_eq!(states(&world), before);
}

#[test]
fn pins_are_in_force_in_history_and_in_a_snapshot() {
    let mut world = world(&["m"]);
    let mut next = with_modules(rules(2, &[queue("work")]), &["m", "n"]);
    next.modules[1].binary = None;
    next.failed.push(chaski_broker::FailedVersion { module: "m".into(), binary: [1; 32], params: [2; 32] });
    world.apply(&next).expect("nothing stands against it");
    for snapshot in [false, true] {
        let pins: Vec<usize> = world.broker.rules_history().map(|entry| entry.modules.len()).collect();
        assert_eq!(pins, [1, 2]);
        assert_eq!(
            (&world.broker.rules().modules, &world.broker.rules().failed),
            (&next.modules, &next.failed)
        );
        if snapshot {
            world.snapshot();
        }
        world.restart();
    }
}
