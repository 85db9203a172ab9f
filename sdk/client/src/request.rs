//! Requests and those who answer them.

use std::fmt::Display;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chaski_protocol::frames::{REASON_HEADER, STATUS_HEADER};
use chaski_protocol::{Code, Refusal};
use futures::FutureExt as _;

use crate::client::Client;
use crate::delivery::{Delivery, Retry};
use crate::error::{ConsumeError, PublishError, RequestError};
use crate::inbox::Inbox;
use crate::message::Message;

/// A request about to be sent: `.await` it.
#[must_use = "a request is sent when it is awaited"]
pub struct Request {
    client: Client,
    message: Message,
    timeout: Duration,
}

impl Request {
    /// How long to wait for the reply: 30 s by default ([`ClientBuilder::request_timeout`](crate::ClientBuilder::request_timeout)).
    /// It becomes the request's ttl, unless that has one of its own.
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = timeout;
        self
    }

    async fn send(self) -> Result<Message, RequestError> {
        let Request { client, message, timeout } = self;
        let shared = Arc::clone(client.shared());
        let id = message.message_id().to_owned();
        let message = match message.has_ttl() {
            true => message,
            false => message.ttl(timeout.max(Duration::from_millis(1))),
        };
        let message = message.reply_to(Inbox::topic(&shared));
        let mut reply = shared.inbox.wait(&id);
        let ask = async {
            let mut stands = Inbox::stands(&shared);
            loop {
                tokio::select! {
                    // The inbox's sender lives as long as the client.
                    _ = stands.wait_for(|times| *times > 0) => {}
                    () = shared.closed() => return Err(unsent(PublishError::Closed)),
                }
                stands.mark_unchanged();
                tokio::select! {
                    biased;
                    reply = reply.arrival() => return reply.map_or(Err(RequestError::Timeout), judge),
                    // A publish under the same id: a repeat is answered with the first reply.
                    sent = client.publish(message.clone()) => { sent.map_err(unsent)?; }
                }
                tokio::select! {
                    biased;
                    reply = reply.arrival() => return reply.map_or(Err(RequestError::Timeout), judge),
                    // The inbox was away for a while: the reply may have passed, so it is asked for again.
                    _ = stands.changed() => {}
                    () = shared.closed() => return Err(unsent(PublishError::Closed)),
                }
            }
        };
        tokio::time::timeout(timeout, ask).await.unwrap_or(Err(RequestError::Timeout))
    }
}

impl IntoFuture for Request {
    type Output = Result<Message, RequestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        self.send().boxed()
    }
}

/// A reply, or what the router says instead of one.
fn judge(reply: Message) -> Result<Message, RequestError> {
    let Some(status) = reply.header_value(STATUS_HEADER) else { return Ok(reply) };
    let reason = reply.header_value(REASON_HEADER).unwrap_or_default();
    Err(match Code::ALL.iter().find(|code| code.name() == status) {
        Some(code) => told(*code, reason),
        None => RequestError::Refused(Refusal::new(Code::Internal, format!("unknown status `{status}`"))),
    })
}

/// What a code says about a request, whether its publish was refused with it or it came in place of a reply.
fn told(code: Code, reason: &str) -> RequestError {
    match code {
        Code::NoResponders => RequestError::NoResponders,
        Code::Timeout => RequestError::Timeout,
        Code::Rejected => RequestError::Rejected(reason.to_owned()),
        Code::Failed => RequestError::Failed(reason.to_owned()),
        Code::ReplyLost => RequestError::ReplyLost,
        Code::AggregationFailed => RequestError::AggregationFailed(reason.to_owned()),
        other if reason.is_empty() => RequestError::Refused(other.into()),
        other => RequestError::Refused(Refusal::new(other, reason)),
    }
}

fn unsent(error: PublishError) -> RequestError {
    match error {
        PublishError::Refused(refusal) => told(refusal.code, &refusal.detail),
        other => RequestError::Refused(Refusal::new(other.code(), other.to_string())),
    }
}

impl Client {
    /// Sends a request and waits for its reply; the settings come first, then `.await`. A repeat with the same message (the
    /// same id) within the dedup window gets the first reply.
    pub fn request(&self, message: Message) -> Request {
        Request { client: self.clone(), message, timeout: self.shared().options.request_timeout }
    }

    /// Answers the requests in a queue, at most `concurrency` at once: `Ok` is reply and ack in one transaction, `Err` tells the
    /// requester `failed` with the error's text. Does a saga's steps as well: `Ok` completes one with its result, `Err` fails it, and
    /// another attempt may help. Ends when the queue is gone or the client is closed, once the handlers under
    /// way have ended.
    pub async fn respond<B, E>(
        &self,
        queue: impl Into<String>,
        concurrency: usize,
        handler: impl AsyncFn(&Delivery) -> Result<B, E>,
    ) -> Result<(), ConsumeError>
    where
        B: Into<Bytes>,
        E: Display,
    {
        let concurrency = concurrency.max(1);
        let requests = self.consume(queue).credit(u32::try_from(concurrency).unwrap_or(u32::MAX)).await?;
        requests.each(concurrency, |delivery| answer(&handler, delivery)).await
    }
}

async fn answer<B, E>(handler: &impl AsyncFn(&Delivery) -> Result<B, E>, delivery: Delivery)
where
    B: Into<Bytes>,
    E: Display,
{
    let sequence = delivery.sequence();
    let told = match handler(&delivery).await {
        Ok(reply) if delivery.reply_to().is_some() || delivery.step().is_some() => {
            delivery.reply(reply.into()).await.map(drop).map_err(|error| error.to_string())
        }
        Ok(_) => delivery.ack().await.map_err(|error| error.to_string()),
        Err(error) => delivery.fail(error.to_string(), Retry::Yes).await.map_err(|error| error.to_string()),
    };
    if let Err(error) = told {
        // The request comes again when its lease ends.
        tracing::warn!(sequence, %error, "an answer was not taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_place_of_a_reply_is_its_error() {
        let status = |status, reason| {
            Message::new("t", "").header(STATUS_HEADER, status).header(REASON_HEADER, reason)
        };
        for (code, error) in [
            ("rejected", RequestError::Rejected("why".to_owned())),
            ("failed", RequestError::Failed("why".to_owned())),
            ("reply_lost", RequestError::ReplyLost),
            ("timeout", RequestError::Timeout),
            ("no_responders", RequestError::NoResponders),
            ("aggregation_failed", RequestError::AggregationFailed("why".to_owned())),
            ("busy", RequestError::Refused(Refusal::new(Code::Busy, "why"))),
        ] {
            assert_eq!(judge(status(code, "why")).err().as_ref(), Some(&error), "{code}");
            assert_eq!(error.code().name(), code);
        }
        let unknown = judge(status("of a later version", "why")).expect_err("no reply");
        assert_eq!(unknown.code(), Code::Internal);
        assert!(judge(Message::new("t", "a reply")).is_ok());
    }

    #[test]
    fn a_request_whose_publish_is_refused_says_why() {
        let refused = |code, detail: &str| unsent(PublishError::Refused(Refusal::new(code, detail)));
        assert_eq!(refused(Code::NoResponders, "x"), RequestError::NoResponders);
        assert_eq!(refused(Code::Rejected, "not ours"), RequestError::Rejected("not ours".to_owned()));
        assert_eq!(refused(Code::QueueFull, "full").code(), Code::QueueFull);
        assert!(unsent(PublishError::Unreachable).is_retryable());
        assert_eq!(unsent(PublishError::OutcomeUnknown).code(), Code::OutcomeUnknown);
    }
}
