//! `chaski dlq`: dead letters, why they died, and the ways back.

use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chaski_protocol::admin::{AdminRequest, Count, DeadView, MessageView};
use clap::Subcommand;

use crate::consume::pages;
use crate::context::Context;
use crate::table::Table;
use crate::{args, human, input, out, queue};

/// The longest payload that is shown to people whole, in characters.
const SHOWN: usize = 200;

/// Looks at dead letters, sends them back, or removes them
///
/// Q is the queue that they died in; `chaski` names those that died before they had one.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski dlq redrive billing --reason max_deliver")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// The queues that have dead letters
    #[command(after_help = "Example:\n  chaski dlq list")]
    List,
    /// One queue's dead letters: reason, detail, attempts, payload
    #[command(after_help = "Example:\n  chaski dlq show billing --json")]
    Show {
        /// The queue that they died in
        queue: String,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Sends dead letters back to their queue, with their attempts counted anew
    #[command(after_help = "Example:\n  chaski dlq redrive billing --reason rejected --limit 100\n  \
                            chaski dlq redrive billing --id o-17 --payload-file fixed.json -H fixed-by=me")]
    Redrive {
        /// The queue that they died in
        queue: String,
        /// Only those that died for this reason (`rejected`, `expired`, `max_deliver`, `overflow` …)
        #[arg(long, value_name = "R")]
        reason: Option<String>,
        /// Only the one with this id
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// Send it with another payload (`-` for stdin)
        #[arg(long, value_name = "F", requires = "id")]
        payload_file: Option<PathBuf>,
        /// Send it with a header set; may be given again
        #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", requires = "id", value_parser = args::pair)]
        headers: Vec<(String, String)>,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Removes a queue's dead letters
    #[command(after_help = "Example:\n  chaski dlq purge billing")]
    Purge {
        /// The queue that they died in
        queue: String,
    },
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::List => {
            let dead: Vec<DeadView> = context.admin(AdminRequest::DlqList).await?;
            if context.json {
                return dead.iter().try_for_each(out::json);
            }
            if dead.is_empty() {
                out::note("no dead letters");
                return Ok(());
            }
            out::text(list(&dead))
        }
        Verb::Show { queue, limit } => show(&queue, limit, context).await,
        Verb::Redrive { queue, reason, id, payload_file, headers, limit } => {
            let payload = match payload_file {
                Some(file) => Some(BASE64.encode(input::payload(None, Some(&file)).await?)),
                None => None,
            };
            let request = AdminRequest::DlqRedrive { queue, reason, id, payload, headers, limit };
            let count: Count = context.admin(request).await?;
            queue::removed(&count, "redriven", context)
        }
        Verb::Purge { queue } => {
            let count: Count = context.admin(AdminRequest::DlqPurge { queue }).await?;
            queue::removed(&count, "removed", context)
        }
    }
}

async fn show(queue: &str, limit: Option<u64>, context: &Context) -> anyhow::Result<()> {
    let client = context.connect().await?;
    let page = |after, limit| AdminRequest::DlqShow { queue: queue.to_owned(), after, limit };
    let seen = pages(&client, limit, page, |view| match context.json {
        true => out::json(view),
        false => out::text(block(view)),
    })
    .await?;
    if seen == 0 && !context.json {
        out::note(format!("{queue} has no dead letters"));
    }
    client.close().await;
    Ok(())
}

fn list(dead: &[DeadView]) -> String {
    let mut table = Table::new(&["QUEUE", ">DEAD", "OLDEST", "REASONS"]);
    for view in dead {
        let reasons: Vec<String> =
            view.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let oldest = view.oldest.clone().unwrap_or_else(|| "-".to_owned());
        table.row([view.queue.clone(), view.dead.to_string(), oldest, reasons.join(", ")]);
    }
    table.to_string()
}

/// Why it died first; then what it is; then what it says.
fn block(view: &MessageView) -> String {
    let reason = view.reason.as_deref().unwrap_or("dead");
    let mut text = format!("#{} {reason}", view.sequence);
    if let Some(detail) = view.detail.as_deref().filter(|detail| !detail.is_empty()) {
        let _ = write!(text, ": {}", human::one_line(detail, SHOWN));
    }
    if let Some(module) = &view.module {
        let digest = view.digest.as_deref().map(|digest| format!(" {digest}")).unwrap_or_default();
        let _ = write!(text, "  (module {module}{digest})");
    }
    let _ = write!(text, "\n  {}  id {}", view.topic, view.id);
    if let Some(key) = &view.key {
        let _ = write!(text, "  key {}", human::harmless(key));
    }
    let _ = write!(text, "  {}", human::count(view.attempts.into(), "attempt"));
    if let Some(died) = view.headers.get("chaski-dead-last-at") {
        let _ = write!(text, "  died {died}");
    }
    text.push('\n');
    for (name, value) in view.headers.iter().filter(|(name, _)| !name.starts_with("chaski-dead-")) {
        let _ = writeln!(text, "  {name}: {}", human::one_line(value, SHOWN));
    }
    let encoding =
        if view.payload_encoding == "utf8" { String::new() } else { format!("({}) ", view.payload_encoding) };
    let _ = writeln!(text, "  {encoding}{}", human::one_line(&view.payload, SHOWN));
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_list_says_how_many_died_of_what() {
        let view = DeadView {
            queue: "billing".to_owned(),
            dead: 7,
            oldest: Some("2026-01-01T00:00:00Z".to_owned()),
            reasons: [("rejected".to_owned(), 5), ("max_deliver".to_owned(), 2)].into(),
        };
        expect![[r#"
            QUEUE    DEAD  OLDEST                REASONS
            billing     7  2026-01-01T00:00:00Z  max_deliver 2, rejected 5
        "#]]
        .assert_eq(&list(&[view]));
    }

    #[test]
    fn a_dead_letter_says_why_before_what() {
        let headers = [
            ("region", "eu"),
            ("chaski-dead-last-at", "2026-01-01T00:00:00Z"),
            ("chaski-dead-queue", "billing"),
        ];
        let view = MessageView {
            queue: "billing".to_owned(),
            sequence: 17,
            state: "ready".to_owned(),
            attempts: 1,
            topic: "orders.eu.created".to_owned(),
            id: "o-17".to_owned(),
            key: Some("c42".to_owned()),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            payload: "{\n  \"amount\": -1\n}".to_owned(),
            payload_encoding: "utf8".to_owned(),
            published_at: "2026-01-01T00:00:00Z".to_owned(),
            not_before: None,
            reason: Some("rejected".to_owned()),
            detail: Some("amount is negative".to_owned()),
            module: None,
            digest: None,
        };
        expect![[r#"
            #17 rejected: amount is negative
              orders.eu.created  id o-17  key c42  1 attempt  died 2026-01-01T00:00:00Z
              region: eu
              { "amount": -1 }
        "#]]
        .assert_eq(&block(&view));
    }
}
