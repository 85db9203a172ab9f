//! `chaski module`: from a new project to a module in force, and what becomes of it.

mod new;
mod sign;
mod trial;
mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use chaski_client::Client;
use chaski_protocol::admin::{ModuleDeployed, StateEntryView};
use chaski_protocol::{Code, MAX_MODULE, MAX_PAGE};
use clap::Subcommand;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::failure::fail;
use crate::{args, human, out};

pub(crate) use views::short;

use sign::Key;

/// Makes, tries, deploys and watches modules
///
/// A module is a WebAssembly binary that the router runs: a filter judges messages, an aggregator makes one answer of the replies of
/// a scatter-gather, a compensator decides how a saga is undone. The rules name it: `[module.NAME]`.
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  chaski module new eu-only\n  cd eu-only && cargo build --release --target wasm32-unknown-unknown\n  \
                        chaski module deploy target/wasm32-unknown-unknown/release/eu_only.wasm --params '{\"region\":\"eu\"}'"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    New(new::Args),
    Test(trial::Args),
    /// Puts a binary into force, as a new version of the rules
    ///
    /// It changes the module's digest and, with --params, what it is given; a name that the rules don't know becomes a new
    /// `[module.NAME]`.
    #[command(
        after_help = "Example:\n  chaski module deploy eu_only.wasm --name eu-only --params '{\"region\":\"eu\"}'"
    )]
    Deploy {
        /// The binary: a core module, or a component
        file: PathBuf,
        /// The module's name in the rules; by default the one that it says of itself
        #[arg(long, value_name = "N")]
        name: Option<String>,
        #[command(flatten)]
        signer: Signer,
        /// Even if this version rolled itself back before, or fails on the messages that were judged last
        #[arg(long)]
        force: bool,
        /// What it is given, in the place of what the rules have: an object
        #[arg(long, value_name = "JSON", value_parser = params)]
        params: Option<Params>,
    },
    /// Every module of the rules: where it stands, and what it costs
    #[command(after_help = "Example:\n  chaski module list")]
    List,
    /// One module with its figures and its shadow
    #[command(after_help = "Example:\n  chaski module show eu-only --json")]
    Show {
        /// The module
        name: String,
    },
    /// The versions that a module had, the newest first
    #[command(after_help = "Example:\n  chaski module history eu-only")]
    History {
        /// The module
        name: String,
    },
    /// Brings the version before the current one back
    #[command(after_help = "Example:\n  chaski module rollback eu-only")]
    Rollback {
        /// The module
        name: String,
    },
    /// Runs a binary beside the live one, and compares what the two make of messages
    ///
    /// The shadow decides nothing and writes nothing. `module show` tells the differences, `module promote` puts it into force.
    #[command(after_help = "Example:\n  chaski module shadow eu-only new.wasm --for 10m")]
    Shadow {
        /// The module
        name: String,
        /// The binary: a core module, or a component
        file: PathBuf,
        /// End by itself after so long; otherwise when it is promoted, or another takes its place
        #[arg(long = "for", value_name = "D", value_parser = args::duration)]
        for_time: Option<Duration>,
        #[command(flatten)]
        signer: Signer,
    },
    /// Puts a module's shadow into force
    #[command(after_help = "Example:\n  chaski module promote eu-only")]
    Promote {
        /// The module
        name: String,
    },
    /// What a module keeps: all its keys, or the value of one
    #[command(after_help = "Example:\n  chaski module state dedup --json\n  chaski module state counter c42")]
    State {
        /// The module
        name: String,
        /// Only this key; one that is no UTF-8 is written `base64:` and its base64
        key: Option<String>,
    },
}

/// Who vouches for a binary.
#[derive(clap::Args, Clone, Debug)]
struct Signer {
    /// Sign with an Ed25519 private key: PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it, or the 32 bytes of its
    /// seed in base64
    #[arg(long, value_name = "F")]
    sign_key: Option<PathBuf>,
}

impl Signer {
    async fn sign(&self, wasm: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(file) = &self.sign_key else { return Ok(None) };
        let text = tokio::fs::read_to_string(file)
            .await
            .with_context(|| format!("the key {} cannot be read", file.display()))?;
        let key = Key::parse(&text)
            .map_err(|reason| fail(Code::BadRequest, format!("the key {}: {reason}", file.display())))?;
        Ok(Some(key.sign(wasm)))
    }
}

/// A module's params by name.
pub(crate) type Params = Map<String, Value>;

/// Params as the command line has them.
pub(crate) fn params(text: &str) -> Result<Params, String> {
    serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::New(args) => new::run(&args, context),
        Verb::Test(args) => trial::run(&args, context).await,
        Verb::Deploy { file, name, signer, force, params } => {
            let wasm = read(&file).await?;
            let signature = signer.sign(&wasm).await?;
            let deploy = async |client: &Client| {
                let admin = client.admin();
                let mut deploy = match name {
                    Some(name) => admin.deploy(name, wasm),
                    None => admin.deploy_described(wasm),
                };
                if let Some(signature) = signature {
                    deploy = deploy.signature(signature);
                }
                if let Some(params) = params {
                    deploy = deploy.params(params);
                }
                Ok(if force { deploy.force() } else { deploy }.await?)
            };
            print_deployed(&context.calling(deploy).await?, context)
        }
        Verb::List => {
            let modules = context.calling(async |client| Ok(client.admin().module_list().await?)).await?;
            if context.json {
                return modules.iter().try_for_each(out::json);
            }
            if modules.is_empty() {
                out::note("the rules name no modules");
                return Ok(());
            }
            out::text(views::list(&modules))
        }
        Verb::Show { name } => {
            let module = context.calling(async |client| Ok(client.admin().module_show(name).await?)).await?;
            if context.json { out::json(&module) } else { out::text(views::facts(&module)) }
        }
        Verb::History { name } => {
            let versions =
                context.calling(async |client| Ok(client.admin().module_history(name).await?)).await?;
            if context.json {
                versions.iter().try_for_each(out::json)
            } else {
                out::text(views::history(&versions))
            }
        }
        Verb::Rollback { name } => {
            let back =
                context.calling(async |client| Ok(client.admin().module_rollback(name).await?)).await?;
            print_deployed(&back, context)
        }
        Verb::Shadow { name, file, for_time, signer } => {
            let wasm = read(&file).await?;
            let signature = signer.sign(&wasm).await?;
            let shadow = async |client: &Client| {
                let mut shadow = client.admin().module_shadow(name, wasm);
                if let Some(signature) = signature {
                    shadow = shadow.signature(signature);
                }
                if let Some(time) = for_time {
                    shadow = shadow.for_time(time);
                }
                Ok(shadow.await?)
            };
            let module = context.calling(shadow).await?;
            if context.json { out::json(&module) } else { out::text(views::facts(&module)) }
        }
        Verb::Promote { name } => {
            let live = context.calling(async |client| Ok(client.admin().module_promote(name).await?)).await?;
            print_deployed(&live, context)
        }
        Verb::State { name, key } => state(&name, key, context).await,
    }
}

/// The value of one key as it is, or all entries page by page.
async fn state(name: &str, key: Option<String>, context: &Context) -> anyhow::Result<()> {
    let client = context.connect().await?;
    let one = key.is_some();
    let mut after = None;
    loop {
        let page = client.admin().module_state(name, key.clone(), after, MAX_PAGE).await?;
        if context.json {
            page.iter().try_for_each(out::json)?;
        } else if one {
            page.iter().try_for_each(|entry| out::bytes(&views::value(entry)?))?;
        } else {
            page.iter().try_for_each(|entry| out::text(views::entry(entry)))?;
        }
        match page.last() {
            Some(last) if !one => after = Some(spelled(last)),
            _ => break,
        }
    }
    client.close().await;
    Ok(())
}

/// A key as requests spell it.
fn spelled(entry: &StateEntryView) -> String {
    if entry.key_encoding == "base64" { format!("base64:{}", entry.key) } else { entry.key.clone() }
}

/// A binary from a file, no larger than any router takes.
pub(crate) async fn read(file: &Path) -> anyhow::Result<Bytes> {
    let unreadable = || format!("the module {} cannot be read", file.display());
    let bytes = tokio::fs::metadata(file).await.with_context(unreadable)?.len();
    if bytes > MAX_MODULE {
        let detail = format!(
            "{} has {}, and no router takes more than {}",
            file.display(),
            human::bytes(bytes),
            human::bytes(MAX_MODULE)
        );
        return Err(fail(Code::PayloadTooLarge, detail));
    }
    Ok(tokio::fs::read(file).await.with_context(unreadable)?.into())
}

fn print_deployed(deployed: &ModuleDeployed, context: &Context) -> anyhow::Result<()> {
    if context.json { out::json(deployed) } else { out::text(views::deployed(deployed)) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &[&str]) -> Result<Verb, clap::Error> {
        let cli = Cli::try_parse_from(["chaski", "module"].iter().chain(line))?;
        let Command::Module(args) = cli.command else { panic!("not module") };
        Ok(args.verb)
    }

    #[test]
    fn params_are_an_object() {
        let verb =
            parse(&["deploy", "a.wasm", "--params", r#"{"region":"eu","n":1}"#]).expect("a valid line");
        let Verb::Deploy { params: Some(params), name: None, force: false, .. } = verb else {
            panic!("{verb:?}")
        };
        assert_eq!(params["n"], 1);
        let wrong = parse(&["deploy", "a.wasm", "--params", "[1]"]).expect_err("a list").to_string();
        assert!(wrong.contains("it is no JSON object"), "{wrong}");
    }

    #[test]
    fn the_documented_forms_are_understood() {
        for line in [
            &["new", "eu-only"][..],
            &["new", "eu-only", "--kind", "filter", "--sdk", "../guest"],
            &["new", "cheapest", "--kind", "aggregator"],
            &["new", "patient", "--kind", "compensator"],
            &["test", "a.wasm", "--message", "{}"],
            &["test", "a.wasm", "--message", "{}", "--reply", "{}", "--reply", "{}"],
            &["test", "a.wasm", "--ndjson", "f", "--params", "{}"],
            &["deploy", "a.wasm", "--name", "n", "--sign-key", "k", "--force"],
            &["list"],
            &["show", "n"],
            &["history", "n"],
            &["rollback", "n"],
            &["shadow", "n", "a.wasm", "--for", "10m"],
            &["promote", "n"],
            &["state", "n"],
            &["state", "n", "key"],
        ] {
            parse(line).unwrap_or_else(|error| panic!("{error}"));
        }
        assert!(parse(&["test", "a.wasm"]).is_err(), "no messages");
        assert!(parse(&["shadow", "n", "a.wasm", "--for", "10"]).is_err(), "a duration without its unit");
    }

    #[tokio::test]
    async fn a_file_that_no_router_takes_is_not_read() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(MAX_MODULE + 1).expect("a sparse file");
        let error = read(file.path()).await.expect_err("it is too large");
        assert_eq!(crate::failure::code(&error), Code::PayloadTooLarge);
    }
}
