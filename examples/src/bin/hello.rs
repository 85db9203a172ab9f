//! One message through a durable queue: publish, consume, acknowledge.

use anyhow::Context as _;
use chaski_client::Message;
use futures::TryStreamExt as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, "examples.hello", &[], &[]).await?;

    // Confirmed means: on disk. A queue without bindings takes the topic of its own name.
    let sent =
        client.publish(Message::new("examples.hello", "the bridge is up").header("from", "Cusco")).await?;
    println!("stored {} for {} queue", sent.id, sent.routed);

    let mut post = client.consume("examples.hello").await?;
    let delivery = post.try_next().await?.context("the queue is gone")?;
    let text = std::str::from_utf8(delivery.payload())?.to_owned();
    println!("received `{text}`, attempt {}", delivery.attempt());
    // Until this, the message is only lent to us: if we died now, another consumer would get it.
    delivery.ack().await?;
    post.close().await?;

    let left = client.admin().queue_show("examples.hello").await?.messages;
    anyhow::ensure!(left == 0, "{left} messages are left");
    println!("acknowledged: the queue is empty");
    client.close().await;
    Ok(())
}
