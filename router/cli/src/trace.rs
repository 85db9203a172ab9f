//! `chaski trace`: what would become of a message, and why. `publish --trace` shows the same of one that it publishes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use chaski_client::Message;
use chaski_protocol::admin::{TraceResult, TraceView};

use crate::context::Context;
use crate::module::short;
use crate::publish::Fields;
use crate::table::Table;
use crate::{args, human, input, out};

/// The longest detail that is shown to people whole, in characters.
const SHOWN: usize = 100;

/// Tells what would happen to a message, and why; nothing is stored or delivered
///
/// Each rule that matches, each module's verdict, digest and time, and the queues that the message would reach. `publish --trace`
/// does it for real.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski trace orders.eu.created '{\"total\":3}' --key c42 -H region=eu")]
pub(crate) struct Args {
    /// The topic
    topic: String,
    /// The payload; without it and --file, stdin is read if it is no terminal
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// The payload is in a file (`-` for stdin)
    #[arg(long, value_name = "F")]
    file: Option<PathBuf>,
    /// The message's id
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The ordering key
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// A header; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = args::pair)]
    headers: Vec<(String, String)>,
    /// How long the message is of use
    #[arg(long, value_name = "D", value_parser = args::duration)]
    ttl: Option<Duration>,
    /// 0 to 9, higher first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Where a reply goes
    #[arg(long, value_name = "T")]
    reply_to: Option<String>,
}

/// A dry run.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let Args { topic, payload, file, id, key, headers, ttl, priority, reply_to } = args.clone();
    let payload = input::payload(payload.as_deref(), file.as_deref()).await?;
    let topic = Some(topic);
    let fields = Fields { topic, id, key, headers, reply_to, priority, ttl, ..Fields::default() };
    show(fields.message(payload)?, false, context).await
}

/// Traces a message, for real if it is to be published, and prints what became of it.
pub(crate) async fn show(message: Message, publish: bool, context: &Context) -> anyhow::Result<()> {
    let trace = async |client: &chaski_client::Client| {
        let trace = client.admin().trace(message);
        Ok(if publish { trace.publish() } else { trace }.await?)
    };
    let view = context.calling(trace).await?;
    if context.json { out::json(&view) } else { out::text(story(&view)) }
}

/// What matched, what each module said, and what came out.
fn story(view: &TraceView) -> String {
    let mut text = format!("{}  id {}\n", view.topic, human::harmless(&view.id));
    let routes = if view.routes.is_empty() { "none".to_owned() } else { view.routes.join(", ") };
    let _ = writeln!(text, "routes that match: {routes}");
    if !view.steps.is_empty() {
        let _ = write!(text, "\n{}", steps(view));
    }
    text.push('\n');
    let reach = if view.published.is_some() { "reached" } else { "would reach" };
    for result in &view.results {
        let _ = writeln!(text, "{}", outcome(result, view, reach));
    }
    for dead in &view.dead {
        let detail = dead.detail.as_deref().map(|detail| format!(": {}", human::one_line(detail, SHOWN)));
        let _ =
            writeln!(text, "dead letter of {}, {}{}", dead.queue, dead.reason, detail.unwrap_or_default());
    }
    for (count, what) in [(view.dropped, "dropped"), (view.rejected, "rejected")] {
        if count > 0 {
            let _ = writeln!(text, "{what}: {count}");
        }
    }
    if view.results.is_empty() && view.dead.is_empty() && view.dropped + view.rejected == 0 {
        let _ = writeln!(text, "nobody takes it");
    }
    if let Some(published) = &view.published {
        let sequence =
            published.sequence.map(|sequence| format!(", sequence {sequence}")).unwrap_or_default();
        let duplicate = if published.duplicate { ", a duplicate" } else { "" };
        let _ = writeln!(text, "published{sequence}{duplicate}: routed to {}", published.routed);
    }
    text
}

fn steps(view: &TraceView) -> String {
    let mut table = Table::new(&["PLACE", ">HOP", "MODULE", "VERDICT", ">CPU", "DIGEST", "DETAIL"]);
    for step in &view.steps {
        table.row([
            step.place.clone(),
            step.hop.to_string(),
            step.module.clone(),
            step.verdict.clone(),
            format!("{:.1} µs", step.cpu_us),
            short(&step.digest),
            human::one_line(step.detail.as_deref().unwrap_or_default(), SHOWN),
        ]);
    }
    table.to_string()
}

fn outcome(result: &TraceResult, view: &TraceView, reach: &str) -> String {
    let mut to = Vec::new();
    match &result.queues[..] {
        [] => {}
        [one] => to.push(format!("queue {one}")),
        more => to.push(format!("queues {}", more.join(", "))),
    }
    to.extend(result.begins.iter().cloned());
    if result.subscriptions > 0 {
        to.push(human::count(result.subscriptions, "subscription"));
    }
    let to = if to.is_empty() { "nobody".to_owned() } else { to.join(" and ") };
    let mut who = human::harmless(&result.id);
    if result.topic != view.topic {
        let _ = write!(who, " on {}", result.topic);
    }
    if result.changed {
        who.push_str(" (changed)");
    }
    format!("{who} {reach} {to}")
}

#[cfg(test)]
mod tests {
    use chaski_protocol::admin::{TraceDead, TracePublished, TraceStep};
    use expect_test::expect;

    use super::*;

    fn step(place: &str, module: &str, verdict: &str, detail: Option<&str>) -> TraceStep {
        TraceStep {
            place: place.to_owned(),
            hop: 0,
            module: module.to_owned(),
            digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
            verdict: verdict.to_owned(),
            detail: detail.map(str::to_owned),
            cpu_us: 4.25,
        }
    }

    fn view() -> TraceView {
        let result = |id: &str, topic: &str, queues: &[&str], subscriptions, changed| TraceResult {
            id: id.to_owned(),
            topic: topic.to_owned(),
            queues: queues.iter().map(|queue| (*queue).to_owned()).collect(),
            subscriptions,
            begins: Vec::new(),
            changed,
        };
        TraceView {
            topic: "orders.eu.created".to_owned(),
            id: "o-1".to_owned(),
            steps: vec![
                step("route inbound", "split", "split", Some("into 2")),
                step("queue billing", "big", "reject", Some("too\nsmall")),
            ],
            routes: vec!["inbound".to_owned()],
            results: vec![
                result("o-1/0", "orders.eu.created", &["audit", "billing"], 1, false),
                result("o-1/1", "orders.other", &[], 0, true),
            ],
            dropped: 0,
            rejected: 1,
            dead: vec![TraceDead {
                queue: "billing".to_owned(),
                reason: "rejected".to_owned(),
                detail: Some("too small".to_owned()),
            }],
            published: None,
        }
    }

    #[test]
    fn a_trace_tells_each_verdict_and_where_the_message_goes() {
        expect![[r#"
            orders.eu.created  id o-1
            routes that match: inbound

            PLACE          HOP  MODULE  VERDICT     CPU  DIGEST                DETAIL
            route inbound    0  split   split    4.2 µs  sha256:e3b0c44298fc…  into 2
            queue billing    0  big     reject   4.2 µs  sha256:e3b0c44298fc…  too small

            o-1/0 would reach queues audit, billing and 1 subscription
            o-1/1 on orders.other (changed) would reach nobody
            dead letter of billing, rejected: too small
            rejected: 1
        "#]]
        .assert_eq(&story(&view()));
    }

    #[test]
    fn a_real_one_ends_with_the_confirmation() {
        let published =
            TracePublished { sequence: Some(7), duplicate: false, routed: 3, dropped: 0, rejected: 1 };
        let told = story(&TraceView { published: Some(published), ..view() });
        assert!(told.contains("o-1/0 reached queues audit, billing and 1 subscription\n"), "{told}");
        assert!(told.ends_with("published, sequence 7: routed to 3\n"), "{told}");
    }

    #[test]
    fn a_message_that_nobody_takes_is_told_so() {
        let nobody =
            TraceView { steps: vec![], routes: vec![], results: vec![], dead: vec![], rejected: 0, ..view() };
        expect![[r#"
            orders.eu.created  id o-1
            routes that match: none

            nobody takes it
        "#]]
        .assert_eq(&story(&nobody));
    }
}
