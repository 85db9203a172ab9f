//! Looks after the versions in force: one that fails too often goes back to the one before it, by itself; one that burns too much time and has
//! none before it is suspended.

use chaski_broker::{FailedVersion, Millis};
use chaski_modules::World;

use super::conduct::Report;
use super::health::Trouble;
use super::life;
use super::versions::now_ms;
use crate::events;
use crate::rules::Change;
use crate::shard::WeakShard;

/// Runs until the router ends.
pub(crate) async fn keep(shard: WeakShard) {
    let Some(mut reports) = shard.upgrade().and_then(|shard| shard.modules().take_reports()) else { return };
    while let Some(report) = reports.recv().await {
        let Some(shard) = shard.upgrade() else { return };
        act(&shard, &report).await;
    }
}

async fn act(shard: &crate::shard::Shard, report: &Report) {
    let Report { module, version, trouble } = report;
    let view = shard.view();
    // Another version may have come meanwhile.
    let Some(in_force) = view.filters.module(module).filter(|active| active.id() == Some(*version)) else {
        return;
    };
    let of_what = if in_force.world() == Some(World::Filter) { "messages" } else { "calls" };
    let why = match trouble {
        Trouble::Errors { errors, of } => format!("{errors} of its last {of} {of_what} failed"),
        Trouble::Burning => "its calls ran out of time too often".to_owned(),
    };
    let now = Millis(now_ms());
    let before = life::previous(shard, module).await;
    if let Ok(Some(previous)) = before {
        let params = life::params_in_force(shard, module).await;
        let failed = FailedVersion { module: module.clone(), binary: version.binary.0, params };
        let author = format!("automatic: module {module} rolled back, {why}");
        let to =
            previous.pin.binary.map(|binary| chaski_modules::Digest(binary).to_string()).unwrap_or_default();
        let change = Change { author, failed: Some(failed), ..Change::default() };
        match life::put_back(shard, change, previous).await {
            Ok(change) => {
                let (from, rules) = (version.binary, change.version);
                tracing::error!(%module, %from, %to, rules, %why, "module rolled back");
                metrics::counter!("chaski_module_rollbacks_total", "module" => module.clone()).increment(1);
                let event = events::module_rolled_back(module, &from.to_string(), &to, &why, now);
                // When the driver is gone there is nobody to tell.
                let _ = shard.announce(event).await;
                return;
            }
            Err(refusal) => {
                tracing::error!(%module, code = %refusal.code, detail = %refusal.detail, "a module that fails could not be rolled back");
            }
        }
    }
    match trouble {
        Trouble::Burning if in_force.suspend() => {
            tracing::error!(%module, digest = %version.binary, %why, "module suspended: it is called no more but for a probe now and then");
            let event = events::module_suspended(module, &version.binary.to_string(), &why, now);
            let _ = shard.announce(event).await;
        }
        Trouble::Burning => {}
        Trouble::Errors { .. } => {
            tracing::error!(%module, digest = %version.binary, %why, "a module fails often, and there is no earlier version to go back to");
        }
    }
}
