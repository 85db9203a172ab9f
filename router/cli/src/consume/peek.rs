//! `chaski consume --peek`: looks at a queue page by page and takes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chaski_client::Client;
use chaski_protocol::MAX_PAGE;
use chaski_protocol::admin::{AdminRequest, MessageView};
use serde::Serialize;

use crate::context::{Context, ask};
use crate::{human, out};

/// A message as a delivery shows it, and what only one that was not taken has.
#[derive(Serialize)]
struct Peeked<'a> {
    queue: &'a str,
    sequence: u64,
    /// 0 before the first delivery.
    attempt: u32,
    redelivered: bool,
    topic: &'a str,
    id: &'a str,
    key: Option<&'a str>,
    headers: &'a BTreeMap<String, String>,
    payload: &'a str,
    payload_encoding: &'a str,
    published_at: &'a str,
    state: &'a str,
    not_before: Option<&'a str>,
}

impl<'a> Peeked<'a> {
    /// As seen in the queue of this name: a dead letter's view names the queue that it died in.
    fn new(queue: &'a str, view: &'a MessageView) -> Peeked<'a> {
        Peeked {
            queue,
            sequence: view.sequence,
            attempt: view.attempts,
            redelivered: view.attempts > 0,
            topic: &view.topic,
            id: &view.id,
            key: view.key.as_deref(),
            headers: &view.headers,
            payload: &view.payload,
            payload_encoding: &view.payload_encoding,
            published_at: &view.published_at,
            state: &view.state,
            not_before: view.not_before.as_deref(),
        }
    }
}

/// Prints what is there, by sequence.
pub(crate) async fn run(queue: &str, count: Option<u64>, context: &Context) -> anyhow::Result<()> {
    let client = context.connect().await?;
    let page = |after, limit| AdminRequest::Peek { queue: queue.to_owned(), after, limit };
    let seen = pages(&client, count, page, |view| match context.json {
        true => out::json(&Peeked::new(queue, view)),
        false => out::text(block(view)),
    })
    .await?;
    if seen == 0 && !context.json {
        out::note(format!("{queue} is empty"));
    }
    client.close().await;
    Ok(())
}

/// Asks for page after page until `count` messages or the end; answers how many there were.
pub(crate) async fn pages(
    client: &Client,
    count: Option<u64>,
    page: impl Fn(u64, u32) -> AdminRequest,
    mut each: impl FnMut(&MessageView) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (mut after, mut seen) = (0, 0);
    let limit = count.unwrap_or(u64::MAX);
    while seen < limit {
        let size = u32::try_from(limit - seen).unwrap_or(MAX_PAGE).min(MAX_PAGE);
        let views: Vec<MessageView> = ask(client, page(after, size)).await?;
        // Pages are cut by bytes as well as by count, so only an empty one is the end.
        let Some(last) = views.last() else { break };
        after = last.sequence;
        seen += views.len() as u64;
        views.iter().try_for_each(&mut each)?;
    }
    Ok(seen)
}

fn block(view: &MessageView) -> String {
    let mut text = format!("#{} {}  id {}", view.sequence, view.topic, view.id);
    if let Some(key) = &view.key {
        let _ = write!(text, "  key {}", human::harmless(key));
    }
    let _ = write!(text, "  {}", view.state);
    if let Some(time) = &view.not_before {
        let _ = write!(text, " until {time}");
    }
    if view.attempts > 0 {
        let _ = write!(text, "  {}", human::count(view.attempts.into(), "attempt"));
    }
    text.push('\n');
    for (name, value) in &view.headers {
        let _ = writeln!(text, "  {name}: {}", human::harmless(value));
    }
    let _ = match view.payload_encoding.as_str() {
        "utf8" => writeln!(text, "{}", human::harmless(&view.payload)),
        encoding => writeln!(text, "({encoding}) {}", view.payload),
    };
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_look_shows_what_a_delivery_would_and_the_state() {
        let view = MessageView {
            queue: "billing".to_owned(),
            sequence: 17,
            state: "delayed".to_owned(),
            attempts: 1,
            topic: "orders.eu".to_owned(),
            id: "o-17".to_owned(),
            key: Some("c42".to_owned()),
            headers: [("region".to_owned(), "eu".to_owned())].into(),
            payload: "two llamas".to_owned(),
            payload_encoding: "utf8".to_owned(),
            published_at: "2026-01-01T00:00:00.000Z".to_owned(),
            not_before: Some("2026-01-01T00:00:05.000Z".to_owned()),
            reason: None,
            detail: None,
            module: None,
            digest: None,
        };
        expect![[r#"{"queue":"billing","sequence":17,"attempt":1,"redelivered":true,"topic":"orders.eu","id":"o-17","key":"c42","headers":{"region":"eu"},"payload":"two llamas","payload_encoding":"utf8","published_at":"2026-01-01T00:00:00.000Z","state":"delayed","not_before":"2026-01-01T00:00:05.000Z"}"#]]
        .assert_eq(&serde_json::to_string(&Peeked::new("billing", &view)).expect("plain data"));
        expect![[r#"
            #17 orders.eu  id o-17  key c42  delayed until 2026-01-01T00:00:05.000Z  1 attempt
              region: eu
            two llamas
        "#]]
        .assert_eq(&block(&view));
    }
}
