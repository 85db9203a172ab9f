//! One publish, many takers: durable queues that bind to patterns, and an ephemeral subscription beside them.

use anyhow::Context as _;
use chaski_client::Message;
use futures::{StreamExt as _, TryStreamExt as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    // `*` is one token, a final `>` is one or more. A durable subscription is a queue.
    chaski_examples::fresh_queue(&client, "examples.billing", &["shop.orders.*.created"], &[]).await?;
    chaski_examples::fresh_queue(&client, "examples.audit", &["shop.>"], &[]).await?;
    // This one lives in memory, and only as long as its connection.
    let mut europe = client.subscribe("shop.orders.eu.>").await?;

    let topics =
        ["shop.orders.eu.created", "shop.orders.us.created", "shop.orders.eu.cancelled", "shop.stock.low"];
    let mut copies = 0;
    for topic in topics {
        let sent = client.publish(Message::new(topic, format!("about {topic}"))).await?;
        println!("{topic}: {} takers", sent.routed);
        copies += sent.routed;
    }

    for queue in ["examples.billing", "examples.audit"] {
        let waiting = client.admin().queue_show(queue).await?.ready;
        let mut consumer = client.consume(queue).await?;
        for _ in 0..waiting {
            let delivery = consumer.try_next().await?.context("the queue is gone")?;
            println!("{queue} got {}", delivery.topic());
            delivery.ack().await?;
            copies -= 1;
        }
        consumer.close().await?;
    }
    for _ in 0..2 {
        let news = europe.next().await.context("the subscription is gone")?;
        println!("the subscription got {}", news.topic());
        copies -= 1;
    }

    anyhow::ensure!(copies == 0, "{copies} copies did not arrive");
    anyhow::ensure!(europe.dropped() == 0, "the subscription was too slow");
    println!("every copy arrived");
    client.close().await;
    Ok(())
}
