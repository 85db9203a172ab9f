//! The async Rust client of the chaski message router. It speaks the protocol and knows nothing of the router's inside.
//!
//! [`Client::connect`] is the door: publish, consume, subscribe, request and respond, settle and publish in one
//! transaction, and every administrative call. A lost connection is mended in the background.

mod admin;
mod answers;
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
mod subscription;
mod text;
mod tls;
mod transaction;
mod transport;

pub use admin::{Admin, Redrive};
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
pub use subscription::Subscription;
pub use transaction::{Transaction, TransactionError};

/// Requests and answers of administrative calls.
pub use chaski_protocol::admin as admin_types;
pub use chaski_protocol::{Code, Refusal};
