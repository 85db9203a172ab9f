//! Requests, replies, and what the router answers itself.

use chaski_broker::{Command, PublishError};

use crate::harness::{Draft, World, draft, part, queue, rules};

fn ask(id: &str) -> Draft {
    draft("price", id).reply_to("$inbox.c.1")
}

fn reply(id: &str, payload: &str) -> Draft {
    let reply = draft("$inbox.c.1", &format!("reply-{payload}"));
    reply.correlation(id).payload(payload)
}

#[test]
fn first_reply_is_passed_on_and_later_ones_are_dropped_and_counted() {
    let mut world = World::new(&[queue("price")]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    assert_eq!(world.publish(reply("q", "5")).routed, 1);
    assert_eq!(world.publish(reply("q", "6")).routed, 0);
    assert_eq!(world.heard(inbox), ["5"]);
    assert_eq!(world.broker.replies_late(), 1);
}

#[test]
fn reply_that_repeats_under_its_own_id_is_a_duplicate_and_not_late() {
    let mut world = World::new(&[queue("price")]);
    world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    world.publish(reply("q", "5"));
    assert!(world.publish(reply("q", "5")).duplicate);
    assert_eq!(world.broker.replies_late(), 0);
}

#[test]
fn request_to_nobody_fails_at_once_and_a_queue_without_consumers_is_somebody() {
    let mut world = World::new(&[queue("price")]);
    assert_eq!(
        world.try_publish(draft("nobody", "q").reply_to("$inbox.c.1")),
        Err(PublishError::NoResponders)
    );
    assert_eq!(world.publish(ask("q")).routed, 1);
}

#[test]
fn repeated_request_before_the_reply_takes_over_the_reply_to() {
    let mut world = World::new(&[queue("price")]);
    let (old, new) = (world.subscribe(1, "$inbox.c.1"), world.subscribe(1, "$inbox.c.2"));
    world.store(ask("q"));
    assert!(world.publish(draft("price", "q").reply_to("$inbox.c.2")).duplicate);
    world.publish(reply("q", "5"));
    assert_eq!((world.heard(old), world.heard(new)), (vec![], vec!["5".into()]));
}

#[test]
fn repeated_request_after_the_reply_gets_it_again() {
    let mut world = World::new(&[queue("price")]);
    world.subscribe(1, "$inbox.c.1");
    world.store(ask("q"));
    world.publish(reply("q", "5"));
    let later = world.subscribe(1, "$inbox.c.2");
    assert!(world.publish(draft("price", "q").reply_to("$inbox.c.2")).duplicate);
    assert_eq!(world.heard(later), ["5"]);
    assert_eq!(world.counts("price"), [1, 0, 0, 0], "nobody is asked twice");
}

#[test]
fn reply_that_is_gone_is_reply_lost() {
    let mut document = rules(1, &[queue("price")]);
    document.limits.reply_max_bytes = 10;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    let inbox = world.subscribe(1, "$inbox.c.1");
    world.store(ask("q"));
    world.publish(reply("q", "larger than ten bytes"));
    world.publish(ask("q"));
    let heard = world.heard(inbox);
    assert_eq!(heard.len(), 2);
    assert!(heard[1].starts_with("ReplyLost"), "{heard:?}");
}

#[test]
fn replies_kept_are_bounded_and_the_oldest_go() {
    let mut document = rules(1, &[queue("price")]);
    document.limits.replies_max_bytes = 10_000;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    let inbox = world.subscribe(1, "$inbox.c.1");
    for id in 0..100 {
        world.store(ask(&id.to_string()));
        let payload = format!("{id}:{}", "x".repeat(500));
        world.publish(reply(&id.to_string(), &payload));
        world.call(Command::Taken { subscription: inbox, count: 1 });
    }
    let consumer = world.attach("price", 200);
    while let Some(delivery) = world.poll(consumer) {
        world.ack(consumer, &delivery);
    }
    world.heard(inbox);
    world.publish(ask("0"));
    world.publish(ask("99"));
    let heard = world.heard(inbox);
    assert!(heard[0].starts_with("ReplyLost") && heard[1].starts_with("99:"), "{heard:?}");
}

#[test]
fn after_a_restart_an_open_request_is_taken_over_and_an_answered_one_is_lost() {
    let mut world = World::new(&[queue("price")]);
    world.store(ask("open"));
    world.store(ask("answered"));
    let consumer = world.attach("price", 64);
    world.next(consumer);
    let answered = world.next(consumer);
    world.ack(consumer, &answered);
    world.restart();
    let inbox = world.subscribe(1, "$inbox.d.1");
    for id in ["open", "answered"] {
        assert!(world.publish(draft("price", id).reply_to("$inbox.d.1")).duplicate);
    }
    let heard = world.heard(inbox);
    assert!(heard.len() == 1 && heard[0].starts_with("ReplyLost"), "{heard:?}");
    world.publish(reply("open", "7"));
    assert_eq!(world.heard(inbox), ["7"]);
}

#[test]
fn fail_on_a_request_acks_it_and_answers_failed() {
    let mut world = World::new(&[queue("price")]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.fail(consumer, &delivery, "no stock", true);
    assert_eq!(world.heard(inbox), ["Failed: no stock"]);
    assert_eq!((world.counts("price"), world.stats("price").dead), ([0; 4], 0));
}

#[test]
fn reject_of_a_request_dead_letters_it_and_answers_rejected() {
    let mut world = World::new(&[queue("price")]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.reject(consumer, &delivery, "nonsense");
    assert_eq!(world.heard(inbox), ["Rejected: nonsense"]);
    assert_eq!(world.stats("price").dead, 1);
}

#[test]
fn any_other_dead_letter_of_a_request_answers_rejected_too() {
    let mut world = World::new(&[queue("price").max_deliver(1)]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("expired").ttl(1_000));
    world.advance(1_000);
    world.store(ask("failed"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.nack(consumer, &delivery);
    assert_eq!(world.heard(inbox), ["Rejected: expired", "Rejected: max_deliver"]);
}

#[test]
fn answered_request_that_dies_afterwards_is_not_answered_again() {
    let mut world = World::new(&[queue("price").max_deliver(1)]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.publish(reply("q", "5"));
    world.nack(consumer, &delivery);
    assert_eq!(world.heard(inbox), ["5"]);
}

#[test]
fn reply_to_may_be_a_durable_queue() {
    let mut world = World::new(&[queue("price"), queue("answers")]);
    world.store(draft("price", "q").reply_to("answers"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.fail(consumer, &delivery, "no", false);
    world.restart();
    let answers = world.attach("answers", 1);
    let answer = world.next(answers);
    let body = world.body(&answer.body);
    assert_eq!((part(&body, 4), part(&body, 5)), ("q".into(), "Failed: no".into()));
}

#[test]
fn correlated_message_that_answers_no_request_is_an_ordinary_one() {
    let mut world = World::new(&[queue("answers")]);
    for id in ["a", "b"] {
        world.store(draft("answers", id).correlation("whatever"));
    }
    assert_eq!(world.counts("answers"), [2, 0, 0, 0]);
}

#[test]
fn two_replies_in_one_transaction_are_a_first_and_a_late_one() {
    let mut world = World::new(&[queue("price")]);
    let inbox = world.subscribe(1, "$inbox.c.1");
    world.store(ask("q"));
    let parts = [(reply("q", "5"), false), (reply("q", "6"), false)];
    let confirmations = world.transact("t", &[], &parts).expect("nothing stands against it");
    assert_eq!((confirmations[0].routed, confirmations[1].routed), (1, 0));
    assert_eq!((world.heard(inbox), world.broker.replies_late()), (vec!["5".into()], 1));
}

#[test]
fn request_that_repeats_often_takes_no_more_room_than_its_last_reply_to() {
    let mut document = rules(1, &[queue("price")]);
    document.limits.replies_max_bytes = 2_000;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    let inbox = world.subscribe(1, "$inbox.c.1");
    world.store(ask("other"));
    world.publish(reply("other", "5"));
    world.store(draft("price", "q").reply_to("$inbox.d.0"));
    for n in 0..1_000 {
        world.publish(draft("price", "q").reply_to(&format!("$inbox.d.{n}")));
    }
    world.heard(inbox);
    world.publish(ask("other"));
    assert_eq!(world.heard(inbox), ["5"], "the other request's reply is still kept");
}

#[test]
fn requests_leave_the_window_whatever_longer_ones_stand_before_them() {
    let long = queue("long").with(|settings| settings.dedup_window_ms = 1_000_000);
    let mut document = rules(1, &[long, queue("price")]);
    document.limits.replies_max_bytes = 700;
    let mut world = World::empty();
    world.apply(&document).expect("the first rules meet nothing");
    let inbox = world.subscribe(1, "$inbox.c.1");
    world.store(draft("long", "first").reply_to("$inbox.c.1"));
    world.publish(reply("first", "1"));
    world.store(ask("q"));
    world.advance(130_000);
    world.store(ask("r"));
    world.heard(inbox);
    world.publish(draft("long", "first").reply_to("$inbox.c.1"));
    assert_eq!(world.heard(inbox), ["1"], "the one that expired made room for the third");
}

#[test]
fn request_to_nobody_is_no_responders_even_when_mandatory() {
    let mut world = World::new(&[]);
    let request = draft("nobody", "q").reply_to("$inbox.c.1");
    assert_eq!(world.publish_mandatory(request), Err(PublishError::NoResponders));
}

#[test]
fn many_requests_that_die_at_once_are_answered_in_the_batch_of_their_death() {
    let mut world = World::new(&[queue("price"), queue("answers")]);
    for id in 0..1_000 {
        world.store(draft("price", &id.to_string()).reply_to("answers").ttl(1_000));
    }
    world.advance(999);
    let batches = world.batches.len();
    world.advance(1);
    assert_eq!(world.counts("answers"), [1_000, 0, 0, 0]);
    assert_eq!(world.batches.len(), batches + 1);
}

#[test]
fn request_that_dies_when_it_would_be_delivered_is_answered_at_once() {
    let mut world = World::new(&[queue("price").max_deliver(3)]);
    let inbox = world.subscribe(1, "$inbox.c.>");
    world.store(ask("q"));
    let consumer = world.attach("price", 1);
    let delivery = world.next(consumer);
    world.nack_after(consumer, &delivery, 10);
    world.reload(&[queue("price").max_deliver(1)]).expect("nothing stands against it");
    world.now = world.now.after(10);
    let mut output = chaski_broker::Output::default();
    world.broker.handle_timeout(world.now, &mut output);
    let passed = output.effects.iter().any(|held| {
        matches!(&held.effect, chaski_broker::Effect::Pass { subscription, .. } if *subscription == inbox)
    });
    assert!(passed, "{output:?}");
}
