//! The admin address: `/healthz`, `/readyz` and `/metrics` over HTTP, for machines that watch the router. It changes nothing.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chaski_protocol::Refusal;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{is_ready, standing_alarms};
use crate::metrics::{self, Seen};
use crate::session::Connections;
use crate::shard::Shard;

/// A driver that doesn't answer in this time is not ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Histograms are folded this often, also when nobody scrapes, so that their samples don't pile up.
const FOLD_EVERY: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Admin {
    shard: Shard,
    connections: Connections,
}

/// Serves until it is aborted.
pub(crate) async fn serve(listener: TcpListener, shard: Shard, connections: Connections) {
    let recorder = metrics::recorder();
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Admin { shard, connections });
    let fold = async {
        let mut ticks = interval(FOLD_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            recorder.run_upkeep();
        }
    };
    tokio::select! {
        ended = axum::serve(listener, routes) => {
            if let Err(error) = ended {
                tracing::error!(%error, "the admin address is no longer served");
            }
        }
        () = fold => {}
    }
}

/// 200 when publishes are taken, else 503; either way with everything that needs a look.
async fn readyz(State(Admin { shard, .. }): State<Admin>) -> Response {
    let (ready, body) = match timeout(ANSWER_WITHIN, standing_alarms(&shard)).await {
        Ok(Ok(alarms)) => {
            let ready = is_ready(&alarms);
            (ready, json!({ "ready": ready, "alarms": alarms }))
        }
        Ok(Err(refusal)) => (false, json!({ "ready": false, "reason": refusal.detail })),
        Err(_) => (
            false,
            json!({ "ready": false, "reason": "the driver does not answer: its journal or its machine is stuck" }),
        ),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn scrape(State(admin): State<Admin>) -> Response {
    match timeout(ANSWER_WITHIN, look(&admin)).await {
        Ok(Ok(seen)) => {
            let text = metrics::render(&seen);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Ok(Err(refusal)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{refusal}\n")).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer\n").into_response(),
    }
}

/// The figures of every module that has a version.
fn module_figures(shard: &Shard) -> Vec<(String, chaski_modules::Metrics)> {
    let view = shard.view();
    let modules = view.filters.filters.modules.values();
    let figures = modules.filter_map(|module| Some((module.name.to_string(), module.metrics()?)));
    figures.collect()
}

async fn look(Admin { shard, connections }: &Admin) -> Result<Seen, Refusal> {
    let alarms = standing_alarms(shard).await?;
    let (modules, instances) = (module_figures(shard), shard.modules().versions().instances());
    let (journal, connections) = (shard.journal(), connections.quic_stats());
    let seen = shard.inspect(move |broker| Seen {
        queues: broker.queues(),
        dedup_window_ms: broker.dedup_window_ms(),
        dedup_entries: broker.dedup_entries(),
        replies_late: broker.replies_late(),
        subscription_dropped: broker.subscription_dropped(),
        rules_version: broker.rules().version.0,
        alarms,
        journal,
        connections,
        modules,
        instances,
        gathers: broker.gather_counts(),
        sagas: broker.saga_counts(),
        answers_ignored: broker.answers_ignored(),
    });
    Ok(seen.await?)
}
