//! `chaski module new`: a project that builds and tests as it is, offline too. It writes files and starts nothing.

mod templates;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chaski_protocol::Code;
use clap::ValueEnum;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{fail, usage};
use crate::out;

/// The dependencies of this checkout's own guests: what a new project is locked to, so that it builds where they were built.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../filters/guests/Cargo.lock"));

/// The guest SDK of the checkout that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sdk/guest");

/// Words that Rust keeps for itself, and crates that every program has: no package can be named so.
const TAKEN: &str = "abstract alloc as async await become box break build const continue core crate do dyn else enum extern false \
    final fn for gen if impl in let loop macro match mod move mut override priv proc-macro pub ref return self static std struct super \
    test trait true try type typeof unsafe unsized use virtual where while yield";

/// What only some features of the SDK ask for.
const OPTIONAL: [&str; 2] = ["serde", "serde_json"];

/// Makes a project for a new module; needs no router
///
/// It builds with cargo alone, and its tests run natively.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski module new eu-only\n  cd eu-only && cargo test")]
pub(super) struct Args {
    /// The module's name, and the folder's
    name: String,
    /// What kind of module it is
    #[arg(long, value_name = "K", default_value = "filter")]
    kind: Kind,
    /// The folder of the guest SDK; by default that of the checkout that this program was built from, else a version
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Judges messages
    Filter,
    /// Makes one answer of the replies of a scatter-gather
    Aggregator,
    /// Decides how a saga is undone
    Compensator,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Made<'a> {
    name: &'a str,
    directory: &'a Path,
    sdk: &'a str,
    files: Vec<&'static str>,
}

/// Writes the project into a new folder.
pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    check_name(&args.name).map_err(usage)?;
    let sdk = Sdk::find(args.sdk.as_deref())?;
    let directory = Path::new(&args.name);
    let files = files(&args.name, args.kind, &sdk);
    write(directory, &files)?;
    let names = files.iter().map(|(name, _)| *name).collect();
    if context.json {
        return out::json(&Made { name: &args.name, directory, sdk: &sdk.shown(), files: names });
    }
    out::text(format!(
        "{} is made, with the SDK of {}:\n  cd {0} && cargo test\n  cargo build --release --target wasm32-unknown-unknown",
        args.name,
        sdk.shown(),
    ))
}

/// Where the project's SDK comes from.
enum Sdk {
    Path(PathBuf),
    Version(&'static str),
}

impl Sdk {
    fn find(given: Option<&Path>) -> anyhow::Result<Sdk> {
        let found = |path: &Path| path.join("Cargo.toml").is_file().then(|| path.canonicalize()).transpose();
        match given {
            Some(path) => match found(path)? {
                Some(path) => Ok(Sdk::Path(path)),
                None => Err(usage(format!("--sdk {}: there is no Cargo.toml in it", path.display()))),
            },
            None => Ok(found(Path::new(SDK))?.map_or(Sdk::Version(env!("CARGO_PKG_VERSION")), Sdk::Path)),
        }
    }

    fn shown(&self) -> String {
        match self {
            Sdk::Path(path) => path.display().to_string(),
            Sdk::Version(version) => format!("version {version}"),
        }
    }

    /// The value of the dependency in TOML. A path in quotes as JSON writes them is TOML too.
    fn dependency(&self) -> String {
        match self {
            Sdk::Path(path) => {
                format!("{{ path = {} }}", serde_json::Value::from(path.display().to_string()))
            }
            Sdk::Version(version) => format!("\"{version}\""),
        }
    }
}

/// A name that is a package, a topic's token and, with `_` for `-`, a function.
fn check_name(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let goes_on =
        bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
    if !(begins && goes_on && name.len() <= 64) {
        return Err(format!(
            "`{name}` is no module's name: a small letter, then small letters, digits, `-` and `_`, 64 at most"
        ));
    }
    if TAKEN.split_whitespace().any(|taken| taken == name) {
        return Err(format!("a package can't be named `{name}`: Rust uses that word itself"));
    }
    Ok(())
}

/// The project's files by path.
fn files(name: &str, kind: Kind, sdk: &Sdk) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("Cargo.toml", manifest(name, sdk)),
        ("src/lib.rs", templates::source(kind, name)),
        ("README.md", templates::readme(kind, name)),
        (".gitignore", "/target\n".to_owned()),
    ];
    // Whose SDK has a version has a registry to ask.
    if matches!(sdk, Sdk::Path(_)) {
        files.push(("Cargo.lock", lock(name)));
    }
    files
}

fn write(directory: &Path, files: &[(&'static str, String)]) -> anyhow::Result<()> {
    if let Err(error) = fs::create_dir(directory) {
        let directory = directory.display();
        return Err(fail(Code::BadRequest, format!("the folder {directory} cannot be made: {error}")));
    }
    fs::create_dir(directory.join("src"))?;
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

fn manifest(name: &str, sdk: &Sdk) -> String {
    let dependency = sdk.dependency();
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib"]

[dependencies]
chaski-guest = {dependency}

# A small binary: it is compiled in the router, and copied with each deploy.
[profile.release]
opt-level = "s"
lto = true
codegen-units = 1
panic = "abort"
strip = true

# A workspace of its own, so that it also builds inside another.
[workspace]
"#
    )
}

/// A lock file with what the SDK needs and nothing else.
fn lock(name: &str) -> String {
    let entries: Vec<Entry> = LOCK.split("[[package]]\n").skip(1).map(Entry::read).collect();
    let mut needed = vec!["chaski-guest"];
    let mut at = 0;
    while at < needed.len() {
        let entry = entries.iter().find(|entry| entry.is(needed[at]));
        for dependency in entry.into_iter().flat_map(|entry| &entry.dependencies) {
            let optional = needed[at] == "chaski-guest" && OPTIONAL.contains(dependency);
            if !optional && !needed.contains(dependency) {
                needed.push(dependency);
            }
        }
        at += 1;
    }
    let mut packages: Vec<(String, String)> = entries
        .iter()
        .filter(|entry| needed.iter().any(|name| entry.is(name)))
        .map(|entry| (entry.name.to_owned(), entry.text()))
        .collect();
    let own = format!("name = \"{name}\"\nversion = \"0.1.0\"\ndependencies = [\n \"chaski-guest\",\n]\n");
    packages.push((name.to_owned(), own));
    packages.sort();
    let mut lock = "# This file is automatically @generated by Cargo.\n# It is not intended for manual editing.\nversion = 4\n".to_owned();
    for (_, text) in packages {
        let _ = write!(lock, "\n[[package]]\n{text}");
    }
    lock
}

/// A package of the lock file.
struct Entry {
    name: &'static str,
    version: &'static str,
    lines: &'static str,
    /// Names, with the version where there are several of a name.
    dependencies: Vec<&'static str>,
}

impl Entry {
    fn read(text: &'static str) -> Entry {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
            line.and_then(|line| line.strip_suffix('"')).unwrap_or_default()
        };
        let dependencies = text.lines().filter_map(|line| line.strip_prefix(" \"")?.strip_suffix("\","));
        Entry {
            name: value("name"),
            version: value("version"),
            lines: text.trim_end(),
            dependencies: dependencies.collect(),
        }
    }

    /// Whether a dependency, `NAME` or `NAME VERSION`, means this package.
    fn is(&self, dependency: &str) -> bool {
        match dependency.split_once(' ') {
            Some((name, version)) => name == self.name && version == self.version,
            None => dependency == self.name,
        }
    }

    /// Its lines, without what only some features of the SDK ask for.
    fn text(&self) -> String {
        let optional = |line: &&str| {
            self.name == "chaski-guest" && OPTIONAL.iter().any(|name| line.trim() == format!("\"{name}\","))
        };
        self.lines.lines().filter(|line| !optional(line)).map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn names_are_packages_and_functions() {
        for name in ["eu-only", "a", "a1_b"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", "EU", "1a", "a.b", "a b", "match", "core", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn the_lock_file_holds_what_the_sdk_needs_and_nothing_else() {
        let lock = lock("eu-west");
        for needed in ["chaski-guest", "chaski-guest-macros", "wit-bindgen", "syn", "eu-west"] {
            assert!(lock.contains(&format!("name = \"{needed}\"\n")), "{needed}\n{lock}");
        }
        for other in ["serde_json", "cel", "eu-only"] {
            assert!(!lock.contains(&format!("\"{other}\"")), "{other}\n{lock}");
        }
    }

    #[test]
    fn a_folder_that_is_there_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let error = write(directory.path(), &[("a", String::new())]).expect_err("it is there");
        assert!(error.to_string().contains("cannot be made"), "{error}");
        assert!(!directory.path().join("a").exists());
    }

    /// The whole promise: a project of each kind is right as it is, offline, and its lock file says what cargo would.
    #[test]
    fn a_new_project_passes_its_tests_offline() {
        let directory = tempfile::tempdir().expect("a directory");
        // One folder for what they share, so that the SDK is built once.
        let target = directory.path().join("target");
        for kind in Kind::value_variants() {
            passes_its_tests(*kind, directory.path(), &target);
        }
    }

    #[track_caller]
    fn passes_its_tests(kind: Kind, directory: &Path, target: &Path) {
        let name = format!("{kind:?}-west").to_lowercase();
        let project = directory.join(&name);
        let sdk = Sdk::find(None).expect("this checkout's SDK");
        write(&project, &files(&name, kind, &sdk)).expect("a project");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "--offline", "--locked", "--quiet"]).current_dir(&project);
        // What is meant for this test's own build is not meant for the project's.
        for name in [
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_BUILD_TARGET",
        ] {
            cargo.env_remove(name);
        }
        cargo.env("CARGO_TARGET_DIR", target);
        let ended = cargo.output().expect("cargo runs");
        assert!(
            ended.status.success(),
            "{name}: {}{}",
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}
