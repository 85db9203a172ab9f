//! The publish rate with a module on the way beside the rate without, in turns, so that both see the same machine.

use std::time::{Duration, Instant};

use chaski_client::Client;

use super::{FILTERED, MEASURED, Module, PLAIN, median};
use crate::bench::load::{self, Load};
use crate::bench::report::{Latencies, Measurement};

/// Turns of each topic. Odd, so that one is in the middle.
const ROUNDS: u64 = 7;

/// What the turns of one topic came to.
struct Side {
    topic: &'static str,
    rates: Vec<f64>,
    latencies: Latencies,
    /// Messages that reached the queue.
    stored: u64,
}

/// Publishes to both topics in turns, and looks what the module says of itself.
pub(super) async fn run(
    clients: &[Client],
    load: &Load,
    module: &Module,
) -> anyhow::Result<Vec<Measurement>> {
    let admin = clients[0].admin();
    let each = load.count(500_000).div_ceil(ROUNDS);
    let mut sides = [PLAIN, FILTERED].map(Side::new);
    for side in &mut sides {
        // Streams are opened, code paths warm, and the module has left the slow lane before the clock runs.
        load::produce(clients, side.topic, load, (each / 4).clamp(1, 20_000)).await?;
        admin.queue_purge(side.topic).await?;
    }
    let before = admin.module_show(MEASURED).await?;
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.turn(clients, load, each).await?;
        }
    }
    let after = admin.module_show(MEASURED).await?;
    let [plain, filtered] = sides;
    let ratios = plain.rates.iter().zip(&filtered.rates).map(|(plain, filtered)| filtered / plain);
    let ratio = median(ratios.collect());
    let calls = after.calls.saturating_sub(before.calls).max(1);
    let messages = after.messages.saturating_sub(before.messages);
    let batch = messages as f64 / calls as f64;
    let passed = filtered.stored as f64 / (each * ROUNDS) as f64;
    let found = |side: Side, work: &str| side.found(work, each, load);
    Ok(vec![
        found(plain, "publish-unfiltered"),
        found(filtered, "publish-filtered")
            .with("module", module.name.as_str())
            .with("rate_ratio", ratio)
            .with("passed", passed)
            .with("lane", after.lane)
            .with("messages_per_call", batch)
            .with("call_p50_us", after.p50_us)
            .with("call_p99_us", after.p99_us)
            .with("ns_per_message", (after.p50_us * 1_000.0 / batch.max(1.0)).round()),
    ])
}

impl Side {
    fn new(topic: &'static str) -> Side {
        Side { topic, rates: Vec::new(), latencies: Latencies::new(), stored: 0 }
    }

    /// One turn. The queue is empty at its beginning.
    async fn turn(&mut self, clients: &[Client], load: &Load, count: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        self.latencies.merge(&load::produce(clients, self.topic, load, count).await?);
        self.rates.push(count as f64 / begun.elapsed().as_secs_f64());
        self.stored += clients[0].admin().queue_purge(self.topic).await?.count;
        Ok(())
    }

    /// The median of the turns' rates.
    fn found(self, work: &str, each: u64, load: &Load) -> Measurement {
        let elapsed = Duration::from_secs_f64(each as f64 / median(self.rates));
        Measurement::new(work, each, elapsed, &self.latencies)
            .with("size", load.size())
            .with("durability", load.durability().name())
            .with("in_flight", load.in_flight())
            .with("rounds", ROUNDS)
    }
}
