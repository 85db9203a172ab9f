//! What a message costs in a filter that compares one of four headers, beside a no-op component call of the same run. It
//! prints nanoseconds a message and their ratio to the no-op, with the ratio that is asked for, and fails when one is
//! missed. `cargo bench -p chaski-modules`.

#[path = "../tests/host/kit.rs"]
mod kit;

use std::hint::black_box;
use std::time::{Duration, Instant};

use chaski_modules::{Context, Filter, Limits, Verdict};
use kit::{Guest, Sample, filter_of, host};
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

/// Rounds, each of which measures everything once; the best of them counts, since other work only ever adds.
const ROUNDS: usize = 15;
/// How long one measurement takes.
const SPELL: Duration = Duration::from_millis(40);

fn main() {
    let host = host();
    // Ample time, so that a machine in trouble doesn't make the batches smaller.
    let ample = Limits { cpu_time: Duration::from_secs(10), ..Limits::default() };
    let header = filter_of(&host, &Guest::header_equals(false), ample.clone());
    let payload = filter_of(&host, &Guest::header_equals(true), ample);
    let messages = messages();
    let mut noop = Noop::new();
    let cases = [
        ("header", &header, 128, 0.2),
        ("header", &header, 16, 0.4),
        ("header", &header, 1, 3.5),
        ("header and payload of 256 B", &payload, 128, 0.35),
        ("header and payload of 256 B", &payload, 16, 0.7),
        ("header and payload of 256 B", &payload, 1, 4.5),
    ];
    // The ratio is taken within a round, where both met the same machine.
    let mut best: Vec<(f64, f64, f64)> = vec![(f64::INFINITY, 0.0, 0.0); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, filter, batch, _), best) in cases.iter().zip(&mut best) {
            let base = per_turn(|| noop.call());
            let cost = per_turn(|| judge(filter, &messages[..*batch])) / *batch as f64;
            if cost / base < best.0 {
                *best = (cost / base, cost, base);
            }
        }
    }
    let mut missed = false;
    println!(
        "{:<30} {:>5} {:>11} {:>10} {:>7} {:>7}",
        "declared", "batch", "ns/message", "no-op ns", "ratio", "asked"
    );
    for ((name, _, batch, asked), (ratio, cost, base)) in cases.iter().zip(best) {
        println!("{name:<30} {batch:>5} {cost:>11.1} {base:>10.1} {ratio:>7.3} {asked:>7}");
        missed |= ratio > *asked;
    }
    println!("header, batch of 128, as the host counts it: {:?}", header.metrics());
    std::process::exit(i32::from(missed));
}

/// Nanoseconds for one turn.
fn per_turn(mut turn: impl FnMut()) -> f64 {
    let (began, mut turns) = (Instant::now(), 0_u64);
    while began.elapsed() < SPELL {
        for _ in 0..64 {
            turn();
        }
        turns += 64;
    }
    began.elapsed().as_nanos() as f64 / turns as f64
}

fn judge(filter: &Filter, messages: &[Sample]) {
    let judged = filter.judge(black_box(messages), &Context::default()).expect("there is room");
    assert!(judged.outcomes.len() == messages.len() && judged.outcomes[0] == Ok(Verdict::Pass));
}

/// Messages of 256 B with four headers, of which the third is compared.
fn messages() -> Vec<Sample> {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let one = Sample {
        topic: "orders.eu.created".into(),
        key: Some("customer-17".into()),
        headers: vec![
            header("content-type", "application/json"),
            header("tenant", "acme"),
            header("region", "eu"),
            header("trace", "4bf92f3577b34da6"),
        ],
        payload: vec![7; 256],
    };
    vec![one; 128]
}

/// A component whose only function does nothing, called under the same settings.
struct Noop {
    store: Store<()>,
    function: TypedFunc<(), ()>,
}

impl Noop {
    fn new() -> Noop {
        let text = r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "f") (canon lift (core func $i "f"))))"#;
        let mut config = Config::new();
        config.concurrency_support(false).epoch_interruption(true);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
        let engine = Engine::new(&config).expect("the engine starts");
        let binary = wat::parse_str(text).expect("the text is right");
        let component = Component::from_binary(&engine, &binary).expect("it compiles");
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        let instance = Linker::new(&engine).instantiate(&mut store, &component).expect("it imports nothing");
        let function = instance.get_typed_func(&mut store, "f").expect("it is there");
        Noop { store, function }
    }

    fn call(&mut self) {
        self.function.call(&mut self.store, ()).expect("it does nothing");
    }
}
