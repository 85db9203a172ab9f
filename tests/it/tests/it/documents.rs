//! The documents say what is so: all parts of the README's tour run, what ARCHITECTURE.md names exists, links lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use chaski_it::{Router, Running, Setup, binary, root, run};

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One command of the tour, and the output that the README shows below it.
#[derive(Debug)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The `console` blocks of one part of the tour, in their order.
fn tour(readme: &str, part: &str) -> Vec<Step> {
    let (_, tour) =
        readme.split_once(&format!("\n## {part}\n")).expect("the README has this part of the tour");
    let (tour, _) = tour.split_once("\n## ").expect("something follows the tour");
    let mut steps: Vec<Step> = Vec::new();
    for block in tour.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").expect("blocks are closed");
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step { command: command.to_owned(), shown: Vec::new() }),
                (None, Some(step)) => step.shown.push(line.to_owned()),
                (None, None) => panic!("`{line}` stands before any command"),
            }
        }
    }
    steps
}

/// Whether a line is what is shown; `…` stands for anything, and runs of spaces are one.
fn matches(shown: &str, line: &str) -> bool {
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, line) = (squeeze(shown), squeeze(line));
    let mut rest = line.as_str();
    let mut parts = shown.split('…').map(str::trim).peekable();
    let first = parts.next().unwrap_or_default();
    let Some(after) = rest.strip_prefix(first) else { return false };
    rest = after;
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        match rest.find(part) {
            Some(at) if parts.peek().is_some() => rest = &rest[at + part.len()..],
            Some(_) => return rest.ends_with(part),
            None => return false,
        }
    }
    true
}

#[test]
fn the_readmes_tour_does_what_it_shows() {
    let steps = tour(&read("README.md"), "A five-minute tour");
    assert!(steps.len() >= 15, "{steps:#?}");
    let setup = Setup::default();
    let directory = setup.path("");
    let mut router: Option<Router> = None;
    let mut setup = Some(setup.data(directory.join("chaski-data")));
    // Commands that the tour leaves running: they end with this test, since a client waits for its router for ever.
    let mut background = Vec::new();
    for step in steps {
        if step.command.starts_with("chaski serve") {
            assert_eq!(step.command, "chaski serve --dev");
            router = Some(setup.take().expect("one router at a time").start());
            continue;
        }
        let running = router.as_ref().expect("a router is started first");
        if let Some(command) = step.command.strip_suffix(" &") {
            // In the place of the shell, so that ending the one ends the other.
            background.push(Running::start(shell(&format!("exec {command}"), &directory, running)));
            continue;
        }
        step.run(&directory, running);
        if step.command.starts_with("kill -9") {
            // The tour's own words, with the lock file that it names.
            setup = router.take().map(Router::kill);
        }
    }
    assert_eq!(background.len(), 1, "the responder");
}

/// From an empty folder to a filter in force and back, with cargo; offline, since nothing that it needs is new.
#[test]
fn the_readmes_filter_is_written_deployed_and_rolled_back() {
    let steps = tour(&read("README.md"), "Write a filter in ten lines");
    assert!(steps.len() >= 15, "{steps:#?}");
    let router = Router::start();
    let mut directory = router.setup().path("");
    for step in steps {
        match step.command.strip_prefix("cd ") {
            Some(to) => directory.push(to),
            None => step.run(&directory, &router),
        }
    }
}

/// A gather and a saga, with the document that the reader is told to save.
#[test]
fn the_readmes_gather_and_saga_do_what_they_show() {
    const PART: &str = "Ask many, answer once; undo what was done";
    let readme = read("README.md");
    let steps = tour(&readme, PART);
    assert!(steps.len() >= 12, "{steps:#?}");
    let (_, text) = readme.split_once(&format!("\n## {PART}\n")).expect("the README has this part");
    let (before, document) = text.split_once("```toml\n").expect("it has a document");
    let (document, _) = document.split_once("```").expect("blocks are closed");
    assert!(before.trim_end().ends_with("save this as `shop.toml`:"), "{before}");
    let router = Router::start();
    let directory = router.setup().path("");
    std::fs::write(directory.join("shop.toml"), document).expect("the test's directory can be written");
    let mut background = Vec::new();
    for step in steps {
        match step.command.strip_suffix(" &") {
            Some(command) => {
                background.push(Running::start(shell(&format!("exec {command}"), &directory, &router)));
            }
            None => step.run(&directory, &router),
        }
    }
    assert_eq!(background.len(), 5, "the responders");
}

impl Step {
    /// Runs it as a reader would, and looks for the lines that it should print, in their order.
    #[track_caller]
    fn run(&self, directory: &Path, router: &Router) {
        let Step { command, shown } = self;
        let output = run(shell(command, directory, router), b"").ok();
        let mut lines = output.stdout.lines();
        for shown in shown {
            assert!(
                lines.any(|line| matches(shown, line)),
                "`{command}` should print `{shown}`, not\n{}",
                output.stdout
            );
        }
    }
}

fn shell(command: &str, directory: &Path, router: &Router) -> Command {
    let mut shell = Command::new("sh");
    // The programs under test, and the cargo and rustc of this very test.
    let ours = [binary("chaski"), PathBuf::from(env!("CARGO"))];
    let ours = ours.iter().map(|program| program.parent().expect("programs lie in a directory").to_owned());
    let others = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(ours.chain(std::env::split_paths(&others))).expect("plain paths");
    shell.arg("-c").arg(command).current_dir(directory).env("PATH", path);
    shell.env("CHASKI_URL", router.url()).env("XDG_CONFIG_HOME", router.setup().config());
    shell.env("CARGO_NET_OFFLINE", "true");
    // What is meant for this test's own build is not meant for those of the tour.
    for name in [
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        shell.env_remove(name);
    }
    shell
}

#[test]
fn every_builtin_has_its_row_with_its_size() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| builtin | ").expect("the README has a table of builtins");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `"));
    let told: BTreeMap<&str, usize> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            (cells[0].trim_matches('`'), cells[3].parse().expect("a number of KiB"))
        })
        .collect();
    let names: BTreeSet<&str> = chaski_filters::builtins().iter().map(|guest| guest.name).collect();
    assert_eq!(told.keys().copied().collect::<BTreeSet<_>>(), names);
    for (name, kib) in told {
        let bytes = chaski_filters::builtin(name).expect("it is one of them").wasm.len();
        // Another compiler makes slightly other code.
        let off = (kib * 1024).abs_diff(bytes);
        assert!(off * 10 <= bytes, "`{name}` has {bytes} bytes, not {kib} KiB");
    }
}

#[test]
fn a_shown_line_is_compared_whole_but_for_ellipses() {
    assert!(matches("a  b", "a b"));
    assert!(matches("stored … (sequence …)", "stored 1234 (sequence 7)"));
    assert!(!matches("stored … (sequence …)", "stored 1234"));
    assert!(!matches("a", "a b"));
    assert!(!matches("a … c", "a b d"));
    assert!(matches("…", "anything"));
}

#[test]
fn the_two_commands_are_what_the_check_runs() {
    let readme = read("README.md");
    assert!(readme.lines().any(|line| line.starts_with("cargo run --release -p chaski -- demo")));
    let test = readme.lines().filter(|line| line.starts_with("cargo test")).count();
    assert_eq!(test, 1, "`.ci/run` takes the one line that begins with `cargo test`");
    assert!(read(".ci/run").contains("README.md"));
}

#[test]
fn every_crate_that_the_architecture_names_exists_and_every_crate_is_named() {
    let manifest = read("Cargo.toml");
    let (_, members) = manifest.split_once("members = [").expect("the workspace has members");
    let (members, _) = members.split_once(']').expect("the list is closed");
    let mut crates = BTreeSet::new();
    for member in members.split('"').skip(1).step_by(2) {
        let manifest = read(&format!("{member}/Cargo.toml"));
        let name =
            manifest.lines().find_map(|line| line.strip_prefix("name = \"")).expect("a crate has a name");
        crates.insert((name.trim_end_matches('"').to_owned(), member.to_owned()));
    }
    let architecture = read("ARCHITECTURE.md");
    let rows = architecture.lines().filter(|line| line.starts_with("| `chaski"));
    let named: BTreeSet<(String, String)> = rows
        .map(|row| {
            let mut words = row.split('`').skip(1).step_by(2);
            let name = words.next().expect("a row names a crate").to_owned();
            (name, words.next().expect("a row says where it is").to_owned())
        })
        .collect();
    assert_eq!(named, crates);
}

#[test]
fn every_path_that_the_documents_name_exists() {
    for document in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/README.md", "sdk/MODULES.md"]
    {
        let text = read(document);
        let here = root().join(document);
        let here = here.parent().expect("documents lie in a directory");
        for link in text.split("](").skip(1) {
            let (link, _) = link.split_once(')').expect("links are closed");
            if !link.starts_with("http") && !link.starts_with('#') {
                let path = link.split('#').next().unwrap_or(link);
                assert!(here.join(path).exists(), "{document} links to {link}");
            }
        }
    }
    for word in read("ARCHITECTURE.md").split('`').skip(1).step_by(2) {
        if word.starts_with("router/") || word.starts_with("sdk/") || word.starts_with("tests/") {
            assert!(root().join(word).exists(), "ARCHITECTURE.md names {word}");
        }
    }
}
