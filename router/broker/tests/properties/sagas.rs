//! Any sagas and gathers, any workers, any crashes: once faults stop, everything ends, and every effect was had once.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::harness::*;
use chaski_broker::*;

/// One step, as drawn.
#[derive(Clone, Debug)]
struct Drawn {
    /// In a group with the step before it.
    joined: bool,
    pivot: bool,
    retries: u32,
    undoable: bool,
    payload: StepPayload,
    queue: DrawnQueue,
}

#[derive(Clone, Debug)]
struct DrawnQueue {
    memory: bool,
    max_deliver: u32,
    ack_wait_ms: u64,
    ttl_ms: Option<u64>,
    tight: bool,
}

fn queue_settings() -> impl Strategy<Value = DrawnQueue> {
    let waits = prop_oneof![Just(500), Just(2_000), Just(30_000)];
    let ttl = prop_oneof![4 => Just(None), 1 => Just(Some(3_000))];
    (any::<bool>(), 1..4_u32, waits, ttl, prop::bool::weighted(0.2)).prop_map(
        |(memory, max_deliver, ack_wait_ms, ttl_ms, tight)| DrawnQueue {
            memory,
            max_deliver,
            ack_wait_ms,
            ttl_ms,
            tight,
        },
    )
}

fn step() -> impl Strategy<Value = Drawn> {
    let payload = prop_oneof![Just(StepPayload::All), Just(StepPayload::Input), Just(StepPayload::Previous)];
    (any::<bool>(), prop::bool::weighted(0.2), 0..3_u32, prop::bool::weighted(0.8), payload, queue_settings())
        .prop_map(|(joined, pivot, retries, undoable, payload, queue)| Drawn {
            joined,
            pivot,
            retries,
            undoable,
            payload,
            queue,
        })
}

fn behaviour() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        6 => Just(Behaviour::Complete),
        2 => Just(Behaviour::Die),
        1 => Just(Behaviour::ApplyAndNack),
        1 => Just(Behaviour::Sleep),
        1 => Just(Behaviour::Nack),
        2 => Just(Behaviour::Fail),
        2 => Just(Behaviour::Refuse),
    ]
}

fn counsel() -> impl Strategy<Value = Counsel> {
    prop_oneof![
        4 => Just(Counsel::Sensible),
        1 => Just(Counsel::Retry),
        1 => Just(Counsel::Park),
        1 => Just(Counsel::Trap),
    ]
}

fn kill() -> impl Strategy<Value = Kill> {
    (1..12_usize, any::<bool>()).prop_map(|(after, snapshot)| Kill { after, snapshot })
}

fn made(name: &str, drawn: &DrawnQueue) -> Queue {
    queue(name).with(|it| {
        it.durability = if drawn.memory { Durability::Memory } else { Durability::Fsync };
        it.max_deliver = Some(drawn.max_deliver);
        it.ack_wait_ms = drawn.ack_wait_ms;
        it.ttl_ms = drawn.ttl_ms;
        it.backoff_ms = vec![100, 1_000];
        it.max_messages = drawn.tight.then_some(1);
    })
}

/// The steps that were drawn; at most one is the pivot.
fn definition(drawn: &[Drawn]) -> (Vec<StepSettings>, Vec<Queue>) {
    let (mut steps, mut queues): (Vec<StepSettings>, Vec<Queue>) = (Vec::new(), Vec::new());
    let mut group = 0;
    let mut pivot = false;
    for (place, one) in drawn.iter().enumerate() {
        group += u32::from(!one.joined);
        let name = format!("s{place}");
        steps.push(step_with(&name, |step| {
            step.group = Some(format!("g{group}"));
            step.pivot = one.pivot && !pivot;
            step.retries = one.retries;
            step.payload = one.payload;
            if !one.undoable {
                step.compensate = None;
            }
        }));
        pivot |= one.pivot;
        queues.push(made(&name, &one.queue));
        queues.push(made(&format!("undo.{name}"), &one.queue));
    }
    (steps, queues)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sagas_end_and_each_effect_is_had_once(
        drawn in prop::collection::vec(step(), 1..5),
        compensator in any::<bool>(),
        advances in any::<bool>(),
        timeout_ms in prop_oneof![Just(8_000_u64), Just(60_000), Just(3_600_000)],
        sagas in 1..4_usize,
        behaviours in prop::collection::vec(behaviour(), 0..24),
        counsels in prop::collection::vec(counsel(), 0..6),
        kills in prop::collection::vec(kill(), 0..8),
        sync_every in 1..6_usize,
    ) {
        let (steps, queues) = definition(&drawn);
        let saga = saga_with("order", steps.clone(), |it| {
            it.compensator = compensator.then(|| module("plan"));
            it.advances = compensator && advances;
            it.timeout_ms = timeout_ms;
        });
        let world = World::steering(&queues, &[], &[saga]);
        let mut outside = Outside::new(world, &steps, sync_every, &kills);
        outside.behaviours = behaviours.into();
        outside.counsels = counsels.into();
        for number in 0..sagas {
            outside.ask("order", &format!("o{number}"));
        }
        outside.finish();
    }

    #[test]
    fn gathers_end_and_each_has_one_answer(
        drawn in prop::collection::vec(queue_settings(), 1..5),
        quorum in prop_oneof![Just(None), (1..4_u32).prop_map(Some)],
        fails in any::<bool>(),
        gathers in 1..4_usize,
        behaviours in prop::collection::vec(behaviour(), 0..16),
        traps in prop::collection::vec(prop::bool::weighted(0.1), 0..12),
        kills in prop::collection::vec(kill(), 0..6),
        sync_every in 1..6_usize,
    ) {
        let names: Vec<String> = (0..drawn.len()).map(|place| format!("r{place}")).collect();
        let queues: Vec<Queue> = names.iter().zip(&drawn).map(|(name, drawn)| made(name, drawn)).collect();
        let recipients: Vec<&str> = names.iter().map(String::as_str).collect();
        let scatter = scatter_with("quote", &recipients, |it| {
            it.quorum = quorum;
            it.on_timeout = if fails { OnTimeout::Fail } else { OnTimeout::Partial };
        });
        let world = World::steering(&queues, &[scatter], &[]);
        let mut outside = Outside::new(world, &[], sync_every, &kills);
        outside.behaviours = behaviours.into();
        outside.counsels = traps
            .into_iter()
            .map(|trap| if trap { Counsel::Trap } else { Counsel::Sensible })
            .collect();
        for number in 0..gathers {
            outside.ask("quote", &format!("q{number}"));
        }
        outside.finish();
    }
}
