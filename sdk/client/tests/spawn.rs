//! What an application does in a task of its own must be `Send`, also where it takes the application's closures.

use std::sync::Arc;
use std::time::Duration;

use chaski_client::{Client, Delivery, MemorySeen, Message, Seen};
use futures::TryStreamExt as _;

fn spawnable<T: Send + 'static>(future: T) -> T {
    future
}

/// Where processed keys could live that need an await.
struct Remote;

impl Seen for Remote {
    type Error = std::io::Error;

    async fn check(&self, _key: &str) -> Result<bool, std::io::Error> {
        tokio::task::yield_now().await;
        Ok(false)
    }

    async fn record(&self, _key: &str) -> Result<(), std::io::Error> {
        tokio::task::yield_now().await;
        Ok(())
    }
}

async fn bill(_: &Delivery) -> Result<(), String> {
    Ok(())
}

#[tokio::test]
async fn every_verb_can_run_in_a_task_of_its_own() {
    // The futures are made and dropped: there is no router here.
    let connect = spawnable(async { Client::connect("quic://127.0.0.1:1").await });
    let verbs = spawnable(async {
        let client = connect.await?;
        client.publish(Message::new("t", "x")).await?;
        client.publish_pipelined(Message::new("t", "x")).await?.await?;
        client.request(Message::new("t", "x")).timeout(Duration::from_secs(1)).await?;
        let mut orders = client.consume("q").await?;
        if let Some(delivery) = orders.try_next().await? {
            delivery.extend().await?;
            let mut both = client.transaction();
            both.ack(delivery).publish(Message::new("t", "x"));
            both.commit().await?;
        }
        client.admin().dlq_redrive("q").limit(1).await?;
        client.subscribe(">").await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(orders)
    });
    let responder = spawnable(async {
        let client = Client::connect("quic://127.0.0.1:1").await.map_err(|error| error.to_string())?;
        let respond = client.respond("price", 16, async |request: &Delivery| {
            bill(request).await.map(|()| request.payload().clone())
        });
        respond.await.map_err(|error| error.to_string())
    });
    let idempotent = spawnable(async {
        let client = Client::connect("quic://127.0.0.1:1").await.map_err(|error| error.to_string())?;
        let seen = Arc::new(MemorySeen::new(1000));
        let consumers = ["a", "b"].map(|queue| client.consume(queue));
        for consumer in consumers {
            let consumer = consumer.await.map_err(|error| error.to_string())?;
            let once = consumer.once(Arc::clone(&seen), 16, async |delivery: &Delivery| bill(delivery).await);
            once.await.map_err(|error| error.to_string())?;
        }
        let consumer = client.consume("c").await.map_err(|error| error.to_string())?;
        let once = consumer.once(Remote, 16, async |delivery: &Delivery| bill(delivery).await);
        once.await.map_err(|error| error.to_string())
    });
    drop((verbs, responder, idempotent));
}
