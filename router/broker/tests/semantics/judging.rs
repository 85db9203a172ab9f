//! Publishes and transactions that wait for filters with state.

use std::collections::BTreeSet;

use chaski_broker::{
    Command, DeadReason, DiskState, Filtered, JobId, JudgeError, JudgedOutcome, Overflow, Publish,
    PublishError, TransactionError, Way,
};

use crate::harness::{Queue, World, death, draft, filtered, put, queue, rules, with_modules};

/// A shard with one queue and a module of the name `m`.
fn world() -> World {
    world_of(&[queue("work")])
}

/// The same with these queues.
fn world_of(queues: &[Queue]) -> World {
    let mut world = World::empty();
    world.apply(&with_modules(rules(1, queues), &["m"])).expect("the first rules meet nothing");
    world
}

fn failed() -> JudgeError {
    JudgeError::FilterFailed { detail: "it trapped".into() }
}

#[test]
fn pending_publish_is_invoked_and_confirmed_when_it_is_judged() {
    let mut world = world();
    let message = draft("work", "m");
    let (number, job) = world.send_pending(&message);
    assert_eq!((&world.invoked[..], world.confirms.len()), (&[job][..], 0));
    assert_eq!(world.broker.being_judged(), 1);
    let results = vec![world.result(message)];
    let judgement = Filtered { results, dropped: 2, stateful: true, ..filtered() };
    assert!(world.judge(vec![("m", vec![put("k", "1", None)])], vec![(job, Ok(vec![judgement]))]));
    let confirmation = world.confirms[&number].clone().expect("nothing stands against it");
    assert_eq!((confirmation.routed, confirmation.dropped, confirmation.duplicate), (1, 2, false));
    assert_eq!(world.broker.being_judged(), 0);
    assert!(world.spared.is_empty());
    world.restart();
    assert_eq!((world.held("work"), world.state("m")), (vec!["m".into()], vec![("k".into(), "1".into())]));
}

#[test]
fn judged_publish_enters_the_window_whatever_became_of_it() {
    for snapshot in [false, true] {
        let mut world = world();
        let (number, job) = world.send_pending(&draft("work", "m"));
        let judgement = Filtered { dropped: 1, stateful: true, ..filtered() };
        world.judge(vec![], vec![(job, Ok(vec![judgement]))]);
        assert_eq!(world.confirms[&number].as_ref().map(|it| it.dropped), Ok(1));
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let (number, job) = world.send_pending(&draft("work", "m"));
        let again = world.confirms[&number].clone().expect("a duplicate is never an error");
        assert_eq!((again.duplicate, again.sequence, again.dropped), (true, None, 0));
        assert_eq!(world.spared, [job], "it is not judged twice");
    }
}

#[test]
fn duplicate_of_what_is_being_judged_waits_and_gets_its_result() {
    let mut world = world();
    let message = draft("work", "m");
    let (first, job) = world.send_pending(&message);
    let (second, spare) = world.send_pending(&message);
    let direct = Way::Direct(world.broker.bindings().resolve("work"));
    let third = world.send(&message, true, direct, None);
    assert_eq!((&world.invoked[..], &world.spared[..]), (&[job][..], &[spare][..]));
    assert!(world.confirms.is_empty(), "they wait, whichever way they came");
    world.let_pass(job, &message);
    let first = world.confirms[&first].clone().expect("nothing stands against it");
    assert_eq!((first.routed, first.duplicate), (1, false));
    for number in [second, third] {
        let again = world.confirms[&number].clone().expect("a duplicate is never an error");
        assert_eq!((again.duplicate, again.sequence, again.routed), (true, first.sequence, 0));
    }
    assert_eq!(world.held("work"), ["m"]);
}

#[test]
fn duplicate_of_what_is_being_judged_gets_its_error_and_the_id_is_free_again() {
    let mut world = world();
    let message = draft("work", "m");
    let (first, job) = world.send_pending(&message);
    let (second, _) = world.send_pending(&message);
    world.judge(vec![], vec![(job, Err(failed()))]);
    for number in [first, second] {
        assert_eq!(world.confirms[&number], Err(PublishError::Judge(failed())));
    }
    let (third, job) = world.send_pending(&message);
    world.let_pass(job, &message);
    assert_eq!(world.confirms[&third].as_ref().map(|it| it.routed), Ok(1));
}

#[test]
fn request_that_is_repeated_while_it_is_judged_takes_over_the_reply_to() {
    let mut world = world();
    let (old, new) = (world.subscribe(1, "$inbox.1"), world.subscribe(1, "$inbox.2"));
    let ask = draft("work", "q").reply_to("$inbox.1");
    let (_, job) = world.send_pending(&ask);
    world.send_pending(&draft("work", "q").reply_to("$inbox.2"));
    world.let_pass(job, &ask);
    world.publish(draft("$inbox.1", "r").correlation("q").payload("5"));
    assert_eq!((world.heard(old), world.heard(new)), (vec![], vec!["5".into()]));
}

#[test]
fn known_or_refused_publish_spares_its_work() {
    let mut world = world();
    world.store(draft("work", "m"));
    let (number, known) = world.send_pending(&draft("work", "m"));
    assert!(world.confirms[&number].as_ref().is_ok_and(|it| it.duplicate));
    world.call(Command::Disk(DiskState::Low));
    let (number, low) = world.send_pending(&draft("work", "n"));
    assert_eq!(world.confirms[&number], Err(PublishError::DiskLow));
    world.call(Command::Disk(DiskState::Plenty));
    world.subscribe(1, "$inbox.>");
    world.store(draft("work", "q").reply_to("$inbox.c"));
    world.publish(draft("$inbox.c", "r1").correlation("q"));
    let (number, late) = world.send_pending(&draft("$inbox.c", "r2").correlation("q"));
    assert_eq!(world.confirms[&number].as_ref().map(|it| it.routed), Ok(0));
    assert_eq!((&world.spared[..], world.invoked.len()), (&[known, low, late][..], 0));
    assert_eq!(world.broker.being_judged(), 0);
}

#[test]
fn what_was_let_in_is_stored_though_the_disk_is_low_by_now() {
    let mut world = world();
    let message = draft("work", "m");
    let (number, job) = world.send_pending(&message);
    world.call(Command::Disk(DiskState::Low));
    world.let_pass(job, &message);
    assert_eq!(world.confirms[&number].as_ref().map(|it| it.routed), Ok(1));
}

#[test]
fn full_disk_takes_no_judgement_and_every_publish_in_it_is_refused() {
    let mut world = world();
    let (first, job) = world.send_pending(&draft("work", "m"));
    let (second, _) = world.send_pending(&draft("work", "m"));
    let (third, transaction) =
        world.send_transaction_of("t", vec![(draft("work", "n"), Way::Pending, false)], None);
    world.call(Command::Disk(DiskState::Full));
    let position = world.broker.position();
    let pass = Filtered { results: vec![world.result(draft("work", "m"))], stateful: true, ..filtered() };
    let jobs = vec![(job, Ok(vec![pass.clone()])), (transaction, Ok(vec![pass]))];
    assert!(!world.judge(vec![("m", vec![put("k", "1", None)])], jobs));
    assert_eq!(world.broker.position(), position, "no record");
    assert_eq!(world.confirms[&first], Err(PublishError::DiskFull));
    assert_eq!(world.confirms[&second], Err(PublishError::DiskFull));
    assert_eq!(world.transacted[&third], Err(TransactionError::Disk(PublishError::DiskFull)));
    assert!(world.state("m").is_empty());
    assert_eq!(world.broker.being_judged(), 0);
}

#[test]
fn judged_publish_is_stored_though_its_publisher_is_gone() {
    let mut world = world();
    let message = draft("work", "m");
    let (_, job) = world.send_pending(&message);
    world.disconnect(1);
    world.let_pass(job, &message);
    assert_eq!(world.held("work"), ["m"]);
}

#[test]
fn datagram_can_wait_for_a_filter_too_and_nobody_is_told() {
    let mut world = world();
    let (job, message) = (JobId(77), draft("work", "m"));
    let publish = Publish {
        publisher: None,
        connection: None,
        number: 0,
        rules: world.broker.bindings().version(),
        mandatory: false,
        message: message.build(),
        hash: None,
        way: Way::Pending,
        job: Some(job),
    };
    world.call(Command::Publish(publish));
    world.let_pass(job, &message);
    assert!(world.confirms.is_empty());
    assert_eq!(world.held("work"), ["m"]);
}

#[test]
fn crash_before_the_judgement_loses_nothing_since_nothing_was_told() {
    let mut world = world();
    let message = draft("work", "m");
    let (number, job) = world.send_pending(&message);
    world.restart();
    assert!(!world.confirms.contains_key(&number));
    let pass = Filtered { results: vec![world.result(message.clone())], ..filtered() };
    assert!(world.judge(vec![], vec![(job, Ok(vec![pass]))]), "the work of another start is passed over");
    assert!(world.held("work").is_empty());
    let (number, job) = world.send_pending(&message);
    world.let_pass(job, &message);
    assert_eq!(world.confirms[&number].as_ref().map(|it| it.routed), Ok(1), "the retry is judged afresh");
}

#[test]
fn id_that_a_transaction_stored_meanwhile_is_a_duplicate_when_it_is_judged() {
    let mut world = world();
    let message = draft("work", "m");
    let (number, job) = world.send_pending(&message);
    world.transact("t", &[], &[(message.clone(), false)]).expect("nothing stands against it");
    world.let_pass(job, &message);
    assert!(world.confirms[&number].as_ref().is_ok_and(|it| it.duplicate));
    assert_eq!(world.held("work"), ["m"]);
}

#[test]
fn judged_publish_is_refused_by_a_full_queue_and_its_targets_are_those_of_now() {
    let mut world = World::empty();
    let queues = |max| [queue("work").max_messages(max, Overflow::Reject), queue("other")];
    world.apply(&with_modules(rules(1, &queues(1)), &["m"])).expect("the first rules meet nothing");
    world.store(draft("work", "a"));
    let (number, job) = world.send_pending(&draft("work", "b"));
    world.let_pass(job, &draft("work", "b"));
    assert_eq!(world.confirms[&number], Err(PublishError::QueueFull { queue: "work".into() }));
    let (number, job) = world.send_pending(&draft("in", "c"));
    let results = vec![world.result(draft("work", "c")), world.result(draft("other", "c"))];
    world.reload_modules(&queues(9)[..1], &["m"], &[]).expect("nothing stands against it");
    world.judge(vec![], vec![(job, Ok(vec![Filtered { results, stateful: true, ..filtered() }]))]);
    assert_eq!(world.confirms[&number].as_ref().map(|it| it.routed), Ok(1), "`other` is gone");
}

#[test]
fn judgements_of_one_batch_are_done_in_its_order_and_in_one_call() {
    let mut world = world();
    let drafts: Vec<_> = ["a", "b", "c"].map(|id| draft("work", id)).into();
    let sent: Vec<_> = drafts.iter().map(|draft| world.send_pending(draft)).collect();
    let calls = world.calls.len();
    let pass = |world: &World, n: usize| Filtered {
        results: vec![world.result(drafts[n].clone())],
        stateful: true,
        ..filtered()
    };
    let jobs = vec![
        (sent[0].1, Ok(vec![pass(&world, 0)])),
        (sent[1].1, Err(failed())),
        (sent[2].1, Ok(vec![pass(&world, 2)])),
    ];
    world.judge(vec![("m", vec![put("n", "3", None)])], jobs);
    assert_eq!(world.held("work"), ["a", "c"]);
    assert_eq!(world.calls.len(), calls + 1, "one call: state and messages are in one batch of the journal");
}

#[test]
fn only_so_many_wait_and_the_next_is_told_to_come_back() {
    let mut world = world();
    let mut jobs = BTreeSet::new();
    for id in 0..65_535 {
        jobs.insert(world.send_pending(&draft("work", &id.to_string())).1);
    }
    world.send_pending(&draft("work", "0"));
    let busy = |outcome: &Result<_, PublishError>| {
        matches!(outcome, Err(PublishError::Judge(JudgeError::Busy { .. })))
    };
    let (number, _) = world.send_pending(&draft("work", "one more"));
    assert!(busy(&world.confirms[&number]));
    let (number, _) = world.send_pending(&draft("work", "0"));
    assert!(busy(&world.confirms[&number]), "a repeat takes a place too");
    let (number, _) = world.send_transaction_of("t", vec![(draft("work", "x"), Way::Pending, false)], None);
    let refused = world.transacted[&number].clone();
    assert!(matches!(refused, Err(TransactionError::Publish { index: 0, error: PublishError::Judge(_) })));
    let first = *jobs.first().expect("there are some");
    world.let_pass(first, &draft("work", "0"));
    let (number, _) = world.send_pending(&draft("work", "one more"));
    assert!(!world.confirms.contains_key(&number), "there is room again");
}

#[test]
fn transaction_with_pending_parts_is_done_whole_when_they_are_judged() {
    let mut world = world();
    world.store(draft("work", "done"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    let direct = Way::Direct(world.broker.bindings().resolve("work"));
    let parts = vec![
        (draft("work", "a"), direct, false),
        (draft("work", "b"), Way::Pending, false),
        (draft("work", "c"), Way::Pending, false),
    ];
    let (number, job) = world.send_transaction_of("t", parts, Some(("work", &delivery)));
    assert_eq!((&world.invoked[..], world.held("work").len()), (&[job][..], 1));
    let judgements = vec![
        Filtered { results: vec![world.result(draft("work", "b"))], stateful: true, ..filtered() },
        Filtered { dropped: 1, stateful: true, ..filtered() },
    ];
    world.judge(vec![("m", vec![put("k", "1", None)])], vec![(job, Ok(judgements))]);
    let outcome = world.transacted[&number].clone().expect("nothing stands against it");
    let counts: Vec<_> = outcome.iter().map(|it| (it.routed, it.dropped)).collect();
    assert_eq!(counts, [(1, 0), (1, 0), (0, 1)]);
    world.restart();
    assert_eq!(world.held("work"), ["a", "b"]);
    assert!(world.publish(draft("work", "c")).duplicate, "a judged part is known");
}

#[test]
fn transaction_is_refused_whole_by_a_failed_filter_a_full_queue_or_a_lease_that_is_lost_meanwhile() {
    let mut world = World::empty();
    let queues = [queue("work"), queue("small").max_messages(1, Overflow::Reject)];
    world.apply(&with_modules(rules(1, &queues), &["m"])).expect("the first rules meet nothing");
    let direct = Way::Direct(world.broker.bindings().resolve("work"));
    let parts = || vec![(draft("work", "a"), direct.clone(), false), (draft("in", "b"), Way::Pending, false)];

    let (number, job) = world.send_transaction_of("t", parts(), None);
    world.judge(vec![], vec![(job, Err(failed()))]);
    let error = PublishError::Judge(failed());
    assert_eq!(world.transacted[&number], Err(TransactionError::Publish { index: 1, error }));

    let (number, job) = world.send_transaction_of("t", parts(), None);
    let results = (0..2).map(|n| world.result(draft("small", &format!("b/{n}")))).collect();
    world.judge(vec![], vec![(job, Ok(vec![Filtered { results, stateful: true, ..filtered() }]))]);
    let error = PublishError::QueueFull { queue: "small".into() };
    assert_eq!(world.transacted[&number], Err(TransactionError::Publish { index: 1, error }));

    world.store(draft("work", "leased"));
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    let (number, job) = world.send_transaction_of("t", parts(), Some(("work", &delivery)));
    world.detach(consumer, false);
    world.judge(vec![], vec![(job, Ok(vec![Filtered { dropped: 1, stateful: true, ..filtered() }]))]);
    assert_eq!(world.transacted[&number], Err(TransactionError::LeaseLost(vec![0])));
    assert_eq!(world.held("work"), ["leased"]);
}

#[test]
fn transaction_that_is_known_or_refused_or_has_nothing_to_judge_spares_its_work() {
    let mut world = world();
    let pending = |id: &str| vec![(draft("work", id), Way::Pending, false)];
    world.transact("old", &[], &[(draft("work", "a"), false)]).expect("nothing stands against it");
    let (number, known) = world.send_transaction_of("old", pending("b"), None);
    assert_eq!(world.transacted[&number].as_ref().map(|all| all[0].routed), Ok(1), "the first outcome");
    let (number, nothing) = world.send_transaction_of("new", pending("a"), None);
    assert!(world.transacted[&number].as_ref().is_ok_and(|all| all[0].duplicate), "its part is known");
    let consumer = world.attach("work", 1);
    let delivery = world.next(consumer);
    world.ack(consumer, &delivery);
    let (number, lost) = world.send_transaction_of("third", pending("c"), Some(("work", &delivery)));
    assert_eq!(world.transacted[&number], Err(TransactionError::LeaseLost(vec![0])));
    world.call(Command::Disk(DiskState::Low));
    let (number, low) = world.send_transaction_of("fourth", pending("d"), None);
    assert_eq!(world.transacted[&number], Err(TransactionError::Disk(PublishError::DiskLow)));
    assert_eq!((&world.spared[..], world.invoked.len()), (&[known, nothing, lost, low][..], 0));
}

#[test]
fn repeat_of_a_transaction_that_is_being_judged_waits_and_gets_its_outcome() {
    let mut world = world();
    let parts = || vec![(draft("work", "a"), Way::Pending, false)];
    let (first, job) = world.send_transaction_of("t", parts(), None);
    let (second, spare) = world.send_transaction_of("t", parts(), None);
    let direct = Way::Direct(world.broker.bindings().resolve("work"));
    let (third, _) = world.send_transaction_of("t", vec![(draft("work", "a"), direct, false)], None);
    assert_eq!((&world.spared[..], world.transacted.len()), (&[spare][..], 0));
    world.let_pass(job, &draft("work", "a"));
    let outcome = world.transacted[&first].clone();
    assert!(outcome.is_ok());
    assert_eq!((&world.transacted[&second], &world.transacted[&third]), (&outcome, &outcome));
    assert_eq!(world.held("work"), ["a"]);
}

#[test]
fn what_a_stateful_filter_rejects_is_a_letter_and_known() {
    let mut world = world();
    let (number, job) = world.send_pending(&draft("work", "m"));
    let dead = vec![world.stillborn(draft("work", "m"), None, death(DeadReason::Rejected, "seen before"))];
    world.judge(vec![], vec![(job, Ok(vec![Filtered { dead, stateful: true, ..filtered() }]))]);
    assert_eq!(world.confirms[&number].as_ref().map(|it| it.rejected), Ok(1));
    world.restart();
    assert_eq!(world.held("chaski"), ["m"]);
    assert!(world.publish(draft("work", "m")).duplicate);
}

#[test]
fn what_was_written_for_a_refused_publish_is_not_kept() {
    let narrow = queue("narrow").max_messages(1, Overflow::Reject);
    let mut world = world_of(&[narrow, queue("work")]);
    world.store(draft("narrow", "0"));
    let (first, one) = world.send_pending(&draft("narrow", "1"));
    let (second, two) = world.send_pending(&draft("work", "2"));
    let verdict = |world: &World, topic: &str, id: &str| {
        Ok(vec![Filtered { results: vec![world.result(draft(topic, id))], stateful: true, ..filtered() }])
    };
    let jobs = vec![(one, verdict(&world, "narrow", "1")), (two, verdict(&world, "work", "2"))];
    let outcome = world.judge_all(vec![("m", vec![put("seen", "1 2", None)])], jobs);
    assert_eq!(outcome, JudgedOutcome::Refused(vec![one]));
    assert!(matches!(world.confirms[&first], Err(PublishError::QueueFull { .. })));
    assert!(!world.confirms.contains_key(&second), "it is judged again");
    assert!(world.broker.module_state("m").is_none(), "nothing was written");

    let jobs = vec![(two, verdict(&world, "work", "2"))];
    let outcome = world.judge_all(vec![("m", vec![put("seen", "2", None)])], jobs);
    assert_eq!(outcome, JudgedOutcome::Taken);
    assert!(world.confirms[&second].is_ok());
    assert_eq!(world.counts("work")[0], 1);
}

#[test]
fn what_a_refused_publish_would_have_taken_is_there_for_others() {
    let narrow = queue("narrow").max_messages(1, Overflow::Reject);
    let other = queue("other").max_messages(1, Overflow::Reject);
    let mut world = world_of(&[narrow, other]);
    world.store(draft("other", "0"));
    let (_, one) = world.send_pending(&draft("narrow", "1"));
    let (second, two) = world.send_pending(&draft("narrow", "2"));
    // The first would go to both, and the other one is full.
    let both = vec![world.result(draft("narrow", "1")), world.result(draft("other", "1"))];
    let both = Filtered { results: both, stateful: true, ..filtered() };
    let alone = Filtered { results: vec![world.result(draft("narrow", "2"))], stateful: true, ..filtered() };
    let writes = || vec![("m", vec![put("seen", "x", None)])];
    let outcome = world.judge_all(writes(), vec![(one, Ok(vec![both])), (two, Ok(vec![alone.clone()]))]);
    assert_eq!(outcome, JudgedOutcome::Refused(vec![one]));
    assert_eq!(world.judge_all(writes(), vec![(two, Ok(vec![alone]))]), JudgedOutcome::Taken);
    assert!(world.confirms[&second].is_ok());
}
