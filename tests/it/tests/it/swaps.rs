//! Versions swapped while messages flow, and a hundred hostile modules at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chaski_client::Message;
use chaski_filters::TAKEN_HOSTILE_FILTERS;
use chaski_it::{Router, Setup, within};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::modules::{builtin, file, hostile};

const SWAPS: usize = 1000;

/// Resident memory of a process in bytes.
fn resident(router: &Router) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", router.pid())).expect("the router runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_lose_nothing_and_judge_each_message_once_by_one_version() {
    let router =
        Router::with_rules("[module.mark]\n[route.r]\ntopics = [\"t\"]\nfilters = [\"mark\"]\n[queue.t]\n");
    let client = router.client().await;
    let admin = client.admin();
    let swap = async |n: usize| {
        let Value::Object(params) = json!({ "mask": ["/a", "/b"], "with": n.to_string() }) else {
            unreachable!("it is written as an object")
        };
        let deploy = admin.deploy("mark", builtin("redact")).params(params).into_future();
        within("a deploy", deploy).await.unwrap_or_else(|error| panic!("deploy {n}: {error}"));
    };
    swap(0).await;

    let stop = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn({
        let (client, stop) = (client.clone(), Arc::clone(&stop));
        async move {
            let mut published = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let message = Message::new("t", r#"{"a":"","b":""}"#).id(published.to_string());
                    let confirm = client.publish_pipelined(message).await.expect("there is room");
                    drop(confirm);
                    published += 1;
                }
                within("the confirms", client.flush()).await.expect("each is confirmed");
            }
            published
        }
    });
    let consuming = tokio::spawn({
        let client = client.clone();
        async move {
            let mut seen: HashMap<String, String> = HashMap::new();
            let mut deliveries = client.consume("t").credit(512).await.expect("the queue is there");
            while let Some(delivery) = deliveries.try_next().await.expect("deliveries come") {
                if delivery.topic() != "t" || delivery.payload().as_ref() == b"end" {
                    break;
                }
                let body: Value = serde_json::from_slice(delivery.payload()).expect("it is JSON");
                assert_eq!(body["a"], body["b"], "judged by a mix");
                let version = body["a"].as_str().expect("a text").to_owned();
                let before = seen.insert(delivery.id().to_owned(), version);
                assert_eq!(before, None, "delivered twice");
                delivery.ack_nowait();
            }
            seen
        }
    });
    let mut warm = 0;
    for n in 1..=SWAPS {
        swap(n).await;
        if n == SWAPS / 10 {
            warm = resident(&router);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let published = within("the publisher", publishing).await.expect("it doesn't panic");
    router.write_rules("[queue.t]\n");
    chaski_it::eventually("the filter is gone", || router.all(&["module", "list"]).is_empty().then_some(()));
    client.publish(Message::new("t", "end")).await.expect("it is confirmed");
    let seen = within("the consumer", consuming).await.expect("it doesn't panic");
    assert_eq!(seen.len() as u64, published, "none lost, none invented");
    let versions: std::collections::HashSet<&String> = seen.values().collect();
    assert!(versions.len() > SWAPS / 10, "messages flowed meanwhile: {} versions judged", versions.len());
    let grown = resident(&router).saturating_sub(warm);
    assert!(grown < 96 << 20, "{} MiB more than after the first hundred swaps", grown >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_hostile_modules_at_once_harm_only_their_own_messages() {
    const MODULES: usize = 100;
    const EACH: usize = 3;
    let setup = Setup::default();
    let mut rules = String::from("[queue.good]\n");
    for name in TAKEN_HOSTILE_FILTERS {
        file(&setup, &format!("{name}.wasm"), hostile(name));
    }
    for n in 0..MODULES {
        let name = TAKEN_HOSTILE_FILTERS[n % TAKEN_HOSTILE_FILTERS.len()];
        rules += &format!(
            "[module.m{n}]\nfile = \"{name}.wasm\"\n[route.r{n}]\ntopics = [\"bad.{n}\"]\nfilters = [\"m{n}\"]\n\
             [queue.q{n}]\nbind = [\"bad.{n}\"]\n"
        );
    }
    let router = setup.rules(&rules).start();
    let client = router.client().await;
    let bad = (0..MODULES).map(|n| {
        let client = client.clone();
        async move {
            let mut sums = [0, 0, 0];
            for _ in 0..EACH {
                let message = Message::new(format!("bad.{n}"), "x").header("poison", "1");
                let sent = within("a confirm", client.publish(message)).await.expect("it is confirmed");
                sums[0] += sent.routed;
                sums[1] += sent.dropped;
                sums[2] += sent.rejected;
            }
            sums
        }
    });
    // On a connection of their own: confirms of one stream come in order.
    let other = router.client().await;
    let good = async {
        for n in 0..200 {
            let sent = within("a confirm", other.publish(Message::new("good", n.to_string()))).await;
            assert_eq!(sent.expect("it is confirmed").routed, 1);
        }
    };
    let (sums, ()) = futures::future::join(futures::future::join_all(bad), good).await;
    let dead: u64 = sums.iter().map(|sums| u64::from(sums[2])).sum();
    for (n, sums) in sums.iter().enumerate() {
        assert_eq!(sums.iter().map(|sum| *sum as usize).sum::<usize>(), EACH, "module {n}: {sums:?}");
    }
    let letters = router.one(&["dlq", "list"]);
    assert_eq!((&letters["queue"], letters["dead"].as_u64()), (&"chaski".into(), Some(dead)));
    assert_eq!(letters["reasons"], json!({ "filter_error": dead }), "each with its cause");
    assert_eq!(router.count("good", "ready"), 200);
    let resident = resident(&router);
    assert!(resident < 1 << 30, "{} MiB resident", resident >> 20);
    router.cli(&["status"]);
}
