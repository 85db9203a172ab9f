//! What one bare quinn stream carries: frames a second, and the time of one small frame there and back.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::echo::{COUNT, ECHO, Ready};
use super::quic;
use crate::bench::report::{Latencies, Measurement};

/// Bytes that are gathered into one write, as the client gathers them (DESIGN section 8).
const GATHERED: usize = 64 << 10;

/// Bytes of the frame that goes there and back.
const PING: usize = 64;

/// The echo server's process and the way to it.
pub(super) struct Echo {
    addr: SocketAddr,
    certificate: Vec<u8>,
    /// Dropped, it closes the server's standard input, which ends it; killed then in any case.
    _process: Child,
}

impl Echo {
    /// Starts the server: this binary again, in a process of its own.
    pub(super) async fn start() -> anyhow::Result<Echo> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "echo-server"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the echo server")?;
        let stdout = process.stdout.take().context("the echo server has no output")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let ready: Ready = serde_json::from_str(&line.context("the echo server ended before it was ready")?)?;
        let certificate = STANDARD.decode(ready.certificate)?;
        Ok(Echo { addr: ready.addr, certificate, _process: process })
    }

    async fn connect(&self) -> anyhow::Result<quinn::Connection> {
        quic::connect(self.addr, self.certificate.clone()).await
    }
}

/// Frames of `size` bytes a second over one stream, for about `seconds`. The latencies are those of the gathered writes.
pub(super) async fn frames(echo: &Echo, size: usize, seconds: f64) -> anyhow::Result<Measurement> {
    let connection = echo.connect().await?;
    let (block, in_block) = block(size);
    // The first run warms the path up, and says how many frames the real one needs.
    let warm = run(&connection, &block, in_block, 1_000, &mut Latencies::new()).await?;
    let blocks = ((1_000.0 * seconds / warm.as_secs_f64()) as u64).clamp(1_000, 2_000_000);
    let mut writes = Latencies::new();
    let elapsed = run(&connection, &block, in_block, blocks, &mut writes).await?;
    let count = blocks * in_block;
    connection.close(0u32.into(), b"done");
    let bytes_per_second = (count as f64 * size as f64 / elapsed.as_secs_f64()).round();
    Ok(Measurement::new(format!("floor.frames-{size}B"), count, elapsed, &writes)
        .with("bytes_per_second", bytes_per_second))
}

async fn run(
    connection: &quinn::Connection,
    block: &Bytes,
    in_block: u64,
    blocks: u64,
    writes: &mut Latencies,
) -> anyhow::Result<Duration> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[COUNT]).await?;
    let begun = Instant::now();
    for _ in 0..blocks {
        // A copy each, as real frames are written: cloning one `Bytes` would measure a client that encodes nothing.
        let mut gathered = BytesMut::with_capacity(GATHERED);
        gathered.extend_from_slice(block);
        let written = Instant::now();
        send.write_chunk(gathered.freeze()).await?;
        writes.record(written.elapsed());
    }
    send.finish()?;
    let mut counted = [0; 8];
    recv.read_exact(&mut counted).await?;
    let elapsed = begun.elapsed();
    anyhow::ensure!(
        u64::from_le_bytes(counted) == blocks * in_block,
        "the echo server counted {} frames of {}",
        u64::from_le_bytes(counted),
        blocks * in_block
    );
    Ok(elapsed)
}

/// As many frames as fit into one write, and how many these are.
fn block(size: usize) -> (Bytes, u64) {
    let in_block = (GATHERED / (size + 4)).max(1);
    let mut bytes = BytesMut::new();
    for _ in 0..in_block {
        bytes.extend_from_slice(&(size as u32).to_le_bytes());
        bytes.resize(bytes.len() + size, b'x');
    }
    (bytes.freeze(), in_block as u64)
}

/// One small frame there and back, `count` times.
pub(super) async fn ping(echo: &Echo, count: u64) -> anyhow::Result<Measurement> {
    let connection = echo.connect().await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[ECHO]).await?;
    let mut latencies = Latencies::new();
    let mut frame = [b'p'; PING];
    let mut begun = Instant::now();
    for round in 0..count + count / 10 {
        // The first tenth warms up.
        if round == count / 10 {
            latencies = Latencies::new();
            begun = Instant::now();
        }
        let sent = Instant::now();
        send.write_all(&frame).await?;
        recv.read_exact(&mut frame).await?;
        latencies.record(sent.elapsed());
    }
    let elapsed = begun.elapsed();
    connection.close(0u32.into(), b"done");
    Ok(Measurement::new("floor.ping", count, elapsed, &latencies))
}
