//! How a module's versions come and go: deployed, rolled back, run in the shadow, promoted. Each is a new version of the rules that differs in
//! that module alone, so that the rules' history is the modules' history too.

use std::sync::Arc;
use std::time::Duration;

use chaski_broker::{FailedVersion, ModulePin, Rules, RulesEntry, RulesVersion};
use chaski_journal::{BlobDigest, BlobError};
use chaski_modules::Digest;
use chaski_protocol::admin::RulesChange;
use chaski_protocol::{Code, Refusal};
use serde_json::Value as Json;

use super::shadow::Shadow;
use super::versions::{self, now_ms};
use crate::rules::{self, Binaries, Change, ModuleSource, ModuleSpec, Wanted, check, set_module};
use crate::shard::Shard;

/// What somebody wants to deploy. Its bytes were uploaded.
pub(crate) struct Deploy {
    /// Under which name; `None`: the one that it gives itself.
    pub(crate) name: Option<String>,
    pub(crate) digest: [u8; 32],
    pub(crate) signature: Option<Vec<u8>>,
    /// Other params than those in force.
    pub(crate) params: Option<Vec<(String, Json)>>,
    pub(crate) force: bool,
}

/// What was deployed.
pub(crate) struct Deployed {
    pub(crate) name: String,
    pub(crate) change: RulesChange,
    /// `None`: a version that was in force before, and is nothing new to the router.
    pub(crate) compilation: Option<Compilation>,
}

/// How a binary came to its code.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Compilation {
    pub(crate) took: Duration,
    pub(crate) from_cache: bool,
}

/// One version of a module, as the rules' history has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Past {
    pub(crate) rules: RulesVersion,
    pub(crate) pin: ModulePin,
    pub(crate) params: Vec<(String, Json)>,
    pub(crate) author: String,
    pub(crate) applied_at: chaski_broker::Millis,
}

/// Takes a binary that was uploaded, and keeps it.
pub(crate) fn keep_binary(shard: &Shard, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    let versions = shard.modules().versions();
    // One that is here already is as old as it was, and must not go between this and its deploy.
    versions.wanted.want([Digest::of(bytes).0]);
    match versions.blobs().put(bytes) {
        Ok(digest) => Ok(digest.0),
        Err(error) => Err(blob_refusal(&error)),
    }
}

fn blob_refusal(error: &BlobError) -> Refusal {
    let code = match error {
        BlobError::NoRoom { .. } => Code::DiskFull,
        _ => Code::Internal,
    };
    Refusal::new(code, error.to_string())
}

/// The binary that a module's source names. Blocks.
pub(crate) fn pin(shard: &Shard, spec: &ModuleSpec) -> Result<ModulePin, Refusal> {
    let name = spec.name.clone();
    let pinned = |binary| ModulePin { name: spec.name.clone(), binary, signature: None };
    match &spec.source {
        ModuleSource::Missing => Ok(pinned(None)),
        ModuleSource::Builtin(builtin) => {
            // A default that no name in the document was compared with can be missing.
            let guest = chaski_filters::builtin(builtin).ok_or_else(|| {
                let detail = format!("module `{name}`: this router comes without a builtin `{builtin}`");
                Refusal::new(Code::UnknownModule, detail)
            })?;
            Ok(pinned(Some(keep_binary(shard, guest.wasm)?)))
        }
        ModuleSource::Digest(digest) => match shard.modules().versions().blobs().get(BlobDigest(*digest)) {
            Ok(Some(_)) => Ok(pinned(Some(*digest))),
            Ok(None) => {
                let detail = format!(
                    "module `{name}`: its binary {} is not here: deploy the file, or name it as `file`",
                    Digest(*digest)
                );
                Err(Refusal::new(Code::UnknownModule, detail))
            }
            Err(error) => Err(blob_refusal(&error)),
        },
        ModuleSource::File(path) => {
            let detail = format!("module `{name}`: its file {path} was not uploaded with the document");
            Err(Refusal::new(Code::UnknownModule, detail))
        }
    }
}

/// Names params for [`FailedVersion`]: the same params, the same digest, in whatever order they are written.
pub(crate) fn params_digest(params: &[(String, Json)]) -> [u8; 32] {
    let mut sorted: Vec<_> = params.iter().collect();
    sorted.sort_by(|(first, _), (second, _)| first.cmp(second));
    Digest::of(serde_json::to_string(&sorted).expect("params are plain data").as_bytes()).0
}

/// Which modules run another binary though the document says the same of them, a line each.
pub(crate) fn changed_binaries(before: &Rules, after: &Rules, told: &[String]) -> Vec<String> {
    let shown =
        |binary: Option<[u8; 32]>| binary.map_or("none".to_owned(), |binary| Digest(binary).to_string());
    let line = |pin: &ModulePin| {
        let of_it = format!("~ module.{}.", pin.name);
        if told.iter().any(|line| line.starts_with(&of_it)) {
            return None;
        }
        let known = before.modules.iter().find(|known| known.name == pin.name)?;
        (known.binary != pin.binary)
            .then(|| format!("~ module.{}: binary {} → {}", pin.name, shown(known.binary), shown(pin.binary)))
    };
    after.modules.iter().filter_map(line).collect()
}

/// Deploys a binary under a name, in place of the one in force there.
pub(crate) async fn deploy(shard: &Shard, author: &str, deploy: Deploy) -> Result<Deployed, Refusal> {
    let Deploy { name, digest, signature, params, force } = deploy;
    let (name, compilation) = looked_at(shard, name, digest, signature.clone()).await?;
    let edit = |current: &Rules| {
        let source = ModuleSource::Digest(digest);
        let document = set_module(&current.document, &name, &source, params.as_deref())
            .map_err(|error| Refusal::new(Code::RulesInvalid, error.to_string()))?;
        let pin = ModulePin { name: name.clone(), binary: Some(digest), signature: signature.clone() };
        Ok(Wanted { document, binaries: Binaries::Kept(vec![pin]) })
    };
    let change = Change { author: format!("module deploy {name}, {author}"), force, ..Change::default() };
    let change = rules::change(shard, change, edit).await?;
    Ok(Deployed { name, change, compilation: Some(compilation) })
}

/// Looks at a binary before the rules change: is it here, may it be deployed, what does it call itself? It is compiled here, so that the
/// change of the rules finds its code in the cache.
async fn looked_at(
    shard: &Shard,
    name: Option<String>,
    digest: [u8; 32],
    signature: Option<Vec<u8>>,
) -> Result<(String, Compilation), Refusal> {
    let document = shard.inspect(|broker| broker.rules().document.clone()).await?;
    let shard = shard.clone();
    beside(move || {
        let options = check(&document).map(|checked| checked.module_options).unwrap_or_default();
        let versions = shard.modules().versions();
        versions.wanted.want([digest]);
        let bytes = versions.blobs().get(BlobDigest(digest)).map_err(|error| blob_refusal(&error))?;
        let bytes = bytes.ok_or_else(|| {
            let detail = format!("the binary {} was not uploaded", Digest(digest));
            Refusal::new(Code::UnknownModule, detail)
        })?;
        let looked = versions.check_binary(&bytes, signature.as_deref(), &options).and_then(|binary| {
            let known = versions.is_recent(&binary);
            let (description, compiled) = versions.describe(&binary)?;
            let took = if known { Duration::ZERO } else { compiled.compile_time() };
            let compilation = Compilation { took, from_cache: known || compiled.from_cache() };
            Ok((description.name, compilation))
        });
        let (own, compilation) = looked?;
        Ok((name.unwrap_or(own), compilation))
    })
    .await
}

/// The versions that a module had, the newest first; versions of the rules that changed nothing of it are passed over.
pub(crate) async fn past(shard: &Shard, module: &str) -> Result<(Vec<Past>, Vec<FailedVersion>), Refusal> {
    let name = module.to_owned();
    let (entries, failed) = shard
        .inspect(move |broker| {
            let entries: Vec<RulesEntry> = broker.rules_history().cloned().collect();
            (entries, broker.rules().failed.clone())
        })
        .await?;
    let past = beside(move || {
        let mut past: Vec<Past> = Vec::new();
        for entry in entries {
            let Some(pin) = entry.modules.iter().find(|pin| pin.name == name) else { continue };
            let params = params_in(&entry.document, &name);
            if past.last().is_some_and(|last| last.pin.binary == pin.binary && last.params == params) {
                continue;
            }
            past.push(Past {
                rules: entry.version,
                pin: pin.clone(),
                params,
                author: entry.author,
                applied_at: entry.applied_at,
            });
        }
        past.reverse();
        Ok(past)
    });
    let past = past.await?;
    if past.is_empty() {
        let detail = format!("there is no module `{module}`; `chaski module list` names those there are");
        return Err(Refusal::new(Code::UnknownModule, detail));
    }
    Ok((past, failed))
}

fn params_in(document: &str, module: &str) -> Vec<(String, Json)> {
    let spec = check(document).ok().and_then(|checked| {
        checked.modules.into_iter().find(|spec| spec.name == module).map(|spec| spec.params)
    });
    spec.unwrap_or_default()
}

/// The digest of the params in force.
pub(crate) async fn params_in_force(shard: &Shard, module: &str) -> [u8; 32] {
    let document = shard.inspect(|broker| broker.rules().document.clone()).await.unwrap_or_default();
    params_digest(&params_in(&document, module))
}

/// Whether a version rolled itself back.
pub(crate) fn has_failed(past: &Past, failed: &[FailedVersion]) -> bool {
    let params = params_digest(&past.params);
    failed.iter().any(|failed| {
        failed.module == past.pin.name && Some(failed.binary) == past.pin.binary && failed.params == params
    })
}

/// The version before the one in force: the last that was another one, is deployed, and did not fail.
pub(crate) async fn previous(shard: &Shard, module: &str) -> Result<Option<Past>, Refusal> {
    let (past, failed) = past(shard, module).await?;
    let in_force = past.first().cloned();
    Ok(past.into_iter().skip(1).find(|past| {
        let same = in_force
            .as_ref()
            .is_some_and(|now| now.pin.binary == past.pin.binary && now.params == past.params);
        past.pin.binary.is_some() && !same && !has_failed(past, &failed)
    }))
}

/// Puts the version before the one in force in its place.
pub(crate) async fn roll_back(shard: &Shard, author: &str, module: &str) -> Result<RulesChange, Refusal> {
    let previous = previous(shard, module).await?.ok_or_else(|| {
        let detail = format!("module `{module}` has no earlier version to go back to");
        Refusal::new(Code::NotAllowed, detail)
    })?;
    let change = Change { author: format!("module rollback {module}, {author}"), ..Change::default() };
    put_back(shard, change, previous).await
}

/// Puts an earlier version in force, whatever it makes of the messages of now: the way back must not be barred.
pub(crate) async fn put_back(shard: &Shard, change: Change, past: Past) -> Result<RulesChange, Refusal> {
    let change = Change { untried: true, ..change };
    let binary = past.pin.binary.expect("only what was deployed is put back");
    let failed = change.failed.clone();
    let edit = |current: &Rules| {
        // Somebody may have deployed another version meanwhile: that one did not fail.
        if failed.as_ref().is_some_and(|failed| !is_in_force(current, failed)) {
            return Err(Code::Conflict.into());
        }
        let source = ModuleSource::Digest(binary);
        let document = set_module(&current.document, &past.pin.name, &source, Some(&past.params))
            .map_err(|error| Refusal::new(Code::RulesInvalid, error.to_string()))?;
        Ok(Wanted { document, binaries: Binaries::Kept(vec![past.pin.clone()]) })
    };
    rules::change(shard, change, edit).await
}

fn is_in_force(rules: &Rules, version: &FailedVersion) -> bool {
    let binary =
        rules.modules.iter().any(|pin| pin.name == version.module && pin.binary == Some(version.binary));
    binary && params_digest(&params_in(&rules.document, &version.module)) == version.params
}

/// Runs a binary beside the one in force, for a while or until it is promoted or replaced.
pub(crate) async fn shadow(
    shard: &Shard,
    module: &str,
    digest: [u8; 32],
    signature: Option<Vec<u8>>,
    for_ms: Option<u64>,
) -> Result<(), Refusal> {
    looked_at(shard, Some(module.to_owned()), digest, signature.clone()).await?;
    let document = shard.inspect(|broker| broker.rules().document.clone()).await?;
    let pin = ModulePin { name: module.to_owned(), binary: Some(digest), signature };
    let (name, of) = (module.to_owned(), shard.clone());
    let (version, pin) = beside(move || {
        let checked =
            check(&document).map_err(|errors| Refusal::new(Code::RulesInvalid, errors.to_string()))?;
        let spec = checked.modules.iter().find(|spec| spec.name == name).ok_or_else(|| {
            let detail = format!("there is no module `{name}`; `chaski module list` names those there are");
            Refusal::new(Code::UnknownModule, detail)
        })?;
        let version = of.modules().versions().apart(spec, &pin, &checked.module_options);
        let version = version.map_err(|problems| versions::refusal(&document, &problems))?;
        Ok((version, pin))
    })
    .await?;
    let ends_at_ms = for_ms.map(|ms| now_ms().saturating_add(ms));
    let versions = shard.modules().versions();
    let shadow = Shadow::start(version, pin, ends_at_ms, Arc::clone(&versions.lanes));
    let place = versions.shadow_place(module);
    place.store(Some(Arc::clone(&shadow)));
    if let Some(ms) = for_ms {
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
            // Another shadow may have taken its place.
            let ended = place.load_full().is_some_and(|current| Arc::ptr_eq(&current, &shadow));
            if ended {
                shadow.end();
            }
        });
    }
    Ok(())
}

/// Puts the shadow in force.
pub(crate) async fn promote(shard: &Shard, author: &str, module: &str) -> Result<Deployed, Refusal> {
    let place = shard.modules().versions().shadow_place(module);
    let shadow = place.load_full().ok_or_else(|| {
        let detail =
            format!("module `{module}` has no shadow; `chaski module shadow {module} FILE` starts one");
        Refusal::new(Code::NotAllowed, detail)
    })?;
    let pin = shadow.pin.clone();
    let wanted = Deploy {
        name: Some(module.to_owned()),
        digest: pin.binary.expect("a shadow has a binary"),
        signature: pin.signature,
        params: None,
        force: false,
    };
    let deployed = deploy(shard, &format!("promoted, {author}"), wanted).await?;
    place.store(None);
    Ok(deployed)
}

/// Runs blocking work beside the runtime's tasks.
pub(crate) async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Refusal::new(Code::Internal, error.to_string()))?
}
