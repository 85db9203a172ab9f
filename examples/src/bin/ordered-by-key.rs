//! Sequential convoy: messages of one key are processed one after another, keys in parallel; a key whose head fails waits,
//! and every other key goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use chaski_client::Message;
use futures::TryStreamExt as _;

const STEPS: [&str; 4] = ["open", "pay in", "pay out", "close"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, "examples.accounts", &[], &[("ordering", "\"key\"")]).await?;
    for step in STEPS {
        for account in ["ana", "ben", "cem"] {
            client.publish(Message::new("examples.accounts", step).key(account)).await?;
        }
    }

    // Two consumers compete; the order within an account holds all the same.
    let mut left = client.consume("examples.accounts").await?;
    let mut right = client.consume("examples.accounts").await?;
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut failed_once = false;
    while seen.values().map(Vec::len).sum::<usize>() < 3 * STEPS.len() {
        let (side, delivery) = tokio::select! {
            delivery = left.try_next() => ("left", delivery?),
            delivery = right.try_next() => ("right", delivery?),
        };
        let delivery = delivery.context("the queue is gone")?;
        let account = delivery.ordering_key().context("every message here has a key")?.to_owned();
        let step = std::str::from_utf8(delivery.payload())?.to_owned();
        if account == "ben" && step == "pay in" && !failed_once {
            failed_once = true;
            println!("{side:>5}: {account} {step} fails, ben waits; the others don't");
            delivery.nack_after(Duration::from_millis(200)).await?;
            continue;
        }
        println!("{side:>5}: {account} {step}");
        delivery.ack().await?;
        seen.entry(account).or_default().push(step);
    }

    for (account, steps) in &seen {
        anyhow::ensure!(*steps == STEPS, "{account} out of order: {steps:?}");
    }
    println!("every account saw its steps in order");
    client.close().await;
    Ok(())
}
