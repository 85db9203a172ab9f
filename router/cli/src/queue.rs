//! `chaski queue`: what queues there are, how they are, and the operator's verbs.

use chaski_protocol::Code;
use chaski_protocol::admin::{AdminRequest, Count, Done, QueueView, RulesChange};
use clap::Subcommand;
use jiff::Timestamp;

use crate::context::Context;
use crate::failure::{self, fail};
use crate::table::{Facts, Table};
use crate::{args, human, out, rules};

/// Looks at queues and operates them
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  chaski queue create billing --bind 'orders.*.created' --set ordering=key --set max_deliver=3"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// All queues
    #[command(after_help = "Example:\n  chaski queue list --json")]
    List,
    /// One queue, with its settings
    #[command(after_help = "Example:\n  chaski queue show billing")]
    Show {
        /// The queue
        queue: String,
    },
    /// Makes a queue: a new version of the rules
    #[command(after_help = "The keys are those of `[queue.NAME]` in the rules (`chaski rules schema`).\n\n\
                            Example:\n  chaski queue create billing --bind 'orders.*.created' --set ordering=key --set ack_wait=10s")]
    Create {
        /// The queue
        queue: String,
        /// A pattern that it takes; may be given again. Without any: the topic of its own name
        #[arg(long, value_name = "P")]
        bind: Vec<String>,
        /// A setting; may be given again
        #[arg(long, value_name = "KEY=VALUE", value_parser = args::setting)]
        set: Vec<(String, String)>,
    },
    /// Deletes a queue: a new version of the rules
    #[command(after_help = "Example:\n  chaski queue delete billing")]
    Delete {
        /// The queue
        queue: String,
        /// Even with messages or dead letters in it
        #[arg(long)]
        drop_messages: bool,
    },
    /// Removes the messages that no consumer has
    #[command(after_help = "Example:\n  chaski queue purge billing")]
    Purge {
        /// The queue
        queue: String,
    },
    /// Stops its deliveries
    #[command(after_help = "Example:\n  chaski queue pause billing")]
    Pause {
        /// The queue
        queue: String,
    },
    /// Lets deliveries go on
    #[command(after_help = "Example:\n  chaski queue resume billing")]
    Resume {
        /// The queue
        queue: String,
    },
    /// Removes one message that no consumer has
    #[command(after_help = "Example:\n  chaski queue cancel billing 0197a8c2-7f6e-7b10-8000-000000000000")]
    Cancel {
        /// The queue
        queue: String,
        /// The message's id
        id: String,
    },
    /// Lets a key go on that waits behind a dead letter
    #[command(after_help = "Example:\n  chaski queue unpark billing customer-42")]
    Unpark {
        /// The queue
        queue: String,
        /// The ordering key
        key: String,
    },
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::List => {
            let queues: Vec<QueueView> = context.admin(AdminRequest::QueueList).await?;
            if context.json {
                return queues.iter().try_for_each(out::json);
            }
            if queues.is_empty() {
                out::note("there is no queue yet: `chaski queue create NAME`");
                return Ok(());
            }
            out::text(list(&queues, Timestamp::now()))
        }
        Verb::Show { queue } => {
            let view: QueueView = context.admin(AdminRequest::QueueShow { queue }).await?;
            if context.json { out::json(&view) } else { out::text(show(&view, Timestamp::now())) }
        }
        Verb::Create { queue, bind, set } => {
            change(context, AdminRequest::QueueCreate { queue, bind, set }).await
        }
        Verb::Delete { queue, drop_messages } => {
            let request = AdminRequest::QueueDelete { queue: queue.clone(), drop_messages };
            change(context, request).await.map_err(|error| match failure::code(&error) {
                // The router's sentence names the option of `rules apply`.
                Code::QueueNotEmpty => fail(Code::QueueNotEmpty, not_empty(&queue)),
                _ => error,
            })
        }
        Verb::Purge { queue } => {
            let count: Count = context.admin(AdminRequest::QueuePurge { queue }).await?;
            removed(&count, "removed", context)
        }
        Verb::Pause { queue } => {
            let said = format!("{queue} is paused: `chaski queue resume {queue}` lets it go on");
            done(context, AdminRequest::QueuePause { queue }, said).await
        }
        Verb::Resume { queue } => {
            let said = format!("{queue} goes on");
            done(context, AdminRequest::QueueResume { queue }, said).await
        }
        Verb::Cancel { queue, id } => {
            let said = format!("{id} is removed from {queue}");
            done(context, AdminRequest::QueueCancel { queue, id }, said).await
        }
        Verb::Unpark { queue, key } => {
            let said = format!("key {key} of {queue} goes on");
            done(context, AdminRequest::QueueUnpark { queue, key }, said).await
        }
    }
}

async fn change(context: &Context, request: AdminRequest) -> anyhow::Result<()> {
    let change: RulesChange = context.admin(request).await?;
    rules::print_change(&change, context)
}

async fn done(context: &Context, request: AdminRequest, said: String) -> anyhow::Result<()> {
    let done: Done = context.admin(request).await?;
    if context.json { out::json(&done) } else { out::text(said) }
}

/// Prints how many messages a verb moved or removed; stopping early is a failure that says how far it came.
pub(crate) fn removed(count: &Count, verb: &str, context: &Context) -> anyhow::Result<()> {
    if context.json {
        out::json(count)?;
    } else {
        out::text(format!("{} {verb}", human::count(count.count, "message")))?;
    }
    match &count.stopped {
        Some(why) => Err(fail(stop_code(why), format!("stopped after {}: {why}", count.count))),
        None => Ok(()),
    }
}

/// The answer has a sentence only; where it names a code, that is the one.
fn stop_code(why: &str) -> Code {
    Code::ALL.iter().copied().find(|code| why.contains(code.name())).unwrap_or(Code::QueueFull)
}

fn not_empty(queue: &str) -> String {
    format!(
        "queue `{queue}` still holds messages or dead letters: consume or purge them, or delete it with them \
         (`chaski queue delete {queue} --drop-messages`)"
    )
}

fn list(queues: &[QueueView], now: Timestamp) -> String {
    let titles = [
        "NAME",
        ">READY",
        ">LEASED",
        ">DELAYED",
        ">PARKED",
        ">DEAD",
        ">CONSUMERS",
        ">BYTES",
        ">OLDEST",
        "BIND",
    ];
    let mut table = Table::new(&titles);
    for queue in queues {
        let oldest = queue.oldest.as_deref().map_or_else(|| "-".to_owned(), |oldest| human::age(oldest, now));
        let mut bind = patterns(queue);
        if queue.paused {
            bind.push_str("  (paused)");
        }
        table.row([
            queue.name.clone(),
            queue.ready.to_string(),
            queue.leased.to_string(),
            queue.delayed.to_string(),
            queue.parked.to_string(),
            queue.dead.to_string(),
            queue.consumers.to_string(),
            human::bytes(queue.bytes),
            oldest,
            bind,
        ]);
    }
    table.to_string()
}

fn patterns(queue: &QueueView) -> String {
    match queue.bind.is_empty() {
        // A dead-letter queue takes no topic.
        true if queue.name.ends_with(".dlq") => "-".to_owned(),
        true => queue.name.clone(),
        false => queue.bind.join(", "),
    }
}

/// A setting's value as people read it.
fn value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(all) => all.iter().map(self::value).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn show(queue: &QueueView, now: Timestamp) -> String {
    let mut facts = Facts::new();
    facts.add("queue", format!("{}{}", queue.name, if queue.paused { "  (paused)" } else { "" }));
    facts.add("bind", patterns(queue));
    facts.add("messages", format!("{}, {}", queue.messages, human::bytes(queue.bytes)));
    facts.add("  ready", queue.ready.to_string());
    facts.add("  leased", queue.leased.to_string());
    facts.add("  delayed", queue.delayed.to_string());
    facts.add("  parked", queue.parked.to_string());
    if let Some(oldest) = &queue.oldest {
        facts.add("oldest", format!("{} old, since {oldest}", human::age(oldest, now)));
    }
    let look = if queue.dead > 0 { format!("  (chaski dlq show {})", queue.name) } else { String::new() };
    facts.add("dead letters", format!("{}{look}", queue.dead));
    facts.add("consumers", queue.consumers.to_string());
    if !queue.parked_keys.is_empty() {
        facts.add(
            "waiting keys",
            format!("{}  (chaski queue unpark {} KEY)", queue.parked_keys.join(", "), queue.name),
        );
    }
    // The patterns stand above.
    for (key, setting) in queue.settings.iter().filter(|(key, _)| *key != "bind") {
        facts.add(key, value(setting));
    }
    facts.to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn billing() -> QueueView {
        QueueView {
            name: "billing".to_owned(),
            bind: vec!["orders.*.created".to_owned(), "refunds.>".to_owned()],
            ready: 1200,
            delayed: 3,
            leased: 64,
            parked: 7,
            dead: 2,
            consumers: 4,
            messages: 1274,
            bytes: 1_500_000,
            paused: true,
            parked_keys: vec!["c42".to_owned()],
            oldest: Some("2026-01-01T00:00:00Z".to_owned()),
            settings: [
                ("ack_wait", json!("30s")),
                ("backoff", json!(["1s", "5s"])),
                ("bind", json!(["orders.*.created", "refunds.>"])),
                ("max_deliver", json!(5)),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        }
    }

    fn now() -> Timestamp {
        "2026-01-01T01:01:00Z".parse().expect("a time")
    }

    #[test]
    fn the_list_has_a_line_for_each_queue() {
        let idle = QueueView {
            name: "hello".to_owned(),
            bind: Vec::new(),
            ready: 0,
            leased: 0,
            oldest: None,
            paused: false,
            ..billing()
        };
        expect![[r#"
            NAME     READY  LEASED  DELAYED  PARKED  DEAD  CONSUMERS    BYTES  OLDEST  BIND
            billing   1200      64        3       7     2          4  1.4 MiB   1h 1m  orders.*.created, refunds.>  (paused)
            hello        0       0        3       7     2          4  1.4 MiB       -  hello
        "#]]
        .assert_eq(&list(&[billing(), idle], now()));
    }

    #[test]
    fn one_queue_is_shown_with_its_settings() {
        expect![[r#"
            queue         billing  (paused)
            bind          orders.*.created, refunds.>
            messages      1274, 1.4 MiB
              ready       1200
              leased      64
              delayed     3
              parked      7
            oldest        1h 1m old, since 2026-01-01T00:00:00Z
            dead letters  2  (chaski dlq show billing)
            consumers     4
            waiting keys  c42  (chaski queue unpark billing KEY)
            ack_wait      30s
            backoff       1s, 5s
            max_deliver   5
        "#]]
        .assert_eq(&show(&billing(), now()));
    }
}
