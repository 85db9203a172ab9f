//! From the upload of a module of 200 KiB to its first verdict on a message: compiled for the first time, and with its code in the
//! router's cache.

use std::time::Instant;

use chaski_client::{Client, Message};
use serde_json::json;

use super::{DEPLOYED, FRESH, Module};
use crate::bench::report::{Latencies, Measurement};

/// The binary's size: what it holds beyond its code are zeros in a custom section.
const SIZE: usize = 200 << 10;

/// Binaries of the same code under different digests, so that each is compiled.
const BINARIES: u32 = 7;

/// How often all of them are deployed again.
const AGAIN: u32 = 3;

/// Deploys each for the first time, then again.
pub(super) async fn run(client: &Client) -> anyhow::Result<Vec<Measurement>> {
    let module = Module::builtin("json-match", json!({ "pointer": "/mag", "min": 4.5 }))?;
    let binaries: Vec<_> = (0..BINARIES).map(|number| module.padded(number, SIZE)).collect();
    let cold = deploy_all("deploy-cold", client, &module, &binaries, false).await?;
    // Between two deploys of one binary all others came, so that nothing of it but its code in the cache is left.
    let again: Vec<_> = (0..AGAIN).flat_map(|_| binaries.clone()).collect();
    Ok(vec![cold, deploy_all("deploy-cached", client, &module, &again, true).await?])
}

async fn deploy_all(
    work: &str,
    client: &Client,
    code: &Module,
    binaries: &[Module],
    cached: bool,
) -> anyhow::Result<Measurement> {
    let mut latencies = Latencies::new();
    let mut compiling = 0.0;
    let begun = Instant::now();
    for binary in binaries {
        let message = Message::new(FRESH, r#"{"mag":5.1}"#);
        let begun = Instant::now();
        let admin = client.admin();
        let deployed = admin.deploy(DEPLOYED, binary.wasm.clone()).params(binary.params.clone()).await?;
        let published = client.publish(message).await?;
        latencies.record(begun.elapsed());
        anyhow::ensure!(published.routed == 1, "the module that was deployed did not pass a message");
        anyhow::ensure!(
            deployed.from_cache == cached,
            "whether {} was compiled is not what was to be measured",
            deployed.digest
        );
        compiling += deployed.compile_ms;
    }
    let count = binaries.len() as u64;
    Ok(Measurement::new(work, count, begun.elapsed(), &latencies)
        .with("bytes", SIZE)
        .with("code_bytes", code.wasm.len())
        .with("compile_ms", compiling / count as f64))
}
