//! The rules file of `serve --rules`: applied at the start and whenever it changes, unless it is what this file said when it was last
//! applied, so that a restart undoes no rollback. A wrong document changes nothing: it is logged, and an event tells of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chaski_broker::Millis;
use chaski_protocol::{Code, Refusal};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{apply, check};
use crate::events;
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
    let watcher = file.watch(changed).map_err(|error| {
        StartError::new(
            Code::Internal,
            format!("the directory of the rules file {} cannot be watched: {error}", file.shown()),
        )
    })?;
    match file.already_applied(&shard, &document).await {
        Ok(true) => {
            tracing::info!(file = %file.shown(), "the rules file is unchanged since it was last applied")
        }
        Ok(false) => file.apply(&shard, &document).await,
        Err(refusal) => return Err(StartError::new(refusal.code, refusal.detail)),
    }
    Ok(tokio::spawn(follow(shard, file, document, watcher, changes)))
}

async fn follow(
    shard: Shard,
    file: RulesFile,
    mut seen: String,
    watcher: RecommendedWatcher,
    mut changes: mpsc::Receiver<()>,
) {
    while changes.recv().await.is_some() {
        while let Ok(Some(())) = tokio::time::timeout(SETTLE, changes.recv()).await {}
        match file.read() {
            Ok(document) if document == seen => {}
            Ok(document) => {
                file.apply(&shard, &document).await;
                seen = document;
            }
            // An editor that replaces it may not be done; the next change tells.
            Err(error) => {
                tracing::warn!(file = %file.shown(), %error, "the rules file cannot be read; the rules stay as they are")
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
        format!("file {}", self.path.display())
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

    /// Whether this document is what this file said when it was last applied.
    async fn already_applied(&self, shard: &Shard, document: &str) -> Result<bool, Refusal> {
        let (author, document) = (self.author(), document.to_owned());
        let applied = shard.inspect(move |broker| {
            let last = broker
                .rules_history()
                .filter(|entry| entry.author == author)
                .max_by_key(|entry| entry.version);
            last.is_some_and(|entry| entry.document == document)
        });
        Ok(applied.await?)
    }

    async fn apply(&self, shard: &Shard, document: &str) {
        let outcome = match check(document) {
            Ok(_) => apply(shard, &self.author(), document, &[]).await,
            Err(errors) => Err(Refusal::new(Code::RulesInvalid, errors.in_file(&self.shown()))),
        };
        match outcome {
            Ok(change) => {
                tracing::info!(file = %self.shown(), version = change.version, changes = ?change.changes, "rules file applied")
            }
            Err(refusal) if refusal.code == Code::ShuttingDown => {}
            Err(Refusal { code, detail }) => {
                tracing::error!(file = %self.shown(), %code, %detail, "rules file refused; the rules stay as they are");
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = Millis(u64::try_from(now.as_millis()).unwrap_or_default());
                // When the driver is gone there is nobody to tell.
                let _ = shard.announce(events::rules_refused(&self.author(), code, &detail, now)).await;
            }
        }
    }
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
