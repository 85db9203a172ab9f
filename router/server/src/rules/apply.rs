//! From a document to rules in force: check, compare, make its modules, apply, and again when another change came first.

use std::collections::BTreeMap;
use std::sync::Arc;

use chaski_broker::{Broker, FailedVersion, ModulePin, Rules, RulesRefused, RulesVersion};
use chaski_protocol::admin::RulesChange;
use chaski_protocol::{Code, Refusal};

use super::{Checked, ModuleSource, check, diff, uses};
use crate::modules::{self, Filters, Now, Proof, params_digest};
use crate::shard::{NewRules, Shard};

/// Another change can come first so often before this one gives up.
const ATTEMPTS: usize = 8;

/// Who changes the rules, and what may be lost by it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    /// For the history.
    pub(crate) author: String,
    /// Queues that may vanish with messages in them.
    pub(crate) drop_queues: Vec<String>,
    /// Modules whose state may go.
    pub(crate) drop_states: Vec<String>,
    /// A new version even when it equals the one in force.
    pub(crate) always: bool,
    /// Modules may be what rolled itself back before, and what fails on the messages of now.
    pub(crate) force: bool,
    /// Modules are not tried on the messages of now: what was in force before comes back.
    pub(crate) untried: bool,
    /// A version that rolled itself back: it is remembered as such.
    pub(crate) failed: Option<FailedVersion>,
}

/// What the rules are to be.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The document.
    pub(crate) document: String,
    /// Where the binaries of its modules are to come from.
    pub(crate) binaries: Binaries,
}

/// Where binaries come from.
#[derive(Clone, Debug)]
pub(crate) enum Binaries {
    /// Those in force stay, but for these.
    Kept(Vec<ModulePin>),
    /// The document says: its files were uploaded, by path as written.
    Named(BTreeMap<String, ModulePin>),
}

impl Wanted {
    /// A document that leaves the modules' binaries as they are.
    pub(crate) fn document(document: String) -> Wanted {
        Wanted { document, binaries: Binaries::Kept(Vec::new()) }
    }
}

/// Makes a new version of what is in force now. Nothing is done when nothing would change, unless `always`.
pub(crate) async fn change(
    shard: &Shard,
    change: Change,
    edit: impl Fn(&Rules) -> Result<Wanted, Refusal>,
) -> Result<RulesChange, Refusal> {
    for _ in 0..ATTEMPTS {
        let (current, proof) = in_force(shard, change.force || change.untried).await?;
        check_drops(&change, &current)?;
        let wanted = edit(&current)?;
        let prepared = prepare(shard, &current, wanted, change.force, proof).await?;
        let unchanged =
            prepared.rules.document == current.document && prepared.rules.modules == current.modules;
        if unchanged && !change.always && change.drop_states.is_empty() {
            return Ok(RulesChange { version: current.version.0, changes: Vec::new() });
        }
        let Prepared { mut rules, filters, changes } = prepared;
        rules.version = RulesVersion(current.version.0 + 1);
        rules.author = change.author.clone();
        rules.failed = current.failed.clone();
        if change.force {
            // Whoever forces a version knows better.
            rules.failed.retain(|failed| {
                !rules
                    .modules
                    .iter()
                    .any(|pin| pin.name == failed.module && pin.binary == Some(failed.binary))
            });
        }
        rules.failed.extend(change.failed.clone());
        let new = NewRules {
            rules,
            drop_queues: change.drop_queues.clone(),
            drop_states: change.drop_states.clone(),
            filters,
        };
        match shard.apply_rules(new).await? {
            Ok(version) => {
                modules::sweep_later(shard);
                return Ok(RulesChange { version: version.0, changes });
            }
            Err(RulesRefused::Version(_)) => {}
            Err(refused) => return Err(refusal(&refused)),
        }
    }
    Err(Code::Conflict.into())
}

/// What a document would change of the rules in force, whose version is answered too.
pub(crate) async fn difference(
    shard: &Shard,
    wanted: Wanted,
) -> Result<(RulesVersion, Vec<String>), Refusal> {
    let current = shard.inspect(|broker| broker.rules().clone()).await?;
    let prepared = prepare(shard, &current, wanted, true, Proof::Later).await?;
    Ok((current.version, prepared.changes))
}

/// The rules in force, and what a new version of a module must bear.
async fn in_force(shard: &Shard, untried: bool) -> Result<(Rules, Proof), Refusal> {
    let look = |broker: &Broker| {
        let states = broker.modules_with_state().map(|(name, state)| (name.to_owned(), state.clone()));
        (broker.rules().clone(), states.collect())
    };
    let (rules, states) = shard.inspect(look).await?;
    if untried {
        return Ok((rules, Proof::Waived));
    }
    let view = shard.view();
    let in_force = view.filters.versions().map(|(name, version)| (name.to_owned(), version)).collect();
    Ok((rules, Proof::Messages(Now { states, in_force })))
}

fn check_drops(change: &Change, current: &Rules) -> Result<(), Refusal> {
    let queue = |name: &&String| !current.queues.iter().any(|(queue, _)| queue == *name);
    if let Some(unknown) = change.drop_queues.iter().find(queue) {
        let detail = format!("queue `{unknown}`, which is to be dropped, does not exist");
        return Err(Refusal::new(Code::UnknownQueue, detail));
    }
    let module = |name: &&String| !current.modules.iter().any(|pin| pin.name == **name);
    if let Some(unknown) = change.drop_states.iter().find(module) {
        let detail = format!("module `{unknown}`, whose state is to be dropped, does not exist");
        return Err(Refusal::new(Code::UnknownModule, detail));
    }
    Ok(())
}

/// Rules that could be put in force.
struct Prepared {
    rules: Rules,
    filters: Arc<Filters>,
    changes: Vec<String>,
}

/// Checks a document and makes its modules, beside the runtime's tasks.
async fn prepare(
    shard: &Shard,
    current: &Rules,
    wanted: Wanted,
    force: bool,
    proof: Proof,
) -> Result<Prepared, Refusal> {
    let (shard, current) = (shard.clone(), current.clone());
    let work = move || {
        let checked =
            check(&wanted.document).map_err(|errors| Refusal::new(Code::RulesInvalid, errors.to_string()))?;
        let pins = pins(&shard, &checked, &current, &wanted.binaries)?;
        shard.modules().versions().hold(&modules::new_binaries(&current, &pins))?;
        if !force {
            check_failed(&checked, &pins, &current)?;
        }
        let filters = shard
            .modules()
            .filters(&checked, &pins, &proof)
            .map_err(|problems| modules::refusal(&wanted.document, &problems))?;
        let mut rules = Rules { modules: pins, ..checked.rules };
        uses::pin(&mut rules, |compensator| filters.advances(compensator));
        let mut changes = diff(&current, &rules);
        changes.extend(modules::changed_binaries(&current, &rules, &changes));
        Ok(Prepared { rules, filters, changes })
    };
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?
}

/// The binary of every module of the document.
fn pins(
    shard: &Shard,
    checked: &Checked,
    current: &Rules,
    binaries: &Binaries,
) -> Result<Vec<ModulePin>, Refusal> {
    // What the document in force said, to see whether a module's source stays the same.
    let before = check(&current.document).map(|checked| checked.modules).unwrap_or_default();
    let mut pins = Vec::with_capacity(checked.modules.len());
    for spec in &checked.modules {
        let in_force = current.modules.iter().find(|pin| pin.name == spec.name);
        let same_source = before.iter().any(|known| known.name == spec.name && known.source == spec.source);
        let found = match binaries {
            Binaries::Kept(given) => given.iter().find(|pin| pin.name == spec.name),
            Binaries::Named(files) => match &spec.source {
                ModuleSource::File(path) => files.get(path),
                _ => None,
            },
        };
        // A file that nobody uploaded anew is what it was.
        let kept = same_source
            && (matches!(binaries, Binaries::Kept(_)) || matches!(spec.source, ModuleSource::File(_)));
        pins.push(match (found, in_force) {
            (Some(pin), _) => ModulePin { name: spec.name.clone(), ..pin.clone() },
            (None, Some(pin)) if kept || spec.source == ModuleSource::Missing => pin.clone(),
            _ => modules::pin(shard, spec)?,
        });
    }
    Ok(pins)
}

/// A version that rolled itself back is not put in force again by mistake.
fn check_failed(checked: &Checked, pins: &[ModulePin], current: &Rules) -> Result<(), Refusal> {
    for (spec, pin) in checked.modules.iter().zip(pins) {
        let params = params_digest(&spec.params);
        let in_force = current.modules.iter().any(|known| known == pin);
        let failed = current.failed.iter().any(|failed| {
            failed.module == pin.name && Some(failed.binary) == pin.binary && failed.params == params
        });
        if failed && !in_force {
            let detail = format!(
                "module `{}` rolled itself back from this version: deploy another one, or this one with --force",
                pin.name
            );
            return Err(Refusal::new(Code::ModuleFailed, detail));
        }
    }
    Ok(())
}

fn refusal(refused: &RulesRefused) -> Refusal {
    match refused {
        RulesRefused::Version(_) => Code::Conflict.into(),
        RulesRefused::NotEmpty { queue, messages } => {
            let detail = format!(
                "queue `{queue}` would vanish with what is in it (messages and dead letters: {messages}): consume or purge them, or \
                 name the queue as one to drop (--drop-queue {queue})"
            );
            Refusal::new(Code::QueueNotEmpty, detail)
        }
        RulesRefused::InUse { queue, setting } => {
            let detail = format!(
                "`{setting}` of queue `{queue}` can change only while the queue holds no messages and no leases; consume or purge them \
                 first"
            );
            Refusal::new(Code::NotAllowed, detail)
        }
        RulesRefused::Needed { queue, by } => Refusal::new(
            Code::NotAllowed,
            format!(
                "queue `{queue}` can't go: a gather or saga of `{by}` that is under way sends to it. Wait until it has ended."
            ),
        ),
        RulesRefused::StateNotEmpty { module, bytes } => {
            let detail = format!(
                "module `{module}` would vanish with what it remembers ({bytes} bytes): name it as one whose state goes too \
                 (--drop-state {module})"
            );
            Refusal::new(Code::NotAllowed, detail)
        }
        RulesRefused::DiskFull => Code::DiskFull.into(),
    }
}
