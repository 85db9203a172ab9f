//! Recipients of gathers: who is asked, and each way in which one fails. SEMANTICS, Gathers.

use super::gathers::{inbox, received, request};
use super::harness::*;
use chaski_broker::*;

/// A world whose scatter asks this queue and `other`; nobody of `other` ever answers.
fn one(asked: Queue) -> (World, ConsumerId) {
    let name = asked.name.clone();
    let mut world = World::steering(&[asked], &[scatter("quote", &[&name, "other"])], &[]);
    let consumer = world.attach(&name, 8);
    (world, consumer)
}

/// What the aggregator was told beside its beginning.
#[track_caller]
fn told(world: &mut World) -> Vec<String> {
    let told = world.aggregate();
    told.into_iter().filter(|line| !line.starts_with("begin")).collect()
}

#[test]
fn reject_fails_its_recipient_and_makes_no_dead_letter() {
    let (mut world, a) = one(queue("a"));
    world.publish(request("q1"));
    let delivery = world.next(a);
    world.reject(a, &delivery, "no idea");
    assert_eq!(told(&mut world), ["a failed: no idea"]);
    assert_eq!(world.counts("a.dlq"), [0; 4]);
}

#[test]
fn every_fail_is_final_and_makes_no_dead_letter() {
    for retryable in [true, false] {
        let (mut world, a) = one(queue("a"));
        let inbox = inbox(&mut world, "$inbox.1.1");
        world.publish(request("q1"));
        let delivery = world.next(a);
        world.fail(a, &delivery, "no idea", retryable);
        assert_eq!(told(&mut world), ["a failed: no idea"]);
        assert_eq!((world.counts("a"), world.counts("a.dlq")), ([0; 4], [0; 4]));
        assert_eq!(received(&mut world, inbox), [""; 0], "others are still to answer");
    }
}

#[test]
fn nack_is_no_failure_until_max_deliver_makes_a_dead_letter() {
    let (mut world, a) = one(queue("a").max_deliver(2));
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(request("q1"));
    let delivery = world.next(a);
    world.nack_after(a, &delivery, 100);
    assert_eq!(told(&mut world), [""; 0]);
    world.advance(100);
    let delivery = world.next(a);
    world.nack(a, &delivery);
    assert_eq!(told(&mut world), ["a failed: max_deliver: delivery 2 of 2 failed"]);
    assert_eq!(world.letters("a")["q1"].reason, DeadReason::MaxDeliver);
    assert_eq!(received(&mut world, inbox), [""; 0], "the requester hears of the gather only");
}

#[test]
fn lease_that_expires_returns_the_request() {
    let (mut world, a) = one(queue("a").with(|it| it.ack_wait_ms = 1_000));
    world.publish(request("q1"));
    world.next(a);
    world.advance(2_200);
    assert_eq!(told(&mut world), [""; 0]);
    let again = world.next(a);
    assert_eq!(again.attempt, 2);
    world.reply(1, "a", &again, "10");
    assert_eq!(told(&mut world), ["a: 10"]);
}

#[test]
fn request_whose_time_to_live_runs_out_fails_its_recipient() {
    let mut world = World::steering(&[queue("a").ttl(1_000)], &[scatter("quote", &["a", "other"])], &[]);
    world.publish(request("q1"));
    world.advance(1_000);
    assert_eq!(told(&mut world), ["a failed: expired: its time to live ran out"]);
    assert_eq!(world.letters("a")["q1"].reason, DeadReason::Expired);
}

#[test]
fn full_queue_that_refuses_fails_its_recipient_and_nobody_else() {
    let (mut world, _) = one(queue("a").max_messages(0, Overflow::Reject));
    let confirmation = world.publish(request("q1"));
    assert_eq!(confirmation.routed, 1, "the gather takes it");
    assert_eq!(told(&mut world), ["a failed: queue `a` is full"]);
    assert_eq!(world.counts("other"), [1, 0, 0, 0]);
}

#[test]
fn queue_full_of_leased_messages_fails_its_recipient() {
    let (mut world, a) = one(queue("a").max_messages(1, Overflow::DropOldest));
    world.publish(request("q1"));
    world.next(a);
    told(&mut world);
    world.publish(request("q2"));
    assert_eq!(told(&mut world), ["a failed: queue `a` is full"]);
}

#[test]
fn request_that_makes_room_for_another_fails_its_recipient() {
    let mut world = World::steering(
        &[queue("a").max_messages(1, Overflow::DropOldest)],
        &[scatter("quote", &["a", "other"])],
        &[],
    );
    world.publish(request("q1"));
    told(&mut world);
    world.store(draft("a", "newer"));
    assert_eq!(told(&mut world), ["a failed: it left its queue"]);
}

#[test]
fn purge_and_cancel_fail_their_recipients() {
    let operations = [Operation::Purge { limit: 9 }, Operation::Cancel { id: "q1".into() }];
    for operation in operations {
        let mut world = World::steering(&[], &[scatter("quote", &["a", "other"])], &[]);
        world.publish(request("q1"));
        assert_eq!(world.operate("a", operation).unwrap().count, 1);
        assert_eq!(told(&mut world), ["a failed: it left its queue"]);
    }
}

#[test]
fn ack_without_a_reply_fails_its_recipient() {
    let (mut world, a) = one(queue("a"));
    world.publish(request("q1"));
    let delivery = world.next(a);
    world.ack(a, &delivery);
    assert_eq!(told(&mut world), ["a failed: it acked the request without a reply"]);
}

#[test]
fn pause_and_release_are_no_failures() {
    let (mut world, a) = one(queue("a"));
    world.operate("a", Operation::Pause).unwrap();
    world.publish(request("q1"));
    world.advance(10_000);
    assert_eq!(told(&mut world), [""; 0]);
    world.operate("a", Operation::Resume).unwrap();
    let delivery = world.next(a);
    world.settle(a, &delivery, Verdict::Release).unwrap();
    assert_eq!(told(&mut world), [""; 0]);
    assert_eq!(world.next(a).attempt, 1);
}

#[test]
fn answer_in_a_transaction_with_other_acks_and_publishes_counts_whole() {
    let (mut world, a) = one(queue("a"));
    world.publish(request("q1"));
    let delivery = world.next(a);
    let reply = world.reply_to(&delivery, "r1", "10");
    let parts = [(reply, false), (draft("nowhere", "x"), true)];
    let refused = world.transact("t1", &[("a", &delivery)], &parts);
    assert!(matches!(refused, Err(TransactionError::Publish { index: 1, .. })), "{refused:?}");
    assert_eq!(told(&mut world), [""; 0], "nothing of it was done");
    world.transact("t2", &[("a", &delivery)], &parts[..1]).unwrap();
    assert_eq!(told(&mut world), ["a: 10"]);
}

/// A scatter that asks whoever is within `suppliers.*`.
fn suppliers(change: impl FnOnce(&mut ScatterSettings)) -> (String, ScatterSettings) {
    scatter_with("quote", &[], |it| {
        it.recipients = Recipients::Pattern("suppliers.*".to_owned());
        change(it);
    })
}

#[test]
fn pattern_asks_queues_and_subscriptions_of_which_a_pattern_is_contained_in_it() {
    let queues = [
        queue("exact").bind(&["suppliers.a"]),
        queue("same").bind(&["other.x", "suppliers.*"]),
        queue("wider").bind(&["suppliers.>"]),
        queue("elsewhere").bind(&["buyers.a"]),
    ];
    let mut world = World::steering(&queues, &[suppliers(|_| {})], &[]);
    let inside = [world.subscribe(2, "suppliers.*"), world.subscribe(3, "suppliers.b")];
    let outside = [world.subscribe(2, "suppliers.>"), world.subscribe(2, ">"), world.subscribe(2, "a.b")];
    world.publish(request("q1"));
    let asked = inside.map(|id| world.passed(id).len());
    assert_eq!(asked, [1, 1]);
    assert_eq!(outside.map(|id| world.passed(id).len()), [0, 1, 0], "`>` gets the publish itself");
    assert_eq!(["exact", "same", "wider", "elsewhere"].map(|name| world.counts(name)[0]), [1, 1, 0, 0]);
    assert_eq!(world.aggregate(), ["begin exact same suppliers.* suppliers.b"]);
}

#[test]
fn subscription_answers_by_its_own_reply_topic_once() {
    let mut world = World::steering(&[], &[suppliers(|_| {})], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let [one, two] = [world.subscribe(2, "suppliers.a"), world.subscribe(3, "suppliers.b")];
    world.publish(request("q1"));
    let to = |world: &mut World, id| {
        let (body, _) = world.passes.remove(&id).expect("it is asked")[0].clone();
        part(&body, 3)
    };
    let (first, second) = (to(&mut world, one), to(&mut world, two));
    assert_ne!(first, second);
    assert_eq!(world.publish_from(2, &draft(&first, "r1").payload("10")).routed, 1);
    assert_eq!(world.publish_from(2, &draft(&first, "r2").payload("11")).routed, 0);
    assert_eq!(world.publish_from(3, &draft(&second, "r3").payload("20")).routed, 1);
    let told = world.aggregate();
    assert_eq!(
        told,
        ["begin suppliers.a suppliers.b", "suppliers.a: 10", "suppliers.b: 20", "finish Quorum"]
    );
    assert_eq!(received(&mut world, inbox).len(), 1);
}

#[test]
fn subscription_that_ends_fails() {
    let mut world = World::steering(&[queue("q").bind(&["suppliers.q"])], &[suppliers(|_| {})], &[]);
    let [one, _] = [world.subscribe(2, "suppliers.a"), world.subscribe(3, "suppliers.b")];
    world.publish(request("q1"));
    world.publish(request("q2"));
    world.call(Command::Unsubscribe { subscription: one });
    world.disconnect(3);
    let failed: Vec<String> = told(&mut world);
    let ended = |name: &str| format!("suppliers.{name} failed: its subscription ended");
    assert_eq!(failed, [ended("a"), ended("a"), ended("b"), ended("b")]);
}

#[test]
fn subscription_that_many_wait_for_ends_in_bounded_calls() {
    let mut world = World::steering(&[queue("q").bind(&["suppliers.q"])], &[suppliers(|_| {})], &[]);
    let (one, other) = (world.subscribe(2, "suppliers.a"), world.subscribe(2, "suppliers.b"));
    for number in 0..5_000 {
        world.publish(request(&format!("q{number}")));
    }
    world.aggregates.clear();
    world.calls.clear();
    world.call(Command::Unsubscribe { subscription: one });
    assert_eq!(world.aggregates.len(), 5_000);
    assert_eq!(world.calls.len(), 2, "the rest follows by timer");
    world.advance(30_000);
    world.calls.clear();
    world.call(Command::Unsubscribe { subscription: other });
    assert_eq!(world.calls.len(), 1, "what has ended waits for nobody");
}

#[test]
fn gather_that_is_over_waits_for_no_subscription() {
    let mut world = World::steering(&[], &[suppliers(|it| it.quorum = Some(1))], &[]);
    let [_one, two] = [world.subscribe(2, "suppliers.a"), world.subscribe(3, "suppliers.b")];
    world.publish(request("q1"));
    let (body, _) = world.passes.remove(&two).unwrap()[0].clone();
    world.publish_from(3, &draft(&part(&body, 3), "r1"));
    world.disconnect(2);
    assert_eq!(world.aggregate(), ["begin suppliers.a suppliers.b", "suppliers.b: ", "finish Quorum"]);
}

#[test]
fn pattern_with_nobody_there_is_no_responders() {
    let mut world = World::steering(&[], &[suppliers(|_| {})], &[]);
    assert_eq!(world.try_publish(request("q1")), Err(PublishError::NoResponders));
    assert_eq!(
        world.publish_mandatory(draft("quote", "q2")),
        Err(PublishError::Unroutable { topic: "quote".to_owned() })
    );
    assert_eq!(world.publish(draft("quote", "q3")).routed, 0);
    world.subscribe(2, "suppliers.a");
    assert_eq!(world.publish(request("q1")).routed, 1, "its retry is judged afresh");
}

#[test]
fn recipients_are_fixed_at_the_start() {
    let mut world = World::steering(&[], &[suppliers(|_| {})], &[]);
    world.subscribe(2, "suppliers.a");
    world.publish(request("q1"));
    let later = world.subscribe(3, "suppliers.b");
    assert_eq!(world.passed(later), []);
    assert_eq!(world.broker.gather("q1").unwrap().recipients.len(), 1);
}

#[test]
fn at_most_max_replies_recipients_are_asked() {
    let queues = ["a", "b"].map(|name| queue(name).bind(&[&format!("suppliers.{name}")]));
    let mut world = World::steering(&queues, &[suppliers(|it| it.max_replies = 3)], &[]);
    let subscriptions = ["c", "d", "e"].map(|name| world.subscribe(2, &format!("suppliers.{name}")));
    world.publish(request("q1"));
    assert_eq!(world.aggregate(), ["begin a b suppliers.c"]);
    assert_eq!(subscriptions.map(|id| world.passed(id).len()), [1, 0, 0]);
}

#[test]
fn priority_and_time_to_live_of_requests_are_the_scatters_or_the_messages_own() {
    let own = scatter_with("own", &["a"], |it| (it.priority, it.ttl_ms) = (Some(9), Some(500)));
    let mut world = World::steering(&[], &[scatter("quote", &["a"]), own], &[]);
    world.publish(request("q1").priority(2).ttl(700));
    world.publish(draft("own", "q2").priority(2).ttl(700));
    let stored: Vec<(u8, Option<u64>)> = world
        .calls
        .iter()
        .flat_map(|call| &call.stored)
        .map(|(_, draft)| (draft.priority, draft.ttl_ms))
        .collect();
    assert_eq!(stored, [(2, Some(700)), (9, Some(500))]);
    let consumer = world.attach("a", 8);
    assert_eq!(world.ids(consumer), ["q2", "q1"]);
}

#[test]
fn scatter_is_one_more_target_beside_queues_and_subscriptions() {
    let mut world = World::steering(&[queue("log").bind(&["quote"])], &[scatter("quote", &["a"])], &[]);
    let watcher = world.subscribe(2, "quote");
    let confirmation = world.publish(draft("quote", "q1"));
    assert_eq!(confirmation.routed, 3);
    assert_eq!(world.passed(watcher).len(), 1);
    assert_eq!((world.counts("log")[0], world.counts("a")[0]), (1, 1));
    assert!(world.publish(draft("quote", "q1")).duplicate);
}

#[test]
fn request_without_a_reply_topic_is_gathered_all_the_same() {
    let mut world = World::steering(&[], &[scatter("quote", &["a"])], &[]);
    let a = world.attach("a", 8);
    world.publish(draft("quote", "q1"));
    let delivery = world.next(a);
    world.reply(1, "a", &delivery, "10");
    assert_eq!(world.aggregate(), ["begin a", "a: 10", "finish Quorum"]);
    assert_eq!(world.broker.gather_counts(), [("quote".to_owned(), GatherState::Answered, 1)]);
}
