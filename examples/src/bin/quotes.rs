//! Scatter-gather: one request asks five suppliers, one of whom is slow and one of whom has nothing, and a module in the router
//! answers with the lowest quote. Its rules are `rules/quotes.toml`.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chaski_client::{Client, ConsumeError, Delivery, Message};
use serde_json::{Value, json};

/// Each with the price of a potato, and how long it thinks about it.
const SUPPLIERS: [(&str, Option<u32>, u64); 5] =
    [("ana", Some(7), 0), ("ben", Some(4), 0), ("cem", None, 0), ("dia", Some(5), 0), ("eva", Some(1), 3600)];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::add_rules(&client, include_str!("../../rules/quotes.toml")).await?;
    let suppliers = SUPPLIERS.map(|(name, soles, thinks)| supply(&client, name, soles, thinks));
    tokio::select! {
        ended = futures::future::try_join_all(suppliers) => {
            ended?;
            anyhow::bail!("the suppliers ended before the requests did")
        }
        asked = ask(&client) => asked?,
    }
    client.close().await;
    Ok(())
}

/// A supplier is a responder like any other: it doesn't know that others are asked as well.
async fn supply(client: &Client, name: &str, soles: Option<u32>, thinks: u64) -> Result<(), ConsumeError> {
    let quote = async |_: &Delivery| {
        tokio::time::sleep(Duration::from_secs(thinks)).await;
        let soles = soles.ok_or("we have no potatoes")?;
        Ok::<_, &str>(json!({ "soles": soles, "by": name }).to_string())
    };
    client.respond(format!("examples.quotes-{name}"), 4, quote).await
}

async fn ask(client: &Client) -> anyhow::Result<()> {
    let request = Message::new("examples.quotes", "a potato");
    let begun = Instant::now();
    let answer = client.request(request.clone()).timeout(Duration::from_secs(60)).await?;
    let quote: Value = serde_json::from_slice(answer.payload())?;
    let header = |name| answer.header_value(name).context("the router counts the answers");
    println!(
        "the lowest quote is {} soles, by {}, after {:.1} s: {} of {} answered, {} failed",
        quote["soles"],
        quote["by"],
        begun.elapsed().as_secs_f64(),
        header("chaski-gather-answered")?,
        header("chaski-gather-asked")?,
        header("chaski-gather-failed")?,
    );
    anyhow::ensure!(quote["by"] == "ben" && quote["soles"] == 4, "a wrong quote: {quote}");
    anyhow::ensure!(header("chaski-gather")? == "partial", "one is slow, one fails");

    // Who was asked, and who said what, is there to look at afterwards.
    let gather = client.admin().gather(request.message_id()).await?;
    for recipient in gather.recipients {
        println!("{}: {} {}", recipient.name, recipient.state, recipient.reason.unwrap_or_default());
    }

    // The same request again is the same gather: nobody is asked twice, and the answer is there at once.
    let again = client.request(request).await?;
    anyhow::ensure!(again.payload() == answer.payload(), "another answer");
    println!("asked again under the same id: the same answer");
    Ok(())
}
