//! Batches: verdicts, the search for poison, and what happens to instances.

use std::time::Duration;

use chaski_modules::{Cause, Context, Failure, Filter, Limits, Verdict};

use crate::kit::{Guest, HEADER, KEY, PAYLOAD, Sample, TOPIC, filter_of, host, samples};

/// Judges all messages, batch after batch of at most `most`.
fn judge_all(filter: &Filter, messages: &[Sample], most: usize) -> Vec<Result<Verdict, Box<Failure>>> {
    let mut outcomes = Vec::new();
    while outcomes.len() < messages.len() {
        let rest = &messages[outcomes.len()..];
        outcomes.extend(filter.judge(&rest[..rest.len().min(most)], &Context::default()).unwrap().outcomes);
    }
    outcomes
}

fn letters(outcomes: &[Result<Verdict, Box<Failure>>]) -> String {
    let letter = |outcome: &Result<Verdict, Box<Failure>>| match outcome {
        Ok(Verdict::Pass) => '.',
        Ok(Verdict::Drop) => 'd',
        Ok(_) => '?',
        Err(_) => '!',
    };
    outcomes.iter().map(letter).collect()
}

#[test]
fn a_header_decides() {
    let host = host();
    let filter = filter_of(&host, &Guest::header_equals(false), Limits::default());
    let messages = [Sample::with("region", "eu"), Sample::with("region", "us"), Sample::with("other", "eu")];
    assert_eq!(letters(&judge_all(&filter, &messages, 128)), ".dd");
    assert_eq!(filter.fields()[0].to_string(), "header:region");
}

#[test]
fn no_verdict_depends_on_the_batch_that_a_message_came_in() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    let all = "..d.t...d...p..dd...........t".repeat(9);
    let messages = samples(&all);
    let alone = judge_all(&filter, &messages, 1);
    assert_eq!(letters(&alone), all.replace(['t', 'p'], "!"));
    for most in [2, 7, 128] {
        assert_eq!(judge_all(&filter, &messages, most), alone, "batches of {most}");
    }
}

#[test]
fn one_poison_message_of_128_costs_at_most_20_calls_and_the_others_are_judged() {
    let host = host();
    // Ample time, so that a slow machine doesn't make the batch smaller.
    let ample = Limits { cpu_time: Duration::from_secs(10), ..Limits::default() };
    let filter = filter_of(&host, &Guest::actor(), ample);
    for at in [0, 1, 63, 64, 100, 127] {
        let mut all = ".".repeat(128);
        all.replace_range(at..=at, "t");
        let judged = filter.judge(&samples(&all), &Context::default()).unwrap();
        assert!(judged.calls <= 20, "{} calls", judged.calls);
        assert_eq!(letters(&judged.outcomes), all.replace('t', "!"));
    }
}

/// Where every message fails the search would take 255 calls: it stops, and the rest goes into a batch of its own.
#[test]
fn a_batch_of_poison_alone_ends_within_its_calls() {
    let host = host();
    let ample = Limits { cpu_time: Duration::from_secs(10), ..Limits::default() };
    let filter = filter_of(&host, &Guest::actor(), ample);
    let judged = filter.judge(&samples(&"t".repeat(128)), &Context::default()).unwrap();
    assert_eq!(judged.calls, 20);
    assert!(judged.outcomes.len() < 128 && judged.outcomes.iter().all(Result::is_err));
}

#[test]
fn a_failure_names_the_module_its_digest_and_the_panics_text() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    let judged = filter.judge(&samples("p"), &Context::default()).unwrap();
    let failure = judged.outcomes[0].clone().unwrap_err();
    assert_eq!(failure.module, "test");
    assert_eq!(failure.digest, filter.id().binary);
    assert_eq!(failure.cause, Cause::Panic { text: "boom, at lib.rs:1:1".into() });
    let digest = &failure.digest.to_string()[..19];
    assert_eq!(
        failure.to_string(),
        format!("module test ({digest}…) failed: it panicked: boom, at lib.rs:1:1")
    );
    let judged = filter.judge(&samples("t"), &Context::default()).unwrap();
    let Err(failure) = &judged.outcomes[0] else { panic!("{judged:?}") };
    let Cause::Trap { text } = &failure.cause else { panic!("{failure:?}") };
    assert!(text.contains("unreachable"), "{text}");
}

/// The guest counts its calls in its own memory and trusts to be called once after a trap: it would drop what it sees in
/// an instance whose mark was set before.
#[test]
fn an_instance_is_reused_until_it_traps_and_never_after() {
    let body = r#"
        (i32.store8 offset=4096 (i32.const 0) (i32.load8_u (i32.const 50000)))
        (if (local.get $count) (then
            (i32.store8 (i32.const 50000) (i32.const 1))
            (if (i32.eq (i32.load8_u (i32.add (local.get $columns) (i32.const 8))) (i32.const 116)) (then (unreachable)))))
        (call $answer (local.get $count))"#;
    let host = host();
    let guest = Guest { fields: vec![(HEADER, "do")], ..Guest::filter(body) };
    let filter = filter_of(&host, &guest, Limits::default());
    // The first call of an instance passes, later ones drop, since the mark is there; a trap takes the mark away.
    assert_eq!(letters(&judge_all(&filter, &samples("..t..t."), 1)), ".d!.d!.");
    assert_eq!(filter.metrics().instances_made, 3);
}

#[test]
fn ten_thousand_traps_leave_nothing() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    let poison = samples("t");
    for _ in 0..10_000 {
        assert_eq!(letters(&filter.judge(&poison, &Context::default()).unwrap().outcomes), "!");
    }
    let metrics = filter.metrics();
    assert_eq!(metrics.errors, [("trap", 10_000)]);
    assert_eq!((metrics.instances, metrics.memory_bytes, host.instances()), (0, 0, 0));
}

#[test]
fn only_declared_fields_cross_and_what_is_absent_is_told() {
    // Passes when the key's offset says absent, and the others are where they should be: behind the four offsets a topic of 10
    // bytes and a payload of 3.
    let body = r#"
        (i32.store8 (i32.const 4096) (i32.eqz (i32.and
            (i32.and (i32.eq (i32.load (local.get $columns)) (i32.const 16)) (i32.eq (local.get $bytes) (i32.const 29)))
            (i32.and
                (i32.eq (i32.load offset=4 (local.get $columns)) (i32.const 0x8000001a))
                (i32.and (i32.eq (i32.load offset=8 (local.get $columns)) (i32.const 26))
                    (i32.eq (i32.load offset=12 (local.get $columns)) (i32.const 29)))))))
        (call $answer (local.get $count))"#;
    let guest = Guest { fields: vec![(TOPIC, ""), (KEY, ""), (PAYLOAD, "")], ..Guest::filter(body) };
    let host = host();
    let filter = filter_of(&host, &guest, Limits::default());
    let absent = Sample { payload: b"abc".to_vec(), ..Sample::with("h", "v") };
    let present = Sample { key: Some(String::new()), ..absent.clone() };
    assert_eq!(letters(&judge_all(&filter, &[absent, present], 1)), ".d");
}

#[test]
fn a_batch_is_bounded_by_messages_bytes_and_time() {
    let host = host();
    let guest = Guest { fields: vec![(PAYLOAD, "")], ..Guest::default() };
    let ample = Limits { cpu_time: Duration::from_secs(10), ..Limits::default() };
    let filter = filter_of(&host, &guest, ample);
    let decided = |messages: &[Sample]| {
        let judged = filter.judge(messages, &Context::default()).unwrap();
        assert_eq!(judged.calls, 1);
        judged.outcomes.len()
    };
    let large = |bytes| Sample { payload: vec![0; bytes], ..Sample::default() };
    assert_eq!(decided(&vec![large(1); 500]), 128);
    assert_eq!(decided(&vec![large(300 * 1024); 8]), 3);
    assert_eq!(decided(&vec![large(3 * 1024 * 1024); 2]), 1);
    // Headers count as payloads do.
    let guest = Guest { fields: vec![(HEADER, "h")], ..Guest::default() };
    let of_headers = filter_of(&host, &guest, filter.limits().clone());
    let large = Sample::with("h", &"x".repeat(300 * 1024));
    assert_eq!(of_headers.judge(&vec![large; 8], &Context::default()).unwrap().outcomes.len(), 3);
    // A module that takes a millisecond for each message gets two or so, at a limit of 10 ms.
    let slow = r#"
        (local $left i32) (local.set $left (i32.mul (local.get $count) (i32.const 1000000)))
        (block $done (loop $spin
            (br_if $done (i32.eqz (local.get $left)))
            (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br $spin)))
        (call $answer (local.get $count))"#;
    let filter = filter_of(&host, &Guest::filter(slow), Limits::default());
    judge_all(&filter, &samples(&".".repeat(40)), 1);
    let mean = filter.metrics().mean_message;
    let judged = filter.judge(&samples(&".".repeat(128)), &Context::default()).unwrap();
    let fits = (filter.limits().cpu_time / 4).as_nanos() / mean.as_nanos().max(1);
    assert_eq!(judged.outcomes.len() as u128, fits.clamp(1, 128), "a message takes {mean:?}");
}

#[test]
fn lines_are_handed_over() {
    let body =
        r#"(call $log (i32.const 2) (i32.const 16384) (i32.const 5)) (call $answer (local.get $count))"#;
    let guest = Guest { more: "(data (i32.const 16384) \"hello\")".into(), ..Guest::filter(body) };
    let host = host();
    let judged =
        filter_of(&host, &guest, Limits::default()).judge(&samples("."), &Context::default()).unwrap();
    assert_eq!(judged.lines.len(), 1);
    assert_eq!(
        (judged.lines[0].text.as_str(), judged.lines[0].level),
        ("hello", chaski_modules::Level::Info)
    );
}

#[test]
fn the_longest_idle_instance_goes_when_the_pool_is_full() {
    let host = host();
    let one = filter_of(&host, &Guest::default(), Limits::default());
    let filters: Vec<_> = (0..16).map(|_| filter_of(&host, &Guest::default(), Limits::default())).collect();
    judge_all(&one, &samples("."), 1);
    for filter in &filters {
        assert_eq!(letters(&judge_all(filter, &samples("."), 1)), ".");
    }
    assert_eq!(host.instances(), 16);
    assert_eq!(one.metrics().instances, 0, "it was idle longest");
    assert!(filters.iter().all(|filter| filter.metrics().instances == 1));
    drop(filters);
    assert_eq!(host.instances(), 0);
}

#[test]
fn figures_are_counted() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    judge_all(&filter, &samples("...t"), 128);
    let metrics = filter.metrics();
    // Four; two and two; one and one.
    assert_eq!((metrics.calls, metrics.messages), (5, 4));
    assert_eq!(metrics.errors, [("trap", 3)]);
    assert_eq!((metrics.instances, metrics.memory_bytes), (0, 0));
    judge_all(&filter, &samples("."), 128);
    let metrics = filter.metrics();
    assert_eq!((metrics.instances, metrics.memory_bytes), (1, 4 * 65536));
    assert!(metrics.call_p50 > Duration::ZERO && metrics.call_p99 >= metrics.call_p50);
    assert!(metrics.compile_time > Duration::ZERO);
    filter.shrink();
    assert_eq!(filter.metrics().instances, 0);
}

/// A filter can be judged with by many threads at once; each has an instance of its own meanwhile.
#[test]
fn many_threads_judge_at_once() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(letters(&judge_all(&filter, &samples("..d.t.d"), 128)), "..d.!.d");
                }
            });
        }
    });
    assert!(filter.metrics().instances <= 8);
}

#[test]
fn an_empty_batch_is_a_call_like_any_other() {
    let host = host();
    let fine = filter_of(&host, &Guest::actor(), Limits::default());
    assert_eq!(fine.smoke(0), Ok(Ok(())));
    assert_eq!(fine.metrics().calls, 1);
    let traps = filter_of(&host, &Guest::filter("(unreachable)"), Limits::default());
    assert!(matches!(traps.smoke(0), Ok(Err(Failure { cause: Cause::Trap { .. }, .. }))));
    assert_eq!(fine.judge(&[] as &[Sample], &Context::default()).unwrap().calls, 0);
}
