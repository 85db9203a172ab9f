//! Scatter-gather: SEMANTICS, Gathers.

use super::harness::*;
use chaski_broker::*;

/// A subscription of `topic` on connection 9, as a requester has one.
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

#[test]
fn all_recipients_answer_and_the_requester_gets_one_answer() {
    let mut world = World::steering(&[], &[scatter("quote", &["a", "b"])], &[]);
    let inbox = inbox(&mut world, "$inbox.1.1");
    let (a, b) = (world.attach("a", 8), world.attach("b", 8));
    let confirmation = world.publish(draft("quote", "q1").reply_to("$inbox.1.1").payload("how much?"));
    assert_eq!(confirmation.routed, 1);
    let (one, two) = (world.next(a), world.next(b));
    assert_eq!(world.reply(1, "a", &one, "10").routed, 1);
    assert_eq!(world.reply(1, "b", &two, "20").routed, 1);
    assert_eq!(world.aggregate(), ["begin a b", "a: 10", "b: 20", "finish Quorum"]);
    assert_eq!(received(&mut world, inbox), ["begin a b, a: 10, b: 20 (2/2/0)"]);
}
