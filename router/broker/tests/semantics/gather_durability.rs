//! Gathers across restarts, power cuts, full disks and changes of the rules. SEMANTICS, Gathers.

use super::gathers::{inbox, received, request};
use super::harness::*;
use chaski_broker::*;

/// A scatter that asks `a` and `b`.
fn quote(change: impl FnOnce(&mut ScatterSettings)) -> (String, ScatterSettings) {
    scatter_with("quote", &["a", "b"], change)
}

fn both(world: &mut World) -> (Delivery, Delivery) {
    let (a, b) = (world.attach("a", 8), world.attach("b", 8));
    (world.next(a), world.next(b))
}

#[test]
fn repeated_request_joins_and_the_latest_reply_topic_gets_the_answer() {
    let mut world = World::steering(&[], &[quote(|_| {})], &[]);
    let (first, second) = (inbox(&mut world, "$inbox.1.1"), inbox(&mut world, "$inbox.2.1"));
    world.publish(request("q1"));
    let again = world.publish(request("q1").reply_to("$inbox.2.1"));
    assert!(again.duplicate);
    let (one, two) = both(&mut world);
    world.reply(1, "a", &one, "10");
    world.reply(1, "b", &two, "20");
    world.aggregate();
    assert_eq!(received(&mut world, first), [""; 0]);
    assert_eq!(received(&mut world, second), ["begin a b, a: 10, b: 20 (2/2/0)"]);
    // After the end it gets the answer that was given.
    assert!(world.publish(request("q1")).duplicate);
    assert_eq!(received(&mut world, first), ["begin a b, a: 10, b: 20 (2/2/0)"]);
    assert_eq!(world.aggregates.len(), 0);
}

#[test]
fn repeated_request_joins_after_a_restart_and_gets_the_first_answer_again_after_another() {
    let mut world = World::steering(&[], &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    world.restart();
    assert!(world.publish(request("q1").reply_to("$inbox.3.1")).duplicate);
    let (one, two) = both(&mut world);
    world.reply(1, "a", &one, "10");
    world.restart();
    let b = world.attach("b", 8);
    assert_eq!(world.next(b).attempt, two.attempt + 1);
    let first = inbox(&mut world, "$inbox.3.1");
    world.advance(30_000);
    world.aggregate();
    let answer = received(&mut world, first);
    assert_eq!(answer, ["begin a b, a: 10, b silent (2/1/0)"]);
    for snapshot in [false, true] {
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let inbox = inbox(&mut world, "$inbox.1.1");
        assert!(world.publish(request("q1")).duplicate);
        assert_eq!(received(&mut world, inbox), answer);
    }
}

#[test]
fn requester_that_joined_gets_the_answer_after_a_restart() {
    for snapshot in [false, true] {
        let mut world = World::steering(&[], &[quote(|_| {})], &[]);
        world.publish(draft("quote", "q1"));
        assert!(world.publish(request("q1").reply_to("$inbox.2.1")).duplicate);
        if snapshot {
            world.snapshot();
        }
        world.restart();
        let inbox = inbox(&mut world, "$inbox.2.1");
        let (one, _) = both(&mut world);
        world.reply(1, "a", &one, "10");
        world.advance(30_000);
        world.aggregate();
        assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b silent (2/1/0)"]);
    }
}

#[test]
fn repeated_request_gets_the_failure_again() {
    let mut world = World::steering(&[], &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    world.publish(request("q2"));
    world.aggregate_as(Err("it trapped"));
    world.advance(30_000);
    world.restart();
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(request("q1"));
    world.publish(request("q2"));
    let timeout = "Timeout: 0 of 2 recipients answered, 2 are needed";
    assert_eq!(received(&mut world, inbox), ["AggregationFailed: it trapped", timeout]);
}

#[test]
fn answers_and_failures_are_told_once_their_record_is_durable_the_repeated_ones_too() {
    let mut world = World::steering(&[], &[quote(|it| it.quorum = Some(1))], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let (a, _) = (world.attach("a", 8), world.attach("b", 8));
    world.publish(request("q1"));
    let one = world.next(a);
    world.reply(1, "a", &one, "10");
    world.publish(request("q2"));
    world.sync_at_once = false;
    world.pass_waits.clear();
    let synced = world.synced as u64;
    let repeat = |world: &mut World, id| {
        let (_, command) = world.command(&request(id), false);
        world.call(command);
    };
    world.aggregate();
    repeat(&mut world, "q1");
    assert_eq!(received(&mut world, inbox), [""; 0], "a power cut may still forget the answer");
    world.advance(30_000);
    repeat(&mut world, "q2");
    assert_eq!(received(&mut world, inbox), [""; 0], "and the timeout");
    let waits = |wait: &Wait| wait.durability == Durability::Fsync && wait.position.0 > synced;
    assert_eq!(world.pass_waits.len(), 4);
    assert!(world.pass_waits.iter().all(waits), "each for itself: {:?}", world.pass_waits);
    world.sync();
    let answers = received(&mut world, inbox);
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn after_a_restart_the_aggregator_is_told_everything_again_in_journal_order_and_nothing_else() {
    for snapshot in [false, true] {
        let scatter = scatter_with("quote", &["a", "b", "c", "d"], |_| {});
        let mut world = World::steering(&[], &[scatter], &[]);
        world.publish(request("q1"));
        let began = world.now;
        let consumers = ["a", "b", "c", "d"].map(|name| world.attach(name, 8));
        let deliveries = consumers.map(|consumer| world.next(consumer));
        world.advance(10);
        world.reply(1, "c", &deliveries[2], "30");
        world.advance(10);
        world.reject(consumers[0], &deliveries[0], "no");
        world.advance(10);
        world.reply(1, "b", &deliveries[1], "20");
        world.aggregate();
        if snapshot {
            world.snapshot();
        }
        world.advance(1_000);
        world.restart();
        let times: Vec<Option<u64>> = world
            .aggregates
            .iter()
            .map(|call| match call.what {
                AggregateCall::Begin { at, .. }
                | AggregateCall::Reply { at, .. }
                | AggregateCall::Failed { at, .. } => Some(at.0 - began.0),
                AggregateCall::Silent { .. } | AggregateCall::Finish { .. } => None,
            })
            .collect();
        assert_eq!(times, [Some(0), Some(10), Some(20), Some(30)], "each with its recorded time");
        assert_eq!(world.aggregate(), ["begin a b c d", "c: 30", "a failed: no", "b: 20"]);
        world.advance(28_970);
        assert_eq!(world.aggregate(), ["d silent", "finish Timeout"], "its time runs on");
        world.restart();
        assert_eq!(world.aggregates.len(), 0, "what has ended is owed nothing");
    }
}

#[test]
fn gather_that_was_finishing_is_asked_for_its_answer_again() {
    let mut world = World::steering(&[], &[quote(|it| it.quorum = Some(1))], &[]);
    world.publish(request("q1"));
    let (one, _) = both(&mut world);
    world.reply(1, "a", &one, "10");
    world.restart();
    let inbox = inbox(&mut world, "$inbox.1.1");
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10 (2/1/0)"]);
    world.advance(60_000);
    world.restart();
    assert_eq!(world.aggregates.len(), 0);
}

#[test]
fn recipients_that_a_restart_lost_have_failed() {
    let mut pattern = scatter_with("quote", &[], |_| {});
    pattern.1.recipients = Recipients::Pattern("suppliers.>".to_owned());
    let queues = [
        queue("fast").bind(&["suppliers.fast"]).durability(Durability::Memory),
        queue("sure").bind(&["suppliers.sure"]),
    ];
    let mut world = World::steering(&queues, &[pattern], &[]);
    world.subscribe(2, "suppliers.x");
    world.publish(request("q1"));
    world.aggregate();
    world.restart();
    let told = world.aggregate();
    let expected = [
        "begin fast sure suppliers.x",
        "fast failed: its queue lost the request at a restart",
        "suppliers.x failed: its subscription ended",
    ];
    assert_eq!(told, expected);
    let sure = world.attach("sure", 8);
    let delivery = world.next(sure);
    world.reply(1, "sure", &delivery, "10");
    assert_eq!(world.aggregate(), ["sure: 10", "finish Settled"]);
}

#[test]
fn restart_that_loses_every_recipient_ends_it() {
    let queues = [queue("a").durability(Durability::Memory), queue("b").durability(Durability::Memory)];
    let mut world = World::steering(&queues, &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    world.restart();
    let inbox = inbox(&mut world, "$inbox.1.1");
    assert_eq!(world.broker.gather("q1").unwrap().state, GatherState::Failed);
    world.publish(request("q1"));
    assert_eq!(received(&mut world, inbox), ["Timeout: 0 of 2 recipients answered, 2 are needed"]);
}

#[test]
fn last_permitted_delivery_that_a_crash_interrupts_fails_its_recipient() {
    let mut world = World::steering(&[queue("a").max_deliver(1)], &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    both(&mut world);
    world.restart();
    let told = world.aggregate();
    let reason = "max_deliver: the router stopped during its last delivery";
    assert_eq!(told, ["begin a b".to_owned(), format!("a failed: {reason}")]);
}

#[test]
fn start_is_confirmed_and_told_at_the_gathers_own_durability() {
    let memory = [queue("a").durability(Durability::Memory), queue("b").durability(Durability::Memory)];
    for (durability, at_once) in
        [(Durability::Fsync, false), (Durability::Os, true), (Durability::Memory, true)]
    {
        let mut world = World::steering(&memory, &[quote(|it| it.durability = durability)], &[]);
        world.sync_at_once = false;
        let (number, command) = world.command(&request("q1"), false);
        world.call(command);
        assert_eq!(world.confirms.contains_key(&number), at_once, "{durability:?}");
        world.sync();
        assert!(world.confirms.contains_key(&number));
    }
}

#[test]
fn reply_is_confirmed_at_the_gathers_durability() {
    let memory = [queue("a").durability(Durability::Memory), queue("b").durability(Durability::Memory)];
    let mut world = World::steering(&memory, &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    let (one, _) = both(&mut world);
    world.sync_at_once = false;
    let reply = world.reply_to(&one, "r1", "10");
    let number = world.send_transaction("t", &[("a", &one)], &[(reply, false)]);
    assert!(!world.transacted.contains_key(&number), "its queue is `memory`, the gather is not");
    world.sync();
    assert!(world.transacted[&number].is_ok());
}

#[test]
fn memory_gather_is_gone_after_a_restart_and_late_replies_find_nobody() {
    let mut world = World::steering(&[], &[quote(|it| it.durability = Durability::Memory)], &[]);
    world.publish(request("q1"));
    let position = world.broker.position();
    world.snapshot();
    world.restart();
    assert!(position.0 > 0 && world.broker.gather("q1").is_none());
    assert_eq!(world.aggregates.len(), 0);
    let (one, _) = both(&mut world);
    assert_eq!(world.reply(1, "a", &one, "10").routed, 0);
    assert!(!world.publish(request("q1")).duplicate, "it begins anew");
}

#[test]
fn low_disk_refuses_new_gathers_and_lets_running_ones_go_on() {
    let scatters = [quote(|_| {}), scatter_with("light", &["a"], |it| it.durability = Durability::Memory)];
    let mut world = World::steering(&[], &scatters, &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(request("q1"));
    let (one, two) = both(&mut world);
    world.call(Command::Disk(DiskState::Low));
    assert_eq!(world.try_publish(request("q2")), Err(PublishError::DiskLow));
    let refused = world.try_publish(draft("light", "q3"));
    assert_eq!(refused, Err(PublishError::DiskLow), "its requests go to the disk all the same");
    world.reply(1, "a", &one, "10");
    let reply = world.reply_to(&two, "r2", "20");
    assert_eq!(world.publish(reply).routed, 1);
    world.aggregate();
    assert_eq!(received(&mut world, inbox).len(), 1);
}

#[test]
fn full_disk_holds_gathers_up_without_a_record_and_nothing_is_lost() {
    let mut pattern = scatter_with("quote", &[], |_| {});
    pattern.1.recipients = Recipients::Pattern("suppliers.>".to_owned());
    let queues = [
        queue("a").bind(&["suppliers.a"]),
        queue("fast").bind(&["suppliers.b"]).durability(Durability::Memory).max_deliver(1),
    ];
    let mut world = World::steering(&queues, &[pattern], &[]);
    let requester = inbox(&mut world, "$inbox.1.1");
    let listener = world.subscribe(2, "suppliers.x");
    let (a, fast) = (world.attach("a", 8), world.attach("fast", 8));
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(fast));
    world.call(Command::Disk(DiskState::Full));
    let position = world.broker.position();
    assert_eq!(world.settle(a, &one, Verdict::Ack), Err(SettleError::DiskFull));
    assert_eq!(world.settle(fast, &two, Verdict::Ack), Err(SettleError::DiskFull));
    let reply = world.reply_to(&one, "r1", "10");
    assert_eq!(world.try_publish(reply.clone()), Err(PublishError::DiskFull));
    let refused = world.transact("t", &[("fast", &two)], &[]);
    assert_eq!(refused, Err(TransactionError::Disk(PublishError::DiskFull)));
    assert!(world.publish(request("q1").reply_to("$inbox.2.1")).duplicate);
    // These can't be refused: they wait.
    world.call(Command::Unsubscribe { subscription: listener });
    world.detach(fast, false);
    world.aggregate_as(Ok(Aggregated::Folded { done: true }));
    world.advance(60_000);
    assert_eq!(world.broker.position(), position, "no record");
    assert_eq!(world.aggregates.len(), 0);
    world.call(Command::Disk(DiskState::Plenty));
    world.advance(0);
    assert_eq!(world.aggregate(), ["suppliers.x failed: its subscription ended", "finish Done"]);
    assert_eq!(received(&mut world, requester).len(), 1);
}

#[test]
fn full_disk_that_held_up_the_answer_gives_it_afterwards() {
    let mut world = World::steering(&[], &[quote(|it| it.quorum = Some(1))], &[]);
    let requester = inbox(&mut world, "$inbox.1.1");
    world.publish(request("q1"));
    let (one, _) = both(&mut world);
    world.reply(1, "a", &one, "10");
    world.call(Command::Disk(DiskState::Full));
    let position = world.broker.position();
    world.aggregate();
    assert_eq!(received(&mut world, requester), [""; 0]);
    assert_eq!(world.broker.position(), position, "no record");
    world.call(Command::Disk(DiskState::Low));
    assert_eq!(received(&mut world, requester), ["begin a b, a: 10 (2/1/0)"]);
}

#[test]
fn running_gather_goes_on_under_the_settings_that_it_began_with() {
    for restart in [false, true] {
        let mut world = World::steering(&[], &[quote(|_| {})], &[]);
        world.publish(request("q1"));
        let changed = quote(|it| {
            it.quorum = Some(1);
            it.timeout_ms = 1_000;
            it.aggregator.binary = Some([8; 32]);
        });
        world.resteer(&[], &[changed], &[]).unwrap();
        world.publish(request("q2"));
        if restart {
            world.restart();
        }
        world.advance(1_000);
        let state = |world: &World, id: &str| world.broker.gather(id).unwrap().state;
        assert_eq!((state(&world, "q1"), state(&world, "q2")), (GatherState::Open, GatherState::Failed));
        assert_eq!(world.broker.pinned_binaries(), [[7; 32]]);
        let begin = world.aggregates.front().unwrap();
        assert_eq!(begin.module.aggregator.binary, Some([7; 32]));
        world.resteer(&[queue("a"), queue("b")], &[], &[]).unwrap();
        if restart {
            world.snapshot();
            world.restart();
        }
        let (one, two) = both(&mut world);
        world.reply(1, "a", &one, "10");
        assert_eq!(state(&world, "q1"), GatherState::Open, "its quorum is still all");
        world.reply(1, "b", &two, "20");
        assert_eq!(state(&world, "q1"), GatherState::Finishing);
    }
}

#[test]
fn queue_that_a_running_gather_needs_is_not_dropped() {
    let mut world = World::steering(&[], &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    let needed = RulesRefused::Needed { queue: "b".to_owned(), by: "quote".to_owned() };
    assert_eq!(world.reload_dropping(&[queue("a")], &["b"]), Err(needed));
    world.advance(30_000);
    world.reload_dropping(&[queue("a")], &["b"]).unwrap();
    // It is remembered, though no scatter has its topic any more.
    assert_eq!(world.broker.gather("q1").unwrap().state, GatherState::Failed);
    assert!(world.broker.gather("q2").is_none());
}

#[test]
fn remembered_answer_is_forgotten_with_the_window() {
    let mut world = World::steering(&[], &[quote(|_| {})], &[]);
    world.publish(request("q1"));
    world.advance(30_000);
    assert!(world.broker.gather("q1").is_some());
    world.advance(120_000 + 1_000);
    assert!(world.broker.gather("q1").is_none());
    assert_eq!(world.broker.gather_counts(), []);
    assert!(!world.publish(request("q1")).duplicate);
}
