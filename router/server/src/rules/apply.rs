//! From a document to rules in force: check, compare, apply, and again when another change came first.

use chaski_broker::{Rules, RulesRefused, RulesVersion};
use chaski_protocol::admin::RulesChange;
use chaski_protocol::{Code, Refusal};

use super::{check, diff};
use crate::shard::Shard;

/// Another change can come first so often before this one gives up.
const ATTEMPTS: usize = 8;

/// Makes this document the rules in force. The document in force is not applied again.
pub(crate) async fn apply(
    shard: &Shard,
    author: &str,
    document: &str,
    drop_queues: &[String],
) -> Result<RulesChange, Refusal> {
    change(shard, author, drop_queues, |_| Ok(document.to_owned())).await
}

/// Makes a new version with this document, also where it is the one in force: a rollback is always a version of its own, so
/// that the history tells of it.
pub(crate) async fn repeat(
    shard: &Shard,
    author: &str,
    document: &str,
    drop_queues: &[String],
) -> Result<RulesChange, Refusal> {
    make(shard, author, drop_queues, |_| Ok(document.to_owned()), Same::Again).await
}

/// Makes a new version of what is in force now, unless the edit changes nothing.
pub(crate) async fn change(
    shard: &Shard,
    author: &str,
    drop_queues: &[String],
    edit: impl Fn(&Rules) -> Result<String, Refusal>,
) -> Result<RulesChange, Refusal> {
    make(shard, author, drop_queues, edit, Same::Kept).await
}

/// What becomes of the document that is in force already.
#[derive(PartialEq, Eq)]
enum Same {
    /// Its version stays.
    Kept,
    /// It gets a new version.
    Again,
}

async fn make(
    shard: &Shard,
    author: &str,
    drop_queues: &[String],
    edit: impl Fn(&Rules) -> Result<String, Refusal>,
    same: Same,
) -> Result<RulesChange, Refusal> {
    for _ in 0..ATTEMPTS {
        let current = shard.inspect(|broker| broker.rules().clone()).await?;
        if let Some(unknown) =
            drop_queues.iter().find(|name| !current.queues.iter().any(|(queue, _)| queue == *name))
        {
            let detail = format!("queue `{unknown}`, which is to be dropped, does not exist");
            return Err(Refusal::new(Code::UnknownQueue, detail));
        }
        let document = edit(&current)?;
        if document == current.document && same == Same::Kept {
            return Ok(RulesChange { version: current.version.0, changes: Vec::new() });
        }
        let checked =
            check(&document).map_err(|errors| Refusal::new(Code::RulesInvalid, errors.to_string()))?;
        let changes = diff(&current, &checked.rules);
        let version = RulesVersion(current.version.0 + 1);
        let rules = Rules { version, author: author.to_owned(), ..checked.rules };
        match shard.apply_rules(rules, drop_queues.to_vec()).await? {
            Ok(version) => return Ok(RulesChange { version: version.0, changes }),
            Err(RulesRefused::Version(_)) => {}
            Err(refused) => return Err(refusal(&refused)),
        }
    }
    Err(Code::Conflict.into())
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
