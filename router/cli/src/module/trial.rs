//! `chaski module test`: a module on sample messages, without a router.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chaski_protocol::{Code, DEFAULT_PRIORITY};
use chaski_server::module_test::{ModuleTest, Sample, Tried};
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

/// Runs a module on sample messages; needs no router
///
/// Each message is judged in a call of its own, under the limits that the rules set by default. A module that keeps state sees what
/// it wrote for the messages before. Exit code 1 when it fails on one of them.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "A message is an object as in `publish --ndjson`: {\"topic\", \"id\", \"key\", \"headers\", \"payload\", \"priority\"}, all \
    optional.\n\nExample:\n  chaski module test eu_only.wasm --params '{\"region\":\"eu\"}' --message '{\"headers\":{\"region\":\"us\"}}'\n  \
    chaski module test quakes.wasm --ndjson examples/data/earthquakes.ndjson"
)]
#[command(group = clap::ArgGroup::new("samples").args(["messages", "ndjson"]).required(true).multiple(true))]
pub(super) struct Args {
    /// The binary: a core module, or a component
    file: PathBuf,
    /// A message in JSON; may be given again
    #[arg(long = "message", value_name = "JSON")]
    messages: Vec<String>,
    /// Each line of a file is a message in JSON (`-` for stdin)
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

/// Loads the module, and tries it on every message.
pub(super) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let wasm = super::read(&args.file).await?;
    let samples = samples(&args.messages, args.ndjson.as_deref()).await?;
    let params: Vec<_> = args.params.clone().unwrap_or_default().into_iter().collect();
    let work = move || -> anyhow::Result<_> {
        let test = ModuleTest::load(&wasm, &params)?;
        let tried = samples.iter().map(|sample| test.judge(sample)).collect::<Result<Vec<_>, _>>()?;
        Ok((test.about().clone(), samples, tried))
    };
    let (about, samples, tried) = tokio::task::spawn_blocking(work).await??;
    if context.json {
        for (sample, tried) in samples.iter().zip(&tried) {
            out::json(&line(sample, tried))?;
        }
    } else {
        let reads = if about.fields.is_empty() { "nothing".to_owned() } else { about.fields.join(", ") };
        let state = if about.keeps_state { ", keeps state" } else { "" };
        out::note(format!("{} {}, {}: reads {reads}{state}", about.name, about.version, about.digest));
        out::text(table(&samples, &tried))?;
        for text in tried.iter().flat_map(|tried| &tried.log) {
            out::note(format!("log: {}", human::one_line(text, SHOWN)));
        }
    }
    match tried.iter().filter(|tried| tried.verdict == "error").count() {
        0 => Ok(()),
        failed => {
            let of = human::count(tried.len() as u64, "message");
            Err(fail(Code::ModuleFailed, format!("the module failed on {failed} of {of}")))
        }
    }
}

fn line<'a>(sample: &'a Sample, tried: &'a Tried) -> Line<'a> {
    let Tried { verdict, detail, cpu, log } = tried;
    Line {
        id: &sample.id,
        topic: &sample.topic,
        verdict,
        detail: detail.as_deref(),
        cpu_us: micros(*cpu),
        log,
    }
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// The messages of the command line first, then those of the file.
async fn samples(messages: &[String], ndjson: Option<&Path>) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for message in messages {
        samples.push(sample(message.as_bytes(), samples.len() + 1)?);
    }
    if let Some(file) = ndjson {
        let (source, _) = input::open(Some(file)).await?;
        let mut lines = Lines::new(source);
        let mut number = 0;
        while let Some((line, _)) = lines.next().await? {
            number += 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let sample = sample(&line, samples.len() + 1)
                .map_err(|error| fail(Code::BadRequest, format!("line {number}: {error}")))?;
            samples.push(sample);
        }
    }
    Ok(samples)
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

fn table(samples: &[Sample], tried: &[Tried]) -> String {
    let mut table = Table::new(&["ID", "TOPIC", "VERDICT", ">CPU", "DETAIL"]);
    for (sample, tried) in samples.iter().zip(tried) {
        let detail = human::one_line(tried.detail.as_deref().unwrap_or_default(), SHOWN);
        let cells = [human::harmless(&sample.id), human::harmless(&sample.topic)];
        let [id, topic] = cells;
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
        let samples = samples(&messages, Some(file.path())).await.expect("three");
        let told: Vec<_> = samples.iter().map(|sample| (sample.id.as_str(), sample.topic.as_str())).collect();
        assert_eq!(told, [("sample-1", "sample"), ("x", "a.b"), ("sample-3", "sample")]);
        assert_eq!(samples[0].headers, [("region".to_owned(), "eu".to_owned())]);
        assert_eq!(samples[1].payload, b"{\"n\":1}");
        std::fs::write(file.path(), "{}\nnonsense\n").expect("written");
        let error = super::samples(&[], Some(file.path())).await.expect_err("a bad line").to_string();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[test]
    fn each_message_has_its_verdict_and_cost() {
        let sample = |id: &str| Sample { topic: "a".to_owned(), id: id.to_owned(), ..Sample::default() };
        let tried = |verdict, detail: Option<&str>, us| Tried {
            verdict,
            detail: detail.map(str::to_owned),
            cpu: Duration::from_micros(us),
            log: vec![],
        };
        expect![[r#"
            ID  TOPIC  VERDICT       CPU  DETAIL
            1   a      pass       4.0 µs
            2   a      reject   120.0 µs  no region
        "#]]
        .assert_eq(&table(
            &[sample("1"), sample("2")],
            &[tried("pass", None, 4), tried("reject", Some("no\nregion"), 120)],
        ));
    }
}
