//! The other end of the bare stream, in a process of its own: it counts frames, or sends them back. It stops when its
//! standard input ends, so it never outlives the bench that started it.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncReadExt as _;

use super::quic;

/// The stream's first byte: count frames, and answer their number (u64, little-endian) at the stream's end.
pub(super) const COUNT: u8 = 0;

/// The stream's first byte: send every byte back at once.
pub(super) const ECHO: u8 = 1;

/// What the echo server tells on its standard output.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Ready {
    /// Where it listens.
    pub(super) addr: std::net::SocketAddr,
    /// Its certificate, base64 of the DER.
    pub(super) certificate: String,
}

/// Serves until standard input ends.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let (endpoint, certificate) = quic::server()?;
    let ready = Ready { addr: endpoint.local_addr()?, certificate: STANDARD.encode(certificate) };
    crate::out::json(&ready)?;
    let accepting = endpoint.clone();
    let server = tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, recv)) = connection.accept_bi().await {
                    tokio::spawn(answer(send, recv));
                }
            });
        }
    });
    let mut ignored = Vec::new();
    tokio::io::stdin().read_to_end(&mut ignored).await.context("cannot read standard input")?;
    server.abort();
    endpoint.close(0u32.into(), b"done");
    Ok(())
}

async fn answer(mut send: quinn::SendStream, mut recv: quinn::RecvStream) -> anyhow::Result<()> {
    let mut mode = [0];
    recv.read_exact(&mut mode).await?;
    if mode[0] == ECHO {
        while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
            send.write_chunk(chunk.bytes).await?;
        }
        return Ok(());
    }
    let mut frames = Counter::default();
    while let Some(chunk) = recv.read_chunk(usize::MAX, true).await? {
        frames.feed(&chunk.bytes);
    }
    send.write_all(&frames.count.to_le_bytes()).await?;
    send.finish()?;
    Ok(())
}

/// Counts frames (u32 length, little-endian, then that many bytes) however the bytes are cut.
#[derive(Default)]
struct Counter {
    count: u64,
    /// Bytes of the frame's body that are still to come.
    body: usize,
    /// Bytes of the length that have come.
    length: Vec<u8>,
}

impl Counter {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body == 0 {
                let taken = (4 - self.length.len()).min(bytes.len());
                self.length.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                let Ok(length) = <[u8; 4]>::try_from(self.length.as_slice()) else { return };
                self.length.clear();
                self.body = u32::from_le_bytes(length) as usize;
            }
            let taken = self.body.min(bytes.len());
            bytes = &bytes[taken..];
            self.body -= taken;
            self.count += u64::from(self.body == 0);
            if self.body > 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for size in [1u32, 256, 5, 0, 1024] {
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.resize(bytes.len() + size as usize, 7);
        }
        for step in [1, 2, 3, 7, 259, 10_000] {
            let mut frames = Counter::default();
            bytes.chunks(step).for_each(|piece| frames.feed(piece));
            assert_eq!(frames.count, 5, "in pieces of {step}");
        }
    }
}
