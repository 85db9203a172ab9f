//! Consume, transform, produce: the ack of the input and the publish of the output are one transaction, so a worker that
//! dies in between neither loses a result nor makes two.

use std::collections::BTreeSet;

use anyhow::Context as _;
use chaski_client::Message;
use futures::TryStreamExt as _;

const READINGS: u32 = 100;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    // A short backoff, so that what the worker drops comes back at once.
    chaski_examples::fresh_queue(&client, "examples.celsius", &[], &[("backoff", "[\"10ms\"]")]).await?;
    chaski_examples::fresh_queue(&client, "examples.fahrenheit", &[], &[]).await?;
    for celsius in 0..READINGS {
        client.publish_pipelined(Message::new("examples.celsius", celsius.to_string())).await?;
    }
    client.flush().await?;

    let mut input = client.consume("examples.celsius").await?;
    let (mut done, mut crashes) = (0, 0);
    while done < READINGS {
        let reading = input.try_next().await?.context("the queue is gone")?;
        let celsius: u32 = std::str::from_utf8(reading.payload())?.parse()?;
        let output = Message::new("examples.fahrenheit", (celsius * 9 / 5 + 32).to_string())
            .header("celsius", celsius.to_string());
        let first = reading.attempt() == 1;
        let mut both = client.transaction();
        both.ack(reading).publish(output);
        if celsius % 10 == 3 && first {
            crashes += 1; // the worker "dies" before the commit: nothing happened, and the reading comes again
            continue;
        }
        both.commit().await?;
        done += 1;
    }

    let mut output = client.consume("examples.fahrenheit").await?;
    let mut seen = BTreeSet::new();
    for _ in 0..READINGS {
        let result = output.try_next().await?.context("the queue is gone")?;
        let celsius = result.header_value("celsius").context("the header is there")?.to_owned();
        anyhow::ensure!(seen.insert(celsius), "a reading came twice");
        result.ack().await?;
    }
    let left = client.admin().queue_show("examples.fahrenheit").await?.messages;
    anyhow::ensure!(left == 0, "{left} results too many");
    println!("{READINGS} readings, {crashes} crashes, {} results: exactly one each", seen.len());
    client.close().await;
    Ok(())
}
