//! A subscription's stream: messages as they pass, the drop count with them, until the client finishes its side.

use std::sync::Arc;

use chaski_broker::{Command, Millis, SubscriptionId};
use chaski_protocol::frames::{INBOX_PREFIX, Opening, Passed as PassedFrame, inbox_prefix};
use chaski_protocol::{Code, Refusal, check_pattern, encode_frame};
use quinn::SendStream;
use tokio::sync::mpsc;

use crate::session::connection::Peer;
use crate::session::frames::{Ended, FrameReader, answer, refuse, write};
use crate::session::named::{self, Fate};
use crate::shard::{Input, Passed};

pub(crate) async fn serve(
    peer: &Arc<Peer>,
    send: &mut SendStream,
    mut frames: FrameReader,
    pattern: &str,
    filters: &[&str],
) -> Ended {
    let filters = match check(peer, pattern).and_then(|()| named::check(&peer.shard.view(), filters)) {
        Ok(filters) => filters,
        Err(refusal) => {
            refuse(send, &refusal).await;
            return Ended::Finished;
        }
    };
    let (sender, mut passed) = mpsc::unbounded_channel();
    let subscription = SubscriptionId(peer.shard.next_id());
    let open = Input::OpenSubscription {
        subscription,
        connection: peer.id,
        pattern: pattern.to_owned(),
        passed: sender,
    };
    if peer.shard.send(open).await.is_err() {
        return Ended::Stopped;
    }
    // Once a look at the state has come back, the subscription stands: a publish after `Opened` reaches it.
    if peer.shard.inspect(|_| ()).await.is_err() {
        return Ended::Stopped;
    }
    // Messages that the buffer had no room for are told with the next one that passes the filters.
    let mut lost = 0;
    let mut ended = answer(send, &Opening::Opened, &[]).await;
    while ended.is_ok() {
        ended = tokio::select! {
            biased;
            filled = frames.fill() => match filled {
                Ok(()) => Err(Ended::Broken(Refusal::new(Code::UnknownFrame, "nothing follows Subscribe"))),
                Err(ended) => Err(ended),
            },
            messages = passed.recv() => match messages {
                Some(messages) => pass(peer, subscription, &filters, &mut lost, send, messages).await,
                None => Err(Ended::Stopped),
            },
        };
    }
    let _ = peer.shard.send(Input::CloseSubscription(subscription)).await;
    ended.expect_err("the loop ends with the stream")
}

async fn pass(
    peer: &Peer,
    subscription: SubscriptionId,
    filters: &[String],
    lost: &mut u64,
    send: &mut SendStream,
    messages: Vec<Passed>,
) -> Result<(), Ended> {
    let count = messages.len() as u32;
    let mut out = Vec::new();
    let (taken, dropped): (Vec<_>, Vec<_>) =
        messages.into_iter().map(|passed| ((passed.body, passed.published_at), passed.dropped)).unzip();
    for (fate, dropped) in fates(peer, filters, taken).await.into_iter().zip(dropped) {
        *lost += dropped;
        if let Fate::Deliver(body) = fate {
            encode_frame(&PassedFrame::Message { dropped: std::mem::take(lost) }, &[&body], &mut out);
        }
    }
    if !out.is_empty() {
        write(send, out).await?;
    }
    Ok(peer.shard.command(Command::Taken { subscription, count }).await?)
}

async fn fates(peer: &Peer, filters: &[String], taken: Vec<(bytes::Bytes, Millis)>) -> Vec<Fate> {
    if filters.is_empty() {
        return taken.into_iter().map(|(body, _)| Fate::Deliver(body)).collect();
    }
    named::judge(&peer.shard, filters, taken).await
}

/// Any pattern that may be bound, and the client's own inboxes.
fn check(peer: &Peer, pattern: &str) -> Result<(), Refusal> {
    if pattern.starts_with(INBOX_PREFIX) {
        let client = peer.client.borrow().expect("streams are served after hello");
        let own = format!("{}>", inbox_prefix(client));
        if pattern == own {
            return Ok(());
        }
        let detail = format!("inboxes are private: this client may subscribe to `{own}` only");
        return Err(Refusal::new(Code::Reserved, detail));
    }
    check_pattern(pattern).map_err(|error| Refusal::new(error.code, error.detail))
}
