//! A message that can't be processed leaves the queue and is kept, with its reason, until somebody looks and sends it back.

use std::time::Duration;

use anyhow::Context as _;
use chaski_client::{Client, Message};
use futures::TryStreamExt as _;

const QUEUE: &str = "examples.parcels";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, QUEUE, &[], &[("max_deliver", "2")]).await?;
    for address in ["Lima 1", "nowhere", "Lima 2", "out of order"] {
        client.publish(Message::new(QUEUE, address)).await?;
    }

    // "nowhere" is rejected at once; "out of order" fails twice, which is this queue's `max_deliver`.
    let mut parcels = client.consume(QUEUE).await?;
    while client.admin().queue_show(QUEUE).await?.messages > 0 {
        let parcel = parcels.try_next().await?.context("the queue is gone")?;
        match std::str::from_utf8(parcel.payload())? {
            "nowhere" => parcel.reject("no such address").await?,
            "out of order" => parcel.nack_after(Duration::from_millis(50)).await?,
            _ => parcel.ack().await?,
        }
    }
    for dead in client.admin().dlq_show(QUEUE, 0, 100).await? {
        let reason = dead.reason.as_deref().unwrap_or("?");
        let detail = dead.detail.as_deref().unwrap_or("");
        println!("dead: `{}` after {} attempts: {reason} {detail}", dead.payload, dead.attempts);
    }
    anyhow::ensure!(dead(&client).await? == 2, "two parcels should be dead");

    // The cause is mended, so they go back where they came from, with their attempts counted anew.
    let moved = client.admin().dlq_redrive(QUEUE).await?.count;
    println!("redriven: {moved}");
    for _ in 0..moved {
        let parcel = parcels.try_next().await?.context("the queue is gone")?;
        println!("delivered: `{}`, attempt {}", std::str::from_utf8(parcel.payload())?, parcel.attempt());
        parcel.ack().await?;
    }
    anyhow::ensure!(dead(&client).await? == 0, "no dead letter should be left");
    println!("no dead letter is left");
    client.close().await;
    Ok(())
}

async fn dead(client: &Client) -> anyhow::Result<u64> {
    Ok(client.admin().queue_show(QUEUE).await?.dead)
}
