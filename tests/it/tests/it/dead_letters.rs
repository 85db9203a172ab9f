//! Dead letters: why they are dead, what they carry, and how they come back.

use chaski_it::{Router, eventually};
use serde_json::json;

use crate::keys;

fn router_with_dead(payloads: &[&str]) -> Router {
    let router = Router::with_rules("[queue.q]\nbind = [\"a.>\"]\nbackoff = [\"1ms\"]\nmax_deliver = 2\n");
    for payload in payloads {
        router.cli(&["publish", "a.b", payload, "--id", payload, "--key", "k", "-H", "mine=kept"]).ok();
    }
    for _ in payloads {
        router.cli(&["consume", "q", "--count", "1", "--reject", "no use"]).ok();
    }
    router
}

#[test]
fn a_rejected_message_carries_all_its_headers() {
    let router = router_with_dead(&["m1"]);
    let letter = router.one(&["dlq", "show", "q"]);
    assert_eq!((&letter["id"], &letter["topic"], &letter["key"]), (&json!("m1"), &json!("a.b"), &json!("k")));
    assert_eq!((&letter["reason"], &letter["detail"]), (&json!("rejected"), &json!("no use")));
    assert_eq!(letter["attempts"], 1);
    let headers = &letter["headers"];
    assert_eq!(headers["mine"], "kept");
    assert_eq!(headers["chaski-dead-reason"], "rejected");
    assert_eq!(headers["chaski-dead-detail"], "no use");
    assert_eq!(headers["chaski-dead-queue"], "q");
    assert_eq!(headers["chaski-dead-attempts"], "1");
    for name in ["chaski-dead-first-at", "chaski-dead-last-at"] {
        let time = headers[name].as_str().unwrap_or_default();
        assert!(time.contains('T') && time.ends_with('Z'), "{name}: {time}");
    }
    let listed = router.one(&["dlq", "list"]);
    assert_eq!(keys(&listed), ["dead", "oldest", "queue", "reasons"]);
    assert_eq!((&listed["queue"], &listed["dead"]), (&json!("q"), &json!(1)));
    assert_eq!(listed["reasons"], json!({"rejected": 1}));
}

#[test]
fn dead_letters_survive_a_crash_and_can_be_consumed() {
    let router = router_with_dead(&["m1"]).crash();
    let letter = router.one(&["consume", "q.dlq", "--count", "1"]);
    assert_eq!(
        (&letter["payload"], &letter["headers"]["chaski-dead-reason"]),
        (&json!("m1"), &json!("rejected"))
    );
    assert_eq!(router.count("q", "dead"), 0);
}

#[test]
fn a_message_that_fails_max_deliver_times_is_dead() {
    let router = Router::with_rules("[queue.q]\nbackoff = [\"1ms\"]\nmax_deliver = 3\n");
    router.cli(&["publish", "q", "poison"]).ok();
    let output = router.all(&["consume", "q", "--count", "3", "--nack"]);
    assert_eq!(
        output.iter().map(|delivery| delivery["attempt"].clone()).collect::<Vec<_>>(),
        [json!(1), json!(2), json!(3)]
    );
    let letter = router.one(&["dlq", "show", "q"]);
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("max_deliver"), &json!(3)));
    assert_eq!(router.count("q", "messages"), 0);
}

#[test]
fn an_expired_message_is_dead() {
    let router = Router::with_rules("[queue.q]\n[queue.short]\nttl = \"10ms\"\n");
    router.cli(&["publish", "q", "x", "--ttl", "10ms"]).ok();
    router.cli(&["publish", "short", "y", "--ttl", "1h"]).ok();
    for queue in ["q", "short"] {
        eventually("it expires", || (router.count(queue, "dead") == 1).then_some(()));
        assert_eq!(router.one(&["dlq", "show", queue])["reason"], "expired");
        assert_eq!(router.count(queue, "messages"), 0);
    }
}

#[test]
fn redrive_sends_all_back_with_their_attempts_counted_anew() {
    let router = router_with_dead(&["m1", "m2"]);
    assert_eq!(router.one(&["dlq", "redrive", "q"])["count"], 2);
    let seen = router.all(&["consume", "q", "--count", "2"]);
    for (delivery, id) in seen.iter().zip(["m1", "m2"]) {
        assert_eq!((&delivery["id"], &delivery["attempt"]), (&json!(id), &json!(1)));
        assert_eq!(delivery["headers"], json!({"mine": "kept"}), "the router's own headers are gone");
    }
    assert_eq!(router.count("q", "dead"), 0);
}

#[test]
fn redrive_takes_a_reason_a_limit_or_one_id() {
    let router = router_with_dead(&["m1", "m2", "m3"]);
    router.cli(&["publish", "a.b", "old", "--ttl", "1ms"]).ok();
    eventually("it expires", || (router.count("q", "dead") == 4).then_some(()));
    assert_eq!(router.one(&["dlq", "redrive", "q", "--reason", "expired"])["count"], 1);
    eventually("it expires anew", || {
        let ready = router.count("q", "ready");
        (ready == 0).then_some(())
    });
    assert_eq!(router.one(&["dlq", "redrive", "q", "--reason", "rejected", "--limit", "1"])["count"], 1);
    assert_eq!(router.one(&["consume", "q", "--count", "1"])["id"], "m1");
    assert_eq!(router.one(&["dlq", "redrive", "q", "--id", "m3"])["count"], 1);
    assert_eq!(router.one(&["consume", "q", "--count", "1"])["id"], "m3");
    router.cli(&["dlq", "redrive", "q", "--id", "nothing"]).refused("unknown_id");
}

#[test]
fn one_letter_goes_back_edited() {
    let router = router_with_dead(&["m1"]);
    let path = router.setup().path("better");
    std::fs::write(&path, "mended").expect("the test's directory can be written");
    let file = path.to_str().expect("a plain path");
    let moved = router.one(&[
        "dlq",
        "redrive",
        "q",
        "--id",
        "m1",
        "--payload-file",
        file,
        "-H",
        "fixed=yes",
        "-H",
        "mine=new",
    ]);
    assert_eq!(moved["count"], 1);
    let delivery = router.one(&["consume", "q", "--count", "1"]);
    assert_eq!((&delivery["id"], &delivery["payload"]), (&json!("m1"), &json!("mended")));
    assert_eq!(delivery["headers"], json!({"mine": "new", "fixed": "yes"}));
}

#[test]
fn a_full_queue_stops_a_redrive_which_says_how_far_it_came() {
    let router = Router::with_rules("[queue.q]\nmax_messages = 2\noverflow = \"reject\"\n");
    for n in 0..2 {
        router.cli(&["publish", "q", &n.to_string()]).ok();
        router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    }
    router.cli(&["publish", "q", "in the way"]).ok();
    let moved = router.cli(&["dlq", "redrive", "q", "--json"]).refused("queue_full").one();
    assert_eq!(moved["count"], 1, "{moved}");
    assert!(moved["stopped"].as_str().is_some_and(|why| why.contains("full")), "{moved}");
    assert_eq!(router.count("q", "dead"), 1);
}

#[test]
fn rejecting_a_dead_letter_is_not_allowed() {
    let router = router_with_dead(&["m1"]);
    router.cli(&["consume", "q.dlq", "--count", "1", "--reject", "again"]).refused("not_allowed");
    assert_eq!(router.count("q", "dead"), 1);
}

#[test]
fn the_first_dead_letter_raises_an_alarm_until_it_is_dealt_with() {
    let router = Router::with_rules("[queue.q]\ndead_alarm = 1\n");
    router.cli(&["publish", "q", "x"]).ok();
    assert_eq!(router.one(&["status"])["alarms"], json!([]));
    router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    let status = router.one(&["status"]);
    assert_eq!(status["alarms"][0]["queue"], "q", "{status}");
    assert_eq!(status["ready"], true, "dead letters don't stop it");
    router.cli(&["dlq", "purge", "q"]).ok();
    assert_eq!(router.one(&["status"])["alarms"], json!([]));
}

#[test]
fn a_dead_letter_queue_keeps_its_limit_by_dropping_the_oldest() {
    let router = Router::with_rules("[queue.q]\ndead_letter = { max_messages = 2 }\n");
    for n in 0..3 {
        router.cli(&["publish", "q", &n.to_string()]).ok();
        router.cli(&["consume", "q", "--count", "1", "--reject", "no"]).ok();
    }
    let letters = router.all(&["dlq", "show", "q"]);
    assert_eq!(
        letters.iter().map(|letter| letter["payload"].clone()).collect::<Vec<_>>(),
        [json!("1"), json!("2")]
    );
}
