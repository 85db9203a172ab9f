//! What one call of an aggregator and of a compensator costs, in microseconds: of guests by hand, which do next to nothing, and of
//! builtins. It prints, and asks for nothing. `cargo bench -p chaski-modules --bench calls`.

#[path = "../tests/host/by_hand.rs"]
mod by_hand;
#[path = "../tests/host/kit.rs"]
mod kit;

use std::time::{Duration, Instant};

use chaski_modules::{
    Aggregator, Compensator, GatherEnd, GatherEvent, History, Limits, Param, Request, SagaCause, SagaStep,
    StepState, Value,
};
use kit::{deploy, host};

/// How long one measurement takes.
const SPELL: Duration = Duration::from_millis(300);

fn main() {
    let quote = br#"{"supplier": "llama & sons", "price": 9.90, "days": 3}"#;
    let by_hand = aggregator(&by_hand::aggregator(), &[]);
    print("by hand: fold a reply of 54 B", per_turn(|| fold(&by_hand, b"", quote)));
    let large = vec![b'x'; 1 << 20];
    print("by hand: fold a reply of 1 MiB", per_turn(|| fold(&by_hand, b"", &large)));
    print("by hand: fold onto 512 KiB of state", per_turn(|| fold(&by_hand, &large[..512 << 10], b"x")));
    let pointer = [Param { name: "pointer".into(), value: Value::Text("/price".into()) }];
    let lowest = aggregator(builtin("lowest-quote"), &pointer);
    print("lowest-quote: fold a reply of 54 B", per_turn(|| fold(&lowest, quote, quote)));
    print(
        "lowest-quote: finish",
        per_turn(|| drop(lowest.finish(quote, GatherEnd::Quorum).unwrap().answer.unwrap())),
    );
    let collect = aggregator(builtin("collect"), &[]);
    print("collect: fold a reply of 54 B", per_turn(|| fold(&collect, b"\0\0\0\0", quote)));
    let history = history(b"r");
    let by_hand = compensator(&by_hand::compensator());
    print(
        "by hand: compensate 3 steps",
        per_turn(|| drop(by_hand.compensate(&history).unwrap().answer.unwrap())),
    );
    let order = compensator(builtin("order-compensation"));
    print(
        "order-compensation: compensate 3 steps",
        per_turn(|| drop(order.compensate(&history).unwrap().answer.unwrap())),
    );
}

/// Ample time, so that a machine in trouble ends no call.
fn ample() -> Limits {
    Limits { cpu_time: Duration::from_secs(10), ..Limits::default() }
}

fn builtin(name: &str) -> &'static [u8] {
    chaski_filters::builtin(name).expect("a builtin").wasm
}

fn aggregator(wasm: &[u8], params: &[Param]) -> Aggregator {
    let host = host();
    let (compiled, description) = deploy(&host, wasm);
    host.aggregator("bench", &compiled, &description, params, ample()).expect("it is configured")
}

fn compensator(wasm: &[u8]) -> Compensator {
    let host = host();
    let (compiled, description) = deploy(&host, wasm);
    host.compensator("bench", &compiled, &description, &[], ample()).expect("it is configured")
}

fn fold(aggregator: &Aggregator, state: &[u8], payload: &[u8]) {
    let (recipient, headers, payload) = ("supplier-a".to_owned(), vec![], payload.to_vec());
    let reply = GatherEvent::Reply { recipient, at_ms: 7, headers, payload };
    aggregator.fold(state, &reply).expect("there is room").answer.expect("it folds");
}

/// A saga with this input, by which the guest by hand answers.
fn history(input: &[u8]) -> History {
    let step = |name: &str, state| SagaStep {
        name: name.into(),
        state,
        attempts: 1,
        payload: Some(b"{}".to_vec()),
        reason: None,
        can_undo: true,
        undone: false,
        pivot: false,
    };
    let steps = vec![
        step("stock", StepState::Completed),
        step("card", StepState::Completed),
        step("ship", StepState::Failed),
    ];
    let (saga, id, input) =
        ("order".into(), "o-1".into(), Request { payload: input.to_vec(), ..Request::default() });
    History { saga, id, now_ms: 7, input, steps, cause: Some(SagaCause::Step("ship".into())), retries: 0 }
}

/// Microseconds for one turn, the first few left out.
fn per_turn(mut turn: impl FnMut()) -> f64 {
    (0..8).for_each(|_| turn());
    let (began, mut turns) = (Instant::now(), 0_u64);
    while began.elapsed() < SPELL {
        turn();
        turns += 1;
    }
    began.elapsed().as_nanos() as f64 / turns as f64 / 1e3
}

fn print(what: &str, us: f64) {
    println!("{what:<40} {us:>8.2} µs");
}
