//! From a data directory to a running shard: recovery, the broker's state, the driver's task.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chaski_broker::{Broker, Millis, Output, Position, RestoreError};
use chaski_journal::{DiskStorage, Journal, OpenError, Options};
use chaski_protocol::Code;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::driver::{Driver, FatalError, since};
use crate::modules::{self, FilterSet, Filters, MessageBounds, Modules};
use crate::own;
use crate::progress::ProgressCell;
use crate::rules;
use crate::shard::{Notices, Shard, View};
use crate::upkeep::Upkeep;

/// Inputs that wait for the driver; sessions wait beyond it.
const INPUTS: usize = 1024;

/// Why the router did not start.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct StartError {
    /// What kind.
    pub code: Code,
    /// What happened, to what, what to do.
    pub detail: String,
}

impl StartError {
    /// With a sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> StartError {
        StartError { code, detail: detail.into() }
    }

    /// The error's code.
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        let code = match &error {
            OpenError::Locked { .. } => Code::DataLocked,
            OpenError::ReadOnly { .. } => Code::DataReadOnly,
            OpenError::FormatNewer { .. } => Code::FormatNewer,
            OpenError::Corrupt(_) => Code::JournalCorrupt,
            OpenError::Replay { .. } | OpenError::Io { .. } => Code::Internal,
        };
        StartError::new(code, error.to_string())
    }
}

/// A shard that runs.
pub(crate) struct Running {
    pub(crate) shard: Shard,
    pub(crate) driver: JoinHandle<Result<(), FatalError>>,
}

/// Recovers what is in the directory and starts the driver. Blocks while it reads.
pub(crate) fn start(
    data: &Path,
    options: Options,
    seed: u64,
    compiler: Option<PathBuf>,
) -> Result<Running, StartError> {
    let begun = Instant::now();
    let storage = storage(data)?;
    let mut recovery = chaski_journal::open(Arc::new(storage), options)?;
    let mut broker = restore(&mut recovery, seed)?;
    let mut records = 0_u64;
    recovery.replay(&mut |batch| {
        for (position, record) in (batch.first.0..).zip(batch.records()) {
            records += 1;
            broker
                .replay(Millis(batch.now_ms), Position(position), record)
                .map_err(|error| format!("record {position}: {error}"))?;
        }
        Ok(())
    })?;
    if let Some(cut) = recovery.cut() {
        tracing::warn!(
            segment = cut.segment,
            offset = cut.offset,
            first = cut.first.0,
            "the journal's end was torn by a crash and is cut; nothing in it was confirmed as fsynced"
        );
    }
    let clock = Clock::new(recovery.last_now_ms());
    let mut output = Output::default();
    broker.resume(clock.now(), &mut output);
    // Before anything is counted: what comes earlier is lost.
    crate::metrics::recorder();
    let progress = Arc::new(ProgressCell::new(Position(broker.position().0 - output.records.len() as u64)));
    let tell = Arc::clone(&progress);
    let journal = recovery.start(move |told| tell.tell(told))?;
    tracing::info!(records, took = since(begun), data = %data.display(), "journal recovered");

    let (input, inputs) = mpsc::channel(INPUTS);
    let modules = Modules::new(data.join("code"), compiler, journal.blobs())?;
    let view = view(&broker, filters(&broker, &modules)?);
    let notices = Notices {
        dedup_window_ms: broker.dedup_window_ms(),
        max_payload: view.max_payload,
        max_headers: view.max_headers,
        stopping: false,
    };
    let upkeep = Upkeep::new(input.downgrade(), broker.position());
    let named = modules::named_binaries(&broker);
    let shard = Shard::new(input, view, notices, journal.reader(), clock.now().0, Arc::new(modules));
    modules::sweep(&shard, &named);
    let weak = shard.downgrade();
    let driver = Driver::new(broker, Box::new(journal), clock, weak, progress, output, upkeep);
    let driver = tokio::spawn(driver.run(inputs));
    Ok(Running { shard, driver })
}

/// The broker as the newest whole snapshot has it; an empty one when there is none yet.
fn restore(recovery: &mut chaski_journal::Recovery, seed: u64) -> Result<Broker, StartError> {
    for error in recovery.damaged_snapshots() {
        tracing::warn!(%error, "a snapshot is passed over; an older one and the log make up for it");
    }
    let Some(snapshot) = recovery.snapshot() else { return Ok(Broker::new(seed, own::own)) };
    let position = snapshot.position();
    let unusable = |error: RestoreError| {
        let code = match error {
            RestoreError::Format { .. } => Code::FormatNewer,
            _ => Code::JournalCorrupt,
        };
        let detail = format!(
            "the snapshot at position {position} cannot be used: {error}; start with the version that wrote it, or move it \
             out of the data directory if an older one is there"
        );
        StartError::new(code, detail)
    };
    let mut restore = Broker::restore(seed, own::own);
    for chunk in snapshot {
        restore.push(&chunk?).map_err(unusable)?;
    }
    restore.finish().map_err(unusable)
}

/// The directory's files.
pub(crate) fn storage(data: &Path) -> Result<DiskStorage, StartError> {
    DiskStorage::new(data).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                Code::DataReadOnly
            }
            _ => Code::Internal,
        };
        StartError::new(code, format!("the data directory {} cannot be used: {error}", data.display()))
    })
}

/// What sessions see of the broker's current rules.
pub(crate) fn view(broker: &Broker, filters: Arc<Filters>) -> View {
    // The document was checked before it was journaled; one of an older version may lack what is new.
    let rules::MessageLimits { max_payload, max_headers } = rules::message_limits(&broker.rules().document);
    let bindings = broker.bindings();
    let bounds = MessageBounds { max_payload, max_headers };
    let filters = Arc::new(FilterSet::new(filters, Arc::clone(&bindings), bounds));
    View { bindings, filters, max_payload, max_headers }
}

/// The modules of the rules that were in force, ready to judge; what can't be made waits for a deploy.
fn filters(broker: &Broker, modules: &Modules) -> Result<Arc<Filters>, StartError> {
    let rules = broker.rules();
    let checked = rules::check(&rules.document).map_err(|errors| {
        let detail = format!(
            "the rules in force (version {}) are not valid for this version of the router, so nothing is served: start the version that \
             applied them and change them\n{errors}",
            rules.version
        );
        StartError::new(Code::RulesInvalid, detail)
    })?;
    let (filters, problems) = modules.filters_at_start(&checked, &rules.modules);
    for problem in problems {
        tracing::error!(code = %problem.code, detail = %problem.detail, "a module cannot be used: what would reach it is refused");
    }
    Ok(filters)
}
