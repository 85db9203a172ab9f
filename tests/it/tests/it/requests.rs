//! Request and reply: `chaski request`, `chaski respond`, and what a requester hears when it goes wrong.

use std::time::Duration;

use chaski_client::{Message, RequestError};
use chaski_it::{Router, eventually, within};
use futures::{StreamExt as _, TryStreamExt as _};

#[test]
fn a_program_answers_requests() {
    let router = Router::start();
    router.cli(&["queue", "create", "shout"]).ok();
    let responder = router.spawn(&["respond", "shout", "--exec", "tr a-z A-Z"]);
    let output = router.cli(&["request", "shout", "hello over there"]).ok();
    assert_eq!(output.stdout.trim_end(), "HELLO OVER THERE");
    let reply = router.one(&["request", "shout", "again"]);
    assert_eq!(reply["payload"], "AGAIN");
    responder.terminate().ok();
    assert_eq!(router.count("shout", "messages"), 0);
}

#[test]
fn a_programs_refusal_reaches_the_requester_with_its_reason() {
    let router = Router::start();
    router.cli(&["queue", "create", "price"]).ok();
    let _responder = router.spawn(&["respond", "price", "--exec", "echo 'we do not sell gold' >&2; exit 65"]);
    let output = router.cli(&["request", "price", "gold"]).refused("rejected");
    assert!(output.error().contains("we do not sell gold"), "{}", output.error());
    assert_eq!(router.count("price", "dead"), 1);
}

#[test]
fn a_request_to_nobody_fails_at_once_and_a_queue_without_consumers_is_somebody() {
    let router = Router::start();
    router.cli(&["request", "nobody.listens", "x", "--timeout", "1h"]).refused("no_responders");
    router.cli(&["queue", "create", "slow"]).ok();
    router.cli(&["request", "slow", "x", "--timeout", "200ms"]).refused("timeout");
    // The request's ttl is its timeout: nobody works for a requester who has gone.
    eventually("the request has expired", || (router.count("slow", "messages") == 0).then_some(()));
}

#[test]
fn a_reply_goes_to_any_topic() {
    let router = Router::start();
    router.cli(&["queue", "create", "work"]).ok();
    router.cli(&["queue", "create", "answers"]).ok();
    router.cli(&["publish", "work", "abc", "--id", "r-1", "--reply-to", "answers"]).ok();
    let _responder = router.spawn(&["respond", "work", "--exec", "rev"]);
    let script = r#"printf '%s|' "$CHASKI_CORRELATION_ID" > seen; cat >> seen"#;
    router.cli(&["consume", "answers", "--count", "1", "--exec", script]).ok();
    let seen = std::fs::read_to_string(router.setup().path("seen")).expect("the program has run");
    assert_eq!(seen.trim_end(), "r-1|cba");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_request_gets_the_first_reply_again() {
    let router = Router::with_rules("[queue.price]\n");
    let client = router.client().await;
    let mut requests = client.consume("price").await.expect("the queue is there");
    let ask = || client.request(Message::new("price", "potato").id("r-1")).timeout(Duration::from_secs(60));
    let (reply, ()) = futures::join!(async { ask().await.expect("it is answered") }, async {
        let request =
            within("the request", requests.try_next()).await.expect("it lives").expect("it is there");
        request.reply("3 soles").await.expect("the lease is held");
    });
    assert_eq!(reply.payload().as_ref(), b"3 soles");
    let again = within("the first reply", ask()).await.expect("it is answered without the responder");
    assert_eq!(again.payload().as_ref(), b"3 soles");
    assert_eq!(router.count("price", "messages"), 0, "the duplicate was not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responders_failure_is_told_and_the_request_is_done() {
    let router = Router::with_rules("[queue.price]\n");
    let client = router.client().await;
    let responder = client.clone();
    let serve = tokio::spawn(async move {
        responder.respond("price", 4, async |_: &chaski_client::Delivery| Err::<String, _>("no stock")).await
    });
    let error =
        within("the failure", client.request(Message::new("price", "gold"))).await.expect_err("it fails");
    assert!(matches!(&error, RequestError::Failed(reason) if reason.contains("no stock")), "{error:?}");
    assert_eq!(router.count("price", "messages"), 0);
    assert_eq!(router.count("price", "dead"), 0);
    serve.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_first_reply_is_passed_on_and_late_ones_are_counted() {
    let router = Router::with_rules("[queue.price]\n");
    let client = router.client().await;
    let mut inbox = client.subscribe("answers").await.expect("it is a pattern");
    client.publish(Message::new("price", "x").id("r-1").reply_to("answers")).await.expect("it is taken");
    for answer in ["first", "second"] {
        client.publish(Message::new("answers", answer).correlation_id("r-1")).await.expect("it is taken");
    }
    client.publish(Message::new("answers", "unrelated")).await.expect("it is taken");
    let first = within("the first", inbox.next()).await.expect("it lives");
    let next = within("the next", inbox.next()).await.expect("it lives");
    assert_eq!((first.payload().as_ref(), next.payload().as_ref()), (&b"first"[..], &b"unrelated"[..]));
    let (_, metrics) = router.http("/metrics");
    let late = metrics.lines().find(|line| line.starts_with("chaski_replies_late_total"));
    assert!(late.is_some_and(|line| line.ends_with(" 1")), "{late:?}");
}
