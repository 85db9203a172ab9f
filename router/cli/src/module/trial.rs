//! `chaski module test`: a module on samples, without a router. Here filters on messages; what an aggregator is told of a gather, and
//! a compensator of a saga, has a file each.

mod gather;
mod saga;

use std::path::{Path, PathBuf};
use std::time::Duration;

use chaski_protocol::{Code, DEFAULT_PRIORITY};
use chaski_server::module_test::{About, Answer, ModuleTest, Ready, Sample, Tried};
use serde::Serialize;

use super::Params;
use crate::context::Context;
use crate::failure::fail;
use crate::input::{self, Lines};
use crate::publish::{Fields, parse_line};
use crate::table::Table;
use crate::{human, out};

/// The topic of samples that name none.
const TOPIC: &str = "sample";

/// The longest detail that is shown to people whole, in characters.
const SHOWN: usize = 100;

/// Runs a module on samples; needs no router
///
/// A filter judges each message in a call of its own, under the limits that the rules set by default; one that keeps state sees what
/// it wrote for the messages before. An aggregator makes one answer: --message is the request, each --reply and each line of --ndjson
/// a reply. A compensator decides on each --message, which is the history of a saga. Exit code 1 when the module fails.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "A message is an object as in `publish --ndjson`: {\"topic\", \"id\", \"key\", \"headers\", \"payload\", \"priority\"}, all \
    optional. A \
    reply is one too, with its `recipient`; one that did not come has `failed`, with the reason, or `\"silent\": true` in place of a \
    payload. A history is {\"saga\", \"id\", \"input\", \"steps\": [{\"name\", \"state\", \"payload\", \"reason\", …}], \"cause\", \"retries\"}; \
    the cause is {\"step\": NAME}, \"timeout\" or {\"aborted\": REASON}, and without one the first step that failed.\n\nExample:\n  chaski module test eu_only.wasm --params '{\"region\":\"eu\"}' --message '{\"headers\":{\"region\":\"us\"}}'\n  \
    chaski module test quakes.wasm --ndjson examples/data/earthquakes.ndjson\n  chaski module test cheapest.wasm --reply \
    '{\"recipient\":\"a\",\"payload\":{\"price\":9}}' --reply '{\"recipient\":\"b\",\"failed\":\"sold out\"}'"
)]
#[command(group = clap::ArgGroup::new("samples").args(["messages", "replies", "ndjson"]).required(true).multiple(true))]
pub(super) struct Args {
    /// The binary: a core module, or a component
    file: PathBuf,
    /// A message in JSON; may be given again. Of an aggregator the request, of a compensator a history
    #[arg(long = "message", value_name = "JSON")]
    messages: Vec<String>,
    /// What an aggregator gets of one recipient, in JSON; may be given again
    #[arg(long = "reply", value_name = "JSON")]
    replies: Vec<String>,
    /// Each line of a file is a message in JSON, of an aggregator a reply (`-` for stdin)
    #[arg(long, value_name = "F")]
    ndjson: Option<PathBuf>,
    /// What the module is given: an object
    #[arg(long, value_name = "JSON", value_parser = super::params)]
    params: Option<Params>,
}

/// What `--json` prints of one message.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    topic: &'a str,
    verdict: &'static str,
    detail: Option<&'a str>,
    cpu_us: f64,
    log: &'a [String],
}

/// Loads the module, and tries it on everything that was given.
pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let wasm = super::read(&args.file).await?;
    let lines = match args.ndjson.as_deref() {
        Some(file) => lines(file).await?,
        None => Vec::new(),
    };
    let params: Vec<_> = args.params.clone().unwrap_or_default().into_iter().collect();
    let (messages, replies) = (args.messages.clone(), args.replies.clone());
    let work = move || -> anyhow::Result<_> {
        let test = ModuleTest::load(&wasm, &params)?;
        let trial = trial(test.ready(), &messages, &replies, &lines)?;
        Ok((test.about().clone(), trial))
    };
    let (about, trial) = tokio::task::spawn_blocking(work).await??;
    print(&about, &trial, context)?;
    let failures = trial.rows.iter().filter(|row| row.tried.verdict == "error").count();
    match failures {
        0 => Ok(()),
        failed => {
            let of = human::count(trial.rows.len() as u64, trial.noun);
            Err(fail(Code::ModuleFailed, format!("the module failed on {failed} of {of}")))
        }
    }
}

/// What came of all that a module was tried on.
struct Trial {
    /// What a row is about, for people.
    noun: &'static str,
    rows: Vec<Row>,
    answer: Option<Answer>,
}

/// One call.
struct Row {
    id: String,
    topic: String,
    tried: Tried,
}

/// A line of a file, with its number from 1.
type Numbered = (usize, Vec<u8>);

/// Tries a module of any kind.
fn trial(
    ready: &Ready,
    messages: &[String],
    replies: &[String],
    lines: &[Numbered],
) -> anyhow::Result<Trial> {
    let none_of = |replies: &[String], kind: &str| match replies {
        [] => Ok(()),
        _ => Err(fail(Code::BadRequest, format!("{kind} takes no --reply: an aggregator does"))),
    };
    match ready {
        Ready::Filter(filter) => {
            none_of(replies, "a filter")?;
            let mut rows = Vec::new();
            for sample in each(messages, lines, sample)? {
                let tried = filter.judge(&sample)?;
                rows.push(Row { id: sample.id, topic: sample.topic, tried });
            }
            Ok(Trial { noun: "message", rows, answer: None })
        }
        Ready::Aggregator(aggregator) => gather::trial(aggregator, messages, replies, lines),
        Ready::Compensator(compensator) => {
            none_of(replies, "a compensator")?;
            saga::trial(compensator, messages, lines)
        }
    }
}

fn print(about: &About, trial: &Trial, context: &Context) -> anyhow::Result<()> {
    if context.json {
        trial.rows.iter().try_for_each(|row| out::json(&line(row)))?;
        return trial.answer.as_ref().map_or(Ok(()), |answer| out::json(&gather::line(answer)));
    }
    let does = match about.kind {
        "aggregator" => "aggregator".to_owned(),
        "compensator" if about.advances => "compensator, says what comes next".to_owned(),
        "compensator" => "compensator".to_owned(),
        _ => {
            let reads = if about.fields.is_empty() { "nothing".to_owned() } else { about.fields.join(", ") };
            format!("reads {reads}{}", if about.keeps_state { ", keeps state" } else { "" })
        }
    };
    out::note(format!("{} {}, {}: {does}", about.name, about.version, about.digest));
    out::text(table(&trial.rows))?;
    for text in trial.rows.iter().flat_map(|row| &row.tried.log) {
        out::note(format!("log: {}", human::one_line(text, SHOWN)));
    }
    trial.answer.as_ref().map_or(Ok(()), |answer| out::text(gather::shown(answer)))
}

fn line(row: &Row) -> Line<'_> {
    let Row { id, topic, tried: Tried { verdict, detail, cpu, log } } = row;
    Line { id, topic, verdict, detail: detail.as_deref(), cpu_us: micros(*cpu), log }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// The lines of a file that hold something.
async fn lines(file: &Path) -> anyhow::Result<Vec<Numbered>> {
    let (source, _) = input::open(Some(file)).await?;
    let mut source = Lines::new(source);
    let mut lines = Vec::new();
    let mut number = 0;
    while let Some((line, _)) = source.next().await? {
        number += 1;
        if !line.trim_ascii().is_empty() {
            lines.push((number, line.to_vec()));
        }
    }
    Ok(lines)
}

/// What the options hold first, then what the lines hold. `parse` is told the number of each, from 1.
fn each<T>(
    options: &[String],
    lines: &[Numbered],
    parse: impl Fn(&[u8], usize) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::with_capacity(options.len() + lines.len());
    for option in options {
        all.push(parse(option.as_bytes(), all.len() + 1)?);
    }
    for (number, line) in lines {
        let parsed = parse(line, all.len() + 1);
        all.push(parsed.map_err(|error| fail(Code::BadRequest, format!("line {number}: {error}")))?);
    }
    Ok(all)
}

fn sample(line: &[u8], number: usize) -> anyhow::Result<Sample> {
    let (Fields { topic, id, key, headers, priority, .. }, payload) = parse_line(line)?;
    Ok(Sample {
        topic: topic.unwrap_or_else(|| TOPIC.to_owned()),
        id: id.unwrap_or_else(|| format!("sample-{number}")),
        key,
        headers,
        payload: payload.into(),
        priority: priority.unwrap_or(DEFAULT_PRIORITY),
    })
}

fn table(rows: &[Row]) -> String {
    let mut table = Table::new(&["ID", "TOPIC", "VERDICT", ">CPU", "DETAIL"]);
    for Row { id, topic, tried } in rows {
        let detail = human::one_line(tried.detail.as_deref().unwrap_or_default(), SHOWN);
        let [id, topic] = [id, topic].map(|cell| human::harmless(cell));
        table.row([id, topic, tried.verdict.to_owned(), format!("{:.1} µs", micros(tried.cpu)), detail]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[tokio::test]
    async fn samples_come_from_options_and_lines() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "{\"topic\":\"a.b\",\"id\":\"x\",\"payload\":{\"n\": 1}}\n\n{}\n")
            .expect("written");
        let messages = [r#"{"headers":{"region":"eu"},"key":"k"}"#.to_owned()];
        let read = async || lines(file.path()).await.expect("lines");
        let samples = each(&messages, &read().await, sample).expect("three");
        let told: Vec<_> = samples.iter().map(|sample| (sample.id.as_str(), sample.topic.as_str())).collect();
        assert_eq!(told, [("sample-1", "sample"), ("x", "a.b"), ("sample-3", "sample")]);
        assert_eq!(samples[0].headers, [("region".to_owned(), "eu".to_owned())]);
        assert_eq!(samples[1].payload, b"{\"n\":1}");
        std::fs::write(file.path(), "{}\nnonsense\n").expect("written");
        let error = each(&[], &read().await, sample).expect_err("a bad line").to_string();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[test]
    fn each_message_has_its_verdict_and_cost() {
        let row = |id: &str, verdict, detail: Option<&str>, us| Row {
            id: id.to_owned(),
            topic: "a".to_owned(),
            tried: Tried {
                verdict,
                detail: detail.map(str::to_owned),
                cpu: Duration::from_micros(us),
                log: vec![],
            },
        };
        expect![[r#"
            ID  TOPIC  VERDICT       CPU  DETAIL
            1   a      pass       4.0 µs
            2   a      reject   120.0 µs  no region
        "#]]
        .assert_eq(&table(&[row("1", "pass", None, 4), row("2", "reject", Some("no\nregion"), 120)]));
    }
}
