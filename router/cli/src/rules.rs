//! `chaski rules`: the rules document, checked here, compared and applied by the router.

use std::path::{Path, PathBuf};

use chaski_client::AdminError;
use chaski_protocol::Code;
use chaski_protocol::admin::{AdminRequest, RulesChange, RulesCheck, RulesDiff, RulesEntry, RulesView};
use chaski_server::module_test::check_module;
use chaski_server::rules::{self, Checked, ModuleSource};
use clap::Subcommand;

use crate::context::Context;
use crate::failure::fail;
use crate::table::Table;
use crate::{human, input, out};

/// Checks, compares and applies rules
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  chaski rules apply rules.toml")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// Checks a document; needs no router
    #[command(after_help = "Example:\n  chaski rules check rules.toml")]
    Check {
        /// The document (`-` for stdin)
        file: PathBuf,
    },
    /// What applying a document would change
    #[command(after_help = "Example:\n  chaski rules diff rules.toml")]
    Diff {
        /// The document (`-` for stdin)
        file: PathBuf,
    },
    /// Puts a document into force
    ///
    /// Module files that it names are read here, relative to the document, and sent along, with the signature of each where there is
    /// one beside it (FILE.sig).
    #[command(after_help = "Example:\n  chaski rules apply rules.toml --drop-queue old-billing")]
    Apply {
        /// The document (`-` for stdin)
        file: PathBuf,
        /// A queue that may vanish with messages in it; may be given again
        #[arg(long, value_name = "Q")]
        drop_queue: Vec<String>,
        /// A module that may vanish with its state, or whose state is emptied where it stays; may be given again
        #[arg(long, value_name = "M")]
        drop_state: Vec<String>,
    },
    /// The document in force
    #[command(after_help = "Example:\n  chaski rules show > rules.toml")]
    Show,
    /// The JSON Schema of the document; needs no router
    #[command(after_help = "Example:\n  chaski rules schema > rules.schema.json")]
    Schema,
    /// Every version: who made it, when, and what it changed
    #[command(after_help = "Example:\n  chaski rules history")]
    History,
    /// Makes a new version that is equal to an earlier one
    #[command(after_help = "Example:\n  chaski rules rollback 3")]
    Rollback {
        /// The earlier version
        version: u64,
        /// A queue that may vanish with messages in it; may be given again
        #[arg(long, value_name = "Q")]
        drop_queue: Vec<String>,
        /// A module that may vanish with its state, or whose state is emptied where it stays; may be given again
        #[arg(long, value_name = "M")]
        drop_state: Vec<String>,
    },
}

/// Does one verb.
pub(crate) async fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    match args.verb.clone() {
        Verb::Check { file } => check(&file, context).await,
        Verb::Diff { file } => {
            let request =
                |document, files, signatures| AdminRequest::RulesDiff { document, files, signatures };
            let diff: RulesDiff = ask(&file, request, context).await?;
            if context.json {
                return out::json(&diff);
            }
            if diff.changes.is_empty() {
                out::note(format!("no difference from version {}", diff.version));
            }
            out::text(diff.changes.join("\n"))
        }
        Verb::Apply { file, drop_queue: drop_queues, drop_state: drop_states } => {
            let request = |document, files, signatures| AdminRequest::RulesApply {
                document,
                files,
                signatures,
                drop_queues,
                drop_states,
            };
            print_change(&ask(&file, request, context).await?, context)
        }
        Verb::Show => {
            let view: RulesView = context.admin(AdminRequest::RulesShow).await?;
            if context.json {
                return out::json(&view);
            }
            out::note(format!("version {}", view.version));
            out::text(view.document)
        }
        Verb::Schema => {
            let schema = chaski_server::rules::schema();
            if context.json { out::json(&schema) } else { out::text(serde_json::to_string_pretty(&schema)?) }
        }
        Verb::History => {
            let entries: Vec<RulesEntry> = context.admin(AdminRequest::RulesHistory).await?;
            if context.json { entries.iter().try_for_each(out::json) } else { out::text(history(&entries)) }
        }
        Verb::Rollback { version, drop_queue: drop_queues, drop_state: drop_states } => {
            let request = AdminRequest::RulesRollback { version, drop_queues, drop_states };
            print_change(&context.admin(request).await?, context)
        }
    }
}

async fn check(file: &Path, context: &Context) -> anyhow::Result<()> {
    let document = read(file).await?;
    let checked = chaski_server::rules::check(&document)
        .map_err(|errors| fail(Code::RulesInvalid, wrong(&name(file), &errors.to_string())))?;
    let at = file.to_owned();
    // Compiling takes its time.
    let work = move || check_modules(&at, &checked).map(|()| checked);
    let checked = tokio::task::spawn_blocking(work).await??;
    let check = RulesCheck { queues: checked.rules.queues.len() as u64, notes: checked.notes };
    if context.json {
        return out::json(&check);
    }
    check.notes.iter().for_each(|note| out::note(format!("note: {note}")));
    out::text(format!("{} is right: {}", name(file), human::count(check.queues, "queue")))
}

/// Whether the modules that are here, files and builtins, take what the document gives them. Only the router knows the others.
fn check_modules(file: &Path, checked: &Checked) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    for module in &checked.modules {
        let wasm = match &module.source {
            ModuleSource::File(path) => std::fs::read(directory(file).join(path))
                .map_err(|error| format!("the module file {path} cannot be read: {error}")),
            ModuleSource::Builtin(name) => match chaski_server::builtin(name) {
                Some(wasm) => Ok(wasm.to_vec()),
                None => continue,
            },
            ModuleSource::Digest(_) | ModuleSource::Missing => continue,
        };
        let wrong = match wasm {
            Ok(wasm) => check_module(checked, module, &wasm),
            Err(error) => {
                vec![(rules::place(&checked.rules.document, &["module", &module.name, "file"]), error)]
            }
        };
        let told = |(line, error): (usize, String)| {
            format!("{}:{line}: module {}: {error}", name(file), module.name)
        };
        errors.extend(wrong.into_iter().map(told));
    }
    match &errors[..] {
        [] => Ok(()),
        [one] => Err(fail(Code::RulesInvalid, one.clone())),
        all => {
            let count = human::count(all.len() as u64, "error");
            Err(fail(Code::RulesInvalid, format!("{count} in {}\n{}", name(file), all.join("\n"))))
        }
    }
}

/// A document is far smaller than a payload may be, so the same bound does.
async fn read(file: &Path) -> anyhow::Result<String> {
    let bytes = input::payload(None, Some(file)).await?;
    String::from_utf8(bytes.into())
        .map_err(|_| fail(Code::RulesInvalid, format!("{} is no UTF-8 text", name(file))))
}

/// Paths of module files, each with a digest or a signature.
type Pairs = Vec<(String, String)>;

/// A call about a document, with the module files that it names; what the router finds wrong in it is said with the file's name.
async fn ask<T: serde::de::DeserializeOwned>(
    file: &Path,
    request: impl FnOnce(String, Pairs, Pairs) -> AdminRequest,
    context: &Context,
) -> anyhow::Result<T> {
    let document = read(file).await?;
    let answer = context.calling(async |client| {
        let files = client.admin().upload_files(&document, directory(file)).await?;
        let signatures = client.admin().signatures(&document, directory(file)).await?;
        crate::context::ask(client, request(document, files, signatures)).await
    });
    answer.await.map_err(|error| match error.downcast_ref() {
        Some(AdminError::Refused(refusal)) if refusal.code == Code::RulesInvalid => {
            fail(Code::RulesInvalid, wrong(&name(file), &refusal.detail))
        }
        _ => error,
    })
}

/// Where relative paths of a document begin.
fn directory(file: &Path) -> &Path {
    file.parent().filter(|_| file != Path::new("-")).unwrap_or(Path::new(""))
}

/// What is wrong with a file, each error as `NAME:LINE:COLUMN: …`. One is the sentence itself; several stand below their count.
fn wrong(name: &str, errors: &str) -> String {
    let all: Vec<String> = errors.lines().map(|error| placed(name, error)).collect();
    match &all[..] {
        [one] => one.clone(),
        all => format!("{} in {name}\n{}", human::count(all.len() as u64, "error"), all.join("\n")),
    }
}

/// `line 3, column 1: …` as editors read it.
fn placed(name: &str, error: &str) -> String {
    let place = || {
        let (line, rest) = error.strip_prefix("line ")?.split_once(", column ")?;
        let (column, message) = rest.split_once(": ")?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(line) && digits(column)).then(|| format!("{name}:{line}:{column}: {message}"))
    };
    place().unwrap_or_else(|| format!("{name}: {error}"))
}

fn name(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() }
}

/// Prints a change of the rules, whoever asked for it.
pub(crate) fn print_change(change: &RulesChange, context: &Context) -> anyhow::Result<()> {
    if context.json {
        return out::json(change);
    }
    let mut text = change.changes.iter().map(|line| format!("{line}\n")).collect::<String>();
    let stays = if change.changes.is_empty() { "nothing changes: " } else { "" };
    text.push_str(&format!("{stays}rules version {} is in force", change.version));
    out::text(text)
}

fn history(entries: &[RulesEntry]) -> String {
    let mut table = Table::new(&[">VERSION", "APPLIED AT", "AUTHOR", "CHANGES"]);
    for entry in entries {
        let mark = if entry.current { "*" } else { "" };
        let mut changes = entry.changes.iter();
        let mut first = changes.next().cloned().unwrap_or_default();
        if changes.len() > 0 {
            first.push_str(&format!("  (and {} more)", changes.len()));
        }
        let author = entry.author.clone();
        table.row([format!("{mark}{}", entry.version), entry.applied_at.clone(), author, first]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn errors_have_their_place_in_the_file() {
        let one = "line 3, column 1: unknown key `orderin` in `queue.audit`; did you mean `ordering`?";
        expect!["r.toml:3:1: unknown key `orderin` in `queue.audit`; did you mean `ordering`?"]
            .assert_eq(&wrong("r.toml", one));
        expect![[r#"
            2 errors in r.toml
            r.toml:3:1: this
            r.toml: queue `q` is not empty"#]]
        .assert_eq(&wrong("r.toml", "line 3, column 1: this\nqueue `q` is not empty"));
    }

    #[test]
    fn modules_that_do_not_fit_the_document_are_named_with_their_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("empty.wasm"), b"").expect("a file");
        let document = "[module.a]\nfile = \"empty.wasm\"\n[module.b]\non_error = \"pass\"\nfile = \"gone.wasm\"\n[module.c]\nbuiltin = \"eu-only\"\n";
        let checked = rules::check(document).expect("a document");
        let file = directory.path().join("r.toml");
        let error = check_modules(&file, &checked).expect_err("none fits").to_string();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].starts_with("3 errors in "), "{error}");
        assert!(lines[1].contains("r.toml:2: module a: the file is no WebAssembly"), "{error}");
        assert!(
            lines[2].contains("r.toml:5: module b: the module file gone.wasm cannot be read: "),
            "{error}"
        );
        assert!(lines[3].contains("r.toml:6: module c: the module needs the param `region`"), "{error}");
    }

    #[test]
    fn relative_paths_begin_at_the_document() {
        let of = |file: &str| directory(Path::new(file)).join("m.wasm");
        assert_eq!(of("-"), Path::new("m.wasm"));
        assert_eq!(of("r.toml"), Path::new("m.wasm"));
        assert_eq!(of("a/r.toml"), Path::new("a/m.wasm"));
    }

    #[test]
    fn history_marks_what_is_in_force() {
        let entry = |version, current, changes: &[&str]| RulesEntry {
            version,
            author: "file rules.toml".to_owned(),
            applied_at: "2026-01-01T00:00:00Z".to_owned(),
            current,
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        };
        let entries = [entry(10, true, &["+ queue.billing", "- queue.old"]), entry(9, false, &[])];
        expect![[r#"
            VERSION  APPLIED AT            AUTHOR           CHANGES
                *10  2026-01-01T00:00:00Z  file rules.toml  + queue.billing  (and 1 more)
                  9  2026-01-01T00:00:00Z  file rules.toml
        "#]]
        .assert_eq(&history(&entries));
    }
}
