//! Many messages: read, published in a pipeline, each confirm told in the order of the input. The first failure ends the
//! reading, so that what was read after it doesn't overtake it; what is under way is waited for.

use anyhow::Context as _;
use bytes::Bytes;
use chaski_client::{Client, Published};
use chaski_protocol::Code;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Confirmation, Fields, Summary, record};
use crate::failure::{code, fail};
use crate::input::{Lines, Source};
use crate::out;
use crate::stop::Stop;

/// Confirms that are waited for at most; the client has a bound of its own for what is unconfirmed.
const UNDER_WAY: usize = 65_536;

/// What a line is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A payload.
    Lines,
    /// A message in JSON.
    Ndjson,
}

/// A publish whose confirm has come.
struct Confirmed {
    line: u64,
    id: String,
    published: anyhow::Result<Published>,
}

type Confirms = FuturesOrdered<BoxFuture<'static, Confirmed>>;

/// Publishes every line, and answers what became of them once all are confirmed.
pub(super) async fn run(
    client: &Client,
    source: Source,
    length: Option<u64>,
    format: Format,
    options: Fields,
    json: bool,
    mut stop: Stop,
) -> anyhow::Result<Summary> {
    let mut teller =
        Teller { json, summary: Summary::default(), progress: progress(length, json), failed: None };
    let mut lines = Lines::new(source);
    let mut under_way: Confirms = FuturesOrdered::new();
    let mut number = 0;
    let mut interrupted = false;
    while teller.failed.is_none() {
        tokio::select! {
            biased;
            () = stop.requested() => {
                interrupted = true;
                break;
            }
            Some(confirmed) = under_way.next(), if !under_way.is_empty() => teller.tell(confirmed)?,
            line = lines.next(), if under_way.len() < UNDER_WAY => {
                let Some((line, read)) = line? else { break };
                number += 1;
                teller.progress.inc(if length.is_some() { read } else { 1 });
                match send(client, &line, number, format, &options).await {
                    Ok(Some(confirm)) => under_way.push_back(confirm),
                    Ok(None) => {}
                    Err(error) => teller.failed = Some(error.context(format!("line {number}"))),
                }
            }
        }
    }
    while let Some(confirmed) = under_way.next().await {
        teller.tell(confirmed)?;
    }
    teller.progress.finish_and_clear();
    let Teller { summary, failed, .. } = teller;
    match failed {
        Some(error) => {
            out::note(format!("{}; reading stopped there", summary.words()));
            Err(error)
        }
        None if interrupted => {
            Err(fail(Code::ShuttingDown, format!("interrupted after line {number}; {}", summary.words())))
        }
        None => Ok(summary),
    }
}

/// Publishes one line; none for a blank line of JSON.
async fn send(
    client: &Client,
    line: &[u8],
    number: u64,
    format: Format,
    options: &Fields,
) -> anyhow::Result<Option<BoxFuture<'static, Confirmed>>> {
    let message = match format {
        Format::Lines => options.message(Bytes::copy_from_slice(line))?,
        Format::Ndjson if line.trim_ascii().is_empty() => return Ok(None),
        Format::Ndjson => {
            let (fields, payload) = record::parse(line)?;
            fields.or(options).message(payload)?
        }
    };
    let id = message.head().id.to_owned();
    let confirm = client.publish_pipelined(message).await?;
    Ok(Some(Box::pin(async move {
        let published = confirm.await.map_err(anyhow::Error::from);
        Confirmed { line: number, id, published }
    })))
}

/// Tells confirms as they come, and keeps the first failure.
struct Teller {
    json: bool,
    summary: Summary,
    progress: ProgressBar,
    failed: Option<anyhow::Error>,
}

impl Teller {
    fn tell(&mut self, confirmed: Confirmed) -> anyhow::Result<()> {
        let Confirmed { line, id, published } = confirmed;
        match published.with_context(|| format!("line {line}")) {
            Ok(published) => {
                let confirmation = Confirmation::of(&id, &published);
                self.summary.count(&confirmation);
                if self.json {
                    out::json(&confirmation)?;
                }
            }
            Err(error) if self.failed.is_none() => self.failed = Some(error),
            Err(error) => self.progress.suspend(|| out::note(format!("{}: {error:#}", code(&error)))),
        }
        Ok(())
    }
}

/// On a terminal only, and not between lines of JSON on it.
fn progress(length: Option<u64>, json: bool) -> ProgressBar {
    use std::io::IsTerminal as _;
    if json && std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    // stderr that is no terminal hides it by itself.
    match length {
        Some(length) => {
            let style =
                ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}");
            ProgressBar::new(length)
                .with_style(style.expect("the template is a constant that indicatif takes"))
        }
        None => {
            let style = ProgressStyle::with_template("{spinner} {pos} read  {per_sec}");
            ProgressBar::new_spinner()
                .with_style(style.expect("the template is a constant that indicatif takes"))
        }
    }
}
