//! Everything that can be asked of a broker, as numbers that a run maps to what is there: so any sequence of operations makes
//! sense, and shrinks.

use proptest::prelude::*;

/// A message to publish.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    pub(crate) topic: u8,
    pub(crate) id: u8,
    pub(crate) key: u8,
    pub(crate) priority: u8,
    pub(crate) ttl: u8,
    pub(crate) delay: u8,
    pub(crate) request: u8,
    pub(crate) mandatory: bool,
}

/// What filters made of a message.
#[derive(Clone, Debug)]
pub(crate) struct Judgement {
    /// Topics, and whether a filter routed it there.
    pub(crate) results: Vec<(u8, bool)>,
    pub(crate) dropped: u8,
    /// Queues whose binding took it out; the last number stands for a route.
    pub(crate) dead: Vec<(u8, bool)>,
}

/// How a consumer ends a lease.
#[derive(Copy, Clone, Debug)]
pub(crate) enum End {
    Ack,
    Nack,
    NackAfter(u8),
    Reject,
    Fail(bool),
    Release,
}

/// An operator's command.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Tool {
    Purge(u8),
    PurgeDead(u8),
    Pause,
    Resume,
    Cancel(u8),
    Unpark(u8),
    Redrive { reason: u8, id: u8, limit: u8 },
}

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Publish(Publish),
    Filtered {
        publish: Publish,
        judgement: Judgement,
    },
    /// A publish that waits for a filter with state.
    Pend(Publish),
    /// One of those is judged; writes are a key, a time to live (0: none) and whether it is deleted.
    Judge {
        job: u8,
        fails: bool,
        judgement: Judgement,
        writes: Vec<(u8, u8, bool)>,
    },
    Reply {
        request: u8,
        id: u8,
    },
    Attach {
        queue: u8,
        connection: u8,
        credit: u8,
    },
    Credit {
        consumer: u8,
        credit: u8,
    },
    Sent {
        consumer: u8,
        count: u8,
    },
    Settle {
        consumer: u8,
        lease: u8,
        end: End,
    },
    /// With a token of any time.
    SettleStale {
        consumer: u8,
        token: u8,
        end: End,
    },
    Extend {
        consumer: u8,
        stale: u8,
    },
    Detach {
        consumer: u8,
        release: bool,
    },
    Disconnect {
        connection: u8,
    },
    Subscribe {
        connection: u8,
        pattern: u8,
    },
    Unsubscribe {
        subscription: u8,
    },
    Taken {
        subscription: u8,
        count: u8,
    },
    Transaction {
        id: u8,
        connection: u8,
        acks: Vec<u8>,
        stale: bool,
        publishes: Vec<Publish>,
    },
    Rules {
        variant: u8,
        drop: bool,
    },
    Operate {
        queue: u8,
        tool: Tool,
    },
    Relocate {
        from: u8,
    },
    Advance(u8),
    Sync,
    Snapshot,
    /// Keeps so many of the unsynced batches.
    Crash {
        keep: u8,
    },
    /// In good order.
    Restart,
}

fn publish() -> impl Strategy<Value = Publish> {
    let rare = prop_oneof![6 => Just(0_u8), 1 => Just(1), 1 => Just(2)];
    let numbers = (0..9_u8, 0..12_u8, 0..4_u8, 0..10_u8);
    (numbers, rare.clone(), rare.clone(), rare, prop::bool::weighted(0.1)).prop_map(
        |((topic, id, key, priority), ttl, delay, request, mandatory)| Publish {
            topic,
            id,
            key,
            priority,
            ttl,
            delay,
            request,
            mandatory,
        },
    )
}

fn judgement() -> impl Strategy<Value = Judgement> {
    let results = prop::collection::vec((0..8_u8, any::<bool>()), 0..4);
    let dead = prop::collection::vec((0..6_u8, any::<bool>()), 0..2);
    (results, 0..2_u8, dead).prop_map(|(results, dropped, dead)| Judgement { results, dropped, dead })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Ack),
        2 => Just(End::Nack),
        1 => (0..3_u8).prop_map(End::NackAfter),
        2 => Just(End::Reject),
        1 => any::<bool>().prop_map(End::Fail),
        1 => Just(End::Release),
    ]
}

fn tool() -> impl Strategy<Value = Tool> {
    prop_oneof![
        1 => (1..5_u8).prop_map(Tool::Purge),
        1 => (1..5_u8).prop_map(Tool::PurgeDead),
        1 => Just(Tool::Pause),
        2 => Just(Tool::Resume),
        1 => (0..12_u8).prop_map(Tool::Cancel),
        1 => (0..3_u8).prop_map(Tool::Unpark),
        4 => (0..6_u8, 0..24_u8, 1..5_u8).prop_map(|(reason, id, limit)| Tool::Redrive { reason, id, limit }),
    ]
}

/// Any operation, those that matter most more often.
pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let some = || 0..8_u8;
    prop_oneof![
        24 => publish().prop_map(Operation::Publish),
        6 => (publish(), judgement())
            .prop_map(|(publish, judgement)| Operation::Filtered { publish, judgement }),
        3 => publish().prop_map(Operation::Pend),
        4 => (
            some(),
            prop::bool::weighted(0.15),
            judgement(),
            prop::collection::vec((0..6_u8, 0..4_u8, prop::bool::weighted(0.2)), 0..4),
        )
            .prop_map(|(job, fails, judgement, writes)| Operation::Judge { job, fails, judgement, writes }),
        2 => (some(), 0..8_u8).prop_map(|(request, id)| Operation::Reply { request, id }),
        6 => (0..16_u8, 0..3_u8, 1..4_u8)
            .prop_map(|(queue, connection, credit)| Operation::Attach { queue, connection, credit }),
        1 => (some(), 0..4_u8).prop_map(|(consumer, credit)| Operation::Credit { consumer, credit }),
        9 => (some(), 1..4_u8).prop_map(|(consumer, count)| Operation::Sent { consumer, count }),
        18 => (some(), some(), end())
            .prop_map(|(consumer, lease, end)| Operation::Settle { consumer, lease, end }),
        1 => (some(), any::<u8>(), end())
            .prop_map(|(consumer, token, end)| Operation::SettleStale { consumer, token, end }),
        2 => (some(), any::<u8>()).prop_map(|(consumer, stale)| Operation::Extend { consumer, stale }),
        1 => (some(), any::<bool>()).prop_map(|(consumer, release)| Operation::Detach { consumer, release }),
        1 => (0..3_u8).prop_map(|connection| Operation::Disconnect { connection }),
        1 => (0..3_u8, 0..3_u8)
            .prop_map(|(connection, pattern)| Operation::Subscribe { connection, pattern }),
        1 => some().prop_map(|subscription| Operation::Unsubscribe { subscription }),
        1 => (some(), 1..3_u8).prop_map(|(subscription, count)| Operation::Taken { subscription, count }),
        4 => (
            0..6_u8,
            0..3_u8,
            prop::collection::vec(some(), 0..3),
            prop::bool::weighted(0.1),
            prop::collection::vec(publish(), 0..3),
        )
            .prop_map(|(id, connection, acks, stale, publishes)| {
                Operation::Transaction { id, connection, acks, stale, publishes }
            }),
        2 => (0..4_u8, prop::bool::weighted(0.7)).prop_map(|(variant, drop)| Operation::Rules { variant, drop }),
        6 => (0..8_u8, tool()).prop_map(|(queue, tool)| Operation::Operate { queue, tool }),
        1 => any::<u8>().prop_map(|from| Operation::Relocate { from }),
        8 => (0..8_u8).prop_map(Operation::Advance),
        4 => Just(Operation::Sync),
        1 => Just(Operation::Snapshot),
        2 => any::<u8>().prop_map(|keep| Operation::Crash { keep }),
        1 => Just(Operation::Restart),
    ]
}
