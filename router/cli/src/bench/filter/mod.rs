//! `chaski bench filter`: what a module costs the publishes that it judges, and what a new version of one costs. Each of the three
//! measurements is a file of its own; this one has the router, its rules and the modules for all of them.

mod cost;
mod deploy;
mod swap;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};

use super::load::{self, Load};
use super::report::{Measurement, Report};
use super::target::Target;
use crate::child::{Router, Setup};
use crate::module::{self, Params};

/// The modules of the rules: one that judges the publishes that are measured, one that is deployed again and again.
const MEASURED: &str = "measured";
const DEPLOYED: &str = "deployed";

/// Topics, and the queues behind them: past any module, through the one, through the other.
const PLAIN: &str = "bench.plain";
const FILTERED: &str = "bench.filtered";
const FRESH: &str = "bench.fresh";

/// Headers of every message, on both topics. The builtin reads one of them.
const HEADERS: &[(&str, &str)] =
    &[("region", "eu"), ("kind", "order"), ("source", "shop"), ("priority", "2")];

/// What is judged, and how.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "filter")]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Another module than the builtin header-match, which reads one of four headers and passes all
    #[arg(long, value_name = "F")]
    pub(crate) module: Option<PathBuf>,
    /// What that module is given: an object
    #[arg(long, value_name = "JSON", value_parser = module::params, requires = "module")]
    pub(crate) params: Option<Params>,
    /// Keep at most N publishes of a producer unconfirmed (as --in-flight), so that no call gets more than N of them; how many one
    /// got in the mean is printed as `messages per call`. A call takes 128 at most
    #[arg(long, value_name = "N", conflicts_with = "in_flight", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batch: Option<u32>,
}

/// A module's binary with what it is given.
#[derive(Clone, Debug)]
struct Module {
    name: String,
    wasm: Bytes,
    params: Params,
}

/// Measures all three against a router of its own, and prints what was found as it comes.
pub(crate) async fn run(
    options: &Options,
    data: &Path,
    report: &mut Report,
) -> anyhow::Result<Vec<Measurement>> {
    std::fs::create_dir_all(data)?;
    let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(data)?;
    let router = Router::start(Setup::new(directory.path())).await?;
    let target = Target::child(&router);
    let module = Module::chosen(options).await?;
    let in_flight = options.batch.or(options.load.in_flight);
    let load = Load { headers: HEADERS, in_flight, ..options.load.clone() };
    let clients = load::connect_all(&target, load.producers()).await?;
    let admin = clients[0].admin();
    admin.rules_apply(rules(&load)?, Vec::new(), Vec::new(), Vec::new(), Vec::new()).await?;
    admin.deploy(MEASURED, module.wasm.clone()).params(module.params.clone()).await?;

    let mut found = cost::run(&clients, &load, &module).await?;
    found.iter().try_for_each(|found| report.print(found))?;
    for found_here in [deploy::run(&clients[0]).await?, swap::run(&clients, &load, &module).await?] {
        found_here.iter().try_for_each(|found| report.print(found))?;
        found.extend(found_here);
    }
    for client in clients {
        client.close().await;
    }
    router.stop().await?;
    Ok(found)
}

impl Module {
    async fn chosen(options: &Options) -> anyhow::Result<Module> {
        match &options.module {
            Some(file) => Ok(Module {
                name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                wasm: module::read(file).await?,
                params: options.params.clone().unwrap_or_default(),
            }),
            None => Module::builtin("header-match", json!({ "all": "region = eu" })),
        }
    }

    fn builtin(name: &str, params: Value) -> anyhow::Result<Module> {
        let guest = chaski_filters::builtin(name).context("this binary was built without its modules")?;
        let params = params.as_object().cloned().unwrap_or_default();
        Ok(Module { name: name.to_owned(), wasm: Bytes::from_static(guest.wasm), params })
    }

    /// The same code under another digest, in at least `size` bytes: a custom section of zeros lies behind it, which begins with
    /// `number`. Nobody compiles such a section (WebAssembly core specification, 5.5.3).
    fn padded(&self, number: u32, size: usize) -> Module {
        const NAME: &[u8] = b"\x03pad";
        let zeros = size.saturating_sub(self.wasm.len());
        let mut wasm = self.wasm.to_vec();
        wasm.push(0);
        leb128(&mut wasm, NAME.len() + 4 + zeros);
        wasm.extend_from_slice(NAME);
        wasm.extend_from_slice(&number.to_le_bytes());
        wasm.resize(wasm.len() + zeros, 0);
        Module { wasm: wasm.into(), ..self.clone() }
    }
}

/// WebAssembly core specification, 5.2.2.
fn leb128(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// A queue for each topic, and a route with its module for two of them. The modules wait for their deploy.
fn rules(load: &Load) -> anyhow::Result<String> {
    use std::fmt::Write as _;
    let mut document = String::new();
    for topic in [PLAIN, FILTERED, FRESH] {
        // A bench of deploys waits for verdicts, and for no disk.
        let durability = if topic == FRESH { load::Durability::Memory } else { load.durability() };
        writeln!(document, "[queue.{topic:?}]")?;
        for (key, value) in load::settings(durability) {
            writeln!(document, "{key} = {value}")?;
        }
    }
    for (module, topic) in [(MEASURED, FILTERED), (DEPLOYED, FRESH)] {
        writeln!(document, "[module.{module}]")?;
        writeln!(document, "[route.{module}]\ntopics = [{topic:?}]\nfilters = [{module:?}]")?;
    }
    Ok(document)
}

/// The middle one of some numbers.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_module_has_the_size_and_a_section_that_ends_with_the_file() {
        let module = Module::builtin("header-match", json!({})).expect("a builtin");
        let padded = module.padded(7, 200 << 10);
        assert!((200 << 10..(200 << 10) + 16).contains(&padded.wasm.len()), "{}", padded.wasm.len());
        assert!(padded.wasm.starts_with(&module.wasm));
        let section = &padded.wasm[module.wasm.len()..];
        let length = usize::from(section[1] & 0x7f)
            | usize::from(section[2] & 0x7f) << 7
            | usize::from(section[3]) << 14;
        assert_eq!((section[0], section.len()), (0, 4 + length));
        assert_eq!(&section[4..12], b"\x03pad\x07\0\0\0");
        assert_ne!(padded.wasm, module.padded(8, 200 << 10).wasm);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
