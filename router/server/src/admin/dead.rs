//! `chaski dlq`: what died, and bringing it back. Commands name the source queue; `chaski` is the built-in dead-letter queue.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_broker::{DeadReason, Message, Operation, Select, Sequence};
use chaski_protocol::admin::{Count, DeadView, MessageView};
use chaski_protocol::{Code, Head, MAX_PAGE, Refusal};

use super::{messages, operate_refusal, queue_id, queues, rejudge, repeat, views};
use crate::message::compose;
use crate::shard::Shard;

/// What to bring back, and how.
pub(super) struct Redrive {
    pub(super) queue: String,
    pub(super) reason: Option<String>,
    pub(super) id: Option<String>,
    pub(super) payload: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) limit: Option<u64>,
}

/// Queues with dead letters.
pub(super) async fn list(shard: &Shard) -> Result<Vec<DeadView>, Refusal> {
    let queues = shard.inspect(|broker| broker.queues()).await?;
    let dead = queues.iter().filter(|stats| views::is_dead_letter_queue(stats)).map(views::dead);
    let mut dead: Vec<_> = dead.filter(|view| view.dead > 0).collect();
    dead.sort_by(|one, other| one.queue.cmp(&other.queue));
    Ok(dead)
}

/// A page of dead letters.
pub(super) async fn show(
    shard: &Shard,
    queue: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<MessageView>, Refusal> {
    let source = source(queue);
    // A wrong name is answered as the operator wrote it.
    queue_id(shard, source).await?;
    messages::page(shard, &letters(source), after, limit).await
}

/// Removes them all.
pub(super) async fn purge(shard: &Shard, queue: &str) -> Result<Count, Refusal> {
    let source = source(queue);
    let id = queue_id(shard, source).await?;
    let there = queues::show(shard, &letters(source)).await?.messages;
    repeat(shard, source, id, there, |limit| Operation::PurgeDead { limit }).await
}

/// Moves them back.
pub(super) async fn redrive(shard: &Shard, redrive: Redrive) -> Result<Count, Refusal> {
    let source = source(&redrive.queue);
    let queue = queue_id(shard, source).await?;
    let reason = redrive.reason.as_deref().map(reason).transpose()?;
    if redrive.payload.is_some() || !redrive.headers.is_empty() {
        let Some(id) = redrive.id.as_deref() else {
            let detail =
                "a redrive with another payload or headers concerns one message: name it with its id";
            return Err(Refusal::new(Code::BadRequest, detail));
        };
        let (sequence, message) = edited(shard, source, id, reason, &redrive).await?;
        let operation = Operation::RedriveEdited { sequence, message };
        let outcome =
            shard.operate(queue, operation).await?.map_err(|error| operate_refusal(source, error))?;
        let stopped =
            outcome.full.then(|| format!("queue `{source}` is full and refuses it: make room, then repeat"));
        return Ok(Count { count: outcome.count, stopped });
    }
    // A consumer that rejects again puts letters back while this runs; what was there at the start is the most.
    let there = queues::show(shard, &letters(source)).await?.messages;
    let most = redrive.limit.unwrap_or(u64::MAX).min(there);
    let id = redrive.id.as_deref().map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()));
    let make = |limit| {
        let select = Select { reason, id: id.clone(), through: None };
        Operation::Redrive { select, limit }
    };
    let mut count = repeat(shard, source, queue, most, make).await?;
    if count.stopped.is_none() {
        let id = redrive.id.as_deref().map(str::as_bytes);
        let wanted = rejudge::Wanted { source, queue, reason, id, most: most - count.count };
        let judged = rejudge::rejudge(shard, &wanted).await;
        let judged = match judged {
            Err(refusal) if count.count > 0 => Count { count: 0, stopped: Some(refusal.detail) },
            judged => judged?,
        };
        count = Count { count: count.count + judged.count, stopped: judged.stopped };
    }
    match redrive.id {
        Some(id) if count.count == 0 && count.stopped.is_none() => Err(unknown_letter(source, &id)),
        _ => Ok(count),
    }
}

/// The dead letter of this id with its changes, checked as a client's publish would be.
async fn edited(
    shard: &Shard,
    source: &str,
    id: &str,
    reason: Option<DeadReason>,
    redrive: &Redrive,
) -> Result<(Sequence, Message), Refusal> {
    let mut after = Sequence(0);
    loop {
        let page = messages::browse(shard, &letters(source), after, MAX_PAGE).await?;
        let Some((last, _)) = page.last() else { return Err(unknown_letter(source, id)) };
        after = last.sequence;
        for (browsed, block) in &page {
            let Ok((head, payload_at)) = Head::decode(block) else { continue };
            let wanted =
                reason.is_none_or(|reason| browsed.dead.as_ref().is_some_and(|dead| dead.reason == reason));
            if head.id == id && wanted {
                let view = shard.view();
                let limits = (view.max_payload, view.max_headers);
                return Ok((browsed.sequence, edit(head, &block[payload_at..], redrive, limits)?));
            }
        }
    }
}

fn edit<'a>(
    mut head: Head<'a>,
    payload: &[u8],
    redrive: &'a Redrive,
    limits: (u32, u32),
) -> Result<Message, Refusal> {
    let (max_payload, max_headers) = limits;
    let mut set: Vec<(&str, &str)> = Vec::new();
    set.extend(redrive.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    // The new headers are a client's, so a client's rules hold for them; the rest of the message was let in before.
    let of_client = Head { topic: "edited", id: "edited", headers: set.clone(), ..Head::default() };
    of_client.check(max_headers).map_err(|error| Refusal::new(error.code(), error.to_string()))?;
    head.headers.retain(|(name, _)| !set.iter().any(|(changed, _)| changed == name));
    head.headers.extend(set);
    let headers: usize = head.headers.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if headers > max_headers as usize {
        let detail =
            format!("with these, headers of {headers} bytes, where max_headers allows {max_headers}");
        return Err(Refusal::new(Code::HeadersTooLarge, detail));
    }
    let replaced = redrive.payload.as_deref().map(|text| BASE64.decode(text)).transpose();
    let replaced = replaced
        .map_err(|error| Refusal::new(Code::BadRequest, format!("the new payload is not base64: {error}")))?;
    let payload = replaced.as_deref().unwrap_or(payload);
    if payload.len() > max_payload as usize {
        let detail = format!("a payload of {} bytes, where max_payload allows {max_payload}", payload.len());
        return Err(Refusal::new(Code::PayloadTooLarge, detail));
    }
    Ok(compose(&head, payload))
}

fn reason(name: &str) -> Result<DeadReason, Refusal> {
    DeadReason::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
        let known = DeadReason::ALL.map(|reason| format!("`{}`", reason.name())).join(", ");
        Refusal::new(Code::BadRequest, format!("`{name}` is no reason of a dead letter; known: {known}"))
    })
}

/// Who names the dead-letter queue itself means the same.
fn source(queue: &str) -> &str {
    queue.strip_suffix(".dlq").unwrap_or(queue)
}

fn letters(source: &str) -> String {
    format!("{source}.dlq")
}

fn unknown_letter(source: &str, id: &str) -> Refusal {
    Refusal::new(
        Code::UnknownId,
        format!("queue `{source}` has no dead letter with id `{id}`; `chaski dlq show {source}` lists them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redrive(payload: Option<&str>, headers: &[(&str, &str)]) -> Redrive {
        Redrive {
            queue: "q".into(),
            reason: None,
            id: Some("m1".into()),
            payload: payload.map(str::to_owned),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            limit: None,
        }
    }

    fn letter() -> Head<'static> {
        let headers = vec![("region", "eu"), ("kind", "a")];
        Head { topic: "$chaski.events.x", id: "m1", key: Some("k"), headers, priority: 7, ..Head::default() }
    }

    #[test]
    fn an_edited_letter_keeps_what_is_not_edited() {
        let message =
            edit(letter(), b"old", &redrive(Some("bmV3"), &[("region", "us")]), (100, 100)).unwrap();
        let (head, payload_at) = Head::decode(&message.body).unwrap();
        assert_eq!(head.headers, [("kind", "a"), ("region", "us")]);
        assert_eq!((head.topic, head.id, head.key, head.priority), ("$chaski.events.x", "m1", Some("k"), 7));
        assert_eq!(&message.body[payload_at..], b"new");
        let message = edit(letter(), b"old", &redrive(None, &[("new", "x")]), (100, 100)).unwrap();
        assert!(message.body.ends_with(b"old"));
    }

    #[test]
    fn an_edit_obeys_the_rules_of_a_publish() {
        let code = |payload, headers: &[_], limits| {
            edit(letter(), b"old", &redrive(payload, headers), limits).unwrap_err().code
        };
        assert_eq!(code(None, &[("chaski-dead-reason", "x")], (100, 100)), Code::Reserved);
        assert_eq!(code(None, &[("a", "1"), ("a", "2")], (100, 100)), Code::BadHeader);
        assert_eq!(code(None, &[("a", "1")], (100, 10)), Code::HeadersTooLarge);
        assert_eq!(code(Some("bmV3"), &[], (2, 100)), Code::PayloadTooLarge);
        assert_eq!(code(Some("%"), &[], (100, 100)), Code::BadRequest);
    }

    #[test]
    fn dead_letters_are_found_by_either_name() {
        assert_eq!(
            (source("billing"), source("billing.dlq"), source("chaski")),
            ("billing", "billing", "chaski")
        );
        assert_eq!(reason("max_deliver"), Ok(DeadReason::MaxDeliver));
        assert!(reason("maxdeliver").unwrap_err().detail.contains("`max_deliver`"));
    }
}
