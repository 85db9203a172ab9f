//! `chaski publish`: one message, or one a line of a file, pipelined.

mod fields;
mod record;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

use chaski_client::Published;
use serde::Serialize;

use crate::context::Context;
use crate::{args, human, input, out, stop, trace};

pub(crate) use fields::Fields;
pub(crate) use record::parse as parse_line;

/// Publishes a message, or one for each line of a file
///
/// Each is confirmed once it is stored at the durability that its queues ask for.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "A line of --ndjson is an object: {\"topic\", \"id\", \"key\", \"headers\", \"payload\", \"reply_to\", \
    \"correlation_id\", \"priority\", \"ttl\", \"delay\"}, all but the topic optional, the topic too where TOPIC is given. What a \
    line says wins over the options. A payload that is a string is sent as its text, anything else as compact JSON; with \
    \"payload_encoding\": \"base64\" it is decoded. Lines that `consume --json` printed are fine.\n\n\
    Example:\n  chaski publish orders.eu.created '{\"id\":42}' --key c42 -H region=eu\n  \
    chaski publish --ndjson examples/data/earthquakes.ndjson --json"
)]
pub(crate) struct Args {
    /// The topic; with --ndjson, that of lines that name none
    #[arg(required_unless_present = "ndjson")]
    topic: Option<String>,
    /// The payload; without it and the options below, stdin is read if it is no terminal
    #[arg(conflicts_with_all = ["file", "lines", "ndjson"])]
    payload: Option<String>,
    /// The payload, or with --lines the lines, are in a file (`-` for stdin)
    #[arg(long, value_name = "F", conflicts_with = "ndjson")]
    file: Option<PathBuf>,
    /// Each line of stdin, or of --file, is a message
    #[arg(long, conflicts_with_all = ["ndjson", "id"])]
    lines: bool,
    /// Each line of a file is a message in JSON (`-` for stdin)
    #[arg(long, value_name = "F", conflicts_with = "id")]
    ndjson: Option<PathBuf>,
    /// The message's id: published again with it, it is confirmed as a duplicate
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
    /// Not to be delivered before
    #[arg(long, value_name = "D", value_parser = args::duration)]
    delay: Option<Duration>,
    /// 0 to 9, higher first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Where a reply goes
    #[arg(long, value_name = "T")]
    reply_to: Option<String>,
    /// Fail when no queue or subscription takes it
    #[arg(long)]
    mandatory: bool,
    /// Tell what every rule and module makes of it
    #[arg(long, conflicts_with_all = ["lines", "ndjson", "delay", "mandatory"])]
    trace: bool,
}

/// What `--json` prints of a confirmation.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Confirmation<'a> {
    id: &'a str,
    sequence: Option<u64>,
    duplicate: bool,
    routed: u32,
    dropped: u32,
    rejected: u32,
}

impl<'a> Confirmation<'a> {
    fn of(id: &'a str, published: &Published) -> Confirmation<'a> {
        let Published { sequence, duplicate, routed, dropped, rejected, .. } = *published;
        Confirmation { id, sequence, duplicate, routed, dropped, rejected }
    }

    /// In words.
    fn words(&self) -> String {
        let sequence = self.sequence.map(|sequence| format!("  sequence {sequence}")).unwrap_or_default();
        let mut outcome = match (self.duplicate, self.routed) {
            (true, _) => "duplicate: it was stored before".to_owned(),
            (false, 0) if self.dropped + self.rejected == 0 => {
                "unroutable: nobody takes this topic".to_owned()
            }
            (false, routed) => format!("routed to {routed}"),
        };
        for (count, what) in [(self.dropped, "dropped"), (self.rejected, "rejected")] {
            if count > 0 {
                outcome.push_str(&format!(", {what} {count}"));
            }
        }
        format!("{}{sequence}  {outcome}", self.id)
    }
}

/// Publishes and waits for every confirm.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let fields = Fields {
        topic: args.topic.clone(),
        id: args.id.clone(),
        key: args.key.clone(),
        headers: args.headers.clone(),
        reply_to: args.reply_to.clone(),
        correlation_id: None,
        priority: args.priority,
        ttl: args.ttl,
        delay: args.delay,
        mandatory: args.mandatory,
    };
    let format = match (&args.ndjson, args.lines) {
        (Some(_), _) => stream::Format::Ndjson,
        (None, true) => stream::Format::Lines,
        (None, false) => return one(args, fields, context).await,
    };
    // `--lines` with neither a file nor a pipe says what is missing; a named `-` reads the terminal.
    let (source, length) = input::open(args.ndjson.as_deref().or(args.file.as_deref())).await?;
    stop::with(async |stop| {
        let client = context.connect().await?;
        let summary = stream::run(&client, source, length, format, fields, context.json, stop).await?;
        if !context.json {
            out::text(summary.words())?;
        }
        client.close().await;
        Ok(())
    })
    .await
}

async fn one(args: &Args, fields: Fields, context: &Context) -> anyhow::Result<()> {
    let payload = input::payload(args.payload.as_deref(), args.file.as_deref()).await?;
    let message = fields.message(payload)?;
    if args.trace {
        return trace::show(message, true, context).await;
    }
    let id = message.head().id.to_owned();
    let client = context.connect().await?;
    let published = client.publish(message).await?;
    let confirmation = Confirmation::of(&id, &published);
    if context.json {
        out::json(&confirmation)?;
    } else {
        out::text(confirmation.words())?;
    }
    client.close().await;
    Ok(())
}

/// What became of many messages.
#[derive(Clone, Debug, Default, PartialEq)]
struct Summary {
    confirmed: u64,
    duplicates: u64,
    unroutable: u64,
}

impl Summary {
    fn count(&mut self, confirmation: &Confirmation<'_>) {
        self.confirmed += 1;
        self.duplicates += u64::from(confirmation.duplicate);
        let nobody = confirmation.routed + confirmation.dropped + confirmation.rejected == 0;
        self.unroutable += u64::from(!confirmation.duplicate && nobody);
    }

    fn words(&self) -> String {
        let mut words = format!("{} confirmed", human::count(self.confirmed, "message"));
        for (count, what) in [(self.duplicates, "duplicate"), (self.unroutable, "unroutable")] {
            if count > 0 {
                words.push_str(&format!(", {count} {what}"));
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_says_what_became_of_the_message() {
        let stored =
            Confirmation { id: "a", sequence: Some(7), duplicate: false, routed: 2, dropped: 0, rejected: 0 };
        assert_eq!(stored.words(), "a  sequence 7  routed to 2");
        assert_eq!(
            serde_json::to_string(&stored).expect("plain data"),
            r#"{"id":"a","sequence":7,"duplicate":false,"routed":2,"dropped":0,"rejected":0}"#
        );
        let again = Confirmation { duplicate: true, routed: 0, ..stored.clone() };
        assert_eq!(again.words(), "a  sequence 7  duplicate: it was stored before");
        let nobody = Confirmation { sequence: None, routed: 0, ..stored.clone() };
        assert_eq!(nobody.words(), "a  unroutable: nobody takes this topic");
        let mut summary = Summary::default();
        [stored, again, nobody].iter().for_each(|confirmation| summary.count(confirmation));
        assert_eq!(summary.words(), "3 messages confirmed, 1 duplicate, 1 unroutable");
    }
}
