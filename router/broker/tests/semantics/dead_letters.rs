//! Dead letters, their headers, redrive, purge, alarms.

use chaski_broker::{
    Command, DeadInfo, DeadReason, Event, OperateError, Operation, Overflow, Progress, Select, SettleError,
    Verdict,
};

use crate::harness::{World, draft, part, queue};

/// A queue with these messages, each rejected.
fn rejected(ids: &[&str]) -> World {
    let mut world = World::new(&[queue("work")]);
    let consumer = world.attach("work", 64);
    for id in ids {
        world.store(draft("work", id));
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    world.detach(consumer, true);
    world
}

#[test]
fn dead_letter_keeps_its_bytes_and_says_why_where_and_when() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m").key("k").payload("original"));
    let consumer = world.attach("work", 64);
    let first = world.next(consumer);
    let first_at = world.now;
    world.nack_after(consumer, &first, 10);
    world.advance(10);
    let second = world.next(consumer);
    world.reject(consumer, &second, "no such customer");
    let expected = DeadInfo {
        reason: DeadReason::Rejected,
        detail: "no such customer".into(),
        queue: Some("work".into()),
        route: None,
        scatter: None,
        saga: None,
        module: None,
        digest: None,
        attempts: 2,
        first_at,
        last_at: world.now,
    };
    let letters = world.browse("work.dlq");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].sequence, first.sequence);
    assert_eq!(letters[0].dead.as_deref().cloned(), Some(expected.clone()));
    let body = world.body(&letters[0].body);
    assert_eq!((part(&body, 2), part(&body, 5)), ("k".into(), "original".into()));
    let undertaker = world.attach("work.dlq", 1);
    assert_eq!(world.next(undertaker).dead.as_deref(), Some(&expected));
}

#[test]
fn redrive_moves_letters_back_with_attempts_reset() {
    let mut world = rejected(&["a", "b"]);
    assert_eq!(world.stats("work").dead, 2);
    assert_eq!(world.redrive("work"), Progress { count: 2, more: false, full: false });
    assert_eq!((world.stats("work").dead, world.counts("work")), (0, [2, 0, 0, 0]));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    assert_eq!((delivery.attempt, delivery.redelivered, delivery.dead), (1, true, None));
}

#[test]
fn redrive_selects_by_reason_by_id_and_up_to_a_sequence() {
    let mut world = rejected(&["a", "b", "c"]);
    let redrive = |select| Operation::Redrive { select, limit: 100 };
    let by_reason = Select { reason: Some(DeadReason::Expired), ..Select::default() };
    assert_eq!(world.operate("work", redrive(by_reason)).map(|progress| progress.count), Ok(0));
    let by_id = Select { id: Some("b".into()), ..Select::default() };
    assert_eq!(world.operate("work", redrive(by_id)).map(|progress| progress.count), Ok(1));
    assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["a", "c"]);
    let through = world.browse("work.dlq")[0].sequence;
    let up_to = Select { through: Some(through), ..Select::default() };
    assert_eq!(world.operate("work", redrive(up_to)).map(|progress| progress.count), Ok(1));
    assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["c"]);
}

#[test]
fn redrive_and_purge_are_bounded_and_say_whether_there_is_more() {
    let mut world = rejected(&["a", "b", "c"]);
    let redrive = Operation::Redrive { select: Select::default(), limit: 2 };
    assert_eq!(world.operate("work", redrive), Ok(Progress { count: 2, more: true, full: false }));
    assert_eq!(world.redrive("work"), Progress { count: 1, more: false, full: false });
    assert_eq!(
        world.operate("work", Operation::Purge { limit: 2 }),
        Ok(Progress { count: 2, more: true, full: false })
    );
    assert_eq!(
        world.operate("work", Operation::Purge { limit: 2 }),
        Ok(Progress { count: 1, more: false, full: false })
    );
}

#[test]
fn full_rejecting_queue_stops_a_redrive_which_says_how_far_it_came() {
    let mut world = World::new(&[queue("work").max_messages(2, Overflow::Reject)]);
    let consumer = world.attach("work", 64);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    world.detach(consumer, true);
    assert_eq!(world.redrive("work"), Progress { count: 2, more: true, full: true });
    assert_eq!((world.counts("work")[0], world.stats("work").dead), (2, 1));
}

#[test]
fn edited_redrive_goes_back_with_other_bytes_and_the_same_place() {
    let mut world = rejected(&["a", "b"]);
    let sequence = world.browse("work.dlq")[0].sequence;
    let message = draft("work", "a").payload("mended").build();
    world.operate("work", Operation::RedriveEdited { sequence, message }).expect("it is there");
    world.restart();
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    assert_eq!(delivery.sequence, sequence);
    assert_eq!(part(&world.body(&delivery.body), 5), "mended");
    world.ack(consumer, &delivery);
    let sequence = delivery.sequence;
    let message = draft("work", "a").build();
    assert_eq!(
        world.operate("work", Operation::RedriveEdited { sequence, message }),
        Err(OperateError::UnknownId)
    );
}

#[test]
fn edited_redrive_of_a_shared_message_leaves_the_other_queues_copy_alone() {
    let mut world = World::new(&[queue("work").bind(&["topic"]), queue("other").bind(&["topic"])]);
    world.store(draft("topic", "m").payload("original"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "bad");
    let message = draft("topic", "m").payload("mended").build();
    world
        .operate("work", Operation::RedriveEdited { sequence: delivery.sequence, message })
        .expect("it is there");
    let again = world.next(consumer);
    assert_eq!(part(&world.body(&again.body), 5), "mended");
    let other = world.attach("other", 1);
    let copy = world.next(other);
    assert_eq!((copy.sequence, part(&world.body(&copy.body), 5)), (delivery.sequence, "original".into()));
    world.restart();
    assert_eq!((world.counts("work")[0], world.counts("other")[0]), (1, 1));
}

#[test]
fn rejecting_a_dead_letter_is_not_allowed_and_it_never_dies_again() {
    let mut world = rejected(&["a"]);
    let undertaker = world.attach("work.dlq", 1);
    for attempt in 1..20 {
        let letter = world.next(undertaker);
        assert_eq!(letter.attempt, attempt);
        let reject = Verdict::Reject { reason: "no".into() };
        assert_eq!(world.settle(undertaker, &letter, reject), Err(SettleError::NotAllowed));
        let fail = Verdict::Fail { reason: "no".into(), retryable: false };
        assert_eq!(world.settle(undertaker, &letter, fail), Err(SettleError::NotAllowed));
        world.nack_after(undertaker, &letter, 0);
    }
}

#[test]
fn dead_letter_never_expires_by_the_original_ttl_and_redrive_lets_it_run_anew() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m").ttl(1_000));
    world.advance(1_000);
    assert_eq!(world.letters("work")["m"].reason, DeadReason::Expired);
    world.advance(1_000_000);
    assert_eq!(world.letters("work").len(), 1);
    world.redrive("work");
    world.advance(999);
    assert_eq!(world.counts("work"), [1, 0, 0, 0]);
    world.advance(1);
    assert_eq!(world.letters("work").len(), 1);
}

#[test]
fn dead_letter_queue_drops_its_oldest_beyond_its_limits_and_tells() {
    let limited = queue("work").with(|settings| settings.dead_max_messages = Some(2));
    let mut world = World::new(&[limited]);
    let consumer = world.attach("work", 64);
    for id in ["a", "b", "c"] {
        world.store(draft("work", id));
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(world.stats("work.dlq").totals.dropped, 1);
    world.advance(2_000);
    assert!(world.events.contains(&Event::QueueDropped { queue: "work.dlq".into(), count: 1 }));
}

#[test]
fn dead_letters_raise_an_alarm_that_stands_until_they_are_gone() {
    let mut world = rejected(&["a"]);
    let raised = Event::AlarmRaised { alarm: "dead_letters", queue: "work".into() };
    let told = |count| Event::DeadLetter { queue: "work".into(), count, reason: DeadReason::Rejected };
    assert_eq!(world.events, [raised, told(1)]);
    let consumer = world.attach("work", 64);
    for id in 0..9 {
        world.store(draft("work", &id.to_string()));
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    assert_eq!(world.events.split_off(2), [told(10)], "at each tenfold");
    assert_eq!(world.broker.alarms().len(), 1);
    world.restart();
    assert_eq!(world.broker.alarms().len(), 1, "an alarm stands after a start");
    world.operate("work", Operation::PurgeDead { limit: 100 }).expect("it may be purged");
    assert_eq!(
        world.events.last(),
        Some(&Event::AlarmCleared { alarm: "dead_letters", queue: "work".into() })
    );
    assert!(world.broker.alarms().is_empty());
}

#[test]
fn long_reason_is_kept_in_part() {
    let mut world = World::new(&[queue("work")]);
    world.store(draft("work", "m"));
    let consumer = world.attach("work", 64);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, &"é".repeat(100_000));
    let detail = &world.letters("work")["m"].detail;
    assert!(detail.len() <= 1024 && detail.starts_with("éé"));
}

#[test]
fn fail_without_reply_to_is_nack_or_reject() {
    let mut world = World::new(&[queue("work")]);
    let consumer = world.attach("work", 64);
    world.store(draft("work", "again"));
    world.store(draft("work", "never"));
    let (again, never) = (world.next(consumer), world.next(consumer));
    world.fail(consumer, &again, "busy", true);
    world.fail(consumer, &never, "nonsense", false);
    assert_eq!(world.counts("work"), [0, 1, 0, 0]);
    assert_eq!(world.letters("work")["never"].reason, DeadReason::Rejected);
}

#[test]
fn letters_survive_a_restart_and_a_snapshot() {
    let mut world = rejected(&["a", "b"]);
    let letters = world.letters("work");
    world.restart();
    assert_eq!(world.letters("work"), letters);
    world.snapshot();
    world.restart();
    assert_eq!(world.letters("work"), letters);
    assert_eq!(world.stats("work").dead, 2);
}

#[test]
fn operations_on_the_wrong_queue_or_thing_are_answered() {
    let mut world = rejected(&["a"]);
    let cancel = || Operation::Cancel { id: "nobody".into() };
    assert_eq!(world.operate("work", cancel()), Err(OperateError::UnknownId));
    let ticket = chaski_broker::Ticket(world.draw());
    let queue = chaski_broker::QueueId(9_999);
    world.call(Command::Operate { ticket, queue, operation: cancel() });
    assert_eq!(world.done[&ticket], Err(OperateError::UnknownQueue));
}

#[test]
fn cancel_removes_by_id_unless_leased() {
    let mut world = World::new(&[queue("work")]);
    let due = world.now.after(60_000);
    world.store(draft("work", "later").deliver_at(due));
    world.store(draft("work", "leased"));
    world.attach("work", 1);
    let cancel = |id: &'static str| Operation::Cancel { id: id.into() };
    assert_eq!(world.operate("work", cancel("later")).map(|progress| progress.count), Ok(1));
    assert_eq!(world.operate("work", cancel("leased")), Err(OperateError::UnknownId));
    assert_eq!(world.counts("work"), [0, 0, 0, 1]);
    world.advance(60_000);
    assert_eq!(world.letters("work").len(), 0);
}

#[test]
fn paused_queue_takes_messages_and_delivers_none_until_resumed() {
    let mut world = World::new(&[queue("work")]);
    world.operate("work", Operation::Pause).expect("the queue is there");
    let consumer = world.attach("work", 64);
    world.store(draft("work", "m"));
    assert!(world.poll(consumer).is_none() && world.stats("work").paused);
    world.restart();
    let consumer = world.attach("work", 64);
    assert!(world.poll(consumer).is_none(), "a pause survives a restart");
    world.operate("work", Operation::Resume).expect("the queue is there");
    assert_eq!(world.ids(consumer), ["m"]);
}

#[test]
fn redrive_into_a_full_queue_changes_places_with_what_makes_room() {
    let tight = queue("work")
        .max_messages(2, Overflow::DeadLetterOldest)
        .with(|settings| settings.dead_max_messages = Some(2));
    for edited in [false, true] {
        let mut world = World::new(std::slice::from_ref(&tight));
        for id in ["a", "b", "c", "d"] {
            world.store(draft("work", id));
        }
        assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["a", "b"]);
        let sequence = world.browse("work.dlq")[0].sequence;
        let message = draft("work", "a").payload("mended").build();
        let select = Select { through: Some(sequence), ..Select::default() };
        let operation = if edited {
            Operation::RedriveEdited { sequence, message }
        } else {
            Operation::Redrive { select, limit: 9 }
        };
        assert_eq!(world.operate("work", operation).map(|progress| progress.count), Ok(1));
        world.restart();
        assert_eq!(world.letters("work").into_keys().collect::<Vec<_>>(), ["b", "c"]);
        let consumer = world.attach("work", 9);
        assert_eq!(world.ids(consumer), ["a", "d"]);
    }
}

#[test]
fn redriven_message_still_waits_for_its_deliver_at() {
    let mut world = World::new(&[queue("work").max_messages(1, Overflow::DeadLetterOldest)]);
    let due = world.now.after(10_000);
    world.store(draft("work", "later").deliver_at(due).ttl(500));
    world.store(draft("work", "other"));
    world.operate("work", Operation::Purge { limit: 1 }).expect("it may be purged");
    world.redrive("work");
    world.restart();
    let consumer = world.attach("work", 1);
    assert_eq!(world.counts("work"), [0, 1, 0, 0]);
    world.advance(9_999);
    assert!(world.poll(consumer).is_none());
    world.advance(1);
    assert_eq!(world.ids(consumer), ["later"]);
}

#[test]
fn cancel_finds_a_scheduled_message_before_others_of_its_id() {
    let mut world = World::new(&[queue("work").bind(&["work", "also"])]);
    let due = world.now.after(1_000);
    world.store(draft("work", "m"));
    let later = world.store(draft("also", "m").deliver_at(due));
    world.restart();
    let cancel = || Operation::Cancel { id: "m".into() };
    assert_eq!(world.operate("work", cancel()).map(|progress| progress.count), Ok(1));
    assert!(world.browse("work").iter().all(|browsed| browsed.sequence != later));
    assert_eq!(world.operate("work", cancel()).map(|progress| progress.count), Ok(1));
    assert_eq!(world.operate("work", cancel()), Err(OperateError::UnknownId));
    world.store(draft("work", "n").deliver_at(due));
    world.advance(1_000);
    let cancel = Operation::Cancel { id: "n".into() };
    assert_eq!(world.operate("work", cancel).map(|progress| progress.count), Ok(1), "one that is due, too");
}

#[test]
fn alarm_is_told_again_only_at_each_tenfold_of_its_threshold() {
    let mut world = World::new(&[queue("work").with(|settings| settings.dead_alarm = Some(3))]);
    let consumer = world.attach("work", 64);
    for id in 0..300 {
        world.store(draft("work", &id.to_string()));
        let delivery = world.next(consumer);
        world.reject(consumer, &delivery, "bad");
    }
    let told: Vec<u64> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::DeadLetter { count, .. } => Some(*count),
            _ => None,
        })
        .collect();
    assert_eq!(told, [3, 30, 300]);
    assert_eq!(world.events.len(), 4, "and raised once");
}
