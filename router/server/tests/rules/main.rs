//! The rules document from outside: what it may say, what is said of mistakes, what changes between two of them.

mod modules;
mod scatters;

use std::path::Path;

use chaski_broker::{Durability, OnPoison, Ordering, Overflow, QueueSettings};
use chaski_server::rules::{self, Checked};
use expect_test::{Expect, expect};

#[track_caller]
fn refused(document: &str, expected: Expect) {
    expected.assert_eq(&rules::check(document).expect_err("it is wrong").in_file("rules.toml"));
}

#[track_caller]
fn accepted(document: &str) -> Checked {
    match rules::check(document) {
        Ok(checked) => checked,
        Err(errors) => panic!("{errors}"),
    }
}

fn queue(document: &str) -> QueueSettings {
    accepted(document).rules.queues.remove(0).1
}

#[test]
fn an_empty_document_is_right() {
    let checked = accepted("");
    assert!(checked.rules.queues.is_empty() && checked.notes.is_empty());
    assert_eq!(checked.rules.limits, Default::default());
    assert_eq!((checked.limits.max_payload, checked.limits.max_headers), (1 << 20, 64 << 10));
}

#[test]
fn a_queue_without_settings_has_the_defaults_of_the_design() {
    let expected = QueueSettings {
        bind: vec!["billing".to_owned()],
        durability: Durability::Fsync,
        ordering: Ordering::None,
        on_poison: OnPoison::Continue,
        single_active: false,
        max_deliver: Some(5),
        ack_wait_ms: 30_000,
        backoff_ms: vec![1_000, 5_000, 30_000, 120_000],
        dedup_window_ms: 120_000,
        ttl_ms: None,
        max_messages: None,
        max_bytes: None,
        overflow: Overflow::Reject,
        dead_alarm: Some(1),
        dead_max_messages: None,
        dead_max_bytes: None,
    };
    assert_eq!(queue("[queue.billing]"), expected);
}

#[test]
fn every_setting_is_read() {
    let document = r#"
        [queue.billing]
        bind = ["orders.*.created", "refunds.>"]
        durability = "os"
        ordering = "key"
        on_poison = "park-key"
        single_active = true
        max_deliver = "unlimited"
        ack_wait = "5s"
        backoff = ["250ms", "2m"]
        dedup_window = "7d"
        ttl = "1h"
        max_messages = 1000
        max_bytes = "16MiB"
        overflow = "dead-letter-oldest"
        dead_alarm = 0
        dead_letter = { max_messages = 10, max_bytes = "1MiB" }

        [limits]
        max_payload = "2MiB"
        max_headers = "1KiB"
        dedup_max_entries = 1000
        subscription_max_messages = 2000
        subscription_max_bytes = "3MiB"
        consumer_unsent_bytes = "4KiB"
        chaski_dlq_max_bytes = "5GiB"
        reply_max_bytes = "6KiB"
        replies_max_bytes = "7MiB"
        gathers_max = 3000
        gathers_max_bytes = "8MiB"
        sagas_max = 4000
        sagas_max_bytes = "9MiB"
        saga_max_payload = "10KiB"
        saga_history_max = 0
        saga_history = "1d"
    "#;
    let checked = accepted(document);
    let expected = QueueSettings {
        bind: vec!["orders.*.created".to_owned(), "refunds.>".to_owned()],
        durability: Durability::Os,
        ordering: Ordering::Key,
        on_poison: OnPoison::ParkKey,
        single_active: true,
        max_deliver: None,
        ack_wait_ms: 5_000,
        backoff_ms: vec![250, 120_000],
        dedup_window_ms: 7 * 86_400_000,
        ttl_ms: Some(3_600_000),
        max_messages: Some(1000),
        max_bytes: Some(16 << 20),
        overflow: Overflow::DeadLetterOldest,
        dead_alarm: None,
        dead_max_messages: Some(10),
        dead_max_bytes: Some(1 << 20),
    };
    assert_eq!(checked.rules.queues, [("billing".to_owned(), expected)]);
    assert_eq!(checked.rules.document, document);
    assert_eq!((checked.limits.max_payload, checked.limits.max_headers), (2 << 20, 1 << 10));
    assert_eq!(rules::message_limits(document), checked.limits);
    let limits = checked.rules.limits;
    assert_eq!((limits.dedup_max_entries, limits.subscription_max_messages), (1000, 2000));
    assert_eq!((limits.subscription_max_bytes, limits.consumer_unsent_bytes), (3 << 20, 4 << 10));
    assert_eq!(
        (limits.chaski_dlq_max_bytes, limits.reply_max_bytes, limits.replies_max_bytes),
        (5 << 30, 6 << 10, 7 << 20)
    );
    assert_eq!((limits.gathers_max, limits.gathers_max_bytes), (3000, 8 << 20));
    assert_eq!(
        (limits.sagas_max, limits.sagas_max_bytes, limits.saga_max_payload_bytes),
        (4000, 9 << 20, 10 << 10)
    );
    assert_eq!((limits.saga_history_max, limits.saga_history_ms), (0, 86_400_000));
}

#[test]
fn a_memory_queue_is_limited_unless_it_says_otherwise() {
    let memory = queue("[queue.a]\ndurability = \"memory\"");
    assert_eq!((memory.max_bytes, memory.overflow), (Some(256 << 20), Overflow::Reject));
    assert_eq!(queue("[queue.a]\ndurability = \"memory\"\nmax_bytes = \"1KiB\"").max_bytes, Some(1024));
}

#[test]
fn queues_keep_the_order_of_the_document() {
    let checked = accepted("[queue.z]\n[queue.\"orders.eu\"]\n[limits]\n[queue.a]\n");
    let names: Vec<_> = checked.rules.queues.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["z", "orders.eu", "a"]);
}

#[test]
fn a_mistyped_key_is_named_with_the_nearest_one() {
    refused(
        "[queue.billing]\nack_wiat = \"5s\"\n",
        expect!["rules.toml:2:1: unknown key `ack_wiat` in `queue.billing`; did you mean `ack_wait`?"],
    );
    refused(
        "[queue.billing]\ncolour = 1\n[queue.billing.dead_letter]\nttl = \"5s\"",
        expect![[r#"
            rules.toml:2:1: unknown key `colour` in `queue.billing`; known here: `ack_wait`, `backoff`, `bind`, `dead_alarm`, `dead_letter`, `dedup_window`, `durability`, `filters`, `max_bytes`, `max_deliver`, `max_messages`, `on_poison`, `ordering`, `overflow`, `single_active`, `ttl`
            rules.toml:4:1: unknown key `ttl` in `queue.billing.dead_letter`; known here: `max_bytes`, `max_messages`"#]],
    );
}

#[test]
fn tables_of_later_versions_are_unknown() {
    refused(
        "[access]\n",
        expect![
            "rules.toml:1:2: unknown key `access`; known here: `limits`, `module`, `modules`, `queue`, `route`, `saga`, `scatter`"
        ],
    );
}

#[test]
fn all_mistakes_are_told_at_once_each_at_its_place() {
    refused(
        "[queue.billing]\n  ack_wait = 30\n  overflow = \"rejct\"\n  durability = \"disk\"\n  max_deliver = 0\nsingle_active = \"yes\"\n\
         ttl = \"1 fortnight\"\nbackoff = [\"1s\", 5]\nmax_bytes = 5\nbind = \"orders.>\"\nmax_messages = -1\n[queue.ok]\n[limits]\nmax_payload = \"65MiB\"\n",
        expect![[r#"
            rules.toml:2:14: `queue.billing.ack_wait` takes a duration with its unit, such as "30s", and this is an integer
            rules.toml:3:14: `queue.billing.overflow` cannot be "rejct"; did you mean `reject`?
            rules.toml:4:16: `queue.billing.durability` cannot be "disk"; known here: `fsync`, `os`, `memory`
            rules.toml:5:17: `queue.billing.max_deliver` is 0; it takes 1 to 4294967295, or "unlimited" written out
            rules.toml:6:17: `queue.billing.single_active` takes `true` or `false`, and this is a string
            rules.toml:7:7: `queue.billing.ttl`: `1 fortnight` is not a duration: write a whole number with its unit, as `30s`, `250ms`, `5m`, `2h` or `7d`
            rules.toml:8:18: `queue.billing.backoff[1]` takes a duration with its unit, such as "30s", and this is an integer
            rules.toml:9:13: `queue.billing.max_bytes` takes a size with its unit, such as "16MiB", and this is an integer
            rules.toml:10:8: `queue.billing.bind` takes a list of patterns, and this is a string
            rules.toml:11:16: `queue.billing.max_messages` is -1; it takes at least 1
            rules.toml:14:15: `limits.max_payload` is "65MiB"; it takes 1B to 64MiB"#]],
    );
}

#[test]
fn an_unlimited_max_deliver_must_be_written_out() {
    refused(
        "[queue.q]\nmax_deliver = \"unlimted\"\n[queue.r]\nmax_deliver = true",
        expect![[r#"
            rules.toml:2:15: `queue.q.max_deliver` cannot be "unlimted"; did you mean `unlimited`?
            rules.toml:4:15: `queue.r.max_deliver` takes a whole number or `"unlimited"`, and this is a boolean"#]],
    );
}

#[test]
fn a_dedup_window_lies_between_two_minutes_and_seven_days() {
    refused(
        "[queue.a]\ndedup_window = \"119s\"\n[queue.b]\ndedup_window = \"8d\"",
        expect![[r#"
            rules.toml:2:16: `queue.a.dedup_window` is "119s"; it takes 2m to 7d
            rules.toml:4:16: `queue.b.dedup_window` is "8d"; it takes 2m to 7d"#]],
    );
}

#[test]
fn names_of_the_router_and_names_that_are_no_topic_are_refused() {
    let long = "q".repeat(201);
    refused(
        &format!(
            "[queue.chaski]\n[queue.\"a.dlq\"]\n[queue.\"$x\"]\n[queue.\"a..b\"]\n[queue.\"a b\"]\n[queue.\"a.*\"]\n[queue.{long}]\n"
        ),
        expect![[r#"
            rules.toml:1:8: queue name `chaski` is reserved: `chaski` and names that end in `.dlq` are the router's own
            rules.toml:2:8: queue name `a.dlq` is reserved: `chaski` and names that end in `.dlq` are the router's own
            rules.toml:3:8: queue name `$x` is reserved: topics that begin with `$` are the router's own
            rules.toml:4:8: a queue name is a topic: topic `a..b` has an empty token
            rules.toml:5:8: a queue name is a topic: topic `a b` has ' ' in token `a b`
            rules.toml:6:8: a queue name is a topic: topic `a.*` has '*' in token `*`
            rules.toml:7:8: a queue name has at most 200 bytes, this one 201"#]],
    );
}

#[test]
fn a_wrong_pattern_is_refused_and_events_can_be_bound() {
    refused(
        "[queue.a]\nbind = [\"x.>.y\", \"$inbox.>\"]\n[queue.b]\nbind = []\n",
        expect![[r#"
            rules.toml:2:9: `queue.a.bind[0]`: pattern `x.>.y` has '>' in token `>` (`>` stands for one or more tokens, at the end)
            rules.toml:2:18: `queue.a.bind[1]`: pattern `$inbox.>` is reserved: below `$` only `$chaski.>` can be bound or subscribed to
            rules.toml:4:8: `queue.b.bind` has 0 entries; it takes 1 to 10000"#]],
    );
    assert_eq!(queue("[queue.a]\nbind = [\"$chaski.events.>\"]").bind, ["$chaski.events.>"]);
}

#[test]
fn what_is_no_toml_is_refused_at_its_place() {
    refused(
        "[queue.a]\nttl = \n",
        expect!["rules.toml:2:7: string values must be quoted, expected literal string"],
    );
    refused("[queue.a]\n[queue.a]\n", expect!["rules.toml:2:8: duplicate key"]);
    refused("queue = 3\n", expect!["rules.toml:1:9: `queue` takes a table, and this is an integer"]);
    refused("[[queue]]\n", expect!["rules.toml:1:1: `queue` takes a table, and this is an array of tables"]);
}

#[test]
fn columns_count_characters() {
    refused(
        "queue = { \"größe\" = { x = 1 } }",
        expect![
            "rules.toml:1:23: unknown key `x` in `queue.größe`; known here: `ack_wait`, `backoff`, `bind`, `dead_alarm`, `dead_letter`, `dedup_window`, `durability`, `filters`, `max_bytes`, `max_deliver`, `max_messages`, `on_poison`, `ordering`, `overflow`, `single_active`, `ttl`"
        ],
    );
}

#[test]
fn what_has_no_effect_is_noted() {
    let checked =
        accepted("[queue.a]\non_poison = \"park-key\"\noverflow = \"drop-oldest\"\nbind = [\"x\", \"x\"]\n");
    expect![[r#"
        queue.a: `x` is bound twice; once is enough
        queue.a: on_poison has no effect without ordering = "key"
        queue.a: overflow has no effect without max_messages or max_bytes"#]]
    .assert_eq(&checked.notes.join("\n"));
    assert_eq!(checked.rules.queues[0].1.bind, ["x"]);
}

#[track_caller]
fn differs(old: &str, new: &str, expected: Expect) {
    expected.assert_eq(&rules::diff(&accepted(old).rules, &accepted(new).rules).join("\n"));
}

#[test]
fn a_diff_names_what_changes() {
    differs(
        "[queue.gone]\n[queue.same]\n[queue.z]\nmax_messages = 5\n",
        "[limits]\nmax_payload = \"2MiB\"\n[queue.z]\nack_wait = \"10s\"\nbind = [\"a\", \"b\"]\nmax_deliver = \"unlimited\"\ndead_letter.max_messages = 7\n[queue.same]\nack_wait = \"30000ms\"\n[queue.fresh]\n",
        expect![[r#"
            ~ limits.max_payload: 1MiB → 2MiB
            + queue.fresh
            - queue.gone
            ~ queue.z.ack_wait: 30s → 10s
            ~ queue.z.bind: [z] → [a, b]
            ~ queue.z.dead_letter.max_messages: none → 7
            ~ queue.z.max_deliver: 5 → unlimited
            ~ queue.z.max_messages: 5 → none"#]],
    );
    differs("[queue.a]\n", "# a comment\n[queue.a]\nmax_deliver = 5\n", expect![""]);
}

#[test]
fn settings_are_spelled_as_in_the_document() {
    let spelled = rules::spelled(&queue("[queue.a]\nttl = \"90s\"\ndead_letter.max_bytes = \"1MiB\"\n"));
    let lines: Vec<_> = spelled.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    expect![[r#"
        ack_wait = "30s"
        backoff = ["1s","5s","30s","2m"]
        bind = ["a"]
        dead_alarm = 1
        dead_letter.max_bytes = "1MiB"
        dedup_window = "2m"
        durability = "fsync"
        max_deliver = 5
        on_poison = "continue"
        ordering = "none"
        overflow = "reject"
        single_active = false
        ttl = "90s""#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn creating_a_queue_keeps_the_rest_of_the_document() {
    let document = "# ours\n[queue.a]   # first\nttl = \"1h\"\n\n[limits]\nmax_payload = \"2MiB\" # big\n";
    let set = [
        ("ack_wait", "5s"),
        ("max_deliver", "3"),
        ("single_active", "true"),
        ("dead_letter.max_bytes", "1MiB"),
        ("ttl", "\"2h\""),
    ];
    let set: Vec<_> = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let edited = rules::create_queue(document, "b.c", &["x.>".to_owned()], &set).unwrap();
    expect![[r##"
        # ours
        [queue.a]   # first
        ttl = "1h"

        [queue."b.c"]
        bind = ["x.>"]
        ack_wait = "5s"
        max_deliver = 3
        single_active = true
        dead_letter = { max_bytes = "1MiB" }
        ttl = "2h"

        [limits]
        max_payload = "2MiB" # big
    "##]]
    .assert_eq(&edited);
    let created = &accepted(&edited).rules.queues[1];
    assert_eq!(
        (created.0.as_str(), created.1.ack_wait_ms, created.1.ttl_ms),
        ("b.c", 5_000, Some(7_200_000))
    );
    assert_eq!(rules::delete_queue(&edited, "b.c").unwrap(), document);
    assert!(matches!(rules::create_queue(&edited, "a", &[], &[]), Err(rules::EditError::Exists(_))));
    assert!(matches!(rules::delete_queue(&edited, "d"), Err(rules::EditError::Unknown(_))));
}

#[test]
fn a_queue_is_created_in_any_kind_of_document() {
    for document in ["", "queue = { a = { ttl = \"1h\" } }\n", "queue.a.ttl = \"1h\"\n", "[queue]\na = {}\n"]
    {
        let edited = rules::create_queue(document, "b", &[], &[("ttl".to_owned(), "2h".to_owned())]).unwrap();
        let queues = accepted(&edited).rules.queues;
        assert_eq!(queues.last().unwrap().1.ttl_ms, Some(7_200_000), "{edited}");
        let left = accepted(&rules::delete_queue(&edited, "b").unwrap());
        assert_eq!(left.rules.queues, accepted(document).rules.queues, "{edited}");
    }
}

#[test]
fn a_setting_that_does_not_exist_is_found_by_the_check_that_follows() {
    let edited = rules::create_queue("", "b", &[], &[("ack_wiat".to_owned(), "5s".to_owned())]).unwrap();
    refused(
        &edited,
        expect!["rules.toml:2:1: unknown key `ack_wiat` in `queue.b`; did you mean `ack_wait`?"],
    );
    let twice = [("ttl".to_owned(), "5s".to_owned()), ("ttl".to_owned(), "6s".to_owned())];
    expect!["`ttl` cannot be set: it is given twice"]
        .assert_eq(&rules::create_queue("", "b", &[], &twice).unwrap_err().to_string());
}

#[test]
fn the_reference_page_is_the_one_in_the_repository() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("RULES.md");
    expect_test::expect_file![path].assert_eq(&rules::reference());
}

#[test]
fn the_schema_knows_every_key() {
    let schema = rules::schema();
    let queue = &schema["properties"]["queue"]["additionalProperties"];
    assert_eq!(queue["additionalProperties"], false);
    for (name, _) in rules::spelled(&self::queue("[queue.a]")) {
        assert!(queue["properties"][&name].is_object(), "{name}");
        assert!(queue["properties"][&name]["description"].is_string(), "{name}");
    }
}
