//! State: what a filter reads and writes, and that a failed call wrote nothing.

use std::sync::Arc;

use chaski_modules::{Cause, Context, Entry, Limits, Table, Verdict, Write};

use crate::kit::{Guest, deploy, filter_of, host, samples};

struct Counter(u8);

impl Table for Counter {
    fn get(&self, key: &[u8]) -> Option<Entry> {
        (key == b"n").then(|| Entry { value: vec![self.0], expires_ms: None })
    }
    fn bytes(&self) -> u64 {
        2
    }
}

fn context(count: u8) -> Context {
    Context { now_ms: 1000, state: Some(Arc::new(Counter(count))) }
}

fn stateful() -> Guest {
    Guest { keeps_state: true, ..Guest::actor() }
}

fn written(value: u8) -> Vec<Write> {
    vec![Write { key: b"n".to_vec(), entry: Some(Entry { value: vec![value], expires_ms: None }) }]
}

#[test]
fn reads_see_the_table_and_this_batchs_writes() {
    let host = host();
    let filter = filter_of(&host, &stateful(), Limits::default());
    let judged = filter.judge(&samples("kkk"), &context(1)).unwrap();
    // Two more fit below three; the last is the fourth.
    assert_eq!(judged.outcomes, [Ok(Verdict::Pass), Ok(Verdict::Pass), Ok(Verdict::Drop)]);
    assert_eq!(judged.writes, written(4));
}

/// The poison message writes before it traps, in every call that it is part of. None of that counts: the others count as
/// if it had not been there, whatever the batch.
#[test]
fn a_failed_call_wrote_nothing() {
    let host = host();
    let filter = filter_of(&host, &stateful(), Limits::default());
    let whole = filter.judge(&samples("kkTkk"), &context(0)).unwrap();
    assert_eq!(whole.writes, written(4));
    let verdicts: Vec<_> = whole.outcomes.iter().map(|outcome| outcome.clone().ok()).collect();
    let (pass, drop) = (Some(Verdict::Pass), Some(Verdict::Drop));
    assert_eq!(verdicts, [pass.clone(), pass.clone(), None, pass, drop]);
}

#[test]
fn state_is_refused_where_there_is_none() {
    let host = host();
    let refused = |guest: &Guest, context: &Context| {
        let filter = filter_of(&host, guest, Limits::default());
        let judged = filter.judge(&samples("k"), context).unwrap();
        let cause = judged.outcomes[0].clone().unwrap_err().cause;
        assert_eq!(cause.name(), "state");
        assert_eq!(filter.metrics().instances, 0);
        cause.to_string()
    };
    assert!(refused(&Guest::actor(), &context(0)).ends_with("its description says that it keeps none"));
    assert!(refused(&stateful(), &Context::default()).ends_with("in a call that was given none"));
    let keep = "(drop (call $keep))".to_owned();
    let guest = Guest { describe: keep.clone(), ..stateful() };
    let compiled = host.compile(&host.take(&guest.module(), None).unwrap()).unwrap();
    let cause = host.describe(&compiled, &Limits::default()).unwrap_err().cause;
    assert!(matches!(cause, Cause::State { place } if place.contains("describe")));
    let guest = Guest { configure: keep, ..stateful() };
    let (compiled, description) = deploy(&host, &guest.module());
    let error = host.filter("test", &compiled, &description, &[], Limits::default()).unwrap_err();
    assert!(error.to_string().contains("inside `configure`"), "{error}");
}

#[test]
fn a_full_table_is_told_to_the_guest_and_not_written() {
    let host = host();
    let filter = filter_of(&host, &stateful(), Limits { state_bytes: 1, ..Limits::default() });
    let judged = filter.judge(&samples("k"), &context(0)).unwrap();
    assert_eq!(judged.outcomes, [Ok(Verdict::Pass)]);
    assert_eq!(judged.writes, []);
}
