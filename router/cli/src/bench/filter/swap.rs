//! Publishes while the module that judges them is swapped again and again, beside publishes while it stays.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chaski_client::Client;

use super::{FILTERED, MEASURED, Module};
use crate::bench::load::{self, Load};
use crate::bench::report::{Latencies, Measurement};

/// Swaps in all, and the parts between which publishes go on for as long without any.
const SWAPS: u32 = 100;
const PARTS: u32 = 4;

/// Messages between two looks whether the swaps are done.
const STRETCH: u64 = 4_096;

/// A window that keeps the router busy without a long queue of its own, so that a pause shows as a pause.
const IN_FLIGHT: u32 = 1_024;

/// Publishes in turns with swaps and without.
pub(super) async fn run(
    clients: &[Client],
    load: &Load,
    module: &Module,
) -> anyhow::Result<Vec<Measurement>> {
    let load = Load { in_flight: Some(load.in_flight.unwrap_or(IN_FLIGHT)), ..load.clone() };
    let versions = [module.padded(1, 0), module.padded(2, 0)];
    // Both are compiled before the clock runs.
    for version in &versions {
        deploy(&clients[0], version).await?;
    }
    let (mut with, mut without) = (Latencies::new(), Latencies::new());
    let (mut swapping, mut swap_latencies, mut published) = (Duration::ZERO, Latencies::new(), 0);
    for part in 0..PARTS {
        let done = AtomicBool::new(false);
        let swaps = async {
            let ended = swap(&clients[0], &versions, part * SWAPS / PARTS, &mut swap_latencies).await;
            done.store(true, Ordering::Relaxed);
            ended
        };
        let begun = Instant::now();
        let publishes = publish_until(clients, &load, || done.load(Ordering::Relaxed));
        let (_, (latencies, count)) = futures::try_join!(swaps, publishes)?;
        let elapsed = begun.elapsed();
        with.merge(&latencies);
        published += count;
        swapping += elapsed;
        let begun = Instant::now();
        let (latencies, _) = publish_until(clients, &load, || begun.elapsed() >= elapsed).await?;
        without.merge(&latencies);
    }
    let growth = if without.at(0.99) > 0.0 { with.at(0.99) / without.at(0.99) } else { 0.0 };
    Ok(vec![
        Measurement::new("swap", u64::from(SWAPS), swapping, &swap_latencies),
        Measurement::new("publish-while-swapping", published, swapping, &with)
            .with("in_flight", load.in_flight())
            .with("swaps", SWAPS)
            .with("p99_without_us", without.at(0.99))
            .with("p99_growth", growth),
    ])
}

/// One part of the swaps, one after another. A latency is from the upload until the new version judges.
async fn swap(
    client: &Client,
    versions: &[Module; 2],
    first: u32,
    latencies: &mut Latencies,
) -> anyhow::Result<()> {
    for number in first..first + SWAPS / PARTS {
        let begun = Instant::now();
        deploy(client, &versions[number as usize % versions.len()]).await?;
        latencies.record(begun.elapsed());
    }
    Ok(())
}

async fn deploy(client: &Client, module: &Module) -> anyhow::Result<()> {
    client.admin().deploy(MEASURED, module.wasm.clone()).params(module.params.clone()).await?;
    Ok(())
}

/// Publishes stretch by stretch until it is enough; answers the latencies and how many were sent.
async fn publish_until(
    clients: &[Client],
    load: &Load,
    mut enough: impl FnMut() -> bool,
) -> anyhow::Result<(Latencies, u64)> {
    let (mut latencies, mut count) = (Latencies::new(), 0);
    while !enough() {
        latencies.merge(&load::produce(clients, FILTERED, load, STRETCH).await?);
        count += STRETCH;
    }
    clients[0].admin().queue_purge(FILTERED).await?;
    Ok((latencies, count))
}
