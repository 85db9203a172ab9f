//! One guest for each limit and each lie. Each test fails when its limit is taken out.

use std::time::{Duration, Instant};

use chaski_modules::{Cause, Context, Judged, Lie, Limits};

use crate::kit::{Guest, PAYLOAD, Sample, deploy, filter_of, host, samples};

/// Judges one message whose header `do` is this letter.
fn act(guest: &Guest, letter: &str, limits: Limits) -> Judged {
    let host = host();
    let filter = filter_of(&host, guest, limits);
    let judged = filter.judge(&samples(letter), &Context::default()).unwrap();
    if judged.outcomes[0].is_err() {
        assert_eq!((filter.metrics().instances, host.instances()), (0, 0), "its instance is gone");
    }
    judged
}

#[track_caller]
fn cause(judged: Judged) -> Cause {
    judged.outcomes.into_iter().next().unwrap().unwrap_err().cause
}

fn fails(body: &str) -> Cause {
    cause(act(&Guest::filter(body), ".", Limits::default()))
}

#[test]
fn a_call_that_spins_is_ended_by_its_cpu_time() {
    for letter in ["s", "b"] {
        let began = Instant::now();
        let judged = act(&Guest::actor(), letter, Limits::default());
        assert!(judged.timed_out >= Duration::from_millis(8), "{:?}", judged.timed_out);
        assert_eq!(cause(judged), Cause::CpuTime { limit: Duration::from_millis(10) });
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

/// What a call burns counts only where the search ended in a message that runs out of time alone.
#[test]
fn burnt_time_counts_only_for_messages_that_spin_alone() {
    let host = host();
    // Spins when it gets more than one message.
    let body = r#"(if (i32.gt_u (local.get $count) (i32.const 1)) (then (loop $spin (br $spin))))
        (call $answer (local.get $count))"#;
    let filter = filter_of(&host, &Guest::filter(body), Limits::default());
    let judged = filter.judge(&samples(".."), &Context::default()).unwrap();
    assert!(judged.outcomes.iter().all(Result::is_ok));
    assert_eq!((judged.calls, judged.timed_out), (3, Duration::ZERO));
}

#[test]
fn describe_and_configure_are_ended_by_their_cpu_time() {
    let host = host();
    let spin = "(loop $spin (br $spin))";
    let binary = host.take(&Guest { describe: spin.into(), ..Guest::default() }.module(), None).unwrap();
    let failure = host.describe(&host.compile(&binary).unwrap(), &Limits::default()).unwrap_err();
    assert_eq!(failure.cause.name(), "cpu_time");
    let guest = Guest { configure: spin.into(), ..Guest::default() };
    let (compiled, description) = deploy(&host, &guest.module());
    let error = host.filter("test", &compiled, &description, &[], Limits::default()).unwrap_err();
    assert!(error.to_string().contains("of CPU time in one call"), "{error}");
    // The start function runs before either.
    let guest = Guest { more: format!("(start $first) (func $first {spin})"), ..Guest::default() };
    let binary = host.take(&guest.module(), None).unwrap();
    let failure = host.describe(&host.compile(&binary).unwrap(), &Limits::default()).unwrap_err();
    assert_eq!(failure.cause.name(), "cpu_time");
    assert_eq!(host.instances(), 0);
}

#[test]
fn memory_beyond_the_limit_is_denied() {
    let limit = Limits::default().memory_bytes;
    assert_eq!(cause(act(&Guest::actor(), "m", Limits::default())), Cause::Memory { limit });
    let roomy = Limits { memory_bytes: 128 * 1024 * 1024, ..Limits::default() };
    assert!(act(&Guest::actor(), "m", roomy).outcomes[0].is_ok());
    let at_once = Guest { pages: 300, ..Guest::default() };
    let host = host();
    let compiled = host.compile(&host.take(&at_once.module(), None).unwrap()).unwrap();
    assert_eq!(host.describe(&compiled, &Limits::default()).unwrap_err().cause, Cause::Memory { limit });
}

/// A module that bears the refusal well has its verdict, and its instance goes all the same.
#[test]
fn an_instance_that_was_denied_memory_is_not_used_again() {
    let host = host();
    let filter = filter_of(&host, &Guest::actor(), Limits::default());
    assert!(filter.judge(&samples("q"), &Context::default()).unwrap().outcomes[0].is_ok());
    assert_eq!(filter.metrics().instances, 0);
}

#[test]
fn a_table_beyond_the_limit_is_denied() {
    let table = Guest { more: "(table 20001 funcref)".into(), ..Guest::default() };
    let host = host();
    let compiled = host.compile(&host.take(&table.module(), None).unwrap()).unwrap();
    let cause = host.describe(&compiled, &Limits::default()).unwrap_err().cause;
    assert_eq!(cause, Cause::Table { limit: 20_000 });
    let roomy = Limits { table_elements: 30_000, ..Limits::default() };
    assert!(host.describe(&compiled, &roomy).is_ok());
}

#[test]
fn recursion_without_end_is_a_trap() {
    let Cause::Trap { text } = cause(act(&Guest::actor(), "r", Limits::default())) else { panic!() };
    assert_eq!(text, "call stack exhausted");
}

/// An answer of 3 MiB of edits' bytes fits into 4 MiB, and one of 5 MiB doesn't.
#[test]
fn a_huge_answer_does_not_cross() {
    let ample = Limits { cpu_time: Duration::from_secs(10), ..Limits::default() };
    let answer = |bytes: usize| {
        let body = format!(
            r#"(i32.store8 (i32.const 1032) (i32.const 1)) (i32.store (i32.const 1060) (i32.const 0))
            (i32.store (i32.const 1064) (i32.const {bytes})) (call $answer (local.get $count))"#
        );
        cause(act(&Guest { pages: 100, ..Guest::filter(&body) }, ".", ample.clone()))
    };
    assert_eq!(answer(3 << 20), Cause::Lie(Lie::BytesLeft { left: 3 << 20 }));
    assert_eq!(answer(5 << 20), Cause::Crossing { limit: 4 << 20 });
}

#[test]
fn a_flood_of_lines_is_cut() {
    let body = r#"(local $left i32) (local.set $left (i32.const 100))
        (loop $more
            (call $log (i32.const 2) (i32.const 16384) (i32.const 1500))
            (call $log (i32.const 5) (i32.const 16384) (i32.const 1500))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $answer (local.get $count))"#;
    let judged = act(&Guest::filter(body), ".", Limits::default());
    assert_eq!((judged.lines.len(), judged.lines_left_out), (16, 184));
    assert!(judged.lines.iter().all(|line| line.text.len() == 1024));
    let long =
        "(call $log (i32.const 2) (i32.const 0) (i32.const 5242880)) (call $answer (local.get $count))";
    let guest = Guest { pages: 100, ..Guest::filter(long) };
    assert_eq!(cause(act(&guest, ".", Limits::default())), Cause::Crossing { limit: 4 << 20 });
}

/// The panic's line is kept even after 16 others.
#[test]
fn a_panic_after_a_flood_is_still_told() {
    let body = r#"(local $left i32) (local.set $left (i32.const 20))
        (loop $more (call $log (i32.const 2) (i32.const 16384) (i32.const 1))
            (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $log (i32.const 5) (i32.const 16384) (i32.const 4)) (unreachable)"#;
    let guest = Guest { more: "(data (i32.const 16384) \"boom\")".into(), ..Guest::filter(body) };
    let judged = act(&guest, ".", Limits::default());
    assert_eq!((judged.lines.len(), judged.lines_left_out), (17, 4));
    assert_eq!(cause(judged), Cause::Panic { text: "boom".into() });
}

#[test]
fn lies_about_lengths_are_found() {
    let verdicts = |count: &str| fails(&format!("(call $answer {count})"));
    assert_eq!(verdicts("(i32.const 0)"), Cause::Lie(Lie::Verdicts { got: 0, wanted: 1 }));
    assert_eq!(verdicts("(i32.const 2)"), Cause::Lie(Lie::Verdicts { got: 2, wanted: 1 }));
    let Cause::Trap { text } = verdicts("(i32.const 1000000)") else { panic!() };
    assert!(text.contains("out of bounds") || text.contains("out-of-bounds"), "{text}");
    let unaligned = "(drop (call $answer (local.get $count))) (i32.const 1025)";
    assert!(matches!(fails(unaligned), Cause::Trap { .. }));
    let outside = "(drop (call $answer (local.get $count))) (i32.const -8)";
    assert!(matches!(fails(outside), Cause::Trap { .. }));
}

#[test]
fn lies_in_edits_are_found() {
    // One edit of the kind at 8192, with the index at 8196 and the end at 8200, for one message.
    let edit = |verdict: u32, kind: u32, index: u32, end: u32| {
        fails(&format!(
            r#"(i32.store8 (i32.const 4096) (i32.const {verdict}))
            (i32.store8 (i32.const 8192) (i32.const {kind})) (i32.store (i32.const 8196) (i32.const {index}))
            (i32.store (i32.const 8200) (i32.const {end})) (i32.store (i32.const 8204) (i32.const 0xff))
            (i32.store8 (i32.const 1032) (i32.const 1))
            (i32.store (i32.const 1036) (i32.const 8192)) (i32.store (i32.const 1040) (i32.const 1))
            (i32.store (i32.const 1044) (i32.const 8196)) (i32.store (i32.const 1048) (i32.const 1))
            (i32.store (i32.const 1052) (i32.const 8200)) (i32.store (i32.const 1056) (i32.const 1))
            (i32.store (i32.const 1060) (i32.const 8204)) (i32.store (i32.const 1064) (i32.const 1))
            (call $answer (local.get $count))"#
        ))
    };
    assert_eq!(edit(2, 0, 0, 1), Cause::Lie(Lie::Utf8 { edit: 0 }));
    assert_eq!(edit(2, 13, 0, 1), Cause::Lie(Lie::Kind { edit: 0, kind: 13 }));
    assert_eq!(edit(2, 0, 1, 1), Cause::Lie(Lie::Index { edit: 0, index: 1, count: 1 }));
    assert_eq!(edit(2, 0, 0, 2), Cause::Lie(Lie::End { edit: 0, end: 2, bytes: 1 }));
    assert_eq!(edit(0, 0, 0, 1), Cause::Lie(Lie::NotEdited { edit: 0, index: 0 }));
    assert_eq!(edit(7, 0, 0, 1), Cause::Lie(Lie::Verdict { number: 7 }));
}

#[test]
fn too_many_edits_are_refused() {
    // As many kinds, indexes and ends, all zero: 5,000 edits of the kind `reject`.
    let list = |at: u32| {
        format!(
            "(i32.store (i32.const {at}) (i32.const 20000)) (i32.store (i32.const {}) (i32.const 5000))",
            at + 4
        )
    };
    let lists = [1036, 1044, 1052].map(list).concat();
    let body =
        format!("(i32.store8 (i32.const 1032) (i32.const 1)) {lists} (call $answer (local.get $count))");
    assert_eq!(fails(&body), Cause::Lie(Lie::TooManyEdits { got: 5000, limit: 4096 }));
}

/// A message that is larger than the instance's memory fails alone; the others pass.
#[test]
fn a_message_too_large_for_the_instance_fails_alone() {
    let guest = Guest { fields: vec![(PAYLOAD, "")], ..Guest::default() };
    let host = host();
    let filter = filter_of(&host, &guest, Limits { memory_bytes: 512 * 1024, ..Limits::default() });
    let of = |bytes| Sample { payload: vec![0; bytes], ..Sample::default() };
    let judged = filter.judge(&[of(1), of(900 * 1024), of(1)], &Context::default()).unwrap();
    let causes: Vec<_> =
        judged.outcomes.iter().map(|outcome| outcome.as_ref().err().map(|f| f.cause.name())).collect();
    assert_eq!(causes, [None, Some("memory"), None]);
}

/// Each naming of a field costs its bytes again: what no memory holds is not laid out, and the others are judged.
#[test]
fn a_field_that_is_named_over_and_over_costs_its_module_alone() {
    let host = host();
    let guest = Guest { fields: vec![(PAYLOAD, ""); 20], ..Guest::default() };
    let filter = filter_of(&host, &guest, Limits::default());
    let small = Sample::with("h", "v");
    let large = Sample { payload: vec![7; 1 << 20], ..small.clone() };
    let mut outcomes = Vec::new();
    let all = [small.clone(), large, small];
    while outcomes.len() < all.len() {
        outcomes.extend(filter.judge(&all[outcomes.len()..], &Context::default()).unwrap().outcomes);
    }
    assert_eq!(
        outcomes[1].clone().unwrap_err().cause,
        Cause::Memory { limit: Limits::default().memory_bytes }
    );
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
}

#[test]
fn too_many_fields_are_refused() {
    let configure = |fields: u32| {
        let list = format!(
            "(i32.store (i32.const 2100) (i32.const 40000)) (i32.store (i32.const 2104) (i32.const {fields}))"
        );
        let host = host();
        let (compiled, description) = deploy(&host, &Guest { configure: list, ..Guest::default() }.module());
        host.filter("test", &compiled, &description, &[], Limits::default())
            .map(|filter| filter.fields().len())
    };
    assert_eq!(configure(256).unwrap(), 256);
    let refusal = configure(257).unwrap_err().to_string();
    assert!(refusal.contains("would read 257 fields of each message, and at most 256"), "{refusal}");
}
