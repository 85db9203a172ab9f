//! Gathers: how they end, what the requester gets, which replies count. SEMANTICS, Gathers.

use super::harness::*;
use chaski_broker::*;

/// An inbox of its own connection, as every requester has one.
pub(crate) fn inbox(world: &mut World, topic: &str) -> SubscriptionId {
    let subscription = SubscriptionId(world.draw());
    let (connection, pattern) = (ConnectionId(9), topic.to_owned());
    world.call(Command::Subscribe { subscription, connection, pattern });
    subscription
}

/// What came to an inbox: payloads.
pub(crate) fn received(world: &mut World, subscription: SubscriptionId) -> Vec<String> {
    let passes = world.passes.remove(&subscription).unwrap_or_default();
    passes.into_iter().map(|(body, _)| part(&body, 5)).collect()
}

/// A request to the scatter `quote`.
pub(crate) fn request(id: &str) -> Draft {
    draft("quote", id).reply_to("$inbox.1.1").payload("how much?")
}

/// A world with one scatter, changed, that asks `a` and `b`, with a consumer of each and the requester's inbox.
fn two(change: impl FnOnce(&mut ScatterSettings)) -> (World, SubscriptionId, [ConsumerId; 2]) {
    let mut world = World::steering(&[], &[scatter_with("quote", &["a", "b"], change)], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let consumers = [world.attach("a", 8), world.attach("b", 8)];
    (world, inbox, consumers)
}

#[test]
fn all_recipients_answer_and_the_requester_gets_one_answer() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    let confirmation = world.publish(request("q1"));
    assert_eq!(confirmation.routed, 1);
    let (one, two) = (world.next(a), world.next(b));
    assert_eq!(world.reply(1, "a", &one, "10").routed, 1);
    assert_eq!(world.reply(1, "b", &two, "20").routed, 1);
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "b: 20", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b: 20 (2/2/0)"]);
    assert_eq!((world.counts("a"), world.counts("b")), ([0; 4], [0; 4]));
}

#[test]
fn quorum_ends_it_and_open_requests_are_withdrawn_the_leased_ones_too() {
    let mut world =
        World::steering(&[], &[scatter_with("quote", &["a", "b", "c"], |it| it.quorum = Some(1))], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let (a, b) = (world.attach("a", 8), world.attach("b", 8));
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    assert_eq!((world.counts("b"), world.counts("c")), ([0, 0, 0, 1], [1, 0, 0, 0]));
    world.reply(1, "a", &one, "10");
    assert_eq!((world.counts("b"), world.counts("c")), ([0; 4], [0; 4]));
    assert_eq!(world.settle(b, &two, Verdict::Ack), Err(SettleError::LeaseLost));
    assert_eq!(world.aggregate(), ["begin a b c", "a: 10", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox), ["begin a b c, a: 10 (3/1/0)"]);
}

#[test]
fn request_is_a_duplicate_for_as_long_as_its_gather_is_remembered() {
    let scatter = scatter_with("quote", &["a", "b"], |it| it.timeout_ms = 3_600_000);
    let mut world = World::steering(&[], &[scatter], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    world.publish(request("q1"));
    world.advance(1_800_000);
    assert!(world.publish(request("q1")).duplicate, "it is open");
    let [a, b] = [world.attach("a", 8), world.attach("b", 8)];
    let (one, two) = (world.next(a), world.next(b));
    world.reply(1, "a", &one, "10");
    world.reply(1, "b", &two, "20");
    world.aggregate();
    world.advance(100_000);
    assert!(world.publish(request("q1")).duplicate, "its answer is remembered");
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b: 20 (2/2/0)"; 2]);
}

#[test]
fn requester_joins_a_gather_that_nobody_waited_for() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(draft("quote", "q1").payload("how much?"));
    let (one, two) = (world.next(a), world.next(b));
    assert!(world.publish(request("q1")).duplicate);
    world.reply(1, "a", &one, "10");
    world.reply(1, "b", &two, "20");
    world.aggregate();
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b: 20 (2/2/0)"]);
}

#[test]
fn aggregator_that_has_seen_enough_ends_it() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    world.reply(1, "a", &one, "10");
    world.aggregate_as(Ok(Aggregated::Folded { done: false }));
    world.aggregate_as(Ok(Aggregated::Folded { done: true }));
    assert_eq!(world.settle(b, &two, Verdict::Ack), Err(SettleError::LeaseLost));
    assert_eq!(world.aggregate(), ["finish Done"]);
    assert_eq!(received(&mut world, inbox), [" (2/1/0)"]);
}

#[test]
fn at_its_timeout_a_partial_answer_is_made_of_what_there_is() {
    let (mut world, inbox, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    world.reply(1, "a", &one, "10");
    world.advance(29_999);
    assert_eq!(world.aggregate(), ["begin a b", "a: 10"]);
    world.advance(1);
    assert_eq!(world.aggregate(), ["b silent", "finish Timeout"]);
    assert_eq!(received(&mut world, inbox), ["b silent (2/1/0)"]);
    assert_eq!(world.counts("b"), [0; 4], "what was open is withdrawn");
}

#[test]
fn at_its_timeout_too_few_replies_fail_it_where_the_rules_say_so() {
    let (mut world, inbox, [a, _]) = two(|it| it.on_timeout = OnTimeout::Fail);
    world.publish(request("q1"));
    let one = world.next(a);
    world.reply(1, "a", &one, "10");
    world.advance(30_000);
    world.aggregate();
    assert_eq!(received(&mut world, inbox), ["Timeout: 1 of 2 recipients answered, 2 are needed"]);
    assert_eq!(world.counts("b"), [0; 4]);
    assert_eq!(world.broker.gather_counts(), [("quote".to_owned(), GatherState::Failed, 1)]);
}

#[test]
fn no_reply_at_all_is_a_timeout_whatever_the_rules_say() {
    let (mut world, inbox, _) = two(|_| {});
    world.publish(request("q1"));
    world.advance(30_000);
    assert_eq!(received(&mut world, inbox), ["Timeout: 0 of 2 recipients answered, 2 are needed"]);
    assert_eq!(world.aggregates.len(), 0, "nobody asks an aggregator for nothing");
}

#[test]
fn once_nobody_is_left_to_answer_it_ends_at_once() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    world.reject(a, &one, "no");
    assert_eq!(received(&mut world, inbox), [""; 0]);
    world.fail(b, &two, "down", true);
    assert_eq!(received(&mut world, inbox), ["Timeout: 0 of 2 recipients answered, 2 are needed"]);

    world.publish(request("q2"));
    world.aggregates.clear();
    let (one, two) = (world.next(a), world.next(b));
    world.reply(1, "a", &one, "10");
    world.reject(b, &two, "no");
    assert_eq!(world.aggregate(), ["a: 10", "b failed: no", "finish Settled"]);
    assert_eq!(received(&mut world, inbox), ["a: 10, b failed: no (2/1/1)"]);
}

#[test]
fn too_few_replies_once_all_have_spoken_go_by_on_timeout_at_once() {
    let (mut world, inbox, [a, b]) = two(|it| it.on_timeout = OnTimeout::Fail);
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    world.reply(1, "a", &one, "10");
    world.reject(b, &two, "no");
    assert_eq!(received(&mut world, inbox), ["Timeout: 1 of 2 recipients answered, 2 are needed"]);
}

#[test]
fn first_reply_of_a_recipient_counts_and_a_second_is_late() {
    let (mut world, inbox, _) = two(|_| {});
    world.disconnect(1);
    let a = world.attach("a", 8);
    let b = world.try_attach(2, "b", 8).unwrap();
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    let first = world.reply_to(&one, "r1", "10");
    assert_eq!(world.publish(first).routed, 1);
    let second = world.reply_to(&one, "r2", "99");
    assert_eq!(world.publish(second).routed, 0);
    assert_eq!(world.broker.gather_replies_late(), 1);
    // The ack of the lease afterwards is no failure.
    world.ack(a, &one);
    world.reply(2, "b", &two, "20");
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "b: 20", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox).len(), 1);
}

#[test]
fn reply_without_a_transaction_counts_on_the_connection_that_holds_the_lease() {
    let (mut world, _, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    let reply = world.reply_to(&one, "r1", "10");
    assert_eq!(world.publish_from(2, &reply).routed, 0, "another connection holds it");
    assert_eq!(world.publish_from(1, &reply).routed, 1);
    world.ack(a, &one);
    assert_eq!(world.aggregate(), ["begin a b", "a: 10"]);
}

#[test]
fn reply_in_a_transaction_counts_with_the_lease_of_its_request_only() {
    let (mut world, _, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    world.store(draft("a", "other"));
    let other = world.next(a);
    let reply = world.reply_to(&one, "r1", "10");
    let confirmations = world.transact("t1", &[("a", &other)], &[(reply, false)]).unwrap();
    assert_eq!(confirmations.routed(), [0], "that lease is of another message");
    assert_eq!(world.reply(1, "a", &one, "10").routed, 1);
}

#[test]
fn worker_that_holds_the_requests_of_two_recipients_answers_for_both() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    let replies = [world.reply_to(&one, "r1", "10"), world.reply_to(&two, "r2", "20")];
    let publishes = replies.map(|reply| (reply, false));
    let confirmations = world.transact("t", &[("a", &one), ("b", &two)], &publishes).unwrap();
    assert_eq!(confirmations.routed(), [1, 1]);
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "b: 20", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox).len(), 1);

    world.publish(request("q2"));
    let (one, two) = (world.next(a), world.next(b));
    let replies = [world.reply_to(&one, "r3", "10"), world.reply_to(&two, "r4", "20")];
    let again = replies[0].clone();
    let mut publish = |reply| world.publish(reply).routed;
    let [first, second] = replies;
    assert_eq!([publish(first), publish(again), publish(second)], [1, 0, 1], "a repeat is no other reply");
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "b: 20", "finish Quorum"]);
}

/// What was routed, each.
trait Routed {
    fn routed(&self) -> Vec<u32>;
}

impl Routed for Vec<Confirmation> {
    fn routed(&self) -> Vec<u32> {
        self.iter().map(|confirmation| confirmation.routed).collect()
    }
}

#[test]
fn late_replies_are_dropped_and_counted() {
    let (mut world, _, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    world.advance(30_000);
    let reply = world.reply_to(&one, "r1", "10");
    assert_eq!(world.publish(reply).routed, 0);
    assert_eq!(world.broker.gather_replies_late(), 1);
    assert_eq!(world.counts("chaski.dlq"), [0; 4]);
}

#[test]
fn late_replies_are_kept_where_the_rules_say_so() {
    let (mut world, _, [a, _]) = two(|it| it.late = Late::DeadLetter);
    world.publish(request("q1"));
    let one = world.next(a);
    world.advance(30_000);
    let reply = world.reply_to(&one, "r1", "10");
    world.sync_at_once = false;
    let (number, command) = world.command(&reply, false);
    world.call(command);
    assert!(!world.confirms.contains_key(&number), "the letter is confirmed once it is durable");
    world.sync();
    assert_eq!(world.confirms[&number].as_ref().unwrap().routed, 0);
    let letters = world.letters("chaski");
    assert_eq!(letters["r1"].reason, DeadReason::Expired);
    assert_eq!(letters["r1"].scatter.as_deref(), Some("quote"));
}

#[test]
fn late_reply_that_acks_a_lost_lease_is_refused_whole() {
    let (mut world, _, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    world.advance(30_000);
    let reply = world.reply_to(&one, "r1", "10");
    let refused = world.transact("t", &[("a", &one)], &[(reply, false)]);
    assert_eq!(refused, Err(TransactionError::LeaseLost(vec![0])));
}

#[test]
fn late_reply_of_a_refused_transaction_is_late_and_kept_once_where_the_rules_say_so() {
    for (late, letters) in [(Late::Drop, 0), (Late::DeadLetter, 1)] {
        let (mut world, _, [a, _]) = two(|it| it.late = late);
        world.publish(request("q1"));
        let one = world.next(a);
        world.advance(30_000);
        let reply = world.reply_to(&one, "r1", "10");
        for restart in [false, true] {
            // As the SDK sends it again, when it did not hear the answer.
            let refused = world.transact("t", &[("a", &one)], &[(reply.clone(), false)]);
            assert_eq!(refused, Err(TransactionError::LeaseLost(vec![0])));
            assert_eq!(world.broker.gather_replies_late(), u64::from(!restart || late == Late::Drop));
            assert_eq!(world.counts("chaski.dlq")[0], letters);
            world.restart();
        }
    }
}

#[test]
fn reply_whose_lease_ended_while_its_gather_is_open_is_not_late() {
    let (mut world, inbox, [a, b]) = two(|it| it.late = Late::DeadLetter);
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    world.nack_after(a, &one, 0);
    let reply = world.reply_to(&one, "r1", "10");
    let refused = world.transact("t", &[("a", &one)], &[(reply, false)]);
    assert_eq!(refused, Err(TransactionError::LeaseLost(vec![0])));
    assert_eq!(world.counts("chaski.dlq")[0], 0);
    let again = world.next(a);
    world.reply(1, "a", &again, "10");
    world.reply(1, "b", &two, "20");
    world.aggregate();
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b: 20 (2/2/0)"]);
}

#[test]
fn failing_aggregator_tells_the_requester_and_keeps_the_replies() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    let two = world.next(b);
    world.reply(1, "a", &one, "10");
    let reply = world.browse("a");
    assert_eq!(reply.len(), 0);
    world.aggregate_as(Ok(Aggregated::Folded { done: false }));
    world.aggregate_as(Err("it trapped"));
    assert_eq!(received(&mut world, inbox), ["AggregationFailed: it trapped"]);
    assert_eq!(world.settle(b, &two, Verdict::Ack), Err(SettleError::LeaseLost), "it is withdrawn");
    let letters = world.letters("chaski");
    let (_, info) = letters.first_key_value().expect("the reply is kept");
    assert_eq!(letters.len(), 1);
    assert_eq!(info.reason, DeadReason::AggregationFailed);
    assert_eq!(info.detail, "it trapped");
    assert_eq!(info.scatter.as_deref(), Some("quote"));
    assert_eq!(info.module.as_deref(), Some("collect"));
    assert_eq!(info.digest.as_deref(), Some(format!("sha256:{}", "07".repeat(32)).as_str()));
    assert_eq!((&info.queue, &info.route, &info.saga), (&None, &None, &None));
}

#[test]
fn failing_finish_fails_it_too_and_answers_after_the_end_change_nothing() {
    let (mut world, inbox, [a, b]) = two(|_| {});
    world.publish(request("q1"));
    let (one, two) = (world.next(a), world.next(b));
    world.reply(1, "a", &one, "10");
    world.reply(1, "b", &two, "20");
    let calls: Vec<Aggregate> = world.aggregates.drain(..).collect();
    let tell = |world: &mut World, outcome| {
        let finish = calls.last().unwrap();
        world.call(Command::Aggregated { gather: finish.gather, call: finish.call, outcome });
    };
    tell(&mut world, Err(ModuleFailure { detail: "no".into() }));
    let answer = Aggregated::Answer { headers: Vec::new(), payload: "late".into() };
    tell(&mut world, Ok(answer));
    tell(&mut world, Err(ModuleFailure { detail: "again".into() }));
    assert_eq!(received(&mut world, inbox), ["AggregationFailed: no"]);
    assert_eq!(world.letters("chaski").len(), 2);
}

#[test]
fn letters_of_a_failed_aggregation_are_copies_that_nobody_redrives() {
    let (mut world, _, [a, _]) = two(|_| {});
    world.publish(request("q1"));
    let one = world.next(a);
    world.reply(1, "a", &one, "10");
    world.aggregate_as(Err("it trapped"));
    let letter = world.browse("chaski.dlq")[0].sequence;
    let result = Outgoing {
        message: draft("a", "x").build(),
        targets: world.broker.bindings().resolve("a"),
        subscriptions: true,
        unroutable: None,
    };
    let filtered = Box::new(Filtered { results: vec![result], ..Filtered::default() });
    let select = Select { reason: Some(DeadReason::AggregationFailed), ..Select::default() };
    for operation in [
        Operation::RedriveAs { sequence: letter, filtered },
        Operation::RedriveEdited { sequence: letter, message: draft("a", "x").build() },
        Operation::Redrive { select, limit: 9 },
    ] {
        assert_eq!(world.operate("chaski", operation), Err(OperateError::NotAllowed));
    }
    assert_eq!(world.counts("chaski.dlq"), [1, 0, 0, 0]);
    let purged = world.operate("chaski", Operation::PurgeDead { limit: 9 }).unwrap();
    assert_eq!(purged.count, 1);
}

#[test]
fn scatter_whose_module_is_missing_or_whose_bounds_are_reached_begins_nothing() {
    let limits = ShardLimits { gathers_max: 1, ..ShardLimits::default() };
    let missing = scatter_with("none", &["a"], |it| it.aggregator.binary = None);
    let mut world = World::steering_within(limits, &[], &[scatter("quote", &["a"]), missing], &[]);
    let refused = world.try_publish(draft("none", "q").reply_to("$inbox.1.1"));
    assert!(matches!(refused, Err(PublishError::Judge(JudgeError::ModuleMissing { .. }))), "{refused:?}");
    world.publish(request("q1"));
    let refused = world.try_publish(request("q2"));
    assert!(matches!(refused, Err(PublishError::Judge(JudgeError::Busy { .. }))), "{refused:?}");
    assert_eq!(world.counts("a"), [1, 0, 0, 0]);
    world.advance(30_000);
    world.publish(request("q2"));
}

#[test]
fn parts_of_one_transaction_count_together_against_the_bounds() {
    let limits = ShardLimits { gathers_max: 2, ..ShardLimits::default() };
    let mut world = World::steering_within(limits, &[], &[scatter("quote", &["a"])], &[]);
    let parts: Vec<(Draft, bool)> = ["q1", "q2", "q3"].map(|id| (request(id), false)).into();
    let refused = world.transact("t", &[], &parts);
    assert!(
        matches!(refused, Err(TransactionError::Publish { index: 2, error: PublishError::Judge(_) })),
        "{refused:?}"
    );
    assert!(world.transact("t2", &[], &parts[..2]).is_ok());
}

#[test]
fn bytes_of_gathers_are_bounded_and_remembered_answers_make_room() {
    let limits = ShardLimits { gathers_max_bytes: 5_000, ..ShardLimits::default() };
    let mut world = World::steering_within(limits, &[], &[scatter("quote", &["a"])], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let a = world.attach("a", 8);
    let large = "x".repeat(1_500);
    for id in ["q1", "q2", "q3", "q4"] {
        world.publish(request(id));
        let delivery = world.next(a);
        world.reply(1, "a", &delivery, &large);
        world.aggregate();
        assert_eq!(received(&mut world, inbox).len(), 1, "{id}");
    }
    world.publish(request("q4"));
    assert_eq!(received(&mut world, inbox).len(), 1, "the latest is remembered");
    world.publish(request("q5").payload(&large.repeat(2)));
    world.publish(request("q6"));
    let refused = world.try_publish(request("q7").payload(&large));
    assert!(matches!(refused, Err(PublishError::Judge(JudgeError::Busy { .. }))), "{refused:?}");
}

#[test]
fn a_reply_that_has_no_room_is_its_recipients_failure() {
    let limits = ShardLimits { gathers_max_bytes: 5_000, ..ShardLimits::default() };
    let mut world = World::steering_within(limits, &[], &[scatter("quote", &["a", "b"])], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let (a, b) = (world.attach("a", 8), world.attach("b", 8));
    world.publish(request("q1"));
    let (large, small) = (world.next(a), world.next(b));
    world.reply(1, "a", &large, &"x".repeat(5_000));
    assert_eq!(world.counts("a"), [0, 0, 0, 0], "its request is acked all the same");
    assert!(received(&mut world, inbox).is_empty(), "the other one is awaited");
    world.reply(1, "b", &small, "7");
    let told = world.aggregate();
    let reason = "its reply of 5";
    assert!(format!("{told:?}").contains(reason), "{told:?}");
    assert_eq!(received(&mut world, inbox).len(), 1, "what there is makes the answer");
}
