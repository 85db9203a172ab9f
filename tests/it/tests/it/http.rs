//! The admin address: health, readiness, metrics.

use chaski_it::{Router, Setup};

#[test]
fn health_and_readiness_are_answered() {
    let router = Router::start();
    assert_eq!(router.http("/healthz").0, 200);
    assert_eq!(router.http("/readyz").0, 200);
    assert_eq!(router.http("/nothing").0, 404);
}

#[test]
fn a_router_that_takes_no_publishes_is_not_ready_and_says_why() {
    let router = Setup::default().arg("--low-disk=1000TiB").start();
    let (status, body) = router.http("/readyz");
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("disk"), "{body}");
    assert_eq!(router.http("/healthz").0, 200);
    let output = router.cli(&["status"]);
    assert_eq!(output.code, 1, "exit code 0 only when ready: {output:?}");
}

#[test]
fn the_metrics_of_the_interface_are_there() {
    let router = Router::with_rules("[queue.q]\n");
    router.cli(&["publish", "q", "x"]).ok();
    router.cli(&["publish", "nobody", "x"]).ok();
    let _consumer = router.spawn(&["subscribe", "x.>"]);
    let (status, metrics) = router.http("/metrics");
    assert_eq!(status, 200);
    for name in [
        "chaski_queue_messages",
        "chaski_queue_bytes",
        "chaski_queue_consumers",
        "chaski_publishes_total",
        "chaski_journal_fsync_seconds",
        "chaski_journal_batch_bytes",
        "chaski_dedup_window_seconds",
        "chaski_replies_late_total",
        "chaski_subscription_dropped_total",
        "chaski_quic_connections",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is missing in:\n{metrics}");
    }
    let ready = metrics.lines().find(|line| {
        line.starts_with("chaski_queue_messages{")
            && line.contains("queue=\"q\"")
            && line.contains("state=\"ready\"")
    });
    assert!(ready.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
    let publishes: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("chaski_publishes_total{")).collect();
    assert!(publishes.iter().all(|line| line.contains("outcome=")), "{publishes:?}");
    // Every line is a comment, or a name and a number.
    for line in metrics.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let number = line.rsplit(' ').next().unwrap_or_default();
        assert!(number.parse::<f64>().is_ok(), "{line}");
    }
}

#[test]
fn a_deleted_queue_leaves_the_metrics() {
    let router = Router::start();
    router.cli(&["queue", "create", "gone"]).ok();
    assert!(router.http("/metrics").1.contains("queue=\"gone\""));
    router.cli(&["queue", "delete", "gone"]).ok();
    assert!(!router.http("/metrics").1.contains("queue=\"gone\""));
}
