//! Letters of messages that died before a queue had them, and those of a consumer's filter.

use chaski_broker::{DeadInfo, DeadReason, Durability, Event, Filtered, SettleError, Verdict};

use crate::harness::{Draft, Queue, Seen, World, death, draft, filtered, queue, rules};

fn die(
    world: &mut World,
    draft: &Draft,
    queue: Option<&str>,
    reason: DeadReason,
) -> chaski_broker::Confirmation {
    let dead = vec![world.stillborn(draft.clone(), queue, death(reason, "no good"))];
    world.publish_as(draft, Filtered { dead, ..filtered() })
}

#[test]
fn what_dies_on_a_route_goes_to_chaski_as_it_was_published_and_names_route_and_module() {
    let mut world = World::new(&[]);
    let confirmation = die(&mut world, &draft("in", "m").payload("x"), None, DeadReason::FilterError);
    assert_eq!((confirmation.sequence, confirmation.rejected), (None, 1));
    let expected = DeadInfo {
        queue: None,
        first_at: world.now,
        last_at: world.now,
        ..death(DeadReason::FilterError, "no good")
    };
    for snapshot in [false, true] {
        let letters = world.browse("chaski");
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].dead.as_deref(), Some(&expected));
        assert_eq!(&world.body(&letters[0].body)[..], &draft("in", "m").payload("x").build().body[..]);
        if snapshot {
            world.snapshot();
        }
        world.restart();
    }
    assert_eq!(world.stats("chaski.dlq").reasons, [(DeadReason::FilterError, 1)]);
}

#[test]
fn what_dies_on_a_binding_goes_to_that_queues_letters_at_its_durability() {
    for durability in [Durability::Memory, Durability::Os, Durability::Fsync] {
        let mut world = World::new(&[queue("work").durability(durability)]);
        world.seen.clear();
        die(&mut world, &draft("work", "m"), Some("work"), DeadReason::Rejected);
        let waits = world.seen.iter().filter_map(|seen| match seen {
            Seen::Confirm(wait, ..) => Some(wait.durability),
            _ => None,
        });
        assert_eq!(waits.collect::<Vec<_>>(), [durability]);
        let letter = &world.letters("work")["m"];
        assert_eq!((letter.queue.as_deref(), letter.attempts), (Some("work"), 0));
        assert_eq!(world.stats("work").dead, 1);
        assert_eq!(world.stats("work").totals.dead, 1);
        world.restart();
        let left = usize::from(durability != Durability::Memory);
        assert_eq!(world.letters("work").len(), left, "{durability:?}");
    }
}

#[test]
fn long_reason_is_kept_in_part() {
    let mut world = World::new(&[]);
    let info = death(DeadReason::Rejected, &"ä".repeat(2_000));
    let dead = vec![world.stillborn(draft("in", "m"), None, info)];
    world.publish_as(&draft("in", "m"), Filtered { dead, ..filtered() });
    assert_eq!(world.browse("chaski")[0].dead.as_ref().map(|dead| dead.detail.len()), Some(1024));
}

#[test]
fn letters_never_refuse_and_drop_their_oldest() {
    let small: Queue = queue("work").with(|settings| settings.dead_max_messages = Some(2));
    let mut world = World::new(&[small]);
    for id in ["a", "b", "c"] {
        assert_eq!(die(&mut world, &draft("work", id), Some("work"), DeadReason::Rejected).rejected, 1);
    }
    world.advance(1_000);
    world.restart();
    assert_eq!(world.held("work.dlq"), ["b", "c"]);
    assert!(world.events.iter().any(|event| matches!(event, Event::QueueDropped { count: 1, .. })));
}

#[test]
fn chaski_letters_drop_their_oldest_and_one_that_is_too_large_goes_itself() {
    let mut document = rules(1, &[]);
    document.limits.chaski_dlq_max_bytes = 60;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    for id in ["a", "b"] {
        die(&mut world, &draft("in", id).payload(&"x".repeat(30)), None, DeadReason::Rejected);
    }
    assert_eq!(world.held("chaski"), ["b"]);
    let large = die(&mut world, &draft("in", "c").payload(&"x".repeat(90)), None, DeadReason::Rejected);
    assert_eq!(large.rejected, 1);
    world.restart();
    assert_eq!(world.held("chaski"), ["b"]);
}

#[test]
fn result_that_reaches_nobody_becomes_an_unroutable_letter_only_if_a_filter_routed_it() {
    let mut world = World::new(&[]);
    let results = vec![world.routed(draft("nowhere", "m")), world.result(draft("elsewhere", "m"))];
    let confirmation = world.publish_as(&draft("in", "m"), Filtered { results, ..filtered() });
    assert_eq!((confirmation.routed, confirmation.rejected), (0, 1));
    let letters = world.browse("chaski");
    assert_eq!(
        letters.iter().map(|it| it.dead.as_ref().unwrap().reason).collect::<Vec<_>>(),
        [DeadReason::Unroutable]
    );
    world.subscribe(1, "nowhere");
    let results = vec![world.routed(draft("nowhere", "n"))];
    let confirmation = world.publish_as(&draft("in", "n"), Filtered { results, ..filtered() });
    assert_eq!((confirmation.routed, confirmation.rejected), (1, 0), "a subscription is somebody");
}

#[test]
fn letter_of_a_binding_parks_its_key_until_it_is_redriven() {
    let mut world = World::new(&[queue("work").park_key()]);
    die(&mut world, &draft("work", "bad").key("k"), Some("work"), DeadReason::Rejected);
    world.store(draft("work", "next").key("k"));
    world.restart();
    let consumer = world.attach("work", 9);
    assert!(world.ids(consumer).is_empty(), "it waits for its key");
    assert_eq!(world.redrive("work").count, 1);
    assert_eq!(world.ids(consumer), ["bad"], "the key's head first");
}

#[test]
fn letter_of_a_binding_raises_the_queues_alarm() {
    let mut world = World::new(&[queue("work")]);
    die(&mut world, &draft("work", "m"), Some("work"), DeadReason::FilterError);
    assert_eq!(world.broker.alarms().len(), 1);
    let told = Event::DeadLetter { queue: "work".into(), count: 1, reason: DeadReason::FilterError };
    assert!(world.events.contains(&told), "{:?}", world.events);
}

#[test]
fn body_of_a_letter_is_live_and_can_be_relocated() {
    let mut world = World::new(&[]);
    let first = chaski_broker::Position(world.broker.position().0 + 1);
    die(&mut world, &draft("in", "m"), None, DeadReason::Rejected);
    let last = world.broker.position();
    let live = world.broker.live_positions(first..=last, 9);
    assert_eq!(live, [first]);
    let body = world.body(&chaski_broker::Body::At(first));
    world.call(chaski_broker::Command::Relocate { bodies: vec![(first, body)] });
    assert_eq!(world.broker.live_bytes(first..=last), 0);
    world.snapshot();
    world.restart();
    assert_eq!(world.held("chaski"), ["m"]);
}

#[test]
fn what_a_consumers_filter_rejects_or_fails_on_is_a_dead_letter_that_names_it() {
    let mut world = World::new(&[queue("work")]);
    let inbox = world.subscribe(1, "$inbox.>");
    world.store(draft("work", "m").reply_to("$inbox.c"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    let verdict = || Verdict::Failed {
        reason: DeadReason::FilterError,
        detail: "it trapped".into(),
        module: "eu-only".into(),
        digest: "sha256:07".into(),
    };
    world.settle(consumer, &delivery, verdict()).expect("the lease is current");
    let letter = world.letters("work")["m"].clone();
    assert_eq!((letter.reason, &*letter.detail, letter.attempts), (DeadReason::FilterError, "it trapped", 1));
    assert_eq!((letter.module.as_deref(), letter.digest.as_deref()), (Some("eu-only"), Some("sha256:07")));
    assert_eq!(world.heard(inbox), ["Rejected: filter_error"]);
    let consumer = world.attach("work.dlq", 1);
    let delivery = world.next(consumer);
    assert_eq!(world.settle(consumer, &delivery, verdict()), Err(SettleError::NotAllowed));
    world.restart();
    assert_eq!(world.letters("work")["m"], letter);
}
