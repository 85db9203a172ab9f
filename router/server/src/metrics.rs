//! What is counted, under the names of INTERFACES.md. Counters and histograms are recorded by batch on the driver's way; gauges are
//! computed when somebody asks, so that nothing is kept of a queue that is gone.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use chaski_broker::{Confirmation, GatherState, JudgeError, PublishError, QueueStats, SagaState};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::shard::JournalInfo;

const PUBLISHES: &str = "chaski_publishes_total";
const FSYNC_SECONDS: &str = "chaski_journal_fsync_seconds";
const BATCH_BYTES: &str = "chaski_journal_batch_bytes";

/// Of an fdatasync, from a fast device to one in trouble.
const FSYNC_BUCKETS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// Of a batch: from one message to the largest that the driver gathers.
const BATCH_BUCKETS: [f64; 8] =
    [512.0, 4096.0, 32_768.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

/// The process's recorder, installed once. Several routers in one process share its counters; gauges are each router's own.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(FSYNC_SECONDS.to_owned()), &FSYNC_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(BATCH_BYTES.to_owned()), &BATCH_BUCKETS)
            })
            .expect("the buckets above are not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("this process has another metrics recorder, which takes the router's counters");
        }
        describe_counter!(
            PUBLISHES,
            "Publishes by what became of them: routed, filtered (by filters, to nobody), duplicate, unroutable, or an error code."
        );
        describe_histogram!(FSYNC_SECONDS, Unit::Seconds, "How long an fdatasync of the journal took.");
        describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes that one fdatasync made durable.");
        handle
    })
}

/// Publishes counted by outcome until they are recorded, which is once a turn of the driver.
#[derive(Debug, Default)]
pub(crate) struct PublishCounts {
    by_outcome: [u64; OUTCOMES.len()],
}

const OUTCOMES: [&str; 13] = [
    "routed",
    "duplicate",
    "unroutable",
    "queue_full",
    "mandatory_unroutable",
    "no_responders",
    "disk_low",
    "disk_full",
    "filter_failed",
    "busy",
    "module_missing",
    "filtered",
    "saga_too_large",
];

impl PublishCounts {
    pub(crate) fn add(&mut self, outcome: &Result<Confirmation, PublishError>) {
        let outcome = match outcome {
            Ok(confirmation) if confirmation.duplicate => 1,
            Ok(Confirmation { routed: 0, dropped: 0, rejected: 0, .. }) => 2,
            Ok(Confirmation { routed: 0, .. }) => 11,
            Ok(_) => 0,
            Err(PublishError::QueueFull { .. }) => 3,
            Err(PublishError::Unroutable { .. }) => 4,
            Err(PublishError::NoResponders) => 5,
            Err(PublishError::DiskLow) => 6,
            Err(PublishError::DiskFull) => 7,
            Err(PublishError::Judge(JudgeError::FilterFailed { .. })) => 8,
            Err(PublishError::Judge(JudgeError::Busy { .. })) => 9,
            Err(PublishError::Judge(JudgeError::ModuleMissing { .. })) => 10,
            Err(PublishError::SagaTooLarge { .. }) => 12,
        };
        self.by_outcome[outcome] += 1;
    }

    pub(crate) fn record(&mut self) {
        for (count, outcome) in self.by_outcome.iter_mut().zip(OUTCOMES) {
            if *count > 0 {
                counter!(PUBLISHES, "outcome" => outcome).increment(std::mem::take(count));
            }
        }
    }
}

/// One fdatasync.
pub(crate) fn synced(bytes: u64, duration: Duration) {
    histogram!(FSYNC_SECONDS).record(duration);
    histogram!(BATCH_BYTES).record(bytes as f64);
}

/// What gauges are computed from.
pub(crate) struct Seen {
    pub(crate) queues: Vec<QueueStats>,
    pub(crate) dedup_window_ms: u64,
    pub(crate) dedup_entries: u64,
    pub(crate) replies_late: u64,
    pub(crate) subscription_dropped: u64,
    pub(crate) rules_version: u64,
    pub(crate) alarms: Vec<chaski_protocol::admin::Alarm>,
    pub(crate) journal: JournalInfo,
    pub(crate) connections: Vec<quinn::ConnectionStats>,
    /// By name, the versions in force.
    pub(crate) modules: Vec<(String, chaski_modules::Metrics)>,
    pub(crate) instances: u32,
    /// How many there are, by scatter and state.
    pub(crate) gathers: Vec<(String, GatherState, u64)>,
    /// The same by definition and state.
    pub(crate) sagas: Vec<(String, SagaState, u64)>,
    /// By kind.
    pub(crate) answers_ignored: [(&'static str, u64); 3],
}

/// Everything, as Prometheus reads it.
pub(crate) fn render(seen: &Seen) -> String {
    // A recorder of this scrape alone: its gauges are this router's, and a queue that is gone leaves nothing behind.
    let fresh = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&fresh, || {
        describe();
        seen.queues.iter().for_each(queue);
        router(seen);
        quic(&seen.connections);
        seen.modules.iter().for_each(|(name, figures)| module(name, figures));
        gauge!("chaski_module_instances_all").set(f64::from(seen.instances));
        coordinated(seen);
    });
    let mut text = recorder().render();
    text.push_str(&fresh.handle().render());
    text
}

fn describe() {
    describe_gauge!("chaski_queue_messages", "Messages of a queue by state; `dead` are those in NAME.dlq.");
    describe_gauge!("chaski_queue_bytes", Unit::Bytes, "Bytes of a queue's messages.");
    describe_gauge!("chaski_queue_consumers", "Consumers of a queue.");
    describe_gauge!(
        "chaski_dedup_window_seconds",
        Unit::Seconds,
        "How long a message id is surely remembered."
    );
    describe_gauge!("chaski_dedup_entries", "Message ids remembered now.");
    describe_counter!(
        "chaski_replies_late_total",
        "Replies dropped, since the request had its first or was forgotten."
    );
    describe_counter!(
        "chaski_subscription_dropped_total",
        "Messages dropped, since a subscription's buffer was full."
    );
    describe_gauge!("chaski_rules_version", "The version of the rules in force.");
    describe_gauge!("chaski_alarm", "1 for each alarm that stands.");
    describe_gauge!("chaski_journal_bytes", Unit::Bytes, "Bytes of the journal's segments.");
    describe_gauge!("chaski_journal_snapshot_bytes", Unit::Bytes, "Bytes of the newest snapshot.");
    describe_gauge!("chaski_journal_segments", "Segments of the journal.");
    describe_gauge!("chaski_journal_free_bytes", Unit::Bytes, "Free bytes on the journal's disk.");
    describe_counter!("chaski_module_calls_total", "Calls of a module's version in force.");
    describe_counter!("chaski_module_messages_total", "Messages that a module's version in force judged.");
    describe_counter!(
        "chaski_module_errors_total",
        "Failed calls of a module's version in force, by cause; a failed batch fails several."
    );
    describe_gauge!("chaski_module_call_seconds", Unit::Seconds, "What a call takes, by quantile.");
    describe_gauge!("chaski_module_memory_bytes", Unit::Bytes, "Memory of a module's instances.");
    describe_gauge!("chaski_module_instances", "Instances of a module.");
    describe_gauge!("chaski_module_instances_all", "Instances of all modules, former versions included.");
    describe_gauge!("chaski_module_compile_seconds", Unit::Seconds, "What its compilation took.");
    describe_gauge!("chaski_gathers", "Gathers of a scatter by state, those that are remembered among them.");
    describe_gauge!("chaski_sagas", "Sagas of a definition by state, those that are remembered among them.");
    describe_counter!(
        "chaski_saga_answers_ignored_total",
        "Answers to sagas that changed nothing, by kind: duplicate, late or foreign."
    );
    describe_gauge!("chaski_quic_connections", "Connections of clients.");
    describe_gauge!("chaski_quic_packets_lost", "Packets lost on the connections that are open now.");
    describe_gauge!(
        "chaski_quic_rtt_seconds_sum",
        Unit::Seconds,
        "Round-trip times of the open connections, added up."
    );
}

fn queue(stats: &QueueStats) {
    let name = stats.name.to_string();
    let messages = |queue: &str, state: &'static str, count: u64| {
        gauge!("chaski_queue_messages", "queue" => queue.to_owned(), "state" => state).set(count as f64);
    };
    match name.strip_suffix(".dlq") {
        // Counted as the `dead` of their queues, so that a sum over all counts each message once.
        Some(source) if source != "chaski" => {}
        Some(chaski) => messages(chaski, "dead", stats.ready + stats.delayed + stats.parked + stats.leased),
        None => {
            messages(&name, "ready", stats.ready);
            messages(&name, "delayed", stats.delayed);
            messages(&name, "parked", stats.parked);
            messages(&name, "leased", stats.leased);
            messages(&name, "dead", stats.dead);
        }
    }
    gauge!("chaski_queue_bytes", "queue" => name.clone()).set(stats.bytes as f64);
    gauge!("chaski_queue_consumers", "queue" => name).set(stats.consumers as f64);
}

fn router(seen: &Seen) {
    gauge!("chaski_dedup_window_seconds").set(seen.dedup_window_ms as f64 / 1000.0);
    gauge!("chaski_dedup_entries").set(seen.dedup_entries as f64);
    counter!("chaski_replies_late_total").absolute(seen.replies_late);
    counter!("chaski_subscription_dropped_total").absolute(seen.subscription_dropped);
    gauge!("chaski_rules_version").set(seen.rules_version as f64);
    for alarm in &seen.alarms {
        let label = alarm.alarm.clone();
        match &alarm.saga {
            Some(saga) => gauge!("chaski_alarm", "alarm" => label, "saga" => saga.clone()),
            None => {
                gauge!("chaski_alarm", "alarm" => label, "queue" => alarm.queue.clone().unwrap_or_default())
            }
        }
        .set(1.0);
    }
    gauge!("chaski_journal_bytes").set(seen.journal.bytes as f64);
    gauge!("chaski_journal_snapshot_bytes").set(seen.journal.snapshot_bytes as f64);
    gauge!("chaski_journal_segments").set(seen.journal.segments as f64);
    gauge!("chaski_journal_free_bytes").set(seen.journal.free_bytes as f64);
}

/// Gathers and sagas.
fn coordinated(seen: &Seen) {
    by_state(&seen.gathers, GatherState::ALL, |scatter, state, count| {
        gauge!("chaski_gathers", "scatter" => scatter, "state" => state.name()).set(count as f64);
    });
    by_state(&seen.sagas, SagaState::ALL, |saga, state, count| {
        gauge!("chaski_sagas", "saga" => saga, "state" => state.name()).set(count as f64);
    });
    for (kind, count) in seen.answers_ignored {
        counter!("chaski_saga_answers_ignored_total", "kind" => kind).absolute(count);
    }
}

/// Tells every state of each name that has any, so that one that is left goes to 0.
fn by_state<S: Copy + PartialEq>(counts: &[(String, S, u64)], states: &[S], tell: impl Fn(String, S, u64)) {
    let names: BTreeSet<&String> = counts.iter().map(|(name, ..)| name).collect();
    for name in names {
        for state in states {
            let these = counts.iter().filter(|(of, in_state, _)| of == name && in_state == state);
            tell(name.clone(), *state, these.map(|(.., count)| count).sum());
        }
    }
}

fn quic(connections: &[quinn::ConnectionStats]) {
    let lost: u64 = connections.iter().map(|stats| stats.path.lost_packets).sum();
    let rtt: Duration = connections.iter().map(|stats| stats.path.rtt).sum();
    gauge!("chaski_quic_connections").set(connections.len() as f64);
    gauge!("chaski_quic_packets_lost").set(lost as f64);
    gauge!("chaski_quic_rtt_seconds_sum").set(rtt.as_secs_f64());
}

/// Counters begin anew with each version.
fn module(name: &str, figures: &chaski_modules::Metrics) {
    let label = || name.to_owned();
    counter!("chaski_module_calls_total", "module" => label()).absolute(figures.calls);
    counter!("chaski_module_messages_total", "module" => label()).absolute(figures.messages);
    for (cause, count) in &figures.errors {
        counter!("chaski_module_errors_total", "module" => label(), "cause" => *cause).absolute(*count);
    }
    for (quantile, call) in [("0.5", figures.call_p50), ("0.99", figures.call_p99)] {
        gauge!("chaski_module_call_seconds", "module" => label(), "quantile" => quantile)
            .set(call.as_secs_f64());
    }
    gauge!("chaski_module_memory_bytes", "module" => label()).set(figures.memory_bytes as f64);
    gauge!("chaski_module_instances", "module" => label()).set(figures.instances as f64);
    gauge!("chaski_module_compile_seconds", "module" => label()).set(figures.compile_time.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(queues: Vec<QueueStats>) -> Seen {
        Seen {
            queues,
            dedup_window_ms: 120_000,
            dedup_entries: 3,
            replies_late: 4,
            subscription_dropped: 5,
            rules_version: 6,
            alarms: Vec::new(),
            journal: JournalInfo::default(),
            connections: Vec::new(),
            modules: Vec::new(),
            instances: 0,
            gathers: vec![("quote".to_owned(), GatherState::Open, 2)],
            sagas: vec![("order".to_owned(), SagaState::Parked, 3)],
            answers_ignored: [("duplicate", 1), ("late", 0), ("foreign", 0)],
        }
    }

    #[test]
    fn a_scrape_has_counters_histograms_and_gauges() {
        recorder();
        let mut counts = PublishCounts::default();
        counts.add(&Ok(Confirmation { routed: 1, ..Confirmation::default() }));
        counts.add(&Ok(Confirmation { duplicate: true, ..Confirmation::default() }));
        counts.add(&Err(PublishError::DiskLow));
        counts.record();
        synced(4096, Duration::from_millis(2));
        let text = render(&seen(Vec::new()));
        for line in [
            "chaski_publishes_total{outcome=\"routed\"}",
            "chaski_publishes_total{outcome=\"duplicate\"}",
            "chaski_publishes_total{outcome=\"disk_low\"}",
            "chaski_journal_fsync_seconds_bucket{le=\"0.0025\"}",
            "chaski_journal_batch_bytes_count",
            "chaski_dedup_window_seconds 120",
            "chaski_replies_late_total 4",
            "chaski_quic_connections 0",
            "chaski_gathers{scatter=\"quote\",state=\"open\"} 2",
            "chaski_gathers{scatter=\"quote\",state=\"failed\"} 0",
            "chaski_sagas{saga=\"order\",state=\"parked\"} 3",
            "chaski_saga_answers_ignored_total{kind=\"duplicate\"} 1",
        ] {
            assert!(text.lines().any(|found| found.starts_with(line)), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_queue_that_is_gone_leaves_no_gauge() {
        let stats = QueueStats { name: "billing".into(), ready: 7, ..QueueStats::default() };
        let with = render(&seen(vec![stats]));
        assert!(with.contains("chaski_queue_messages{queue=\"billing\",state=\"ready\"} 7"), "{with}");
        assert!(!render(&seen(Vec::new())).contains("billing"));
    }
}
