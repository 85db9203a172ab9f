//! Scatter-gather: one request goes to many, a module makes one answer of their replies, and what a requester hears otherwise.

use std::time::Duration;

use chaski_client::{Client, Delivery, Message, RequestError};
use chaski_it::{Router, Setup, eventually, within};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::modules::{builtin, file, hostile};

/// Three suppliers, the lowest quote, and what else a test sets.
fn rules(more: &str) -> String {
    format!(
        "[module.lowest]\nbuiltin = \"lowest-quote\"\nparams = {{ pointer = \"/price\" }}\n\
         [scatter.quote]\ntopic = \"quotes.request\"\nrecipients = [\"supplier-a\", \"supplier-b\", \"supplier-c\"]\n\
         aggregator = \"lowest\"\n{more}\n"
    )
}

fn price(soles: u32) -> String {
    format!("{{\"price\": {soles}}}")
}

/// Takes a supplier's requests from now on, and answers each as told.
async fn supplier(client: &Client, queue: &str, answer: Result<u32, &'static str>) {
    let mut requests = client.consume(queue).await.expect("the queue is there");
    tokio::spawn(async move {
        while let Ok(Some(request)) = requests.try_next().await {
            // One that was withdrawn meanwhile has lost its lease.
            match answer {
                Ok(soles) => drop(request.reply(price(soles)).await),
                Err(reason) => drop(request.fail(reason, chaski_client::Retry::No).await),
            }
        }
    });
}

fn request(id: &str) -> Message {
    Message::new("quotes.request", r#"{"item": "potato"}"#).id(id)
}

async fn ask(client: &Client, id: &str) -> Result<Message, RequestError> {
    within("the answer", client.request(request(id)).timeout(Duration::from_secs(60))).await
}

/// The answer's payload, and what its headers count: asked, answered, failed.
#[track_caller]
fn check(reply: &Message, payload: &str, kind: &str, counts: [&str; 3]) {
    let header = |name: &str| reply.header_value(name).unwrap_or("none").to_owned();
    let text = String::from_utf8_lossy(reply.payload());
    assert_eq!((&*text, &*header("chaski-gather")), (payload, kind));
    let found = ["asked", "answered", "failed"].map(|name| header(&format!("chaski-gather-{name}")));
    assert_eq!(found, counts);
}

/// The next request of a queue, taken and not answered.
async fn take(client: &Client, queue: &str) -> (chaski_client::Consumer, Delivery) {
    let mut requests = client.consume(queue).await.expect("the queue is there");
    let request = within("a request", requests.try_next()).await.expect("it lives").expect("it is there");
    (requests, request)
}

#[test]
fn the_lowest_of_three_quotes_is_the_answer() {
    let router = Router::with_rules(&rules("timeout = \"60s\""));
    let _suppliers = [("a", 12), ("b", 9), ("c", 10)].map(|(name, soles)| {
        let answer = format!("echo '{{\"price\": {soles}, \"by\": \"{name}\"}}'");
        router.spawn(&["respond", &format!("supplier-{name}"), "--exec", &answer])
    });
    let reply = router.one(&["request", "quotes.request", r#"{"item": "potato"}"#]);
    assert_eq!(reply["payload"].as_str().map(str::trim), Some(r#"{"price": 9, "by": "b"}"#), "{reply}");
    assert_eq!(reply["headers"]["chaski-gather"], "complete", "{reply}");
    assert_eq!(reply["headers"]["chaski-gather-answered"], "3", "{reply}");
    for name in ["a", "b", "c"] {
        assert_eq!(router.count(&format!("supplier-{name}"), "messages"), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_supplier_is_left_out_when_the_time_is_over() {
    let router = Router::with_rules(&rules("timeout = \"2s\""));
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    supplier(&client, "supplier-b", Ok(9)).await;
    let reply = ask(&client, "q-1").await.expect("two have answered");
    check(&reply, &price(9), "partial", ["3", "2", "0"]);
    assert_eq!(router.count("supplier-c", "messages"), 0, "its request is withdrawn");
    assert_eq!(router.count("supplier-c", "dead"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplier_that_fails_is_not_waited_for() {
    let router = Router::with_rules(&rules("timeout = \"1h\""));
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    supplier(&client, "supplier-b", Err("we are closed")).await;
    supplier(&client, "supplier-c", Ok(13)).await;
    let reply = ask(&client, "q-1").await.expect("two have answered");
    check(&reply, &price(12), "partial", ["3", "2", "1"]);
    let shown = router.one(&["gather", "show", "q-1"]);
    assert_eq!((&shown["scatter"], &shown["state"]), (&"quote".into(), &"answered".into()), "{shown}");
    let failed = &shown["recipients"][1];
    assert_eq!((&failed["name"], &failed["state"]), (&"supplier-b".into(), &"failed".into()), "{shown}");
    assert_eq!(failed["reason"], "we are closed");
    assert_eq!(router.count("supplier-b", "dead"), 0, "a failure that was told is no dead letter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_is_enough_and_the_other_requests_are_withdrawn() {
    let router = Router::with_rules(&rules("quorum = 2\ntimeout = \"1h\""));
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "q-1").await }
    });
    // The third one has its request in its hands when the other two have answered.
    let (_requests, late) = take(&client, "supplier-c").await;
    supplier(&client, "supplier-b", Ok(9)).await;
    let reply = asked.await.expect("it was not stopped").expect("two have answered");
    check(&reply, &price(9), "partial", ["3", "2", "0"]);
    late.reply(price(1)).await.expect_err("its request was withdrawn");
    let again = ask(&client, "q-1").await.expect("it is remembered");
    assert_eq!(again.payload(), reply.payload());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_in_time_is_a_timeout() {
    let router = Router::with_rules(&rules("timeout = \"300ms\""));
    let client = router.client().await;
    assert_eq!(ask(&client, "q-1").await.expect_err("nobody has answered"), RequestError::Timeout);
    router.cli(&["request", "quotes.request", "x", "--timeout", "1h"]).refused("timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replies_are_a_timeout_where_the_rules_say_fail() {
    let router = Router::with_rules(&rules("on_timeout = \"fail\"\ntimeout = \"1h\""));
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    supplier(&client, "supplier-b", Err("we are closed")).await;
    supplier(&client, "supplier-c", Err("so are we")).await;
    assert_eq!(ask(&client, "q-1").await.expect_err("one is too few"), RequestError::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_traps_fails_the_request_and_the_replies_are_kept() {
    let setup = Setup::default();
    file(&setup, "bad.wasm", hostile("trap-on-fold"));
    let router = setup
        .rules(
            "[module.bad]\nfile = \"bad.wasm\"\n[scatter.quote]\ntopic = \"quotes.request\"\n\
             recipients = [\"supplier-a\", \"supplier-b\"]\naggregator = \"bad\"\ntimeout = \"1h\"\n",
        )
        .start();
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    let error = ask(&client, "q-1").await.expect_err("its aggregator traps");
    let RequestError::AggregationFailed(reason) = &error else { panic!("{error:?}") };
    assert!(reason.contains("fails on purpose"), "{reason}");
    let letter = router.one(&["dlq", "show", "chaski"]);
    assert_eq!(letter["reason"], "aggregation_failed", "{letter}");
    assert_eq!((&letter["payload"], &letter["module"]), (&price(12).into(), &"bad".into()), "{letter}");
    assert!(letter["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{letter}");
    // They are copies to look at.
    router.cli(&["dlq", "redrive", "chaski"]).refused("not_allowed");
    assert_eq!(ask(&client, "q-1").await.expect_err("it is remembered"), error);
    router.cli(&["status"]).ok();
}

/// A scatter to two queues, and its aggregator, a module of this name.
fn pair(aggregator: &str) -> String {
    format!(
        "[scatter.quote]\ntopic = \"quotes.request\"\nrecipients = [\"supplier-a\", \"supplier-b\"]\n\
         aggregator = \"{aggregator}\"\ntimeout = \"1h\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_fails_too_often_rolls_itself_back() {
    let setup = Setup::default();
    let good = file(&setup, "good.wasm", builtin("collect"));
    let bad = file(&setup, "bad.wasm", hostile("trap-on-fold"));
    let router = setup.rules(&format!("[module.m]\n{}", pair("m"))).start();
    router.cli(&["module", "deploy", &good, "--name", "m"]).ok();
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    supplier(&client, "supplier-b", Ok(12)).await;
    ask(&client, "before").await.expect("both answer");
    router.cli(&["module", "deploy", &bad, "--name", "m"]).ok();
    let mut failed = 0;
    let answer = loop {
        match ask(&client, &format!("q-{failed}")).await {
            Ok(answer) => break answer,
            Err(RequestError::AggregationFailed(reason)) => {
                assert!(reason.contains("on purpose"), "{reason}")
            }
            Err(error) => panic!("{error}"),
        }
        failed += 1;
        assert!(failed < 1_000, "it is never rolled back");
    };
    check(&answer, "[{\"price\": 12},{\"price\": 12}]", "complete", ["2", "2", "0"]);
    assert!(failed >= 10, "20 calls are looked at before, of which a gather has two: {failed}");
    let history = router.all(&["module", "history", "m"]);
    assert!(
        history[0]["author"].as_str().is_some_and(|author| author.contains("calls failed")),
        "{history:?}"
    );
    router.cli(&["module", "deploy", &bad, "--name", "m"]).refused("module_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_without_another_before_it_is_suspended_when_it_burns_its_time() {
    let setup = Setup::default();
    file(&setup, "spin.wasm", hostile("spin-on-fold"));
    let rules = format!("[module.m]\nfile = \"spin.wasm\"\ntime_limit = \"700ms\"\n{}", pair("m"));
    let router = setup.rules(&rules).start();
    let client = router.client().await;
    supplier(&client, "supplier-a", Ok(12)).await;
    supplier(&client, "supplier-b", Ok(9)).await;
    let mut reasons = Vec::new();
    // One that is suspended still gets a probe now and then, which burns its time once more.
    while reasons.len() < 100 && !reasons.iter().any(|reason: &String| reason.contains("suspended")) {
        match ask(&client, &format!("q-{}", reasons.len())).await {
            Err(RequestError::AggregationFailed(reason)) => reasons.push(reason),
            other => panic!("{other:?}"),
        }
    }
    assert!(reasons.len() > 2 && reasons.len() < 100, "two calls that ran out of time: {reasons:?}");
    assert!(reasons[0].contains("CPU time"), "{reasons:?}");
    assert_eq!(router.one(&["module", "show", "m"])["state"], "suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer_also_after_a_crash() {
    let mut router = Router::with_rules(&rules("timeout = \"1h\""));
    let client = router.client().await;
    for (queue, soles) in [("supplier-a", 12), ("supplier-b", 9), ("supplier-c", 10)] {
        supplier(&client, queue, Ok(soles)).await;
    }
    ask(&client, "q-1").await.expect("all answer");
    // From now on nobody would answer.
    client.close().await;
    for _ in 0..2 {
        let client = router.client().await;
        let reply = ask(&client, "q-1").await.expect("it is remembered");
        check(&reply, &price(9), "complete", ["3", "3", "0"]);
        client.close().await;
        router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    }
    assert_eq!(router.count("supplier-a", "messages"), 0, "nobody was asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gather_goes_on_after_a_crash_with_the_replies_that_it_had() {
    let router = Router::with_rules(&rules("timeout = \"1h\""));
    let client = router.client().await;
    let asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "q-1").await }
    });
    for (queue, soles) in [("supplier-a", 9), ("supplier-b", 12)] {
        let (_requests, request) = take(&client, queue).await;
        request.reply(price(soles)).await.expect("it is taken");
    }
    let before = router.one(&["gather", "show", "q-1"]);
    assert_eq!(before["state"], "open", "{before}");
    let router = tokio::task::spawn_blocking(|| router.crash()).await.expect("it starts again");
    let after = router.one(&["gather", "show", "q-1"]);
    assert_eq!(after["recipients"], before["recipients"]);
    supplier(&client, "supplier-c", Ok(10)).await;
    let reply = asked.await.expect("it was not stopped").expect("all have answered");
    check(&reply, &price(9), "complete", ["3", "3", "0"]);
    let client = router.client().await;
    assert_eq!(ask(&client, "q-1").await.expect("it is remembered").payload(), reply.payload());
}

/// A queue, and a subscription that answers by a publish.
#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_asks_the_queues_and_subscriptions_of_the_moment() {
    let router = Router::with_rules(
        "[queue.\"suppliers.a\"]\n[queue.everything]\nbind = [\"suppliers.>\"]\n\
         [scatter.quote]\ntopic = \"quotes.request\"\npattern = \"suppliers.*\"\ntimeout = \"1h\"\n",
    );
    let client = router.client().await;
    supplier(&client, "suppliers.a", Ok(12)).await;
    let other = router.client().await;
    let mut requests = other.subscribe("suppliers.b").await.expect("it is a pattern");
    let asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "q-1").await }
    });
    let request = within("the request", requests.next()).await.expect("it lives");
    let reply_to = request.reply_topic().expect("it is a request").to_owned();
    let reply = Message::new(reply_to, price(9)).correlation_id(request.message_id());
    other.publish(reply).await.expect("it is taken");
    let answer = asked.await.expect("it was not stopped").expect("both have answered");
    let mut prices: Vec<serde_json::Value> = serde_json::from_slice(answer.payload()).expect("a list");
    prices.sort_by_key(ToString::to_string);
    assert_eq!(prices.len(), 2, "{prices:?}");
    assert_eq!(answer.header_value("chaski-gather"), Some("complete"));
    assert_eq!(router.count("everything", "messages"), 0, "its pattern is wider than the scatter's");

    // A subscription that goes is one that failed.
    let asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "q-2").await }
    });
    within("the request", requests.next()).await.expect("it lives");
    drop(requests);
    other.close().await;
    let answer = asked.await.expect("it was not stopped").expect("one has answered");
    assert_eq!(answer.header_value("chaski-gather-failed"), Some("1"));
}

#[test]
fn a_pattern_without_anybody_has_no_responders() {
    let router = Router::with_rules(
        "[scatter.quote]\ntopic = \"quotes.request\"\npattern = \"suppliers.*\"\ntimeout = \"1h\"\n",
    );
    router.cli(&["request", "quotes.request", "x", "--timeout", "1h"]).refused("no_responders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reply_is_dropped_or_kept_as_the_rules_say() {
    for (late, kept) in [("drop", 0), ("dead-letter", 1)] {
        let router = Router::with_rules(&format!(
            "[queue.\"suppliers.a\"]\n[scatter.quote]\ntopic = \"quotes.request\"\npattern = \"suppliers.*\"\n\
             quorum = 1\nlate = \"{late}\"\ntimeout = \"1h\"\n"
        ));
        let client = router.client().await;
        let mut requests = client.subscribe("suppliers.b").await.expect("it is a pattern");
        supplier(&client, "suppliers.a", Ok(12)).await;
        ask(&client, "q-1").await.expect("one is enough");
        let request = within("the request", requests.next()).await.expect("it lives");
        let reply_to = request.reply_topic().expect("it is a request").to_owned();
        let reply = Message::new(reply_to, price(9)).correlation_id(request.message_id());
        client.publish(reply).await.expect("it is no error");
        assert_eq!(router.all(&["dlq", "show", "chaski"]).len(), kept, "late = {late}");
        let (_, metrics) = router.http("/metrics");
        assert!(metrics.contains("chaski_replies_late_total 1"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_answers_after_the_end_is_told_so_and_its_reply_is_kept_as_the_rules_say() {
    for (late, kept) in [("drop", 0), ("dead-letter", 1)] {
        let router = Router::with_rules(&rules(&format!("quorum = 1\nlate = \"{late}\"\ntimeout = \"1h\"")));
        let client = router.client().await;
        let asked = tokio::spawn({
            let client = client.clone();
            async move { ask(&client, "q-1").await }
        });
        let (_slow, request) = take(&client, "supplier-b").await;
        supplier(&client, "supplier-a", Ok(12)).await;
        asked.await.expect("it doesn't panic").expect("one is enough");
        let told = request.reply(price(9)).await;
        assert!(matches!(told, Err(chaski_client::ReplyError::LeaseLost)), "{told:?}");
        let letters = router.all(&["dlq", "show", "chaski"]);
        assert_eq!(letters.len(), kept, "late = {late}");
        assert!(letters.iter().all(|letter| letter["payload"] == price(9)), "{letters:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gathers_are_listed_and_counted() {
    let router = Router::with_rules(&rules("timeout = \"1h\""));
    let client = router.client().await;
    let _asked = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "q-1").await }
    });
    let open = eventually("the gather has begun", || router.all(&["gather", "list"]).pop());
    assert_eq!((&open["id"], &open["state"]), (&"q-1".into(), &"open".into()), "{open}");
    assert!(open["left_ms"].as_u64() > Some(3_000_000), "{open}");
    let states: Vec<&str> = open["recipients"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|recipient| recipient["state"].as_str().expect("a word"))
        .collect();
    assert_eq!(states, ["asked"; 3], "{open}");
    let counted = |state: &str| {
        let name = format!("chaski_gathers{{scatter=\"quote\",state=\"{state}\"}} 1");
        eventually(&name, || router.http("/metrics").1.contains(&name).then_some(()));
    };
    counted("open");
    for (queue, soles) in [("supplier-a", 12), ("supplier-b", 9), ("supplier-c", 10)] {
        supplier(&client, queue, Ok(soles)).await;
    }
    ask(&client, "q-1").await.expect("all answer");
    let shown = router.cli(&["gather", "show", "q-1"]).ok().stdout;
    assert!(shown.contains("supplier-b") && shown.contains("answered"), "{shown}");
    router.cli(&["gather", "show", "q-2"]).refused("unknown_id");
}
