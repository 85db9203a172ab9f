//! Dead letters that filters judge again.

use chaski_broker::{
    Command, DeadReason, DiskState, Filtered, OperateError, Operation, Overflow, Progress, Select, Sequence,
};

use crate::harness::{World, death, draft, filtered, queue};

/// A letter of `chaski.dlq` (without a queue) or of the queue; its number.
fn letter(world: &mut World, id: &str, queue: Option<&str>, reason: DeadReason) -> Sequence {
    let message = draft("in", id).key("k");
    let dead = vec![world.stillborn(message.clone(), queue, death(reason, "no good"))];
    world.publish_as(&message, Filtered { dead, ..filtered() });
    let name = queue.map_or("chaski".to_owned(), |queue| format!("{queue}.dlq"));
    world.browse(&name).last().expect("it was just laid there").sequence
}

#[track_caller]
fn redrive_as(
    world: &mut World,
    queue: &str,
    sequence: Sequence,
    judged: Filtered,
) -> Result<Progress, OperateError> {
    world.operate(queue, Operation::RedriveAs { sequence, filtered: Box::new(judged) })
}

const ONE: Result<Progress, OperateError> = Ok(Progress { count: 1, more: false, full: false });

#[test]
fn letter_of_chaski_leaves_and_what_filters_made_of_it_is_stored_past_dedup() {
    let mut world = World::new(&[queue("a"), queue("b")]);
    let sequence = letter(&mut world, "m", None, DeadReason::FilterError);
    let results = vec![world.result(draft("a", "m/0")), world.result(draft("b", "m/1"))];
    let judged = Filtered { results, ..filtered() };
    assert_eq!(redrive_as(&mut world, "chaski", sequence, judged.clone()), ONE);
    world.restart();
    assert_eq!((world.held("a"), world.held("b")), (vec!["m/0".into()], vec!["m/1".into()]));
    assert!(world.held("chaski").is_empty());
    assert_eq!(world.stats("chaski.dlq").reasons, []);
    assert_eq!(world.stats("chaski.dlq").totals.redriven, 1);
    assert_eq!(redrive_as(&mut world, "chaski", sequence, judged), Err(OperateError::UnknownId));
}

#[test]
fn letter_of_a_binding_is_judged_again_and_frees_its_key() {
    let mut world = World::new(&[queue("work").park_key()]);
    let sequence = letter(&mut world, "m", Some("work"), DeadReason::FilterError);
    world.store(draft("work", "next").key("k"));
    let consumer = world.attach("work", 9);
    assert!(world.ids(consumer).is_empty());
    let judged = Filtered { results: vec![world.copy(draft("in", "m").key("k"), "work")], ..filtered() };
    assert_eq!(redrive_as(&mut world, "work", sequence, judged), ONE);
    assert_eq!(world.ids(consumer), ["next"], "it comes back behind what waited: it is a new message");
    assert_eq!(world.stats("work").totals.redriven, 1);
    assert!(world.broker.alarms().is_empty());
}

#[test]
fn letter_that_a_filter_takes_out_again_is_a_letter_anew_or_gone() {
    let mut world = World::new(&[queue("work").park_key()]);
    let sequence = letter(&mut world, "m", Some("work"), DeadReason::FilterError);
    world.advance(5);
    let info = death(DeadReason::Rejected, "still no good");
    let dead = vec![world.stillborn(draft("in", "m").key("k"), Some("work"), info)];
    assert_eq!(redrive_as(&mut world, "work", sequence, Filtered { dead, ..filtered() }), ONE);
    let letter = world.letters("work")["m"].clone();
    assert_eq!((letter.reason, letter.last_at), (DeadReason::Rejected, world.now));
    assert_eq!(world.stats("work").parked_keys, [b"k".to_vec()]);
    let sequence = world.browse("work.dlq")[0].sequence;
    assert_eq!(redrive_as(&mut world, "work", sequence, Filtered { dropped: 1, ..filtered() }), ONE);
    world.restart();
    assert!(world.letters("work").is_empty());
    assert!(world.stats("work").parked_keys.is_empty());
}

#[test]
fn full_queue_stops_it_and_nothing_is_done() {
    let mut world = World::new(&[queue("a"), queue("b").max_messages(1, Overflow::Reject)]);
    world.store(draft("b", "there"));
    let sequence = letter(&mut world, "m", None, DeadReason::FilterError);
    let results = vec![world.result(draft("a", "m/0")), world.result(draft("b", "m/1"))];
    let stopped = redrive_as(&mut world, "chaski", sequence, Filtered { results, ..filtered() });
    assert_eq!(stopped, Ok(Progress { count: 0, more: true, full: true }));
    assert_eq!((world.held("chaski").len(), world.held("a").len()), (1, 0));
}

#[test]
fn letter_that_would_reach_nobody_stays_where_it_is() {
    let mut world = World::new(&[queue("work")]);
    let sequence = letter(&mut world, "m", None, DeadReason::FilterError);
    let results = vec![world.result(draft("nowhere", "m"))];
    let nothing = redrive_as(&mut world, "chaski", sequence, Filtered { results, ..filtered() });
    assert_eq!(nothing, Ok(Progress::default()));
    assert_eq!(world.held("chaski"), ["m"]);
    let results = vec![world.routed(draft("nowhere", "m"))];
    assert_eq!(redrive_as(&mut world, "chaski", sequence, Filtered { results, ..filtered() }), ONE);
    let letters = world.browse("chaski");
    assert_eq!(letters[0].dead.as_ref().map(|dead| dead.reason), Some(DeadReason::Unroutable));
}

#[test]
fn low_and_full_disks_refuse_it() {
    let mut world = World::new(&[queue("a")]);
    let sequence = letter(&mut world, "m", None, DeadReason::FilterError);
    for (state, error) in [(DiskState::Low, OperateError::DiskLow), (DiskState::Full, OperateError::DiskFull)]
    {
        world.call(Command::Disk(state));
        let judged = Filtered { results: vec![world.result(draft("a", "m"))], ..filtered() };
        assert_eq!(redrive_as(&mut world, "chaski", sequence, judged), Err(error));
    }
}

#[test]
fn leased_letter_is_not_taken_away() {
    let mut world = World::new(&[queue("a")]);
    let sequence = letter(&mut world, "m", None, DeadReason::FilterError);
    let consumer = world.attach("chaski.dlq", 1);
    world.next(consumer);
    let judged = Filtered { results: vec![world.result(draft("a", "m"))], ..filtered() };
    assert_eq!(redrive_as(&mut world, "chaski", sequence, judged), Err(OperateError::UnknownId));
}

#[test]
fn plain_redrive_leaves_what_a_module_failed_on_to_be_judged_again() {
    let mut world = World::new(&[queue("work")]);
    letter(&mut world, "failed", Some("work"), DeadReason::FilterError);
    letter(&mut world, "rejected", Some("work"), DeadReason::Rejected);
    letter(&mut world, "chaski's", None, DeadReason::Rejected);
    let all = || Operation::Redrive { select: Select::default(), limit: 9 };
    assert_eq!(world.operate("work", all()), ONE, "a rejected one goes back past filters");
    assert_eq!(world.held("work"), ["rejected"]);
    assert_eq!(world.held("work.dlq"), ["failed"]);
    assert_eq!(world.operate("chaski", all()), Ok(Progress::default()));
}

#[test]
fn request_among_them_is_answered_when_it_dies_again() {
    let mut world = World::new(&[]);
    let inbox = world.subscribe(1, "$inbox.>");
    let ask = draft("in", "q").reply_to("$inbox.c");
    let dead = vec![world.stillborn(ask.clone(), None, death(DeadReason::FilterError, "it trapped"))];
    world.publish_as(&ask, Filtered { dead, ..filtered() });
    assert_eq!(world.heard(inbox), ["Rejected: filter_error"]);
    let sequence = world.browse("chaski")[0].sequence;
    let dead = vec![world.stillborn(ask, None, death(DeadReason::Rejected, "no"))];
    assert_eq!(redrive_as(&mut world, "chaski", sequence, Filtered { dead, ..filtered() }), ONE);
    assert_eq!(world.heard(inbox), Vec::<String>::new(), "it was answered before");
    assert_eq!(world.broker.replies_late(), 1);
}
