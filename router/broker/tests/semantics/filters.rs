//! Publishes that filters concern: what is counted, refused, remembered and waited for.

use chaski_broker::{
    Command, DeadReason, DiskState, Durability, Filtered, Outgoing, Overflow, PublishError, Targets,
    TransactionError, Wait, Way,
};

use crate::harness::{Seen, World, death, draft, filtered, part, queue};

#[test]
fn confirmation_counts_copies_drops_and_letters_and_names_the_first_stored_result() {
    let mut world = World::new(&[queue("a").bind(&["t.a", "t.b"]), queue("b").bind(&["t.b"])]);
    let heard = world.subscribe(1, "t.>");
    let confirmation = world.publish_as(
        &draft("in", "m"),
        Filtered {
            results: vec![
                world.result(draft("t.none", "m/0")),
                world.result(draft("t.a", "m/1")),
                world.result(draft("t.b", "m/2")),
            ],
            dropped: 3,
            dead: vec![world.stillborn(draft("in", "m"), None, death(DeadReason::Rejected, "no"))],
            stateful: false,
        },
    );
    // t.none: the subscription; t.a: queue a and the subscription; t.b: both queues and the subscription.
    assert_eq!((confirmation.routed, confirmation.dropped, confirmation.rejected), (6, 3, 1));
    assert_eq!(confirmation.sequence, Some(world.browse("a")[0].sequence), "the first that a queue stored");
    assert!(!confirmation.duplicate);
    assert_eq!((world.held("a"), world.held("b")), (vec!["m/1".into(), "m/2".into()], vec!["m/2".into()]));
    let ids: Vec<String> = world.passed(heard).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["m/0", "m/1", "m/2"]);
}

#[test]
fn copy_that_a_queues_binding_changed_is_no_business_of_subscriptions() {
    let mut world = World::new(&[queue("a").bind(&["t"]), queue("b").bind(&["t"])]);
    let heard = world.subscribe(1, "t");
    let (whole, changed) = (draft("t", "m"), draft("t", "m").payload("short"));
    let mut for_all = world.result(whole);
    for_all.targets = Targets::from([world.broker.queue_id("a").unwrap()]);
    let results = vec![for_all, world.copy(changed, "b")];
    let confirmation = world.publish_as(&draft("t", "m"), Filtered { results, ..filtered() });
    assert_eq!(confirmation.routed, 3);
    assert_eq!(world.passed(heard).len(), 1);
    assert_eq!(part(&world.body(&world.browse("b")[0].body), 5), "short");
    assert_ne!(world.browse("a")[0].sequence, world.browse("b")[0].sequence, "two messages");
}

#[test]
fn full_queue_among_the_targets_of_any_result_stores_nothing_not_even_letters() {
    let mut world = World::new(&[queue("a"), queue("b").max_messages(2, Overflow::Reject)]);
    let letter = world.stillborn(draft("in", "m"), None, death(DeadReason::Rejected, "no"));
    let results = |count: u32| {
        let copies = (0..count).map(|n| draft("b", &format!("m/{n}")));
        [draft("a", "m")].into_iter().chain(copies).collect::<Vec<_>>()
    };
    let attempt = |world: &mut World, count| {
        let results = results(count).into_iter().map(|draft| world.result(draft)).collect();
        let judged = Filtered { results, dead: vec![letter.clone()], ..filtered() };
        world.try_publish_as(&draft("in", "m"), false, judged)
    };
    assert_eq!(
        attempt(&mut world, 3),
        Err(PublishError::QueueFull { queue: "b".into() }),
        "all count together"
    );
    assert_eq!((world.counts("a")[0], world.counts("b")[0]), (0, 0));
    assert!(world.browse("chaski").is_empty());
    assert_eq!(attempt(&mut world, 2).map(|it| it.routed), Ok(3), "and the id is free for a retry");
}

#[test]
fn mandatory_publish_of_which_nothing_is_routed_is_unroutable_and_leaves_nothing() {
    let mut world = World::new(&[queue("work")]);
    let dropped = Filtered { dropped: 1, ..filtered() };
    let dead = vec![world.stillborn(draft("in", "m"), None, death(DeadReason::Rejected, "no"))];
    let rejected = Filtered { dead, ..filtered() };
    for judged in [dropped.clone(), rejected] {
        let refused = world.try_publish_as(&draft("in", "m"), true, judged);
        assert_eq!(refused, Err(PublishError::Unroutable { topic: "in".to_owned() }));
    }
    assert!(world.browse("chaski").is_empty());
    let confirmation = world.publish_as(&draft("in", "m"), dropped);
    assert_eq!((confirmation.routed, confirmation.dropped, confirmation.sequence), (0, 1, None));
}

#[test]
fn request_that_filters_dropped_has_no_responders_and_a_rejected_one_is_answered_with_the_reason() {
    let mut world = World::new(&[queue("work")]);
    let inbox = world.subscribe(1, "$inbox.>");
    let ask = |id: &str| draft("work", id).reply_to("$inbox.c");
    let dropped = Filtered { dropped: 1, ..filtered() };
    assert_eq!(world.try_publish_as(&ask("a"), false, dropped), Err(PublishError::NoResponders));
    assert_eq!(world.try_publish_as(&ask("a"), false, filtered()), Err(PublishError::NoResponders));
    let dead = vec![world.stillborn(ask("b"), None, death(DeadReason::Rejected, "too dear"))];
    let confirmation = world.publish_as(&ask("b"), Filtered { dead, ..filtered() });
    assert_eq!((confirmation.routed, confirmation.rejected), (0, 1));
    assert_eq!(world.heard(inbox), ["Rejected: too dear"]);
    assert_eq!(world.browse("chaski").len(), 1);
    // The answer is the first reply: a repeat gets it again.
    assert!(world.publish_as(&ask("b"), Filtered::default()).duplicate);
    assert_eq!(world.heard(inbox), ["Rejected: too dear"]);
}

#[test]
fn request_is_known_by_what_the_client_named_wherever_filters_sent_it() {
    let mut world = World::new(&[queue("eu").bind(&["price.eu"])]);
    let inbox = world.subscribe(1, "$inbox.>");
    let ask = draft("price", "q").reply_to("$inbox.c");
    let results = vec![world.routed(draft("price.eu", "q").reply_to("$inbox.c"))];
    world.publish_as(&ask, Filtered { results, ..filtered() });
    world.publish(draft("$inbox.c", "r").correlation("q").payload("5"));
    assert_eq!(world.heard(inbox), ["5"]);
    assert!(world.publish(ask).duplicate);
    assert_eq!(world.heard(inbox), ["5"], "the repeat gets the reply again");
}

#[test]
fn reply_that_filters_changed_goes_where_the_requester_waits_and_counts_as_the_first() {
    let mut world = World::new(&[queue("price")]);
    let (old, new) = (world.subscribe(1, "answers.1"), world.subscribe(1, "answers.2"));
    world.store(draft("price", "q").reply_to("answers.1"));
    world.publish(draft("price", "q").reply_to("answers.2"));
    let reply = |payload: &str| draft("answers.1", payload).correlation("q").payload(payload);
    let dropped = Filtered { dropped: 1, ..filtered() };
    assert_eq!(world.publish_as(&reply("no"), dropped).dropped, 1);
    let results = vec![world.result(reply("first").payload("changed"))];
    assert_eq!(world.publish_as(&reply("first"), Filtered { results, ..filtered() }).routed, 1);
    let results = vec![world.result(reply("second"))];
    assert_eq!(world.publish_as(&reply("second"), Filtered { results, ..filtered() }).routed, 0);
    assert_eq!((world.heard(old), world.heard(new)), (vec![], vec!["changed".into()]));
    assert_eq!(world.broker.replies_late(), 1, "a dropped one is no reply");
}

#[test]
fn window_is_entered_under_the_id_that_the_client_named_also_after_a_restart() {
    let mut world = World::new(&[queue("work").bind(&["out"])]);
    let judged = |world: &World| Filtered {
        results: vec![world.result(draft("out", "m/0")), world.result(draft("out", "m/1"))],
        ..filtered()
    };
    let first = world.publish_as(&draft("in", "m"), judged(&world));
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        let again = world.publish_as(&draft("in", "m"), judged(&world));
        assert_eq!((again.duplicate, again.sequence, again.routed), (true, first.sequence, 0));
        world.restart();
    }
    assert!(world.publish(draft("in", "m")).duplicate, "unfiltered too");
    assert_eq!(world.publish(draft("out", "m/0")).routed, 1, "results are not in the window");
    assert_eq!(world.held("work"), ["m/0", "m/1", "m/0"]);
}

#[test]
fn what_stateless_filters_dropped_or_nobody_takes_is_judged_afresh_and_what_was_kept_is_known() {
    let mut world = World::new(&[]);
    let dropped = Filtered { dropped: 1, ..filtered() };
    for judged in [dropped, filtered()] {
        assert!(!world.publish_as(&draft("in", "m"), judged.clone()).duplicate);
        assert!(!world.publish_as(&draft("in", "m"), judged).duplicate);
    }
    let heard = world.subscribe(1, "out");
    let results = vec![world.result(draft("out", "passed"))];
    let passed = Filtered { results, ..filtered() };
    assert_eq!(world.publish_as(&draft("in", "passed"), passed.clone()).routed, 1);
    assert!(world.publish_as(&draft("in", "passed"), passed).duplicate, "a subscription is somebody");
    assert_eq!(world.passed(heard).len(), 1);
    let dead = vec![world.stillborn(draft("in", "dead"), None, death(DeadReason::Rejected, "no"))];
    let dead = Filtered { dead, ..filtered() };
    world.publish_as(&draft("in", "dead"), dead.clone());
    let again = world.publish_as(&draft("in", "dead"), dead);
    assert_eq!((again.duplicate, again.sequence), (true, None), "a letter is kept");
}

#[test]
fn confirm_waits_for_the_strongest_durability_among_results_letters_and_state() {
    let queues = [
        queue("fast").durability(Durability::Memory),
        queue("swift").durability(Durability::Os),
        queue("sure"),
    ];
    let mut world = World::new(&queues);
    let dead = vec![world.stillborn(draft("in", "m"), None, death(DeadReason::Rejected, "no"))];
    let only = |world: &World, topic: &str| Filtered {
        results: vec![world.result(draft(topic, "m"))],
        ..filtered()
    };
    let cases = [
        (only(&world, "fast"), Durability::Memory),
        (only(&world, "swift"), Durability::Os),
        (
            Filtered {
                results: vec![world.result(draft("fast", "m")), world.result(draft("sure", "m"))],
                ..filtered()
            },
            Durability::Fsync,
        ),
        (Filtered { dead, ..only(&world, "fast") }, Durability::Fsync),
        (Filtered { stateful: true, dropped: 1, ..filtered() }, Durability::Fsync),
    ];
    for (number, (judged, durability)) in cases.into_iter().enumerate() {
        world.seen.clear();
        let before = world.broker.position();
        world.publish_as(&draft("in", &number.to_string()), judged);
        let position = world.broker.position();
        let wait = world.seen.iter().find_map(|seen| match seen {
            Seen::Confirm(wait, ..) => Some(*wait),
            _ => None,
        });
        if durability == Durability::Memory {
            assert_eq!((position, wait), (before, Some(Wait::NOTHING)), "nothing is journaled");
        } else {
            assert_eq!(wait, Some(Wait { position, durability }), "case {number}");
        }
    }
}

#[test]
fn targets_that_new_rules_took_away_are_left_out() {
    let mut world = World::new(&[queue("a"), queue("b")]);
    let results: Vec<Outgoing> = vec![world.result(draft("a", "m/0")), world.result(draft("b", "m/1"))];
    let dead = vec![world.stillborn(draft("b", "m"), Some("b"), death(DeadReason::Rejected, "no"))];
    let judged = Filtered { results, dead, ..filtered() };
    let number = world.draw();
    let publish = chaski_broker::Publish {
        publisher: Some(chaski_broker::PublisherId(1)),
        connection: None,
        number,
        rules: world.broker.bindings().version(),
        mandatory: false,
        message: draft("in", "m").build(),
        hash: None,
        way: Way::Filtered(Box::new(judged)),
        job: None,
    };
    world.reload(&[queue("a")]).expect("nothing stands against it");
    world.call(Command::Publish(publish));
    let confirmation = world.confirms[&number].clone().expect("one is left");
    assert_eq!((confirmation.routed, confirmation.rejected), (1, 0));
}

#[test]
fn low_disk_refuses_what_filters_made_a_letter_of_too() {
    let mut world = World::new(&[]);
    world.call(Command::Disk(DiskState::Low));
    let dead = vec![world.stillborn(draft("in", "m"), None, death(DeadReason::Rejected, "no"))];
    let refused = world.try_publish_as(&draft("in", "m"), false, Filtered { dead, ..filtered() });
    assert_eq!(refused, Err(PublishError::DiskLow));
    let dropped = Filtered { dropped: 1, ..filtered() };
    assert_eq!(world.publish_as(&draft("in", "m"), dropped).dropped, 1, "a drop needs no disk");
}

#[test]
fn results_make_room_in_a_queue_that_drops_its_oldest_each_other_included() {
    let mut world = World::new(&[queue("work").max_messages(2, Overflow::DropOldest)]);
    let results = (0..3).map(|n| world.result(draft("work", &format!("m/{n}")))).collect();
    assert_eq!(world.publish_as(&draft("in", "m"), Filtered { results, ..filtered() }).routed, 3);
    world.restart();
    assert_eq!(world.held("work"), ["m/1", "m/2"]);
}

#[test]
fn transaction_takes_filtered_parts_and_a_part_that_was_filtered_out_counts_as_done() {
    let mut world = World::new(&[queue("work").max_messages(3, Overflow::Reject)]);
    let two = vec![world.result(draft("work", "a/0")), world.result(draft("work", "a/1"))];
    let parts = |second: Filtered| {
        vec![
            (
                draft("in", "a"),
                Way::Filtered(Box::new(Filtered { results: two.clone(), ..filtered() })),
                true,
            ),
            (draft("in", "b"), Way::Filtered(Box::new(second)), false),
        ]
    };
    let too_much = Filtered { results: two.clone(), ..filtered() };
    let (number, _) = world.send_transaction_of("t", parts(too_much), None);
    let error = PublishError::QueueFull { queue: "work".into() };
    assert_eq!(world.transacted[&number], Err(TransactionError::Publish { index: 1, error }));
    assert_eq!(world.counts("work")[0], 0);
    let (number, _) = world.send_transaction_of("t", parts(Filtered { dropped: 1, ..filtered() }), None);
    let outcome = world.transacted[&number].clone().expect("nothing stands against it");
    assert_eq!((outcome[0].routed, outcome[1].dropped), (2, 1));
    world.restart();
    assert_eq!(world.held("work"), ["a/0", "a/1"]);
    let (number, _) = world.send_transaction_of("t", parts(filtered()), None);
    assert_eq!(world.transacted[&number], Ok(outcome), "a repeat gets the first outcome");
}
