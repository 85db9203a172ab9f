//! The rules file of `serve --rules`, with the module files that it names: applied at the start and whenever one of them changes, unless all is
//! as it was when this file was last applied, so that a restart undoes no rollback. A wrong document or module changes nothing: it is logged, and
//! an event tells of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chaski_broker::{FILE_AUTHOR, Millis, ModulePin};
use chaski_protocol::{Code, Refusal};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Binaries, Change, ModuleSource, Wanted, change, check};
use crate::events;
use crate::modules::{beside, keep_binary, now_ms};
use crate::shard::Shard;
use crate::start::StartError;

/// Editors write a file in several steps; it is read when the last was so long ago.
const SETTLE: Duration = Duration::from_millis(100);

/// Applies the file and watches it from then on. A file that can't be read, or is no valid document, stops the start; one that the
/// router refuses (a queue would vanish with its messages) does not, since only a running router can be helped out of that.
pub(crate) async fn apply_and_watch(shard: Shard, file: PathBuf) -> Result<JoinHandle<()>, StartError> {
    let file = RulesFile::find(&file)?;
    let document = file.read().map_err(|error| file.unreadable(&error))?;
    if let Err(errors) = check(&document) {
        return Err(StartError::new(Code::RulesInvalid, errors.in_file(&file.shown())));
    }
    // Watching begins before the first look at what is in force, so that no change falls between.
    let (changed, changes) = mpsc::channel(1);
    let mut watcher = file.watch(changed).map_err(|error| {
        StartError::new(
            Code::Internal,
            format!("the directory of the rules file {} cannot be watched: {error}", file.shown()),
        )
    })?;
    file.watch_modules(&mut watcher, &document);
    let refused = |refusal: Refusal| StartError::new(refusal.code, refusal.detail);
    let binaries = file.binaries(&shard, &document).await.map_err(refused)?;
    if file.already_applied(&shard, &document, &binaries).await.map_err(refused)? {
        tracing::info!(file = %file.shown(), "the rules file is unchanged since it was last applied");
    } else {
        file.apply(&shard, &document, binaries.clone()).await;
    }
    Ok(tokio::spawn(follow(shard, file, (document, binaries), watcher, changes)))
}

/// The binaries of the module files that a document names, by path as written.
type Files = BTreeMap<String, ModulePin>;

async fn follow(
    shard: Shard,
    file: RulesFile,
    mut seen: (String, Files),
    mut watcher: RecommendedWatcher,
    mut changes: mpsc::Receiver<()>,
) {
    while changes.recv().await.is_some() {
        while let Ok(Some(())) = tokio::time::timeout(SETTLE, changes.recv()).await {}
        let document = match file.read() {
            Ok(document) => document,
            // An editor that replaces it may not be done; the next change tells.
            Err(error) => {
                tracing::warn!(file = %file.shown(), %error, "the rules file cannot be read; the rules stay as they are");
                continue;
            }
        };
        let changed = document != seen.0;
        match file.binaries(&shard, &document).await {
            Ok(binaries) if !changed && binaries == seen.1 => {}
            Ok(binaries) => {
                file.watch_modules(&mut watcher, &document);
                file.apply(&shard, &document, binaries.clone()).await;
                seen = (document, binaries);
            }
            // A build that replaces a module may not be done; the next change tells.
            Err(refusal) if !changed => {
                tracing::warn!(file = %file.shown(), detail = %refusal.detail, "a module file cannot be read; the rules stay as they are");
            }
            Err(refusal) => {
                file.watch_modules(&mut watcher, &document);
                file.refused(&shard, refusal).await;
                seen = (document, Files::new());
            }
        }
    }
    drop(watcher);
}

/// The file, by a path that doesn't depend on the working directory.
struct RulesFile {
    path: PathBuf,
    directory: PathBuf,
}

impl RulesFile {
    fn find(given: &Path) -> Result<RulesFile, StartError> {
        let parent = given.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let found = parent.canonicalize().map(|directory| RulesFile {
            path: directory.join(given.file_name().unwrap_or_default()),
            directory,
        });
        found.map_err(|error| {
            StartError::new(
                Code::RulesInvalid,
                format!("the rules file {} cannot be read: {error}", given.display()),
            )
        })
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn author(&self) -> String {
        format!("{FILE_AUTHOR}{}", self.path.display())
    }

    fn read(&self) -> std::io::Result<String> {
        std::fs::read_to_string(&self.path)
    }

    fn unreadable(&self, error: &std::io::Error) -> StartError {
        StartError::new(
            Code::RulesInvalid,
            format!("the rules file {} cannot be read: {error}", self.shown()),
        )
    }

    /// Watches the directory: an editor replaces the file by another of the same name, and a watch on the file itself would stay with
    /// the old one.
    fn watch(&self, changed: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event as well, and would wake the reader for ever.
            let read = |kind| matches!(kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
            if !event.is_ok_and(|event| read(event.kind)) {
                // A full channel already says that something changed.
                let _ = changed.try_send(());
            }
        })?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }

    /// The module files that a document names. A document that is not valid names none.
    fn modules(&self, document: &str) -> Vec<(String, PathBuf)> {
        let modules = check(document).map(|checked| checked.modules).unwrap_or_default();
        let files = modules.into_iter().filter_map(|module| match module.source {
            ModuleSource::File(path) => {
                let whole = self.directory.join(&path);
                Some((path, whole))
            }
            _ => None,
        });
        files.collect()
    }

    /// Watches the directories of the module files too.
    fn watch_modules(&self, watcher: &mut RecommendedWatcher, document: &str) {
        for (_, path) in self.modules(document) {
            let Some(directory) = path.parent().filter(|directory| **directory != self.directory) else {
                continue;
            };
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %directory.display(), %error, "changes of a module file will not be noticed");
            }
        }
    }

    /// Reads the module files and keeps what is in them. A signature lies beside its file, as `FILE.sig`: 64 bytes.
    async fn binaries(&self, shard: &Shard, document: &str) -> Result<Files, Refusal> {
        let (files, shard) = (self.modules(document), shard.clone());
        beside(move || {
            let read = |(written, path): (String, PathBuf)| {
                let bytes = std::fs::read(&path).map_err(|error| {
                    let detail = format!("the module file {} cannot be read: {error}", path.display());
                    Refusal::new(Code::UnknownModule, detail)
                })?;
                let signature = std::fs::read(signature_file(&path)).ok();
                let binary = Some(keep_binary(&shard, &bytes)?);
                Ok((written, ModulePin { name: String::new(), binary, signature }))
            };
            files.into_iter().map(read).collect()
        })
        .await
    }

    /// Whether document and module files are what they were when this file was last applied.
    async fn already_applied(&self, shard: &Shard, document: &str, files: &Files) -> Result<bool, Refusal> {
        let binaries: Vec<_> = check(document)
            .map(|checked| checked.modules)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|module| match &module.source {
                ModuleSource::File(path) => Some((module.name, files.get(path)?.binary)),
                _ => None,
            })
            .collect();
        let (author, document) = (self.author(), document.to_owned());
        let applied = shard.inspect(move |broker| {
            let last = broker
                .rules_history()
                .filter(|entry| entry.author == author)
                .max_by_key(|entry| entry.version);
            last.is_some_and(|entry| {
                let same = |(name, binary): &(String, Option<[u8; 32]>)| {
                    entry.modules.iter().any(|pin| pin.name == *name && pin.binary == *binary)
                };
                entry.document == document && binaries.iter().all(same)
            })
        });
        Ok(applied.await?)
    }

    async fn apply(&self, shard: &Shard, document: &str, files: Files) {
        let outcome = match check(document) {
            Ok(_) => {
                let wanted = Wanted { document: document.to_owned(), binaries: Binaries::Named(files) };
                let by = Change { author: self.author(), ..Change::default() };
                change(shard, by, |_| Ok(wanted.clone())).await
            }
            Err(errors) => Err(Refusal::new(Code::RulesInvalid, errors.in_file(&self.shown()))),
        };
        match outcome {
            Ok(change) => {
                tracing::info!(file = %self.shown(), version = change.version, changes = ?change.changes, "rules file applied")
            }
            Err(refusal) if refusal.code == Code::ShuttingDown => {}
            Err(refusal) => self.refused(shard, refusal).await,
        }
    }

    async fn refused(&self, shard: &Shard, Refusal { code, detail }: Refusal) {
        tracing::error!(file = %self.shown(), %code, %detail, "rules file refused; the rules stay as they are");
        // When the driver is gone there is nobody to tell.
        let _ = shard.announce(events::rules_refused(&self.author(), code, &detail, Millis(now_ms()))).await;
    }
}

/// Where the signature of a module file lies.
fn signature_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_by_another_is_noticed_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.toml");
        std::fs::write(&path, "# first").unwrap();
        let file = RulesFile::find(&path).unwrap();
        let (changed, mut changes) = mpsc::channel(1);
        let _watcher = file.watch(changed).unwrap();
        for document in ["# second", "# third"] {
            let replacement = directory.path().join("rules.toml.new");
            std::fs::write(&replacement, document).unwrap();
            std::fs::rename(&replacement, &path).unwrap();
            while file.read().unwrap() != document {
                changes.recv().await.unwrap();
            }
            changes.recv().await.unwrap();
        }
    }

    #[test]
    fn a_file_is_known_by_its_whole_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = RulesFile::find(&directory.path().join("rules.toml")).unwrap();
        assert!(file.path.is_absolute() && file.author().ends_with("/rules.toml"));
        assert!(RulesFile::find(&directory.path().join("none/rules.toml")).is_err());
    }
}
