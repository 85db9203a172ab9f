//! The async Rust client of the chaski message router. It speaks the protocol and knows nothing of the router's inside.
//!
//! [`Client::connect`] is the door: publish, consume, subscribe, request and respond, settle and publish in one
//! transaction, and every administrative call. A lost connection is mended in the background.
//!
//! ```no_run
//! # use std::time::Duration;
//! use chaski_client::{Client, Delivery, MemorySeen, Message, Retry};
//! use futures::{StreamExt as _, TryStreamExt as _};
//!
//! # #[derive(Debug)]
//! # struct Declined;
//! # impl Declined { fn transient(&self) -> bool { false } }
//! # impl std::fmt::Display for Declined {
//! #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("declined") }
//! # }
//! # async fn bill(_: &Delivery) -> Result<(), Declined> { Ok(()) }
//! # async fn price(_: &Delivery) -> Result<Vec<u8>, Declined> { Ok(Vec::new()) }
//! # async fn example(body: &'static str, d: Duration) -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("quic://127.0.0.1:7447").await?;
//! let order = Message::new("orders.eu.created", body).key("c42").header("region", "eu");
//! # let next = order.clone();
//! let sent = client.publish(order).await?; // sent.id, sequence, duplicate, routed, dropped, rejected
//! let confirm = client.publish_pipelined(next).await?; // waits for room only
//! confirm.await?;
//! client.flush().await?; // all confirms so far, or the first error
//!
//! let mut orders = client.consume("billing").credit(64).await?;
//! while let Some(delivery) = orders.try_next().await? {
//!     match bill(&delivery).await {
//!         Ok(()) => delivery.ack().await?,
//!         Err(e) if e.transient() => delivery.nack().await?,
//!         Err(e) => delivery.reject(e.to_string()).await?,
//!     }
//! }
//! orders.close().await?; // releases what nobody saw
//!
//! let q = "potato";
//! let reply = client.request(Message::new("price.get", q)).timeout(d).await?;
//! client.respond("price", 16, async |request: &Delivery| price(request).await).await?;
//! # let mut orders = client.consume("billing").await?;
//! # let mut one = async || orders.try_next().await.map(|one| one.expect("a delivery"));
//! # let (delivery, bytes) = (one().await?, "3 soles");
//! delivery.reply(bytes).await?; // reply and ack in one transaction
//! # let delivery = one().await?;
//! delivery.fail("no stock", Retry::No).await?;
//! # let delivery = one().await?;
//! if let Some(step) = delivery.step() { // a saga's: its result goes by reply or complete, its failure by fail
//!     println!("{} of {}, after {:?}", step.name(), step.saga(), step.result("reserve-stock"));
//! }
//! delivery.complete("booked").await?;
//!
//! # let (delivery, total) = (one().await?, 42);
//! let mut tx = client.transaction(); // all or nothing
//! tx.ack(delivery).publish(Message::json("billed", &total)?);
//! tx.commit().await?;
//!
//! let mut news = client.subscribe("orders.>").filter("eu-only").await?;
//! while let Some(message) = news.next().await {
//!     println!("{}, after {} that were dropped", message.topic(), news.dropped());
//! }
//! # let seen = MemorySeen::new(1000);
//! orders.once(seen, 16, async |delivery| bill(delivery).await).await?; // an idempotent consumer
//! client.publish_datagram(Message::new("ticks", "1"))?; // at most once
//! # let wasm: Vec<u8> = Vec::new();
//! client.admin().deploy("eu-only", wasm).await?; // every command of the CLI has its method here
//! # Ok(())
//! # }
//! ```

mod admin;
mod answers;
mod base64;
mod client;
mod consumer;
mod datagram;
mod delivery;
mod error;
mod frames;
mod id;
mod inbox;
mod leases;
mod link;
mod message;
mod once;
mod options;
mod outbox;
mod publisher;
mod request;
mod step;
mod subscription;
mod text;
mod tls;
mod transaction;
mod transport;

pub use admin::{Admin, Deploy, Redrive, Shadow, Trace};
pub use client::Client;
pub use consumer::{Consume, Consumer};
pub use delivery::{Delivery, Retry, Settling};
pub use error::{
    AdminError, ConnectError, ConsumeError, DatagramError, PublishError, ReplyError, RequestError,
    SettleError, SubscribeError,
};
pub use message::Message;
pub use once::{MemorySeen, Seen};
pub use options::ClientBuilder;
pub use publisher::{PublishPipelined, Published};
pub use request::Request;
pub use step::{Failed, Phase, Step, StepOutcome};
pub use subscription::{Subscribe, Subscription};
pub use transaction::{Transaction, TransactionError};

/// Requests and answers of administrative calls.
pub use chaski_protocol::admin as admin_types;
pub use chaski_protocol::{Code, Refusal};
