//! `chaski gather`: what scatters have asked, who has answered, and how long is left.

use std::time::Duration;

use chaski_client::Client;
use chaski_protocol::MAX_PAGE;
use chaski_protocol::admin::{AdminRequest, GatherView};
use clap::Subcommand;
use jiff::Timestamp;

use crate::context::{Context, ask};
use crate::table::{Facts, Table};
use crate::{human, out};

/// The longest reason that a table shows, in characters.
const SHOWN: usize = 100;

/// Looks at gathers: requests that a scatter asked of several, and their replies
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski gather list")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Those in progress, and those that are remembered
    #[command(after_help = "Example:\n  chaski gather list --json")]
    List,
    /// One gather: whom it asked, who has answered, how long is left
    #[command(after_help = "Example:\n  chaski gather show 0197a8c2-7f6e-7b10-8000-000000000000")]
    Show {
        /// The id of the request that began it
        id: String,
    },
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::List => context.calling(async |client| list(client, context.json).await).await,
        Verb::Show { id } => {
            let view: GatherView = context.admin(AdminRequest::GatherShow { id }).await?;
            if context.json { out::json(&view) } else { out::text(show(&view, Timestamp::now())) }
        }
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let (mut after, mut gathers) = (0, Vec::new());
    loop {
        let page: Vec<GatherView> = ask(client, AdminRequest::GatherList { after, limit: MAX_PAGE }).await?;
        let Some(last) = page.last().and_then(|gather| gather.sequence) else { break };
        after = last;
        if json {
            page.iter().try_for_each(out::json)?;
        } else {
            gathers.extend(page);
        }
    }
    if json {
        return Ok(());
    }
    if gathers.is_empty() {
        out::note("no gather is in progress, and none is remembered");
        return Ok(());
    }
    out::text(table(&gathers))
}

fn table(gathers: &[GatherView]) -> String {
    let mut table = Table::new(&["ID", "SCATTER", "STATE", ">ANSWERED", ">ASKED", ">LEFT"]);
    for gather in gathers {
        let answered = gather.recipients.iter().filter(|recipient| recipient.state == "answered").count();
        table.row([
            human::one_line(&gather.id, SHOWN),
            gather.scatter.clone(),
            gather.state.clone(),
            answered.to_string(),
            gather.recipients.len().to_string(),
            left(gather),
        ]);
    }
    table.to_string()
}

fn left(gather: &GatherView) -> String {
    match gather.left_ms {
        0 => "-".to_owned(),
        left_ms => human::duration(Duration::from_millis(left_ms)),
    }
}

fn show(gather: &GatherView, now: Timestamp) -> String {
    let mut facts = Facts::new();
    facts.add("gather", human::one_line(&gather.id, SHOWN));
    facts.add("scatter", &gather.scatter);
    facts.add("state", &gather.state);
    facts.add("began", format!("{}, {} ago", gather.began_at, human::age(&gather.began_at, now)));
    facts.add("time left", left(gather));
    let mut recipients = Table::new(&["RECIPIENT", "STATE", "AT", "REASON"]);
    for recipient in &gather.recipients {
        recipients.row([
            recipient.name.clone(),
            recipient.state.clone(),
            recipient.at.clone().unwrap_or_else(|| "-".to_owned()),
            recipient.reason.as_deref().map(|reason| human::one_line(reason, SHOWN)).unwrap_or_default(),
        ]);
    }
    format!("{facts}\n{recipients}")
}

#[cfg(test)]
mod tests {
    use chaski_protocol::admin::RecipientView;
    use expect_test::expect;

    use super::*;

    fn gather() -> GatherView {
        let recipient = |name: &str, state: &str, reason: Option<&str>, at: Option<&str>| RecipientView {
            name: name.to_owned(),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            at: at.map(str::to_owned),
        };
        GatherView {
            id: "q-1".to_owned(),
            scatter: "quote".to_owned(),
            sequence: Some(7),
            state: "open".to_owned(),
            began_at: "2026-01-01T00:00:00.000Z".to_owned(),
            left_ms: 1_500,
            recipients: vec![
                recipient("supplier-a", "answered", None, Some("2026-01-01T00:00:00.100Z")),
                recipient("supplier-b", "failed", Some("no\nstock"), Some("2026-01-01T00:00:00.200Z")),
                recipient("supplier-c", "asked", None, None),
            ],
        }
    }

    #[test]
    fn a_gather_tells_who_has_answered_and_what_time_is_left() {
        let now = "2026-01-01T00:00:00.500Z".parse().expect("a time");
        expect![[r#"
            gather     q-1
            scatter    quote
            state      open
            began      2026-01-01T00:00:00.000Z, 0s ago
            time left  1s

            RECIPIENT   STATE     AT                        REASON
            supplier-a  answered  2026-01-01T00:00:00.100Z
            supplier-b  failed    2026-01-01T00:00:00.200Z  no stock
            supplier-c  asked     -
        "#]]
        .assert_eq(&show(&gather(), now));
    }

    #[test]
    fn a_list_counts_the_answers() {
        let ended = GatherView { id: "q-2".to_owned(), state: "answered".to_owned(), left_ms: 0, ..gather() };
        expect![[r#"
            ID   SCATTER  STATE     ANSWERED  ASKED  LEFT
            q-1  quote    open             1      3    1s
            q-2  quote    answered         1      3     -
        "#]]
        .assert_eq(&table(&[gather(), ended]));
    }
}
