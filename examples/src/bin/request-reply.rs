//! Ask and be answered, through a durable queue: a responder, a requester, and what a requester hears when it goes wrong.

use std::time::Duration;

use chaski_client::{Client, Delivery, Message, RequestError};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = chaski_examples::connect().await?;
    chaski_examples::fresh_queue(&client, "examples.price", &[], &[]).await?;
    let shop = client.clone();
    tokio::select! {
        // Sixteen requests at once; Ok is reply and ack in one transaction, Err is told to the requester.
        ended = shop.respond("examples.price", 16, async |request: &Delivery| price(request).await) => {
            ended?;
            anyhow::bail!("the responder ended before the requests did")
        }
        asked = ask(&client) => asked?,
    }
    client.close().await;
    Ok(())
}

async fn price(request: &Delivery) -> Result<String, String> {
    match request.payload().as_ref() {
        b"potato" => Ok("3 soles".to_owned()),
        b"maize" => Ok("5 soles".to_owned()),
        other => Err(format!("we don't sell {}", String::from_utf8_lossy(other))),
    }
}

async fn ask(client: &Client) -> anyhow::Result<()> {
    for (goods, expected) in [("potato", "3 soles"), ("maize", "5 soles")] {
        let reply = client
            .request(Message::new("examples.price", goods).header("buyer", "example"))
            .timeout(Duration::from_secs(10))
            .await?;
        println!("{goods}: {}", std::str::from_utf8(reply.payload())?);
        anyhow::ensure!(reply.payload() == expected, "a wrong price");
    }
    match client.request(Message::new("examples.price", "gold")).await {
        Err(RequestError::Failed(reason)) => println!("gold: failed, `{reason}`"),
        other => anyhow::bail!("gold should fail, not {other:?}"),
    }
    match client.request(Message::new("examples.nobody-listens-here", "potato")).await {
        Err(RequestError::NoResponders) => println!("a topic that nobody takes: no responders, at once"),
        other => anyhow::bail!("nobody should answer, not {other:?}"),
    }
    Ok(())
}
